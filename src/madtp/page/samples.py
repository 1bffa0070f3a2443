"""Examples to click: generated scenes, written as files that the page can serve."""

from collections.abc import Sequence
from pathlib import Path

from madtp.data.load import load_data

COUNT = 6


def write_samples(task: str, folder: Path, count: int = COUNT) -> list[list[str]]:
    """A few scenes of a task as `[picture file, ..., text]`; in captioning the text is "".

    Args:
        task: name.
        folder: for the pictures; made if it is not there.
        count: of the examples.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, sample in enumerate(load_data(task, "scenes", "test", limit=count).samples):
        files = []
        for side, image in enumerate(sample.images):
            file = folder / f"{task}-{number}-{side}.png"
            image.open().save(file)
            files.append(str(file))
        rows.append([*files, "" if task == "caption" else _text(sample.texts, number)])
    return rows


def _text(texts: Sequence[object], number: int) -> str:
    """Another text of every sample: the first ones are much alike."""
    some = texts[number % len(texts)]
    return str(getattr(some, "text", some))
