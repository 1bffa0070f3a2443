"""`madtp bench`: what pruning saves in time, beside what it saves in GFLOPs."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import typer

from madtp.cli import common
from madtp.cli.compress import parse_budgets
from madtp.cli.flops import ModelOption, PresetOption, check_text, one_of
from madtp.errors import InputError

WARM = 16  # examples before the counted ones: the kernels of most numbers of tokens are made by then


@dataclass(frozen=True)
class Work:
    """Something to time.

    Attributes:
        name: "towers", or "generate": the whole of captioning.
        run: does it once at the model's temperature and returns its trace.
        renew: gives it other inputs of the same size.
        stock: does it by transformers' own class; None = not asked for.
    """

    name: str
    run: Callable[[], Any]
    renew: Callable[[], None]
    stock: Callable[[], Any] | None = None


def bench(
    preset: PresetOption = None,
    model: ModelOption = None,
    reduction: Annotated[
        str | None,
        typer.Option(
            "--reduction",
            help="Shares of the GFLOPs to save, e.g. 0.5,0.8 (default); of a pruned model: its own temperature.",
            show_default=False,
        ),
    ] = None,
    method: common.MethodOption = None,
    semantic_tokens: Annotated[
        int | None,
        typer.Option("--semantic-tokens", min=1, help="So many fresh ones: more can prune less.", show_default=False),
    ] = None,
    text_tokens: Annotated[
        int, typer.Option("--text-tokens", min=3, help="Tokens of every text, and of the captions generated.")
    ] = 20,
    batch_size: Annotated[str, typer.Option("--batch-size", help="Examples a batch; several, e.g. 1,8.")] = "1",
    pairs: Annotated[int, typer.Option("--pairs", min=1, help="Times that dense and pruned run in turn.")] = 7,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Captioning: beams of the search.")] = 3,
    stock: Annotated[
        bool, typer.Option("--stock", help="Time transformers' own class too, in turn with our dense form.")
    ] = False,
    threads: Annotated[
        int | None, typer.Option("--threads", min=1, help="Threads on the CPU; default: torch's.", show_default=False)
    ] = None,
    device: common.DeviceOption = "auto",
    dtype: common.DtypeOption = "float32",
    seed: common.SeedOption = 0,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder for report.json and report.html.", show_default=False)
    ] = None,
    overwrite: common.OverwriteOption = False,
    as_json: common.JsonOption = False,
) -> None:
    """Time dense (SDPA) against pruned, in turn, on noise for pictures and random words. Needs no data, no network.

    Every pair has inputs of its own, as in use. The temperature is set on the first of them; the reduction is that of
    what was timed.
    """
    import torch

    from madtp.evaluate import evaluating
    from madtp.files import claim_folder
    from madtp.model.precision import number_type, ready
    from madtp.model.presets import random_inputs
    from madtp.model.shape import kind_of
    from madtp.report import check_plots, settings
    from madtp.report.bench_table import bench_table

    if out is not None:
        check_plots()
        claim_folder(out, overwrite)
    name = one_of(preset, model)
    budgets = None if reduction is None else [budget for budget in parse_budgets(reduction) if budget]
    sizes = parse_sizes(batch_size)
    place, number = common.pick_device(device), number_type(dtype)
    if threads is not None:
        torch.set_num_threads(threads)
    network = ready(_network(preset, name, seed, method, semantic_tokens), place, dtype)
    kind = kind_of(network)
    check_text(text_tokens, network.config)

    def works_of(size: int) -> list[Work]:
        inputs: dict[str, Any] = {}
        seeds = count(seed)

        def renew() -> None:
            for key, value in random_inputs(kind, network.config, size, text_tokens, next(seeds)).items():
                tensor = isinstance(value, torch.Tensor)
                inputs[key] = value.to(place, number if value.is_floating_point() else None) if tensor else value

        renew()
        works = [Work("towers", lambda: network.encode(**inputs).trace, renew)]
        if kind == "caption":
            works.append(Work("generate", _captions(network, inputs, text_tokens, beams), renew))
        return _with_stock(works, kind, network, inputs, text_tokens, beams, name) if stock else works

    own = network.temperature is not None and budgets is None
    rows = []
    asked: list[float | None] = [None] if own else list(budgets or (0.5, 0.8))
    lines = len(sizes) * len(asked) * (3 if kind == "caption" else 2)
    with common.progress(name, lines) as advance, evaluating(network):
        for size in sizes:
            works = works_of(size)
            for budget in asked:
                advance(0, "measuring" if budget is None else f"finding the temperature of {budget:g}")
                if budget is not None:
                    _calibrate(network, works[0], budget)
                advance(1)
                for work in works:
                    advance(0, f"timing {work.name}, batch size {size}, {pairs} pairs")
                    made = {"batch": size, "dtype": dtype, "device": place, "reduction_asked": budget}
                    rows.append(made | _row(network, work, size, pairs))
                    advance(1)
    result = {
        "task": "retrieval" if kind == "clip" else kind,
        "model": name,
        "method": network.pruning.method,
        "semantic_tokens": network.pruning.semantic_tokens,
        "parameters": sum(p.numel() for p in network.parameters()),
        "text_tokens": text_tokens,
        "batch_size": list(sizes),
        "pairs": pairs,
        "beams": beams if kind == "caption" else None,
        "threads": torch.get_num_threads(),
        "device": place,
        "dtype": dtype,
        "seed": seed,
        "rows": rows,
        **settings(),
    }
    if out is not None:
        from madtp.report.bench_page import write_bench

        write_bench(out, result)
    common.emit(result, as_json, "" if as_json else bench_table(result))


def parse_sizes(text: str) -> tuple[int, ...]:
    """`"1"` or `"1,8"`. Raises InputError for what is no whole number above 0."""
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise InputError(f"{text!r} is no number of examples", "--batch-size", "use e.g. 1, or 1,8")
    return sizes


def _network(preset: str | None, name: str, seed: int, method: str | None, semantic_tokens: int | None) -> Any:
    import torch

    from madtp.model.load import load
    from madtp.model.presets import build
    from madtp.prune import METHODS

    if method in METHODS and METHODS[method].weights:
        raise InputError(f"{method} takes weights out", "--method", "`madtp compare` times such a model")
    network = build(name, seed) if preset else load(name)
    if method is not None:
        network.pruning = replace(network.pruning, method=method, temperature=None, reduction=None)
    if semantic_tokens is not None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network.renew_semantic_tokens(semantic_tokens)
    return network


def _captions(network: Any, inputs: dict[str, Any], tokens: int, beams: int) -> Callable[[], Any]:
    """The whole of captioning, every caption of the same length whatever the model would say."""

    def run() -> Any:
        encoded = network.encode(**inputs)
        steps = tokens - 1  # behind the start token
        network.generate(encoded=encoded, num_beams=beams, do_sample=False, min_new_tokens=steps, max_new_tokens=steps)
        return encoded.trace

    return run


def _with_stock(
    works: list[Work], kind: str, network: Any, inputs: dict[str, Any], tokens: int, beams: int, name: str
) -> list[Work]:
    """The same works, each with what transformers' own class does for it.

    Raises:
        InputError: transformers has no such class.
    """
    import torch

    from madtp.model.stock import stock_of, towers_of

    try:
        host, _ = stock_of(network)
    except InputError as error:
        raise InputError(error, name, "leave out --stock") from error
    towers, steps = towers_of(kind, host), tokens - 1

    def generate() -> None:
        host.generate(**inputs, num_beams=beams, do_sample=False, min_new_tokens=steps, max_new_tokens=steps)

    runs = {"towers": torch.inference_mode()(lambda: towers(**inputs)), "generate": generate}
    return [replace(work, stock=runs[work.name]) for work in works]


def _gflops(network: Any, traces: list[Any]) -> tuple[Any, Any]:
    """GFLOPs of every example as it was run, and dense."""
    import torch

    from madtp.cost.flops import count, count_dense
    from madtp.model.shape import shape_of

    shape = shape_of(network)
    run, dense = ([of(shape, trace).total for trace in traces] for of in (count, count_dense))
    return torch.cat(run), torch.cat(dense)


def _calibrate(network: Any, work: Work, budget: float) -> None:
    """Set the temperature to the one that saves `budget` of the work's GFLOPs; the mildest, where even that saves more.

    Raises:
        InputError: no temperature saves as much.
    """
    from madtp.cost.budget import find_strength
    from madtp.cost.flops import reduction
    from madtp.prune import METHODS

    def measure(strength: float) -> float:
        network.temperature = strength
        return reduction(*_gflops(network, [work.run()]))

    found = find_strength(measure, budget, METHODS[network.pruning.method].bounds, mildest=True)
    network.pruning = replace(network.pruning, temperature=found.strength, reduction=found.reduction)


def _row(network: Any, work: Work, examples: int, pairs: int) -> dict[str, Any]:
    """One line of the result; the temperature stays as it is."""
    import torch

    from madtp.cost.flops import reduction
    from madtp.cost.latency import time_pairs
    from madtp.cost.memory import peak_bytes

    setting = network.pruning
    traces = []

    def at(temperature: float | None) -> Any:
        network.pruning = replace(setting, temperature=temperature)
        return work.run()

    times = time_pairs(
        lambda: at(None),
        lambda: traces.append(at(setting.temperature)),
        pairs=pairs,
        warmup=max(1, WARM // examples),
        before=work.renew,
    )
    pruned, dense = _gflops(network, traces[-pairs:])  # of what was timed
    blocks = zip(*(trace.tower("vision") for trace in traces[-pairs:]), strict=True)
    kept = [torch.cat([block.tokens_out for block in same]) for same in blocks]
    peaks = {
        f"peak_mb_{form}": round(peak_bytes(lambda strength=strength: at(strength)) / 2**20, 1)  # type: ignore[misc]
        for form, strength in (("dense", None), ("pruned", setting.temperature))
    }
    network.pruning = setting
    gflops = {"dense": float(dense.mean()), "mean": float(pruned.mean())}
    row = {"work": work.name, "temperature": setting.temperature, "gflops": gflops}
    row |= times.account(reduction(pruned, dense), examples) | peaks
    row["tokens_per_block"] = [round(tokens.double().mean().item(), 1) for tokens in kept]
    if work.stock is not None:
        against = time_pairs(work.stock, lambda: at(None), pairs=pairs, before=work.renew)
        network.pruning = setting
        row |= {
            "stock_ms": round(1000 * median(against.baseline) / examples, 3),
            "dense_over_stock": round(against.speedup, 3),
        }
    return row
