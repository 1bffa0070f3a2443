"""`madtp tune`: search the settings of a compression."""

from pathlib import Path
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.cli.compress import BudgetsOption, parse_budgets
from madtp.cli.train import EvalOption, LrOption, MomentumOption, QueueOption, TextsOption, ValOption
from madtp.errors import InputError

SEARCH = "lr alpha semantic_tokens straight_through first_block"
# Options that a compression has too.
PASSED_ON = (
    "epochs", "batch_size", "lr", "texts", "eval_every", "val_images", "prompt", "beams", "momentum", "queue", "limit",
    "seed",
)  # fmt: skip


def tune(
    model: common.ModelOption,
    data: common.DataOption,
    reduction: BudgetsOption,
    out: common.OutOption,
    trials: Annotated[int, typer.Option("--trials", min=1, help="How many, those that are there included.")] = 20,
    search: Annotated[
        str,
        typer.Option(
            "--search",
            help="Settings, with values maybe: 'lr=1e-4..1e-3 alpha=0,0.1 distill=1'; one value alone is fixed.",
        ),
    ] = SEARCH,
    task: common.TaskOption = None,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="Of a trial that is not stopped early.")] = 3,
    batch_size: common.BatchOption = 16,
    lr: LrOption = 3e-4,
    texts: TextsOption = 6,
    eval_every: EvalOption = 1,
    val_images: ValOption = 0,
    prompt: common.PromptOption = None,
    beams: common.BeamsOption = None,
    momentum: MomentumOption = None,
    queue: QueueOption = None,
    limit: common.LimitOption = None,
    skip_missing: common.SkipOption = False,
    device: common.DeviceOption = "auto",
    seed: common.SeedOption = 0,
    as_json: common.JsonOption = False,
) -> None:
    """Search the settings with which `madtp compress` does best on the validation split.

    Trials that fall behind are stopped early. The best one's settings are in best.json, its model in the folder named
    there. The same command goes on where it was cut short; with more --trials, where it ended.
    """
    from madtp.files import locked
    from madtp.recipe import TrainConfig
    from madtp.report import settings
    from madtp.shared import check_blocks, check_settings, content_of, model_of

    try:
        from madtp.knobs import parse_space
        from madtp.tune import Search, best_of
    except ModuleNotFoundError as error:
        raise InputError("needs optuna", "madtp tune", 'pip install "madtp[tune]"') from error

    common.check_task(task)
    space, budgets = parse_space(search), parse_budgets(reduction)
    recipe = TrainConfig(
        epochs, batch_size, texts, lr, seed=seed, eval_every=eval_every, val_images=val_images, reductions=budgets
    )
    place = common.pick_device(device)
    network, processor = common.load_model(model)
    task = common.task_of(network, task, model)
    work = common.make_task(task, processor, prompt=prompt, beams=beams, momentum=momentum, queue=queue)
    check_blocks(network, map(int, space["first_block"].values) if "first_block" in space else ())
    training, validation = (
        common.load_data(task, data, split, limit=limit, skip_missing=skip_missing) for split in ("train", "val")
    )
    shared: dict[str, Any] = {
        "task": task, "model": common.resolved(model), "data": training.name, "limit": limit,
        "reduction_asked": list(budgets), "search": {name: knob.told() for name, knob in space.items()},
        "epochs": epochs, "batch_size": batch_size, "lr": lr, "texts": texts, "eval_every": eval_every,
        "val_images": val_images, "prompt": prompt, "beams": beams, "momentum": momentum, "queue": queue,
        "device": place, "seed": seed, "content": content_of((training, validation)),
        "digest": model_of(network, processor),
    }  # fmt: skip
    check_settings(out, shared, "a search")
    run = Search(model, work, training, validation, out, recipe, space, place, listen=True)
    given = ("--model", model, "--data", data, "--reduction", reduction, *(["--skip-missing"] if skip_missing else []))
    with locked(out), common.progress(f"{trials} trials on {training.name}", trials) as advance:
        now = 0

        def tell(trial: int, p: Any) -> None:
            nonlocal now
            advance(max(0, trial - now), f"trial {trial}, step {p.step} of {p.steps} {p.note}")
            now = max(now, trial)

        def write(rows: list[dict[str, Any]]) -> dict[str, Any]:
            result = {"schema": 1, **shared, "trials": rows, "best": best_of(rows), **settings()}
            _write(out, result, given)
            return result

        result = write(run.run(trials, tell, write))
    common.emit(result, as_json, "" if as_json else _table(result, work.higher_is_better))


def _write(out: Path, result: dict[str, Any], given: tuple[str, ...]) -> None:
    """The result, and the best trial beside it with the command that makes its model again."""
    from shlex import join

    from madtp.files import write_json

    write_json(out / "tune.json", result)
    if (best := result["best"]) is not None:
        options = {key: result[key] for key in PASSED_ON if result[key] is not None} | best["settings"]
        words = [word for key, value in options.items() for word in (f"--{key.replace('_', '-')}", f"{value}")]
        write_json(out / "best.json", {**best, "command": join(["madtp", "compress", *given, *words, "--out", "OUT"])})


def _table(result: dict[str, Any], metric: str) -> Any:
    from rich import box
    from rich.table import Table

    from madtp.report.table import MISSING, percent, score

    table = Table(box=box.SIMPLE_HEAD, show_edge=False, title=f"{metric} on val; the best is in best.json")
    for name in ("trial", metric, "reduction", "state", "settings"):
        table.add_column(name)
    best = result["best"]
    for row in sorted(result["trials"], key=lambda row: (-(row["value"] or 0), row["trial"])):
        value = MISSING if row["value"] is None else score(metric, row["value"], 2)
        saved = percent(row["gflops"]["reduction"]) if "gflops" in row else MISSING
        said = "best" if best and row["trial"] == best["trial"] else row["state"]
        told = " ".join(f"{name}={of:.3g}" for name, of in row["settings"].items())
        table.add_row(str(row["trial"]), value, saved, said, told)
    return table
