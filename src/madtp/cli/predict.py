"""`madtp predict`: one answer about one image, and what was pruned for it."""

from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.errors import InputError


def predict(
    model: common.ModelOption,
    image: Annotated[str, typer.Option("--image", help="Image file.", show_default=False)],
    text: Annotated[str, typer.Option("--text", help="The question.", show_default=False)],
    task: common.TaskOption = "vqa",
    temperature: Annotated[
        float | None, typer.Option("--temperature", help="Instead of the model's own; 0 = dense.", show_default=False)
    ] = None,
    device: common.DeviceOption = "auto",
    dtype: common.DtypeOption = "float32",
    as_json: common.JsonOption = False,
) -> None:
    """Answer a question about an image; says how many tokens each block kept."""
    from madtp.data.sample import is_text
    from madtp.evaluate import evaluating, to_device
    from madtp.task.vqa import cost

    if not is_text(text):
        raise InputError("is not UTF-8", "--text", "use a terminal that writes UTF-8")
    network, processor = common.load_model(model, device, dtype)
    work = common.make_task(task, processor)
    if temperature is not None:
        network.temperature = temperature or None
    batch = to_device(work.collate([work.example(image, text)]), network.device)
    with evaluating(network):
        (prediction,), encoded = work.predict(network, batch)
        run, full = cost(network, encoded.trace)
    blocks: dict[str, list[int]] = {"vision": [], "text": []}
    for tower, _, tokens in encoded.trace.steps():
        blocks[tower].append(tokens)
    result: dict[str, Any] = {
        "task": task,
        "image": image,
        "text": text,
        "answer": prediction.answer,
        "temperature": network.temperature,
        "gflops": {
            "dense": float(full.total),
            "mean": float(run.total),
            "reduction": 1 - float(run.total / full.total),
        },
        "tokens": blocks,
    }
    saved = f"{100 * result['gflops']['reduction']:.0f}% fewer GFLOPs" if network.temperature else "dense"
    common.emit(result, as_json, f"{prediction.answer}  ({saved}; image tokens after each block: {blocks['vision']})")
