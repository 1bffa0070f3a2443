"""Train on your own CSV: a question model from scratch, compressed to half, judged on held-out pictures.

    python examples/train_on_csv.py [FOLDER]

FOLDER holds table.csv (columns image,question,answer) and the pictures it names; without one, a folder of generated
scenes is made in that form. Tables of captions and of statements go the same way (docs/data.md).
"""

import csv
import sys
from pathlib import Path

from madtp.cli.main import run
from madtp.data.scenes import load_scenes


def generated(folder: Path, pictures: int = 24) -> Path:
    """What a user's own folder looks like."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["image", "question", "answer"])
        for sample in load_scenes("vqa", "train", limit=pictures):
            name = f"images/{sample.image_id}.png"
            sample.image.open().save(folder / name)
            table.writerows([name, question.text, question.answers[0]] for question in sample.questions[:3])
    return folder


def madtp(*words: object) -> None:
    """A command as from a shell; a fault ends the program."""
    print("madtp", *words, flush=True)
    try:
        run([str(word) for word in words])
    except SystemExit as end:
        if end.code:
            raise


data = Path(sys.argv[1]) if len(sys.argv) > 1 else generated(Path("runs/examples/mine"))
out = Path("runs/examples")
few = ("--epochs", 1, "--batch-size", 8, "--overwrite", "--json")  # a real run takes more epochs, and no --json
madtp("train", "--task", "vqa", "--size", "tiny", "--data", data, "--out", out / "dense", *few)
madtp("compress", "--model", out / "dense", "--data", data, "--reduction", 0.5, "--out", out / "half", *few)
madtp("evaluate", "--model", out / "half", "--data", data, "--split", "test")
