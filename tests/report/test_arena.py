"""The table of a comparison by hand."""

from typing import Any

from madtp.report.arena import COLUMNS, arena_csv, arena_rich, arena_table
from madtp.report.arena_page import arena_page
from madtp.report.arena_plot import arena_figures, arena_plot


def row(
    method: str, asked: float, seed: int, quality: float | None, gflops: float = 2.0, **more: Any
) -> dict[str, Any]:
    told = {"method": method, "reduction_asked": asked, "trained": False, "seed": seed}
    if quality is None:
        return {**told, "failed": "0.9 is above the most"}
    cost = {"gflops": {"mean": gflops, "reduction": 1 - gflops / 4}, "tokens": {"kept_fraction": 0.5}}
    return {**told, "metrics": {"consistency": 0.1, "accuracy": quality}, **cost, "ms_per_image": 3.0, **more}


ROWS = [
    row("dense", 0, 0, 0.9, 4.0, speedup=1.0),
    row("tome", 0.5, 0, 0.7, 2.1, speedup=1.0),
    row("tome", 0.5, 1, 0.8, 1.9, speedup=3.0),
    row("tome", 0.5, 2, 0.9, 2.0, speedup=3.5, train_seconds=7.0),
    row("random", 0.9, 0, None),
]
# one that saves too little, and one that met the budget with one seed of two
SHORT = row("downsample", 0.5, 0, 0.99, 2.05, speedup=2.0)
PARTLY = [row("elip", 0.5, 0, 0.6, 2.03, speedup=1.0), row("elip", 0.5, 1, None)]


def test_table_by_hand() -> None:
    dense, tome, random = arena_table(ROWS)
    assert set(dense) == set(tome) == set(random) == set(COLUMNS)
    assert (tome["seeds"], tome["metric"], round(tome["quality"], 9), round(tome["spread"], 9)) == (
        3,
        "accuracy",
        0.8,
        0.1,
    )
    assert (tome["gflops"], tome["reduction"], tome["train_seconds"], tome["speedup"]) == (2.0, 0.5, 7.0, 2.5)
    assert (dense["seeds"], dense["spread"], dense["speedup"]) == (1, None, 1.0)
    assert (random["quality"], random["gflops"], random["failed"]) == (None, None, "0.9 is above the most")


def test_what_misses_the_budget_says_so() -> None:
    dense, tome, short, partly, random = arena_table([*ROWS[:4], SHORT, *PARTLY, ROWS[4]])
    assert [line["short"] for line in (dense, tome, short, partly, random)] == [False, False, True, False, False]
    assert (partly["seeds"], partly["seeds_asked"]) == (1, 2) and (random["seeds"], random["seeds_asked"]) == (0, 1)
    table = [dense, tome, short, partly, random]
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as capture:
        console.print(arena_rich(table))
    said = capture.get()
    assert "0.488*" in said and "0.500*" not in said and "60.00 (1 of 2)" in said and "saves less than asked" in said
    page = arena_page({"table": table, "rows": [*ROWS[:4], SHORT, *PARTLY], "n": 7, "task": "vqa", "data": "x"})
    assert "48.8%*" in page and "1 of 2" in page
    cards = page[: page.index("<h2>")]
    assert "tome" in cards and "downsample" not in cards, "the best of those that meet the budget"


def test_csv_and_terminal() -> None:
    table = arena_table(ROWS)
    head, *lines = arena_csv(table).splitlines()
    assert head == ",".join(COLUMNS) and len(lines) == 3
    assert lines[0].startswith("dense,False,0,1,1,accuracy,0.9,,4.0,0.0,0.5,3.0,1.0,,")
    from rich.console import Console

    console = Console(width=80)
    with console.capture() as capture:
        console.print(arena_rich([*table, {**table[1], "method": "madtp:semantic_tokens=100", "trained": True}]))
    said = capture.get()
    assert (
        "80.00 ± 10.00" in said and "not met" in said and "0.500" in said and "…" not in said and "0.5 trained" in said
    )


def test_plots() -> None:
    table = arena_table([*ROWS, *({**one, "trained": True} for one in ROWS)])
    for against in ("gflops", "time"):
        drawn = arena_plot(table, against)
        assert drawn is not None
        text = drawn.decode()
        assert "tome" in text and "trained alike" in text and "without training" in text and "random" not in text
    assert arena_plot(table, "gflops") == arena_plot(table, "gflops")
    assert arena_plot(arena_table([row("random", 0.9, 0, None)]), "gflops") is None
    (untrained, _) = arena_figures(arena_table(ROWS), "time")[0]
    assert "tome at 0.5: 80.0% at 0.4" in untrained, "as a share of dense's time: 1 / 2.5"
    cider = [{**line, "metric": "cider"} for line in arena_table(ROWS)]
    assert "tome at 0.5: 80.0 at 0.4" in arena_figures(cider, "time")[0][0], "CIDEr is no share"
