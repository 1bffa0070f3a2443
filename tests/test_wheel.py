"""What is handed out works: source archive, wheel from it, a fresh environment, the command line from there.

The demo takes a minute or two on a quiet machine, nearly all of the time here.
"""

import json
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tomllib
import venv
import zipfile
from email.parser import Parser
from importlib.metadata import version
from pathlib import Path

import pytest

from test_house import ROOT

pytestmark = pytest.mark.slow
BUILD = "from setuptools import build_meta as build; print(build.build_{}('dist'))"
NOT_COPIED = shutil.ignore_patterns(".*", "runs", "site", "build", "dist", "*.egg-info", "__pycache__")


def run(*command: str | Path, cwd: Path) -> str:
    """Its stdout; what it said where it failed. It knows nothing of this checkout."""
    done = subprocess.run(
        [*map(str, command)],
        cwd=cwd,
        env={"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    tree = tmp_path_factory.mktemp("tree") / "madtp"  # a copy: setuptools writes into what it builds
    shutil.copytree(ROOT, tree, ignore=NOT_COPIED)
    run(sys.executable, "-c", BUILD.format("sdist"), cwd=tree)
    (made,) = (tree / "dist").iterdir()
    return made


@pytest.fixture(scope="module")
def wheel(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    (tree,) = folder.iterdir()
    run(sys.executable, "-c", BUILD.format("wheel"), cwd=tree)
    (made,) = (tree / "dist").iterdir()
    return made


@pytest.fixture(scope="module")
def fresh(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment with the wheel alone.

    What madtp depends on is not fetched but lent by this interpreter's environment: one line in a .pth file puts its
    packages behind the new one's own. .pth files lying there are not read, so an editable madtp there does not count.
    """
    folder = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(folder, with_pip=False)
    (packages,) = folder.glob("lib/*/site-packages")
    (packages / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run(*pip, "install", "--quiet", "--no-deps", "--no-index", wheel, cwd=folder)
    return folder


def test_the_archive_holds_what_tests_and_documentation_need(archive: Path) -> None:
    with tarfile.open(archive) as tar:
        names = {name.partition("/")[2] for name in tar.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "Makefile", "mkdocs.yml", "docs/site.py"} <= names
    assert {"tests/test_wheel.py", "tests/golden/meta.json", "src/madtp/assets/demo-vqa/model.safetensors"} <= names
    assert not [name for name in names if name.endswith(".pyc") or name.startswith(("runs", "site/"))]


def test_the_wheel_says_what_the_project_says(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as zipped:
        names = zipped.namelist()
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = Parser().parsestr(zipped.read(metadata).decode())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [line for line in said.get_all("Requires-Dist", []) if "extra ==" not in line]
    assert len(needed) == len(project["dependencies"])
    assert set(said.get_all("Provides-Extra", [])) == set(project["optional-dependencies"])
    assert said.get_payload().startswith("# madtp")
    assert "madtp/py.typed" in names and "madtp/assets/demo-vqa/model.safetensors" in names
    assert all(name.startswith(("madtp/", "madtp-")) for name in names), "the package and nothing else"


def test_it_runs_from_a_fresh_environment(fresh: Path, tmp_path: Path) -> None:
    python = fresh / "bin" / "python"
    where = Path(run(python, "-c", "import madtp; print(madtp.__file__)", cwd=tmp_path).strip())
    assert where.is_relative_to(fresh)
    assert Path(run(python, "-c", "import torch; print(torch.__file__)", cwd=tmp_path).strip()) != where
    assert run(fresh / "bin" / "madtp", "--version", cwd=tmp_path).split() == ["madtp", version("madtp")]
    model = where.parent / "assets" / "demo-vqa"
    question = ("--text", "how many shapes are there?", "--image", ROOT / "docs" / "images" / "scene.png", "--json")
    said = json.loads(run(fresh / "bin" / "madtp", "predict", "--model", model, *question, cwd=tmp_path))
    assert said["task"] == "vqa" and said["answer"]


def test_the_demo_runs_there(fresh: Path, tmp_path: Path) -> None:
    report = json.loads(run(fresh / "bin" / "madtp", "demo", "--images", 8, "--out", "demo", "--json", cwd=tmp_path))
    assert [row["reduction_asked"] for row in report["rows"]] == [0, 0.5, 0.8]
    assert report["rows"][2]["gflops"]["reduction"] > report["rows"][1]["gflops"]["reduction"] > 0.4
    assert (tmp_path / "demo" / "report.html").stat().st_size > 10_000
