"""Throughput of `madtp predict --data`, on both engines, against the library's own forward on the same cores.

    python benchmarks/collection.py --out runs/collection.json

Generated pictures as JPEGs of 640 x 480 in tars, a full-size model with random weights. In turn, round after round:
the model's forward in this process on pictures that are decoded already, batch by batch, as `madtp bench` does it;
`--engine local`, one model on as many threads; `--engine ray`, a model a core. A job's rate is that of its steady
state: of the parts that come behind the first few. Core-seconds are those of all processes of a job. Where others use
the machine, pictures a second say little, and those a core-second are true only with `--threads 1`: threads that wait
for each other burn time. Prints the medians over the rounds as a table.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from PIL import Image

from madtp.cli.bench import Work, _calibrate
from madtp.cli.common import load_model
from madtp.collection.inputs import find_inputs
from madtp.collection.job import Job
from madtp.collection.read import read
from madtp.collection.stages import Predict, decode
from madtp.data.scenes import load_scenes
from madtp.evaluate import evaluating
from madtp.model.clip_sizes import ClipSize, build_clip_processor
from madtp.model.presets import PRESETS, SEMANTIC_TOKENS, build, find_preset
from madtp.model.save import save_model
from madtp.model.sizes import Size, build_processor
from madtp.report import settings
from madtp.runtime import keep_freed_memory
from madtp.task.registry import task_class

SIDES = 640, 480
FORWARD = "forward"
PRESETS_HERE = [name for name, preset in PRESETS.items() if preset.kind in ("clip", "retrieval")]


def picture(place: int) -> bytes:
    """A generated picture of a photograph's size and weight: a scene, with grain."""
    scene = load_scenes("caption", "val", limit=64)[place % 64].image.open().resize(SIDES, Image.Resampling.BICUBIC)
    grain = np.random.default_rng(place).normal(0, 6, (*SIDES[::-1], 1))
    file = io.BytesIO()
    Image.fromarray((np.asarray(scene) + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=85)
    return file.getvalue()


def write_shards(folder: Path, tars: int, pictures: int) -> int:
    """So many tars of so many pictures; returns the bytes of all pictures."""
    folder.mkdir(parents=True)
    total = 0
    for k in range(tars):
        with tarfile.open(folder / f"{k:05d}.tar", "w") as tar:
            for i in range(pictures):
                data = picture(k * pictures + i)
                header = tarfile.TarInfo(f"{i:05d}.jpg")
                header.size = len(data)
                tar.addfile(header, io.BytesIO(data))
                total += len(data)
    return total


def write_model(folder: Path, preset: str) -> str:
    """A model of a preset with random weights, and a processor; returns its kind."""
    sizes = find_preset(preset)
    texts = list(task_class("caption").words_of(load_scenes("caption", "train", limit=64)))
    shape = sizes.image, sizes.patch, sizes.vision[0], sizes.vision[2], sizes.vision[1], 12, SEMANTIC_TOKENS
    made: Any = build_clip_processor if sizes.kind == "clip" else build_processor
    size: Any = ClipSize(*shape) if sizes.kind == "clip" else Size(*shape)
    save_model(build(preset), made(size, texts), folder)
    return sizes.kind


@dataclass(frozen=True)
class Spent:
    """What some pictures took: how many, wall time, core-seconds."""

    pictures: int
    wall: float
    cores: float

    def rates(self) -> dict[str, float]:
        """Pictures a second, and a core-second."""
        return {"a_second": self.pictures / self.wall, "a_core_second": self.pictures / self.cores}


def predict(engine: str, out: Path, options: list[str], size: int, skip: int) -> Spent:
    """Run a job as a user does; its steady state: what came behind `skip` parts of `size` pictures."""
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "madtp", "predict", "--engine", engine, "--out", str(out), *options, "--json"]
    seen: list[tuple[int, float, float]] = []
    spent: dict[int, float] = {}
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            count = sum(file.suffix == ".parquet" for file in (out / "parts").glob("*"))
            if count >= skip and (not seen or seen[-1][0] != count):
                seen.append((count, time.perf_counter(), add_core_seconds(process.pid, spent)))
            time.sleep(0.05)
    if process.returncode or len(seen) < 2:
        raise SystemExit(f"{engine}: it ended with {process.returncode}, and {len(seen)} parts were seen")
    (first, begin, before), (last, end, after) = seen[0], seen[-1]
    return Spent((last - first) * size, end - begin, after - before)


def add_core_seconds(pid: int, spent: dict[int, float]) -> float:
    """Note what a process and those that it started have spent, those that have ended included; the sum."""
    with suppress(psutil.NoSuchProcess):
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            with suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                spent[process.pid] = times.user + times.system
    return sum(spent.values())


def timed(work: Callable[[], object], pictures: int) -> Spent:
    """What work in this process takes."""
    begin, before = time.perf_counter(), time.process_time()
    work()
    return Spent(pictures, time.perf_counter() - begin, time.process_time() - before)


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS_HERE, default="clip-vit-base-16")
    parser.add_argument("--reduction", type=float, default=0.5, help="0 = dense")
    parser.add_argument("--pictures", type=int, default=384)
    parser.add_argument("--batch-size", type=int, default=16, help="a part is as many")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of forward and local")
    parser.add_argument("--engines", nargs="+", choices=("local", "ray"), default=["local", "ray"])
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    options = parser.parse_args()
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as home:
        result = measure(options, Path(home))
    print(table(result))
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(result, indent=2) + "\n")


def measure(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """All rounds."""
    cores = len(os.sched_getaffinity(0))
    size = options.batch_size
    per_tar = 6 * size
    tars = -(-options.pictures // per_tar)
    data, folder, count = home / "data", home / "model", tars * per_tar
    weight = write_shards(data, tars, per_tar)
    kind = write_model(folder, options.preset)
    job = Job(str(folder), "embed", home, batch_size=size, part_size=size, kind=kind, threads=options.threads)
    with evaluating(torch.nn.Identity()):
        inputs = find_inputs(str(data), size)
        chunks: list[Any] = []
        reading = timed(lambda: chunks.extend(chunk for one in inputs for chunk in read(job, one)), count)
        decode(job, next(iter(read(job, inputs[0]))))  # the processor is loaded
        decoded: list[Any] = []
        torch.set_num_threads(1)
        decoding = timed(lambda: decoded.extend(decode(job, chunk) for chunk in chunks), count)
        reached = calibrate(folder, decoded[0], job, options.reduction)
        model = Predict(job)

        def forward() -> None:
            for part in decoded:
                model.model.see(model.pixels(part.pixels))

        for part in decoded[:1]:
            model(part)  # warm
        rounds = []
        for number in range(options.rounds):
            row = {FORWARD: timed(forward, count).rates()}
            given = ["--model", str(folder), "--data", str(data), "--task", job.task]
            given += ["--batch-size", str(size), "--part-size", str(size)]
            for engine in options.engines:
                threads = options.threads if engine == "local" else 1
                how = [*given, "--threads", str(threads)]
                row[engine] = predict(engine, home / "out", how, size, 1 if engine == "local" else 2 * cores).rates()
            rounds.append(row)
            print(f"round {number + 1}: {json.dumps(row)}", file=sys.stderr, flush=True)
    units = "a_second", "a_core_second"
    return {
        "preset": options.preset,
        "task": job.task,
        "reduction": reached,
        "count": count,
        "batch_size": size,
        "cores": cores,
        "threads": options.threads,
        "kilobytes_a_picture": weight / count / 1e3,
        "read_ms": 1e3 * reading.cores / count,
        "decode_ms": 1e3 * decoding.cores / count,
        "rounds": rounds,
        "pictures": {name: {unit: median(row[name][unit] for row in rounds) for unit in units} for name in rounds[0]},
        "of_forward": {
            name: {unit: median(row[name][unit] / row[FORWARD][unit] for row in rounds) for unit in units}
            for name in options.engines
        },
        **settings(),
    }


def calibrate(folder: Path, part: Any, job: Job, asked: float) -> float:
    """Have the saved model prune as asked, found on the pictures of a part; what it saves of the tower's GFLOPs."""
    if not asked:
        return 0.0
    network, processor = load_model(str(folder))
    stage = Predict(job)
    pixels = stage.pixels(part.pixels)
    _calibrate(network, Work("tower", lambda: network.see(pixels).trace, lambda: None), asked)
    shutil.rmtree(folder)
    save_model(network, processor, folder)
    return float(network.pruning.reduction)


def table(result: dict[str, Any]) -> str:
    """Markdown."""
    rates, rounds = result["pictures"], result["rounds"]
    lines = ["| | pictures a second | of the forward's | pictures a core-second | of the forward's |"]
    lines.append("|---|---:|---:|---:|---:|")
    for name, rate in rates.items():
        cells = []
        for unit, value in rate.items():
            each = sorted(row[name][unit] / row[FORWARD][unit] for row in rounds)
            share = (
                f"{result['of_forward'][name][unit]:.2f} ({each[0]:.2f} to {each[-1]:.2f})" if name != FORWARD else ""
            )
            cells += [f"{value:.2f}", share]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    said = f"{result['preset']}, {result['task']}, reduction {result['reduction']:.3f}, {result['count']} pictures"
    said += f" of {result['kilobytes_a_picture']:.0f} kB, {result['cores']} cores, {result['threads']} threads;"
    said += f" a core reads one in {result['read_ms']:.2f} ms and decodes it in {result['decode_ms']:.1f} ms"
    return "\n".join([said, "", *lines])


if __name__ == "__main__":
    main()
