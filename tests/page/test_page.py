"""`madtp demo --page` in a real browser: what a person does with it, and that nothing leaves the machine."""

import base64
import io
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from page.browser import FAINT, WAIT, chromium
from small import scenes

ROOT = Path(__file__).parents[2]
pytest.importorskip("gradio", reason="the page extra is not installed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """The page, served by the command as a process of its own; Ctrl-C ends it, with a page open, and it ends well."""
    command = [sys.executable, "-m", "madtp", "demo", "--page", "--port", "0"]
    own = {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "NO_COLOR": "1"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    server = subprocess.Popen(command, env=os.environ | own, cwd=ROOT, text=True, **pipes)
    assert server.stdout is not None
    stop = threading.Timer(1200, server.kill)  # should the tests hang
    stop.start()
    try:
        line = server.stdout.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, f"{line!r} {server.communicate()}"
        yield found[0]
        with urllib.request.urlopen(f"{found[0]}/gradio_api/heartbeat/mine", timeout=60):  # as a page that is open
            server.send_signal(signal.SIGINT)
            out, err = server.communicate(timeout=120)
        assert (server.returncode, out, err) == (0, "", "")
    finally:
        stop.cancel()
        server.kill()
        server.communicate()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


class Opened:
    """The page in a tab of its own, with all that it asked the network for."""

    def __init__(self, browser: Any, address: str, **how: Any) -> None:
        self.context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **how})
        self.page = self.context.new_page()
        self.page.set_default_timeout(WAIT)
        self.asked: list[str] = []
        self.faults: list[str] = []
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("console", lambda line: line.type == "error" and self.faults.append(line.text))
        self.page.goto(address)
        for side in "ab":
            self.side(side).locator("dl").wait_for()

    def side(self, name: str) -> Any:
        return self.page.locator(f".side-{name} .answer")

    def gflops(self, side: str) -> float:
        return float(self.side(side).locator("dt:text-is('GFLOPs') + dd").inner_text().split()[0])

    def kept(self, side: str) -> str:
        return str(self.page.locator(f".side-{side} .kept figcaption").first.inner_text())

    def changed(self, selector: str, before: str) -> None:
        """Wait until the text there is another."""
        self.page.wait_for_function(
            "([at, before]) => { const e = document.querySelector(at); return e && e.innerText !== before; }",
            arg=[selector, before],
        )


@pytest.fixture
def opened(browser: Any, address: str) -> Iterator[Opened]:
    one = Opened(browser, address)
    yield one
    one.context.close()


def test_load_upload_slide_and_read_the_changed_numbers(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    assert "Budget 0" in opened.side("a").inner_text()
    dense, half = opened.gflops("a"), opened.gflops("b")
    assert half < 0.75 * dense
    for said in ("confidence", "ms", "GFLOPs", "patches"):
        assert said in opened.side("b").inner_text()

    # a picture and a question of one's own
    scenes("test", 11)[7].image.open().save(tmp_path / "mine.png")
    before = opened.side("b").inner_text()
    page.get_by_role("button", name="Remove Image").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "mine.png")
    opened.changed(".side-b .answer", before)
    before = opened.side("b").inner_text()
    page.get_by_label("Question").fill("how many shapes are there?")
    page.get_by_role("button", name="Answer").click()
    opened.changed(".side-b .answer", before)

    # the block, then the budget, by keyboard alone
    last = opened.kept("b")
    assert "after block 8" in last
    block = page.get_by_role("slider", name="Block")
    block.focus()
    for _ in range(6):
        page.keyboard.press("ArrowLeft")
    page.wait_for_function(
        "() => document.querySelector('.side-b .kept figcaption').innerText.includes('after block 2:')"
    )
    assert int(opened.kept("b").split(":")[1].split()[0]) >= int(last.split(":")[1].split()[0])
    budget = page.get_by_role("slider", name="Budget B")
    budget.focus()
    before = opened.side("b").inner_text()
    page.keyboard.press("End")
    opened.changed(".side-b .answer", before)
    assert "Asked 85%" in opened.side("b").inner_text()
    assert opened.gflops("b") < half
    assert "Budget 0" in opened.side("a").inner_text(), "the other side stays"
    assert opened.faults == []


FILE = """data => new File([Uint8Array.from(atob(data), c => c.charCodeAt(0))], 'mine.png', {type: 'image/png'})"""
DROP = f"""(zone, data) => {{ const held = new DataTransfer(); held.items.add(({FILE})(data));
  zone.dispatchEvent(new DragEvent('drop', {{dataTransfer: held, bubbles: true, cancelable: true}})); }}"""
COPY = f"data => navigator.clipboard.write([new ClipboardItem({{'image/png': ({FILE})(data)}})])"


def test_a_picture_that_is_dropped_or_pasted(opened: Opened, address: str) -> None:
    page = opened.page
    opened.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
    for number, how in ((7, "drop"), (9, "paste")):
        held = io.BytesIO()
        scenes("test", 11)[number].image.open().save(held, "png")
        data = base64.b64encode(held.getvalue()).decode()
        before = page.locator(".side-b .kept img").get_attribute("src")
        page.get_by_role("button", name="Remove Image").click()
        if how == "drop":
            page.get_by_role("button", name="Drop an image file here").evaluate(DROP, data)
        else:
            page.evaluate(COPY, data)
            page.get_by_role("button", name="Paste from clipboard").click()
        page.wait_for_function(
            "before => { const e = document.querySelector('.side-b .kept img'); return e && e.src !== before; }",
            arg=before,
        )
        assert page.locator(".problem").count() == 0
    assert opened.faults == []


def test_an_example_to_click(opened: Opened) -> None:
    page = opened.page
    before = opened.side("a").inner_text(), opened.side("b").inner_text()
    example = page.locator(".sample").nth(3)
    example.focus()
    page.keyboard.press("Enter")
    opened.changed(".side-a .answer", before[0])
    opened.changed(".side-b .answer", before[1])
    assert page.get_by_label("Question").input_value() == example.inner_text().strip()


@pytest.mark.parametrize("selector", [".sample >> nth=3", "button:text-is('Answer')"])
def test_pressed_twice_it_comes_to_rest(selector: str, opened: Opened) -> None:
    page = opened.page
    before = opened.side("b").inner_text()
    page.locator(selector).evaluate("button => { button.click(); setTimeout(() => button.click(), 150); }")
    opened.changed(".side-b .answer", before)
    for _ in range(9):
        asked = len(opened.asked)
        page.wait_for_timeout(3000)
        if len(opened.asked) == asked:
            return
    raise AssertionError(f"it asks for ever: {opened.asked[-9:]}")


def test_wrong_files_and_no_text_are_said_on_the_page(opened: Opened, tmp_path: Path) -> None:
    page = opened.page
    (tmp_path / "fake.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("no picture")
    page.get_by_role("button", name="Remove Image").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "fake.png")
    said = page.locator(".problem")
    said.wait_for()
    assert said.inner_text() == "fake.png: is not an image; give a PNG, a JPEG or the like"
    assert opened.side("a").count() == 0, "no stale answer beside it"
    page.locator(".sample").first.click()
    opened.side("b").wait_for()
    said.wait_for(state="detached")
    page.get_by_label("Question").fill("   ")
    page.get_by_role("button", name="Answer").click()
    said.wait_for()
    assert "type one" in said.inner_text()
    page.get_by_role("button", name="Remove Image").click()
    page.locator("input[type=file]").set_input_files(tmp_path / "notes.txt")
    page.get_by_text("notes.txt").first.wait_for()


def test_nothing_is_fetched_from_outside(opened: Opened, address: str) -> None:
    hosts = {urlsplit(url).hostname for url in opened.asked if urlsplit(url).scheme in {"http", "https", "ws", "wss"}}
    assert hosts == {"127.0.0.1"} and len(opened.asked) > 10
    assert [url for url in opened.asked if "/queue/" in url] == [], "gradio's queue loses answers on a slow connection"
    answer = urllib.request.urlopen(address, timeout=60)
    policy, html = answer.headers["content-security-policy"], answer.read().decode()
    assert "default-src 'self'" in policy and "connect-src 'self'" in policy
    fetched = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=\"?(https?://[^\" >]+)", html)
    assert [url for url in fetched if urlsplit(url).hostname != "127.0.0.1"] == []
    assert opened.page.evaluate("fetch('https://example.org').then(() => 'sent', () => 'refused')") == "refused"
    foreign = urllib.request.Request(address, headers={"Host": "attacker.example"})
    with pytest.raises(urllib.error.HTTPError, match="400"):
        urllib.request.urlopen(foreign, timeout=60)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(scheme: str, browser: Any, address: str) -> None:
    one = Opened(browser, address, color_scheme=scheme)
    one.page.get_by_role("button", name="Remove Image").click()
    count, faint = one.page.evaluate(FAINT)
    assert count > 25
    assert faint == []
    one.context.close()


def test_on_a_phone(browser: Any, address: str) -> None:
    one = Opened(browser, address, viewport={"width": 375, "height": 812}, has_touch=True, is_mobile=True)
    page = one.page
    assert page.evaluate("document.documentElement.scrollWidth") <= 375
    places = {
        name: page.locator(at).first.bounding_box()
        for name, at in (
            ("picture", ".image-container"),
            ("budget", ".side-a"),
            ("other", ".side-b"),
            ("examples", ".samples"),
        )
    }
    tops = [box["y"] for box in places.values()]
    assert tops == sorted(tops), "what is asked, what is answered, examples"
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= 375 for box in places.values())
    assert all(box["height"] >= 40 for box in (e.bounding_box() for e in page.locator(".sample").all()))
    one.context.close()


def test_every_control_is_reached_by_tab_and_named(opened: Opened) -> None:
    page = opened.page
    reached = []
    for _ in range(60):
        page.keyboard.press("Tab")
        reached.append(
            page.evaluate("""() => { const e = document.activeElement, l = e.labels && e.labels[0];
            return [e.tagName, e.getAttribute('aria-label') || (l && l.innerText) || e.innerText || '',
                    getComputedStyle(e).outlineStyle]; }""")
        )
        if reached[-1][0] == "BODY":
            break
    names = " | ".join(name for _, name, _ in reached)
    sliders = [f"slider for {name}" for name in ("Block", "Budget A", "Budget B")]
    for control in ("Question", "Answer", *sliders, "is there a red cross?"):
        assert control in names, names
    assert all(name.strip() for tag, name, _ in reached if tag != "BODY"), reached
    assert all(outline != "none" for tag, _, outline in reached if tag != "BODY"), reached
