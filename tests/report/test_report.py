"""report.json and report.html: complete, self-contained, readable by everyone, safe."""

import base64
import copy
import io
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from madtp.errors import InputError
from madtp.report import Example, ExampleRow, check_plots, write_report
from madtp.report.plot import SERIES, quality_plot, tokens_plot
from madtp.report.style import CSS

VOID = {"meta", "img", "br"}
NASTY = "<script>alert('x')</script> & \"more\" $a$"


def made_up_row(name: str, accuracy: float, gflops: float) -> dict[str, Any]:
    return {
        "name": name,
        "reduction_asked": 0.0 if name == "dense" else float(name),
        "temperature": None if name == "dense" else 1.37,
        "metrics": {"accuracy": accuracy},
        "gflops": {"dense": 0.4, "mean": gflops, "p50": gflops, "p95": gflops * 1.1, "reduction": 1 - gflops / 0.4},
        "tokens": {
            "kept_fraction": gflops / 0.4,
            "per_block": [49.0, 30.5, 20.25],
            "by_objects": {"1": 0.31, "2": 0.33, "5": 0.37},
        },
        "ms_per_image": 10 * gflops,
        "speedup": 0.4 / gflops,
    }


REPORT: dict[str, Any] = {
    "schema": 1,
    "task": "vqa",
    "texts": "questions",
    "data": "scenes",
    "split": "test",
    "n": 4001,
    "model": "runs/demo/dense",
    "seed": 0,
    "batch_size": 32,
    "dtype": "float32",
    "device": "cpu",
    "hardware": {"cpu": "Some CPU", "cores": 2, "memory_gb": 25.3, "gpu": None},
    "versions": {"madtp": "0.1.0", "torch": "2.13.0"},
    "commit": "0123abc",
    "rows": [made_up_row("dense", 0.94, 0.4), made_up_row("0.5", 0.937, 0.2), made_up_row("0.8", 0.88, 0.08)],
}


def examples() -> list[Example]:
    dense = ExampleRow("dense", "2", (np.ones(49), np.ones(49)))
    pruned = ExampleRow("0.5", "three", (np.ones(49), np.array([1.0] * 13 + [1 / 36] * 36)))
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (56, 56, 3), dtype=np.uint8))
    return [Example(image, "How many shapes?", "Two", (dense, pruned))]


class Page(HTMLParser):
    """Checks that tags are balanced while it collects tags, attributes and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.open: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def attributes(self, name: str) -> list[str | None]:
        return [attributes[name] for _, attributes in self.tags if name in attributes]


def written(folder: Path, report: dict[str, Any], shown: list[Example] | None = None) -> Page:
    write_report(folder, report, shown or [])
    return Page((folder / "report.html").read_text())


def test_json_is_the_report(tmp_path: Path) -> None:
    write_report(tmp_path / "out", REPORT, examples())
    assert json.loads((tmp_path / "out" / "report.json").read_text()) == REPORT
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.json", "report.html"}


def test_numbers_of_any_kind_become_json(tmp_path: Path) -> None:
    odd = {
        "a": float("nan"),
        "b": [np.float32(0.5), np.int64(7), float("-inf")],
        "c": np.array([1.5]),
        "d": Path("x"),
        3: True,
    }
    write_report(tmp_path, odd)
    expected = {"schema": 1, "a": None, "b": [0.5, 7, None], "c": [1.5], "d": "x", "3": True}
    assert json.loads((tmp_path / "report.json").read_text()) == expected


def test_page_says_what_was_measured(tmp_path: Path) -> None:
    text = written(tmp_path, REPORT, examples()).text
    for said in [
        "vqa on scenes (test split)",
        "4001 questions",
        "reduction 0.5 2.0× faster 50% fewer GFLOPs −0.3 points",
        "94.0%",
        "Reduction 0.8: pictures with more objects keep more tokens (31.0% with 1, 37.0% with 5",
        "True answer: Two",
        "dense : 2 ✓ right",
        "reduction 0.5 : three ✗ wrong",
        "All 49 patches are kept in every block.",
        "block 2 13 of 49",
        "Some CPU",
        "cores: 2",
        "reduction 0.8: 1.37",
        "0123abc",
        "float32",
    ]:
        assert said in text, said


def test_page_fetches_nothing_and_runs_nothing(tmp_path: Path) -> None:
    page = written(tmp_path, REPORT, examples())
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert all(source and source.startswith("data:image/") for source in page.attributes("src"))
    assert all(link and link.startswith("#") for link in page.attributes("href") + page.attributes("xlink:href"))
    html = (tmp_path / "report.html").read_text()
    assert "@import" not in html
    assert not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html


def test_page_is_accessible(tmp_path: Path) -> None:
    page = written(tmp_path, REPORT, examples())
    pictures = [attributes for tag, attributes in page.tags if tag == "img"]
    assert len(pictures) == 3
    assert all(attributes.get("alt") for attributes in pictures)
    assert pictures[2]["alt"] == "After block 2: 13 of 49 patches kept as themselves"
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in page.tags if tag == "th")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    assert ("html", {"lang": "en"}) in page.tags


def test_pictures_can_be_decoded(tmp_path: Path) -> None:
    for source in written(tmp_path, REPORT, examples()).attributes("src"):
        assert source is not None
        Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).load()


def test_text_of_others_is_escaped(tmp_path: Path) -> None:
    report = copy.deepcopy(REPORT) | {"task": NASTY, "data": NASTY, "model": NASTY, "hardware": NASTY, "commit": NASTY}
    report["versions"] = {NASTY: NASTY}
    for row in report["rows"]:
        row["metrics"] = {NASTY: 0.5}
    report["rows"][1]["name"] = NASTY
    shown = [Example(Image.new("L", (14, 7)), NASTY, NASTY, (ExampleRow(NASTY, NASTY, (np.zeros(2),)),))]
    page = written(tmp_path, report, shown)
    assert "script" not in {tag for tag, _ in page.tags}
    assert not [name for _, attributes in page.tags for name in attributes if name.startswith("on")]
    assert page.text.count(NASTY) >= 10


@pytest.mark.parametrize(
    "missing",
    [["by_objects"], ["per_block"], ["ms_per_image", "speedup"], ["gflops"], ["tokens"], ["metrics"], ["name"]],
)
def test_what_was_not_measured_may_be_missing(tmp_path: Path, missing: list[str]) -> None:
    absent, none = copy.deepcopy(REPORT), copy.deepcopy(REPORT)
    for key in missing:
        for row in absent["rows"]:
            row.pop(key, None)
            row.get("tokens", {}).pop(key, None)
        for row in none["rows"]:
            row.update({key: None} if key in row else {})
            row["tokens"] = (row["tokens"] or {}) | ({key: None} if key in (row["tokens"] or {}) else {})
    for folder, report in (("absent", absent), ("none", none)):
        page = written(tmp_path / folder, report)
        assert "Results" in page.text
        assert "None" not in page.text
        assert "nan" not in page.text


@pytest.mark.parametrize("report", [{}, {"rows": []}, {"rows": [{}]}, {"rows": [made_up_row("dense", 0.0, 0.0001)]}])
def test_almost_empty_reports(tmp_path: Path, report: dict[str, Any]) -> None:
    assert "Results" in written(tmp_path, report, [Example(Image.new("RGB", (7, 7)), "?", "yes")]).text


def test_without_matplotlib_the_numbers_are_still_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match=r'pip install "madtp\[plots\]"'):
        write_report(tmp_path, REPORT)
    assert json.loads((tmp_path / "report.json").read_text()) == REPORT
    assert not (tmp_path / "report.html").exists()
    with pytest.raises(InputError, match="matplotlib"):
        check_plots()


def test_plots_take_every_colour_from_the_page() -> None:
    for svg in (quality_plot(REPORT), tokens_plot(REPORT)):
        assert svg is not None
        assert re.findall(r"(?:fill|stroke): *(#[0-9a-fA-F]{3,6})", svg) == []
        assert {f"var(--series-{index})" for index in range(3)} <= set(re.findall(r"var\(--[\w-]+\)", svg))
        assert not re.search(r"<svg[^>]* (width|height)=", svg)
    assert quality_plot({"rows": []}) is None
    assert tokens_plot({"rows": []}) is None


def test_plots_are_the_same_every_time() -> None:
    assert quality_plot(REPORT) == quality_plot(REPORT)
    assert tokens_plot(REPORT) == tokens_plot(REPORT)


def test_more_rows_than_colours() -> None:
    rows = [made_up_row("dense", 0.9, 0.4), *(made_up_row(f"0.{index}", 0.9, 0.1) for index in range(1, 9))]
    assert "reduction 0.8" in (tokens_plot({"rows": rows}) or "")


def luminance(colour: str) -> float:
    """Relative luminance of WCAG 2, 0..1."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_in_both_themes() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    light, dark = (dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6})", part)) for part in CSS.split("@media (prefers", 1))
    assert light.keys() == dark.keys()
    for theme in (light, dark):
        for ground in ("page", "card"):
            for text in ("text", "soft", "accent", "right", "wrong"):
                assert contrast(theme[text], theme[ground]) >= 4.5, (text, ground)
            for index in range(SERIES):
                assert contrast(theme[f"series-{index}"], theme[ground]) >= 3
