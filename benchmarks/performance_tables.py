"""The tables of docs/performance.md from what benchmarks/performance.sh wrote.

python benchmarks/performance_tables.py OUT
"""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def lines(path: Path) -> list[dict[str, Any]]:
    """The JSON objects of a file, one or one a line."""
    text = path.read_text()
    return [json.loads(text)] if text.startswith("{\n") else [json.loads(line) for line in text.splitlines()]


def table(head: Sequence[object], rows: Sequence[Sequence[object]]) -> str:
    """Markdown; numbers to the right."""
    rule = [":--" if i == 0 else "--:" for i in range(len(head))]
    return "\n".join("| " + " | ".join(map(str, row)) + " |" for row in [head, rule, *rows])


def speed(out: Path) -> Iterator[list[object]]:
    """A row a model, batch size and budget of every file that `madtp bench` wrote."""
    for path in sorted(out.glob("*.json")):
        for result in lines(path):
            for row in result.get("rows", ()):
                ms = f"{row['dense_ms']:.4g} → {row['pruned_ms']:.4g}"
                peak = f"{row['peak_mb_dense']:.0f} → {row['peak_mb_pruned']:.0f}"
                name = f"{result['model']}, {row['work']}"
                work = [name, row["dtype"], result["threads"], row["batch"], f"{row['reduction']:.3f}"]
                figures = [f"{row['speedup']:.2f}×", f"{row['ideal']:.2f}×", f"{row['efficiency']:.2f}"]
                yield [*work, ms, *figures, peak, row.get("dense_over_stock", "")]


def main() -> None:
    """Print every table that can be made."""
    out = Path(sys.argv[1])
    head = ["model, work", "type", "threads", "batch", "reduction", "ms an example"]
    head += ["speed-up", "ideal", "efficiency", "peak MB", "dense over stock"]
    print(table(head, list(speed(out))), end="\n\n")
    if (out / "parts.json").exists():
        forms = lines(out / "parts.json")
        parts = sorted({part for form in forms for part in form["ms"]}, key=lambda part: -forms[0]["ms"].get(part, 0))
        body: list[list[object]] = [[part, *(f"{form['ms'].get(part, 0):.1f}" for form in forms)] for part in parts]
        body.append(["sum", *(f"{sum(form['ms'].values()):.0f}" for form in forms)])
        print(table(["part, ms", *(form["reduction"] for form in forms)], body), end="\n\n")
    for name in ("text", "attention", "step", "calibration"):
        if (out / f"{name}.json").exists():
            for row in lines(out / f"{name}.json"):
                told = {key: value for key, value in row.items() if key not in ("hardware", "versions", "commit")}
                print(f"{name}: {told}")


if __name__ == "__main__":
    main()
