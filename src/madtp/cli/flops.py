"""`madtp flops`: what one example costs, by part."""

from typing import Annotated, Any

import typer

from madtp.cli import common


def flops(
    model: common.ModelOption,
    text_tokens: Annotated[
        int, typer.Option("--text-tokens", min=2, help="Tokens of the text, [ENC] and [SEP] included.")
    ] = 12,
    answer_tokens: Annotated[int, typer.Option("--answer-tokens", min=1, help="Decoder steps of the answer.")] = 2,
    data: Annotated[
        str | None, typer.Option("--data", help="Measure the pruned model on this data.", show_default=False)
    ] = None,
    task: common.TaskOption = None,
    split: Annotated[str, typer.Option("--split", help="train, val or test.")] = "val",
    limit: Annotated[int, typer.Option("--limit", min=1, help="Images of --data to measure on.")] = 100,
    as_json: common.JsonOption = False,
) -> None:
    """GFLOPs (multiply-accumulates) of one image and one text, dense; with --data also measured as the model prunes."""
    from rich.table import Table

    from madtp.cost.flops import count
    from madtp.cost.shape import dense_trace
    from madtp.model.shape import shape_of

    common.check_task(task)
    network, processor = common.load_model(model)
    task = common.task_of(network, task, model)
    shape = shape_of(network)
    parts = count(shape.dense, dense_trace(shape, text_tokens, answer_tokens))
    result: dict[str, Any] = {
        "task": task,
        "model": model,
        "text_tokens": text_tokens,
        "answer_tokens": answer_tokens,
        "image_tokens": shape.patches + 1,
        "parameters": sum(p.numel() for p in network.parameters()),
        "gflops": {
            "dense": float(parts.total),
            "parts": {"vision": float(parts.vision), "text": float(parts.text), "decoder": float(parts.decoder)},
        },
        "temperature": network.temperature,
    }
    table = Table(title=f"GFLOPs of {model}: one image ({shape.patches + 1} tokens), {text_tokens} text tokens")
    for column in ("part", "dense GFLOPs"):
        table.add_column(column)
    for name, value in result["gflops"]["parts"].items():
        table.add_row(name, f"{value:.5g}")
    table.add_row("total", f"{result['gflops']['dense']:.5g}")
    if data is not None:
        from madtp.data.load import load_data
        from madtp.evaluate import batches, measure_reduction

        some = load_data(task, data, split, limit=limit)
        work = common.make_task(task, processor)
        result["gflops"]["reduction"] = measure_reduction(network, work, list(batches(work, some, 32, network.device)))
        result["n"] = some.n_texts
        table.add_row(f"reduction measured on {some.name}", f"{result['gflops']['reduction']:.3f}")
    common.emit(result, as_json, table)
