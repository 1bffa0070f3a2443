"""`madtp demo`: the main job on what the package carries, in a few minutes."""

from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.cli.examples import MOST, Place, chosen, examples_of, hardest, pictures_of
from madtp.errors import InputError

BUDGETS = (0.5, 0.8)
SPLIT, SCENES = "test", "scenes"
REPORT_FILES = {"report.json", "report.html"}


def demo(
    out: common.OutOption = Path("runs/demo"),
    images: Annotated[int, typer.Option("--images", min=8, help="Generated pictures to evaluate on.")] = 240,
    batch_size: common.BatchOption = 32,
    device: common.DeviceOption = "auto",
    page: Annotated[
        bool, typer.Option("--page", help="Serve a local page instead: your pictures, your texts, any budget.")
    ] = False,
    model: Annotated[
        list[str] | None,
        typer.Option(
            "--model",
            help="For --page: model folder or hub id, maybe several; default: the bundled one.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[str, typer.Option("--data", help="For --page: what temperatures are measured on.")] = "scenes",
    port: Annotated[int, typer.Option("--port", help="For --page: on this machine; 0 = any free one.")] = 7860,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Answer questions about generated scenes dense, at half and at a fifth of the GFLOPs; writes a report.

    With --page: a page in the browser, in which you do the same by hand with your own pictures.
    """
    from madtp.calibration import calibrate
    from madtp.cli.common import load_data
    from madtp.evaluate import batches, evaluate, timed
    from madtp.files import claim_folder
    from madtp.report import check_plots, rich_table, settings, write_report
    from madtp.report.report import SCHEMA

    folder = files("madtp") / "assets" / "demo-vqa"
    if not folder.is_dir() and not (page and model):
        raise InputError("the bundled model is not in this installation", str(folder), "install madtp again")
    if page:
        from madtp.cli.page import page as serve

        serve(model or (), str(folder), data, port, device)
        return
    if model:
        raise InputError("goes with --page", "--model", "leave it out, or use madtp evaluate")
    check_plots()
    earlier = out.is_dir() and {file.name for file in out.iterdir()} <= REPORT_FILES  # a demo may be run again
    claim_folder(out, overwrite or earlier)
    network, processor = common.load_model(str(folder), device)
    task = common.make_task("vqa", processor)
    some, tuning = load_data("vqa", SCENES, SPLIT, limit=images), load_data("vqa", SCENES, "val", limit=64)
    ready = list(batches(task, tuning, batch_size, network.device))
    rows: list[dict[str, Any]] = []
    results: list[Any] = []
    steps = (1 + len(BUDGETS)) * (images + 8)
    with common.progress("dense", steps) as advance:
        for budget in (0.0, *BUDGETS):
            name = f"{budget:g}" if budget else "dense"
            if budget:
                advance(0, f"finding the temperature for a reduction of {name}")
                calibrate(network, task, ready, budget, tried=lambda strength, value: advance(0, f"{value:.3f} saved"))
            else:
                network.temperature = None
            advance(0, f"answering, {name}")
            results.append(evaluate(network, task, some, batch_size=batch_size, advance=advance))
            row = {"name": name, "reduction_asked": budget, **results[-1].to_dict()}
            rows.append({**row, "temperature": network.temperature})
        for row in rows:
            advance(8, f"timing, {row['name']}")
            network.temperature = row["temperature"]
            row |= timed(network, task, some[:batch_size])
    head = {
        "task": "vqa",
        "data": some.name,
        "split": SPLIT,
        "n": rows[0]["n"],
        "texts": "questions",
        "model": "bundled demo-vqa",
        "seed": 0,
    }
    how = {"batch_size": batch_size, "dtype": "float32", "device": str(network.device)}
    report = {"schema": SCHEMA, **head, **how, **settings(), "timed": "image tower and question encoder", "rows": rows}
    places = chosen(some), hardest(task, some, results, MOST // 2)
    write_report(out, report, *(_shown(network, task, some, of, rows) for of in places))
    if as_json:
        common.emit(report, True, "")
    else:
        common.stdout.print(rich_table(report))
        common.stdout.print(f"The page with pictures of what was pruned: {out / 'report.html'}")


def _shown(network: Any, task: Any, data: Any, places: list[Place], rows: list[dict[str, Any]]) -> list[Any]:
    """Examples as every row answers them."""
    pictures = {}
    for row in rows:
        network.temperature = row["temperature"]
        pictures[row["name"]] = pictures_of(network, task, data, places)
    return examples_of(task, data, places, pictures)
