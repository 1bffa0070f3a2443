"""The documentation as a site: it builds strictly, leads to every page, names every public name and fetches nothing."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

import madtp
from test_house import ROOT

# What a browser loads by itself, without a click: tag -> attribute.
LOADS = {
    "script": "src",
    "img": "src",
    "iframe": "src",
    "source": "src",
    "video": "src",
    "embed": "src",
    "object": "data",
}


class Loads(HTMLParser):
    """Addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Collects them."""
        values = dict(attrs)
        if tag == "link" and (values.get("rel") or "") not in {"canonical", "next", "prev", "alternate", "edit"}:
            self.found.append(values.get("href") or "")
        elif tag in LOADS:
            self.found.append(values.get(LOADS[tag]) or "")


def loads(html: str) -> list[str]:
    """Addresses that a page loads by itself."""
    parser = Loads()
    parser.feed(html)
    return parser.found


def test_the_reader_of_pages() -> None:
    page = (
        '<a href="https://a"></a><link rel="next" href="b"><link rel="stylesheet" href="//c"><script src="d"></script>'
    )
    assert loads(page) == ["//c", "d"]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("docs") / "site"
    proxy = {f"{name}_proxy": "http://127.0.0.1:9" for name in ("http", "https")}  # whoever would fetch fails
    environment = os.environ | proxy | {"PYTHONPATH": str(ROOT / "src"), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return out


def test_every_page_is_there(site: Path) -> None:
    pages = {page.relative_to(ROOT / "docs").with_suffix("") for page in (ROOT / "docs").rglob("*.md")}
    made = {Path("contributing"), Path("changelog"), Path("cli")}
    missing = [page for page in pages | made if page.name != "index" and not (site / page / "index.html").is_file()]
    assert not missing and (site / "index.html").is_file()
    assert not list(site.rglob("*.py")), "the site is made of pages alone"


def test_nothing_is_fetched(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 15
    for page in pages:
        outside = [address for address in loads(page.read_text(encoding="utf-8")) if re.match(r"(https?:)?//", address)]
        assert not outside, f"{page.relative_to(site)} loads {outside}"
    for sheet in site.rglob("*.css"):
        assert not re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", sheet.read_text(encoding="utf-8"))


def test_the_reference_names_every_public_name(site: Path) -> None:
    api = (site / "api" / "index.html").read_text(encoding="utf-8")
    told = set(re.findall(r'id="madtp\.(\w+)"', api))
    assert told == set(madtp.__all__) - {"__version__"}
    assert 'id="madtp.MadtpCLIPModel.from_dense"' in api, "what a class inherits from ours is told with it"


def test_the_command_line_is_told_whole(site: Path) -> None:
    from madtp.cli import main

    if not main.app.registered_commands:
        main._register()
    told = re.findall(r'<h2 id="([\w-]+)"', (site / "cli" / "index.html").read_text(encoding="utf-8"))
    verbs = [command.name or command.callback.__name__ for command in main.app.registered_commands if command.callback]
    assert told == ["madtp", *dict.fromkeys(verbs)]  # other tests of this process may have registered them again


def test_links_out_of_the_pages_lead_somewhere(site: Path) -> None:
    told = (site / "contributing" / "index.html").read_text(encoding="utf-8")
    assert 'href="../architecture/#a-new-task"' in told
    assert 'href="../contributing/#a-new-pruning-method"' in (site / "architecture" / "index.html").read_text(
        encoding="utf-8"
    )
