"""The pages of compare, bench and training: whole, in the one look, and true to the numbers."""

import re
from pathlib import Path
from typing import Any

import pytest

from madtp.report.arena import arena_table
from madtp.report.arena_page import arena_page
from madtp.report.bench_page import bench_page, write_bench
from madtp.report.page import html_page
from madtp.report.plot import quality_plot, tokens_plot
from madtp.report.style import CSS
from madtp.report.training_plot import training_plots
from report.test_arena import ROWS
from report.test_report import NASTY, REPORT, Page

TOKENS = {"per_block": [9.0, 5.0], "per_block_p5": [9.0, 3.0], "per_block_p95": [9.0, 7.0], "kept_fraction": 0.5}


def compared(**more: Any) -> dict[str, Any]:
    groups = {"by_objects": {}, "by_detail": {"1": 0.2, "2": 0.3, "3": 0.4, "4": 0.5}}
    rows = [row if "failed" in row else {**row, "tokens": {**TOKENS, **groups}} for row in ROWS]
    return {"task": "vqa", "data": "scenes", "split": "test", "n": 7, "rows": rows, "table": arena_table(rows), **more}


BENCH: dict[str, Any] = {
    "task": "vqa",
    "model": "blip-base-vqa",
    "parameters": 385_000_000,
    "text_tokens": 19,
    "batch_size": [3],
    "rows": [
        {
            "work": "towers",
            "tokens_per_block": [53.0, 1 / asked],
            "batch": 3,
            "peak_mb_dense": 67.0,
            "peak_mb_pruned": 31.0,
            "reduction_asked": asked,
            "temperature": 1.5,
            "gflops": {"dense": 90.0, "mean": 90 * (1 - asked)},
            "reduction": asked,
            "dense_ms": 1234.0,
            "pruned_ms": 617.0,
            "speedup": 2.0,
            "ideal": 1 / (1 - asked),
            "efficiency": 2 * (1 - asked),
        }
        for asked in (0.5, 0.8)
    ],
}


def checked(html: str) -> Page:
    """In the one look: its style, no script, nothing fetched, named drawings, heads of tables."""
    page = Page(html)
    assert CSS in html and "default-src 'none'" in html
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object"}
    assert re.findall(r"(?:fill|stroke): *(#[0-9a-fA-F]{3,6})", html.replace(CSS, "")) == []
    assert all(attributes.get("aria-label") for tag, attributes in page.tags if tag == "svg")
    assert all(attributes.get("scope") in {"row", "col"} for tag, attributes in page.tags if tag == "th")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    return page


def test_the_page_of_a_comparison() -> None:
    page = checked(arena_page(compared(model="m", epochs=0, lr=0.1)))
    for said in (
        "Methods compared: vqa on scenes (test split)",
        "best at a reduction of 0.5, without training tome accuracy 80.0%",
        "−10.0 points against dense",
        "80.00% ± 10.00",
        "not met",
        "Quality against GFLOPs an example (measured), without training",
        "2.5× faster",
        "Quality against time of the towers (dense = 1), without training",
        "Tokens left after each block of the image tower at a reduction of 0.5",
        "tome, 0.5 20.0% 30.0% 40.0% 50.0%",
        "How it was measured",
    ):
        assert said in page.text, said
    trained = [{**row, "trained": True} for row in ROWS]
    both = checked(arena_page(compared(rows=[*ROWS, *trained], table=arena_table([*ROWS, *trained]))))
    assert "trained alike" in both.text and "without training" in both.text


def test_names_of_others_are_escaped() -> None:
    rows = [{**row, "method": NASTY} for row in ROWS]
    page = checked(arena_page(compared(rows=rows, table=arena_table(rows), model=NASTY)))
    assert page.text.count("alert('x')") >= 3
    assert "script" not in {tag for tag, _ in checked(bench_page({**BENCH, "model": NASTY})).tags}


def test_the_page_of_bench(tmp_path: Path) -> None:
    write_bench(tmp_path, BENCH)
    page = checked((tmp_path / "report.html").read_text())
    for said in (
        "Time of blip-base-vqa",
        "2.0× faster",
        "50% fewer GFLOPs",
        "100% of what they promise",
        "1234",
        "617",
    ):
        assert said in page.text, said
    assert "stock" not in page.text
    rows = [{**BENCH["rows"][0], "stock_ms": 1300.0, "dense_over_stock": 1.05, "reduction_asked": None}]
    stock = checked(bench_page({**BENCH, "rows": rows})).text
    assert "1300" in stock and "1.05×" in stock and "its own temperature" in stock


LOG = [
    {"step": 1, "epoch": 0, "loss": 3.0, "reduction": 0.1},
    {"step": 20, "epoch": 0, "loss": 2.0, "reduction": 0.3},
    {"step": 30, "epoch": 0, "val": {"consistency": 0.1, "accuracy": 0.5}, "reduction": 0.0},
    {"step": 30, "epoch": 0, "val": {"consistency": 0.1, "accuracy": 0.4}, "reduction": 0.5},
    {"step": 60, "epoch": 1, "val": {"consistency": 0.1, "accuracy": 0.7}, "reduction": 0.0},
    {"step": 60, "epoch": 1, "val": {"consistency": 0.1, "accuracy": 0.6}, "reduction": 0.5},
]


def test_how_a_training_went() -> None:
    loss, quality, met = (svg for svg, _ in training_plots(LOG))
    assert loss and "loss: 2 at step 20" in loss
    assert quality and "accuracy at 0.00: 70 at step 60; accuracy at 0.50: 60 at step 60" in quality
    assert met and "validation: 0.5 at step 60" in met
    assert [svg for svg, _ in training_plots([])] == [None, None, None]
    assert [svg is None for svg, _ in training_plots(LOG[:1])] == [True, True, True]
    assert [svg is None for svg, _ in training_plots(LOG[:4])] == [False, True, False], "one validation is no line"
    page = checked(html_page({**REPORT, "log": LOG}))
    assert "Training" in page.text and "Quality on validation" in page.text
    assert "Training" not in checked(html_page(REPORT)).text


def test_time_and_spread_are_drawn_where_they_are_known() -> None:
    svg = quality_plot(REPORT, "time")
    assert svg and "Quality against cost. dense: 94.0% at 1 of dense&#x27;s time; reduction 0.5: 93.7% at 0.5 of" in svg
    assert quality_plot({"rows": REPORT["rows"][:1]}, "time") is None, "one time compares with nothing"
    alone = {"rows": REPORT["rows"][2:]}
    for against, dense in (("gflops", "dense costs 0.4 GFLOPs"), ("time", "dense costs 1 of dense&#x27;s time")):
        assert dense in (quality_plot(alone, against) or ""), "without a dense row its cost is a line"
        assert "dense costs" not in (quality_plot(REPORT, against) or "dense costs")
    row = {"name": "0.5", "tokens": TOKENS}
    assert "band: p5 to p95" in (tokens_plot({"rows": [row]}) or "")
    bare = {"name": "0.5", "tokens": {**TOKENS, "per_block_p5": []}}
    assert "band" not in (tokens_plot({"rows": [bare]}) or "band")


@pytest.mark.parametrize("key", ["by_objects", "by_detail"])
def test_richer_pictures(key: str) -> None:
    row = {"name": "0.5", "tokens": {key: {"1": 0.5, "2": 0.4, "3": 0.3}}}
    text = checked(html_page({"rows": [row]})).text
    what = key.removeprefix("by_")
    assert f"Reduction 0.5: pictures with more {what} keep fewer tokens" in text
