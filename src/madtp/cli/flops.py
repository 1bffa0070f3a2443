"""`madtp flops`: what one example costs, by part."""

from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.errors import InputError

PresetOption = Annotated[
    str | None,
    typer.Option("--preset", help="A full-size model by name, e.g. blip-base-nlvr2; no weights.", show_default=False),
]
ModelOption = Annotated[str | None, typer.Option("--model", help="Model folder or hub id.", show_default=False)]


def one_of(preset: str | None, model: str | None) -> str:
    """The name that was given. Raises InputError unless it is one."""
    name = preset or model
    if name is None or (preset and model):
        raise InputError("name one model", "--preset or --model", "give one of the two")
    return name


def check_text(text_tokens: int, config: Any) -> None:
    """Raises InputError for a text longer than the model reads."""
    most = config.text_config.max_position_embeddings
    if text_tokens > most:
        raise InputError(f"{text_tokens} is too long", "--text-tokens", f"this model reads at most {most}")


def flops(
    preset: PresetOption = None,
    model: ModelOption = None,
    text_tokens: Annotated[
        int,
        typer.Option("--text-tokens", min=2, help="Tokens of the text, the first and last too."),
    ] = 12,
    answer_tokens: Annotated[int, typer.Option("--answer-tokens", min=1, help="VQA: decoder steps of the answer.")] = 2,
    data: Annotated[
        str | None, typer.Option("--data", help="Measure the pruned model on this data.", show_default=False)
    ] = None,
    task: common.TaskOption = None,
    split: Annotated[
        str, typer.Option("--split", help="train, val or test.", autocompletion=common.one_of(*common.SPLIT_NAMES))
    ] = "val",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Images of --data to measure on.")] = 100,
    as_json: common.JsonOption = False,
) -> None:
    """GFLOPs (multiply-accumulates) of one example, dense; with --data also measured as the model prunes.

    An example is a text with its image or images; in retrieval both features and one match of the pair.
    """
    from rich.table import Table

    from madtp.cost.flops import count
    from madtp.cost.shape import dense_trace
    from madtp.model.presets import empty
    from madtp.model.shape import kind_of, shape_of

    common.check_task(task)
    name = one_of(preset, model)
    if preset:
        if data is not None:
            raise InputError("a preset has no weights to measure", "--data", "give a --model")
        network, processor = empty(preset), None
    else:
        network, processor = common.load_model(name)
    task, kind, shape = common.task_of(network, task, name), kind_of(network), shape_of(network)
    check_text(text_tokens, network.config)
    one = count(shape.dense, dense_trace(shape, text_tokens, answer_tokens))
    there = {"vision": shape.vision, "text": shape.text, "match": shape.match, "decoder": shape.decoder}
    gflops: dict[str, Any] = {
        "dense": float(one.total),
        "parts": {part: float(getattr(one, part)) for part, used in there.items() if used is not None},
    }
    if kind in ("retrieval", "clip"):
        gflops["features"] = float(one.features)
    result: dict[str, Any] = {
        "task": task,
        "model": name,
        "text_tokens": text_tokens,
        "answer_tokens": answer_tokens if kind == "vqa" else None,
        "image_tokens": shape.patches + shape.vision.protected,
        "images": shape.images,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflops": gflops,
        "temperature": network.temperature,
    }
    tokens = f"{result['image_tokens']} tokens" + (" each" if shape.images > 1 else "")
    images = "one image" if shape.images == 1 else f"{shape.images} images"
    table = Table(title=f"GFLOPs of {name}: {images} ({tokens}), {text_tokens} text tokens")
    for column in ("part", "dense GFLOPs"):
        table.add_column(column)
    for part, value in gflops["parts"].items():
        table.add_row(part, f"{value:.5g}")
    table.add_row("total", f"{gflops['dense']:.5g}")
    if data is not None:
        from madtp.cli.common import load_data
        from madtp.evaluate import batches, measure_reduction

        some = load_data(task, data, split, limit=limit)
        work = common.make_task(task, processor)
        with common.progress(f"measuring on {some.name} {split}", len(some)) as advance:
            ready = common.tracked(batches(work, some, 32, network.device), advance)
            gflops["reduction"] = measure_reduction(network, work, ready)
        result["n"] = some.n_texts
        table.add_row(f"reduction measured on {some.name}", f"{gflops['reduction']:.3f}")
    common.emit(result, as_json, table)
