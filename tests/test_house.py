"""The house rules that a machine can check: who may import whom, what is light, small, documented and true."""

import ast
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "madtp"

# What each room of src/madtp may import of the others. A new room is given its line here.
BASE = {"errors", "files", "pace"}
SIDE = {"data", "metric", "cost", "report"}
ROOMS: dict[str, set[str]] = {
    "errors": set(),
    "runtime": set(),
    "files": {"errors"},
    "pace": set(),
    "prune": set(),
    "data": BASE | SIDE,
    "metric": BASE | SIDE,
    "cost": BASE | SIDE | {"prune"},
    "report": BASE | SIDE | {"prune"},
    "model": BASE | {"prune", "cost"},  # the sizes that cost depends on
    "task": BASE | SIDE | {"prune", "model"},
    "evaluate": BASE | SIDE | {"prune", "model", "task"},
    "calibration": BASE | SIDE | {"prune", "model", "task", "evaluate"},
    "view": BASE | SIDE | {"prune", "model", "task", "evaluate"},
    "recipe": BASE | SIDE,
    "checkpoints": BASE,
    "stop": set(),
    "soundness": BASE,
    "resume": BASE | SIDE | {"task", "train", "checkpoints"},
    "train": BASE
    | SIDE
    | {
        "prune",
        "model",
        "task",
        "evaluate",  # it validates as it goes
        "calibration",
        "recipe",
        "resume",
        "soundness",
        "stop",
    },
    "collection": BASE | SIDE | {"prune", "model", "task", "runtime"},  # its workers are processes of their own
    "knobs": BASE,
    "shared": BASE | SIDE | {"task", "evaluate", "train", "checkpoints", "stop"},
    "compare": BASE
    | SIDE
    | {"prune", "model", "task", "evaluate", "calibration", "recipe", "checkpoints", "train", "shared", "soundness"},
    "tune": BASE | SIDE | {"task", "model", "recipe", "checkpoints", "train", "shared", "soundness", "knobs"},
    "page": BASE | SIDE | {"prune", "model", "task", "evaluate", "view"},
    "answer": BASE | SIDE | {"prune", "model", "task", "evaluate"},
    "pipelines": BASE | SIDE | {"prune", "model", "task", "evaluate", "answer"},
    "publish": BASE | SIDE | {"prune", "model", "task"},
    "serve": BASE | SIDE | {"prune", "model", "task", "evaluate", "calibration", "answer"},
    "cli": BASE
    | SIDE
    | {
        "runtime",
        "resume",
        "checkpoints",
        "stop",
        "prune",
        "model",
        "task",
        "train",
        "recipe",
        "evaluate",
        "calibration",
        "view",
        "compare",
        "shared",
        "tune",
        "knobs",
        "collection",
        "page",
        "serve",
    },
    "__main__": {"cli"},
}
PRUNE_MAY_IMPORT = {"torch", "jaxtyping", "madtp"}

# Heavy or optional: whoever only imports madtp does not wait for them, nor need them.
NOT_ON_IMPORT = ["accelerate", "matplotlib", "datasets", "ray", "pyarrow", "gradio", "optuna"]

LONGEST_FILE = 300  # lines
MAY_BE_LONGER: set[str] = set()
LARGEST_FILE = 6 * 2**20  # bytes


def room_of(file: Path) -> str:
    """`src/madtp/prune/step.py` -> prune, `src/madtp/train.py` -> train, `src/madtp/__init__.py` -> __init__."""
    return file.relative_to(PACKAGE).with_suffix("").parts[0]


def modules_imported(source: str, module: str) -> Iterator[str]:
    """Dotted names of all that `source`, the text of `module`, imports: at the top, in functions, by `import_module`.

    `from a import b` counts as `a.b`, for b may be a module; so does `a.b` after a bare `import a`.
    """
    nodes = list(ast.walk(ast.parse(source)))
    bare = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names if not alias.asname}
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in bare:
            yield f"{node.value.id}.{node.attr}"
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")[: -node.level] if node.level else []
            yield from (".".join([*base, *filter(None, [node.module]), alias.name]) for alias in node.names)
        elif (
            isinstance(node, ast.Call)
            and (isinstance(node.func, ast.Name | ast.Attribute))
            and (node.func.id if isinstance(node.func, ast.Name) else node.func.attr) in {"import_module", "__import__"}
            and node.args
            and isinstance(node.args[0], ast.Constant)
        ):
            yield str(node.args[0].value)


def rooms_imported(source: str, module: str) -> set[str]:
    """The other rooms of madtp that `source` imports; a public name taken from madtp itself is the room `__init__`.

    What every package has (`__version__`, `__file__`) is free to all.
    """
    rooms = set()
    for name in modules_imported(source, module):
        head, _, rest = name.partition(".")
        room = rest.partition(".")[0]
        if head == "madtp" and room and (room in ROOMS or not room.startswith("__")):
            rooms.add(room if room in ROOMS else "__init__")
    return rooms - {module.split(".")[1]}


def dotted(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)


def sources() -> list[Path]:
    return sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize(
    ("line", "rooms"),
    [
        ("import madtp.model.blip", {"model"}),
        ("def f():\n    from madtp.model import blip", {"model"}),
        ("from ..model.blip import x", {"model"}),
        ("from .. import train", {"train"}),
        ("from . import view", set()),
        ("from .view import strip", set()),
        ("from madtp import cli, errors", {"cli", "errors"}),
        ("import importlib\nimportlib.import_module('madtp.task.vqa')", {"task"}),
        ("from madtp import MadtpCLIPModel", {"__init__"}),
        ("import madtp\nmadtp.MadtpCLIPModel", {"__init__"}),
        ("import madtp\nmadtp.model.blip", {"model"}),
        ("import madtp\nmadtp.__file__", set()),
        ("from madtp import __version__", set()),
        ("from madtp.report import view\nimport torch", set()),
    ],
)
def test_the_reader_of_imports(line: str, rooms: set[str]) -> None:
    assert rooms_imported(line, "madtp.report.report") == rooms


def test_imports_go_one_way() -> None:
    wrong = []
    for file in sources():
        room = room_of(file)
        if room == "__init__":  # the package's face: hands out names of every room, on demand
            continue
        assert room in ROOMS, f"{file.relative_to(ROOT)}: give the new room {room!r} its line in ROOMS"
        imported = rooms_imported(file.read_text(encoding="utf-8"), dotted(file))
        wrong += [f"{file.relative_to(ROOT)} imports {other}" for other in sorted(imported - ROOMS[room])]
    assert not wrong


def test_prune_needs_torch_alone() -> None:
    wrong = []
    for file in sorted((PACKAGE / "prune").glob("*.py")):
        heads = {n.partition(".")[0] for n in modules_imported(file.read_text(encoding="utf-8"), dotted(file))}
        wrong += [f"{file.name} imports {name}" for name in heads - PRUNE_MAY_IMPORT - sys.stdlib_module_names]
    assert not wrong


def run_python(code: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter on this tree; help texts come plain and wide."""
    plain = {"PYTHONPATH": str(PACKAGE.parent), "COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code, *arguments],
        env=os.environ | plain,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )


def test_import_is_light() -> None:
    done = run_python("import sys, madtp; print(*sys.modules)")
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "madtp" in loaded
    assert loaded.isdisjoint(NOT_ON_IMPORT)


def test_shapes_are_checked_while_testing(request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--jaxtyping-packages"):
        pytest.skip("run without --jaxtyping-packages")
    import torch
    from jaxtyping import TypeCheckError

    from madtp.prune import keep_above

    keep_above(torch.ones(2, 3), torch.zeros(2), torch.ones(2, 3, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        keep_above(torch.ones(2, 3), torch.zeros(2), torch.ones(2, 5, dtype=torch.bool))


def public_without_docstring(source: str) -> list[str]:
    """Public functions, classes and methods of public classes that have no docstring. Properties are values."""
    missing = []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name[0] == "_":
                continue
            decorators = [ast.unparse(decorator).rpartition(".")[2] for decorator in node.decorator_list]
            if "property" not in decorators and "overload" not in decorators and not ast.get_docstring(node):
                missing.append(prefix + node.name)
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")

    visit(ast.parse(source).body, "")
    return missing


def test_the_reader_of_docstrings() -> None:
    source = '''
def told():
    """What it does."""
    def inner(): ...
def untold(): ...
def _private(): ...
class Told:
    """What it is."""
    @property
    def value(self): ...
    def method(self): ...
'''
    assert public_without_docstring(source) == ["untold", "Told.method"]


@pytest.mark.parametrize("room", ["prune", "metric"])
def test_public_names_are_documented(room: str) -> None:
    files = sorted((PACKAGE / room).glob("*.py"))
    assert len(files) > 1
    missing = [f"{f.name}: {name}" for f in files for name in public_without_docstring(f.read_text(encoding="utf-8"))]
    assert not missing


def test_files_are_short() -> None:
    lines = {str(file.relative_to(ROOT)): len(file.read_text(encoding="utf-8").splitlines()) for file in sources()}
    long = {file: count for file, count in lines.items() if count > LONGEST_FILE and file not in MAY_BE_LONGER}
    assert not long, f"each is asking to be two: {long}"
    assert {file for file in MAY_BE_LONGER if lines.get(file, 0) <= LONGEST_FILE} == set(), "no longer needed"


def test_tracked_files_are_small() -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout")
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [ROOT / name for name in listed.split("\0") if name]
    large = [str(file.relative_to(ROOT)) for file in files if file.is_file() and file.stat().st_size > LARGEST_FILE]
    assert not large


def shell_commands(markdown: str) -> list[list[str]]:
    """The commands in fenced shell blocks, as words, without comments, prompts, variables set in front and outputs.

    Where a block has prompts, what stands behind no prompt is output. Joined lines and `a && b | c` are taken apart.
    """
    commands: list[list[str]] = []
    for block in re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", markdown, flags=re.MULTILINE | re.DOTALL):
        lines = block.replace("\\\n", " ").splitlines()
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        for line in prompted or lines:
            commands.append([])
            for word in shlex.split(line, comments=True):
                if word in {"&&", "||", "|", ";", "&"}:
                    commands.append([])
                elif commands[-1] or not re.match(r"\w+=", word):
                    commands[-1].append(word)
    return [words for words in commands if words]


def test_the_reader_of_shell_blocks() -> None:
    script = "```bash\n# a comment\nmake demo  # a minute\nA=1 madtp train \\\n  --out 'a b' && ls | wc\n```\n"
    session = "```console\n$ madtp flops\nmake believe\n```\n```python\nmake x\n```\n"
    assert shell_commands(script) == [["make", "demo"], ["madtp", "train", "--out", "a b"], ["ls"], ["wc"]]
    assert shell_commands(session) == [["madtp", "flops"]]


@cache
def readme_commands(program: str) -> list[list[str]]:
    """Arguments of each call of `program` in README's shell blocks, behind whatever path it is called by."""
    readme = ROOT / "README.md"
    commands = shell_commands(readme.read_text(encoding="utf-8")) if readme.exists() else []
    return [words[1:] for words in commands if Path(words[0]).name == program]


def test_readme_names_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    assert {"demo", "test", "install"} <= targets
    named = {word for words in readme_commands("make") for word in words if re.fullmatch("[a-z-]+", word)}
    assert named <= targets


def test_readme_names_verbs_and_options_that_exist() -> None:
    options: dict[str, set[str]] = {}
    for words in readme_commands("madtp"):
        verb = words[0] if words and not words[0].startswith("-") else ""
        options.setdefault(verb, set()).update(word.partition("=")[0] for word in words if word.startswith("--"))
    for verb, named in options.items():
        done = run_python("from madtp.cli.main import run; run()", *filter(None, [verb]), "--help")
        assert done.returncode == 0, f"README names madtp {verb}: {done.stderr}"
        known = set(re.findall(r"--[a-z][a-z-]*", done.stdout))
        assert named <= known, f"README names options that madtp {verb} has not: {named - known}"
