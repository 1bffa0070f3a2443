"""Peak memory over ten times the data: `predict --data`, `evaluate` of every task, and a training epoch's loaders.

    python benchmarks/memory.py --out runs/memory.json

Real files (a table and PNGs, tars), a model of next to no size, and each run a process of its own, whose peak resident
memory the system tells. Growth a sample = (peak of the larger - peak of the smaller) / (samples of the larger - of the
smaller); in a run without growth it is the noise of a few hundred bytes. Prints a table.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

# No madtp up here: a process counts the peak of the one that started it as its own, so that one stays small.
TASKS = ("vqa", "reasoning", "caption", "retrieval")
SCENES = 64  # different pictures; the others are copies


def prepare(home: Path, count: int) -> None:
    """Models, and data of `count` and ten times as many samples: tables, and tars."""
    import torch

    from madtp.model.save import save_model
    from madtp.model.sizes import Size, build_blip, build_processor
    from madtp.task.registry import task_class

    torch.set_num_threads(1)
    size = Size(image=32, patch=8, width=16, heads=1, vision_layers=2, text_layers=1, semantic=4, std=0.3, mlp=1)
    for task in TASKS:
        from madtp.data.scenes import load_scenes

        scenes = list(load_scenes(task, "val", limit=SCENES))
        words = build_processor(size, task_class(task).words_of(load_scenes(task, "train", limit=SCENES)))
        save_model(build_blip(task, size, len(words.tokenizer)).eval(), words, home / f"model-{task}")
        for times in (1, 10):
            write_table(home / f"{task}-{times}", task, scenes, times * count)
    for times in (1, 10):
        write_tars(home / f"tars-{times}", home / f"caption-{times}" / "images", times)
        write_shards(home / f"shards-{times}", home / f"tars-{times}")


def write_table(folder: Path, task: str, scenes: list[Any], count: int) -> None:
    """A table of `count` samples with two texts each, and a file for every picture of them."""
    import io

    (folder / "images").mkdir(parents=True)
    kept: dict[int, list[bytes]] = {}
    with (folder / "train.jsonl").open("w") as table:
        for k in range(count):
            sample = scenes[k % len(scenes)]
            if k < len(scenes):
                kept[k] = []
                for image in sample.images:
                    image.open().save(file := io.BytesIO(), "PNG")
                    kept[k].append(file.getvalue())
            names = [f"{k:06d}-{i}.png" for i in range(len(sample.images))]
            for name, data in zip(names, kept[k % len(scenes)], strict=True):
                (folder / "images" / name).write_bytes(data)
            for row in rows(task, sample, names):
                table.write(json.dumps(row) + "\n")
    (folder / "val.jsonl").hardlink_to(folder / "train.jsonl")


def rows(task: str, sample: Any, names: list[str]) -> list[dict[str, Any]]:
    """What the table says of a sample."""
    texts, images = sample.texts[:2], [f"images/{name}" for name in names]
    if task == "vqa":
        return [{"image": images[0], "question": q.text, "answer": q.answers[0]} for q in texts]
    if task == "reasoning":
        return [{"left": images[0], "right": images[-1], "statement": s.text, "label": s.label} for s in texts]
    return [{"image": images[0], "captions": list(texts)}]


def write_tars(folder: Path, images: Path, tars: int) -> None:
    """The pictures of a folder in so many tars of alike many."""
    import tarfile

    folder.mkdir()
    names = sorted(images.iterdir())
    for k in range(tars):
        with tarfile.open(folder / f"{k:05d}.tar", "w") as tar:
            for name in names[k * len(names) // tars : (k + 1) * len(names) // tars]:
                tar.add(name, name.name)


def write_shards(folder: Path, tars: Path) -> None:
    """The same pictures, each with captions of its own: tars of the train split."""
    import io
    import tarfile

    folder.mkdir()
    for k, source in enumerate(sorted(tars.iterdir())):
        with tarfile.open(source) as old, tarfile.open(folder / f"train-{k:05d}.tar", "w") as tar:
            for member in old:
                tar.addfile(member, old.extractfile(member))
                stem = member.name.removesuffix(".png")
                text = json.dumps({"captions": [f"picture {stem} of {source.name}, {way}" for way in "ab"]}).encode()
                beside = tarfile.TarInfo(f"{stem}.json")
                beside.size = len(text)
                tar.addfile(beside, io.BytesIO(text))


def load_shards(data: Path, model: Path, streamed: bool) -> None:
    """An epoch of training's batches from shards, streamed or by their index."""
    import torch

    from madtp.data.load import load_data, load_stream
    from madtp.model.load import load_processor
    from madtp.runtime import keep_freed_memory
    from madtp.task.registry import make_task
    from madtp.task.step import rest_of_epoch
    from madtp.task.tolerant import stream

    torch.set_num_threads(1)
    keep_freed_memory()
    task = make_task("caption", load_processor(model))
    source = data / "train-*.tar"
    shards = load_stream("caption", str(source)) if streamed else load_data("caption", str(source), "train")
    dataset = task.dataset(shards, training=True, per_image=1, cache=False)
    for batch in stream(dataset, task, None, **rest_of_epoch(shards, 32, (0, 1), 0, 0, 0, 0)):
        assert len(batch["samples"]) <= 32


def load_epoch(data: Path, model: Path) -> None:
    """An epoch of training's batches, in a drawn order, as the loader makes them."""
    import torch

    from madtp.data.load import load_data
    from madtp.model.load import load_processor
    from madtp.runtime import keep_freed_memory
    from madtp.task.registry import make_task
    from madtp.task.tolerant import stream

    keep_freed_memory()
    task = make_task("vqa", load_processor(model))
    dataset = task.dataset(load_data("vqa", data, "train"), training=True, per_image=1, cache=False)
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(0)).split(32)
    for batch in stream(dataset, task, None, batch_sampler=[some.tolist() for some in order]):
        assert len(batch["samples"]) <= 32


def peak(arguments: list[str]) -> int:
    """Bytes that a process of ours held at most. Raises SystemExit where it fails."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{' '.join(arguments)}: ended with {process.returncode}")
    return usage.ru_maxrss * 1024


def runs(home: Path, times: int) -> dict[str, list[str]]:
    """What is measured, by name, on the smaller or the larger data."""
    made = {}
    for name, data in (("tars", f"tars-{times}"), ("a folder", f"caption-{times}/images")):
        out = home / f"out-{name.replace(' ', '-')}-{times}"
        command = ["predict", "--model", home / "model-caption", "--data", home / data, "--task", "caption"]
        made[f"predict --data, {name}"] = [*command, "--out", out, "--threads", 1, "--beams", 1]
    for task in TASKS:
        command = ["evaluate", "--model", home / f"model-{task}", "--data", home / f"{task}-{times}", "--split", "val"]
        made[f"evaluate, {task}"] = [*command, "--json"]
        if task == "retrieval":
            made["evaluate, retrieval without re-ranking"] = [*command, "--json", "--k-test", 0]
    said = {name: ["-m", "madtp", *map(str, command)] for name, command in made.items()}
    loads = {"": ["--load", home / f"vqa-{times}", home / "model-vqa"]}
    for how in ("indexed", "streamed"):
        loads[f", shards {how}"] = [f"--{how}", home / f"shards-{times}", home / "model-caption"]
    return said | {f"a training epoch's loader{name}": [__file__, *map(str, load)] for name, load in loads.items()}


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=2000, help="of the smaller data")
    parser.add_argument("--only", help="runs whose name begins so")
    parser.add_argument("--out", type=Path, help="JSON file for the results")
    parser.add_argument("--prepare", type=Path, help=argparse.SUPPRESS)
    for name in ("--load", "--indexed", "--streamed"):
        parser.add_argument(name, nargs=2, type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if shards := options.indexed or options.streamed:
        return load_shards(shards[0], shards[1], streamed=bool(options.streamed))
    if options.prepare or options.load:
        load_epoch(*options.load) if options.load else prepare(options.prepare, options.samples)
        return
    lines = []
    print("| | samples | peak, MB | ten times | growth a sample, bytes |\n|---|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        peak([__file__, "--prepare", folder, "--samples", str(options.samples)])
        small, large = runs(Path(folder), 1), runs(Path(folder), 10)
        for name in small:
            if options.only and not name.startswith(options.only):
                continue
            found = [peak(small[name]), peak(large[name])]
            growth = (found[1] - found[0]) / (9 * options.samples)
            lines.append(
                {"run": name, "samples": options.samples, "peak_bytes": found, "bytes_a_sample": round(growth)}
            )
            sizes = " | ".join(f"{size / 1e6:.0f}" for size in found)
            print(f"| {name} | {options.samples} | {sizes} | {growth:.0f} |", flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"runs": lines}, indent=2) + "\n")


if __name__ == "__main__":
    main()
