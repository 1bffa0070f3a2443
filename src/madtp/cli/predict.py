"""`madtp predict`: one answer about one image (or two), and what was pruned for it; or answers about a collection."""

from typing import Annotated, Any

import typer

from madtp.cli import collection, common
from madtp.errors import InputError


def predict(
    model: common.ModelOption,
    image: Annotated[
        list[str] | None,
        typer.Option("--image", help="Image file; twice for a statement about two.", show_default=False),
    ] = None,
    data: collection.DataOption = None,
    text: Annotated[
        str | None, typer.Option("--text", help="The question, statement or caption.", show_default=False)
    ] = None,
    task: collection.TaskOption = None,
    out: collection.OutOption = None,
    engine: collection.EngineOption = "local",
    address: collection.AddressOption = None,
    actors: collection.ActorsOption = None,
    threads: collection.ThreadsOption = None,
    batch_size: common.BatchOption = 32,
    part_size: collection.PartOption = 256,
    choices: collection.ChoicesOption = None,
    temperature: common.TemperatureOption = None,
    reduction: common.ReductionOption = None,
    prompt: common.PromptOption = None,
    beams: common.BeamsOption = None,
    device: common.DeviceOption = "auto",
    dtype: common.DtypeOption = "float32",
    as_json: common.JsonOption = False,
) -> None:
    """Answer a question, judge a statement or caption an image; says how many tokens each block kept.

    With --data instead of --image: answers about a whole collection, written to --out (docs/scale.md).
    """
    if data is not None:
        if image:
            raise InputError("give one of --image and --data", "predict")
        collection.predict(
            data, out, model, task, text, choices, engine, address, actors,
            batch_size=batch_size, part_size=part_size, prompt=prompt, beams=beams,
            temperature=temperature, reduction=reduction, device=device, dtype=dtype, threads=threads, as_json=as_json,
        )  # fmt: skip
        return
    if not image:
        raise InputError("give --image, or --data for a collection", "predict")
    given = {
        "--out": out, "--choices": choices, "--address": address, "--actors": actors, "--threads": threads,
        "--engine": None if engine == "local" else engine,
    }  # fmt: skip
    for option, value in given.items():
        if value is not None:
            raise InputError("goes with --data", option, "leave it out")
    from madtp.data.sample import is_text
    from madtp.evaluate import evaluating, to_device
    from madtp.task.base import cost

    common.check_task(task)
    if text is not None and not is_text(text):
        raise InputError("is not UTF-8", "--text", "use a terminal that writes UTF-8")
    network, processor = common.load_model(model, device, dtype)
    task = common.task_of(network, task, model)
    work = common.make_task(task, processor, prompt=prompt, beams=beams)
    if task == "caption" and text is not None:
        raise InputError("is nothing for caption", "--text", "leave it out; --prompt begins a caption")
    if task != "caption" and not (text or "").strip():
        raise InputError("is missing", "--text", f"{task} needs a text")
    common.set_budget(network, temperature, reduction)
    batch = to_device(work.collate([work.example(image, text or "")]), network.device)
    with evaluating(network):
        (prediction,), encoded = work.predict(network, batch)
        run, full = cost(network, encoded.trace)
    blocks: dict[str, list[int]] = {}
    for tower, _, tokens in encoded.trace.steps():
        blocks.setdefault(tower, []).append(tokens)
    if len(image) > 1:
        blocks["vision_right"] = [int(block.tokens_out[1]) for block in encoded.trace.tower("vision")]
    result: dict[str, Any] = {
        "task": task,
        "image": image[0] if len(image) == 1 else image,
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
    seen = " and ".join(str(blocks[tower]) for tower in ("vision", "vision_right") if tower in blocks)
    common.emit(result, as_json, f"{prediction.answer}  ({saved}; image tokens after each block: {seen})")
