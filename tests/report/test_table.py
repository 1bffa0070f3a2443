"""The table of a report, and what is said in words."""

import io
from typing import Any

import pytest
from rich.console import Console

from madtp.report import markdown_table, rich_table
from madtp.report.table import amount, complexity_verdict, figures, headline, metric_names, points

ROWS: list[dict[str, Any]] = [
    {
        "name": "0.5",
        "metrics": {"f1": 0.5, "accuracy": 0.907},
        "gflops": {"dense": 132.54, "mean": 66.1, "p50": 65.0, "p95": 70.0, "reduction": 0.5013},
        "tokens": {"kept_fraction": 0.46},
        "ms_per_image": 2.05,
        "speedup": 2.056,
    },
    {
        "name": "dense",
        "metrics": {"accuracy": 0.91},
        "gflops": {"dense": 132.54, "mean": 132.54, "p50": 132.54, "p95": 132.54, "reduction": 0.0},
        "tokens": {"kept_fraction": 1.0},
        "ms_per_image": 4.213,
        "speedup": 1.0,
    },
]


def test_markdown_table_by_hand() -> None:
    assert markdown_table({"rows": ROWS}) == (
        "|  | accuracy | GFLOPs | reduction | tokens kept | ms/image | speed-up |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
        "| dense | 91.0% | 133 | 0.0% | 100.0% | 4.21 | 1.00× |\n"
        "| 0.5 | 90.7% | 66.1 | 50.1% | 46.0% | 2.05 | 2.06× |\n"
    )


def test_rich_table_says_the_same() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(rich_table({"rows": [*ROWS, {"name": "[red]x"}]}))
    shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert shown.split()[:8] == [
        "accuracy",
        "GFLOPs",
        "reduction",
        "tokens",
        "kept",
        "ms/image",
        "speed-up",
        shown.split()[7],
    ]
    for line in markdown_table({"rows": ROWS}).splitlines()[2:]:
        assert " ".join(line.strip("| ").split(" | ")) in " ".join(shown.split())
    assert "[red]x" in shown


@pytest.mark.parametrize("rows", [[], [{}], [{"name": "0.5", "metrics": None, "gflops": None, "tokens": None}]])
def test_nothing_measured_is_a_table_of_dashes(rows: list[dict[str, Any]]) -> None:
    lines = markdown_table({"rows": rows}).splitlines()
    assert len(lines) == 2 + len(rows)
    assert all(line.count("–") == 6 for line in lines[2:])
    assert rich_table({"rows": rows}).row_count == len(rows)


def test_not_finite_is_not_measured() -> None:
    (row,) = figures({"rows": [{"name": "0.5", "metrics": {"accuracy": float("nan")}, "speedup": float("inf")}]})
    assert row.quality is None
    assert row.speedup is None
    assert metric_names({"rows": [{"metrics": {"f1": None}}]}) == []


def test_dense_comes_first_and_drop_is_in_points() -> None:
    dense, half = figures({"rows": ROWS})
    assert (dense.name, half.name) == ("dense", "0.5")
    assert half.drop == pytest.approx(-0.3)
    assert dense.drop is None
    assert list(half.metrics) == ["accuracy", "f1"]
    assert dense.metrics["f1"] is None
    assert figures({"rows": ROWS[:1]})[0].drop is None  # no dense row to compare with


def test_headline() -> None:
    _, half = figures({"rows": ROWS})
    assert headline(half) == ["2.1× faster", "50% fewer GFLOPs", "−0.3 points"]
    slow = {"name": "0.1", "metrics": {"accuracy": 0.9102}, "gflops": {"reduction": -0.02}, "speedup": 0.8}
    assert headline(figures({"rows": [ROWS[1], slow]})[1]) == ["1.2× slower", "2% more GFLOPs", "no change in points"]
    assert headline(figures({"rows": [{"name": "0.5", "speedup": 0.99}]})[0]) == ["as fast as dense"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(None, "–"), (0, "0.00"), (132.54, "133"), (12.345, "12.3"), (1.2, "1.20"), (0.01234, "0.0123"), (1234.5, "1234")],
)
def test_amount(value: float | None, shown: str) -> None:
    assert amount(value) == shown


def test_points_carry_a_sign() -> None:
    assert [points(drop) for drop in (-0.26, 0.26, -0.04, 0.0, None)] == ["−0.3", "+0.3", "0.0", "0.0", "–"]


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        (
            {1: 0.2, 2: 0.25, 3: 0.3},
            "more objects keep more tokens (20.0% with 1, 30.0% with 3, rank correlation +1.00)",
        ),
        (
            {1: 0.3, 2: 0.25, 3: 0.2},
            "more objects keep fewer tokens (30.0% with 1, 20.0% with 3, rank correlation −1.00)",
        ),
        ({1: 0.2, 2: 0.3, 3: 0.1, 4: 0.25}, "makes no clear difference"),
        ({1: 0.200, 2: 0.204, 3: 0.208}, "makes no clear difference"),  # under a point
        ({1: 0.2, 2: 0.3}, "too few groups"),
    ],
)
def test_complexity_verdict(shares: dict[int, float], said: str) -> None:
    assert said in complexity_verdict(shares)


def test_rank_correlation_by_hand() -> None:
    # pairs (1,2)+ (1,3)- (1,4)+ (2,3)- (2,4)- (3,4)+ : 3 agree, 3 disagree
    assert "rank correlation +0.00" in complexity_verdict({1: 0.2, 2: 0.3, 3: 0.1, 4: 0.25})
    # pairs + + - : 2 agree, 1 disagrees: 1/3
    assert "rank correlation +0.33" in complexity_verdict({1: 0.1, 2: 0.3, 3: 0.2})
