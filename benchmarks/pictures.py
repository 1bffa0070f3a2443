"""The picture of `madtp demo --page` that README and docs show, taken anew: `python benchmarks/pictures.py`.

Needs the `page` and `dev` extras and a Chromium (`apt-get install chromium`). Its milliseconds are this machine's:
take it while nothing else runs.
"""

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).parents[1]
OUT = ROOT / "docs" / "images" / "page.png"
BUDGET, QUESTION = "0.8", "is the yellow shape left of the orange triangle?"  # as in kept.png


def main() -> None:
    """Start the page, ask the question at two budgets, and write the picture."""
    command = [sys.executable, "-m", "madtp", "demo", "--page", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"http://\S+", server.stdout.readline())
            assert found, "the page did not start"
            content = taken(found[0])
        finally:
            server.terminate()
    whole = Image.open(io.BytesIO(content)).convert("RGB")
    few = whole.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    few.save(OUT, optimize=True)
    print(f"{OUT}: {OUT.stat().st_size // 1000} kB")


def taken(address: str) -> bytes:
    """PNG of the page at a desk's width, once both sides have answered."""
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
        page.set_default_timeout(120_000)
        page.goto(address)
        page.locator(".side-b .answer dl").wait_for()
        page.locator(".sample", has_text=QUESTION).click()
        budget = page.get_by_label("number input for Budget B")
        budget.fill(BUDGET)
        budget.press("Enter")
        page.get_by_text(re.compile(rf"Asked {float(BUDGET):.0%}")).wait_for()
        page.wait_for_function("q => [...document.querySelectorAll('textarea')].some(e => e.value === q)", arg=QUESTION)
        page.locator(".side-a .kept").wait_for()
        page.wait_for_timeout(3000)  # what came before the last move may still be drawn
        page.get_by_role("heading", level=1).click()  # no ring of focus
        content = page.screenshot(full_page=True)
        browser.close()
    return bytes(content)


if __name__ == "__main__":
    main()
