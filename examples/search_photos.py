"""Search your photos with a pruned CLIP: an index over a folder, a query in words, a page of what was found.

    python examples/search_photos.py index --model CLIP_FOLDER --photos ~/Pictures --index photos.npz
    python examples/search_photos.py query "a dog on a beach" --index photos.npz --page found.html

Indexing again looks only at photos that are new or have changed.
"""

import argparse
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

import madtp
from madtp.data.images import ImageFile
from madtp.data.table import IMAGE_ENDINGS
from madtp.errors import InputError
from madtp.files import atomic_path, atomic_write
from madtp.pipelines.search import RetrievalPipeline
from madtp.report.html import data_url, document, shrunk


def index(model: str, photos: Path, file: Path, batch_size: int = 32) -> None:
    """Features of every photo under a folder into `file`."""
    found = {
        str(p.resolve()): p.stat().st_mtime for p in sorted(photos.rglob("*")) if p.suffix.lower() in IMAGE_ENDINGS
    }
    known: dict[str, tuple[float, np.ndarray]] = {}
    if file.exists():
        old = np.load(file)
        if str(old["model"]) == str(Path(model).resolve()):
            known = {str(n): (float(t), f) for n, t, f in zip(old["names"], old["times"], old["features"], strict=True)}
    keep = {name: known[name][1] for name, time in found.items() if name in known and known[name][0] == time}
    pipe = madtp.pipeline("retrieval", model=model, batch_size=batch_size)
    fresh, new = [], 0
    for name in found.keys() - keep.keys():
        try:
            fresh.append((name, pipe.task.pixels(ImageFile(name))))
            new += 1
        except InputError as error:
            print(f"left out: {error}")
        if len(fresh) == batch_size:
            keep |= features(pipe, fresh)
            fresh = []
    keep |= features(pipe, fresh)
    names = sorted(keep)
    with atomic_path(file) as part, part.open("wb") as stream:
        np.savez(
            stream,
            model=str(Path(model).resolve()),
            names=np.array(names),
            times=np.array([found[name] for name in names]),
            features=np.array([keep[name] for name in names]),
        )
    print(f"{file}: {len(names)} photos, {new} of them new or changed")


def features(pipe: RetrievalPipeline, fresh: list[tuple[str, Any]]) -> dict[str, np.ndarray]:
    """Name -> feature of length 1."""
    from madtp.answer import see

    seen = see(pipe.model, [pixels for _, pixels in fresh]) if fresh else []
    return {name: one.feature.numpy() for (name, _), one in zip(fresh, seen, strict=True)}


def query(text: str, file: Path, page: Path, count: int = 12) -> None:
    """The photos nearest to a text, in a page."""
    stored = np.load(file)
    pipe = madtp.pipeline("retrieval", model=str(stored["model"]))
    cosines = stored["features"] @ pipe.embed(texts=[text])[0].numpy()
    best = np.argsort(-cosines)[:count]
    figures = []
    for i in best:
        name = str(stored["names"][i])
        print(f"{cosines[i]:.3f}  {Path(name).name}")
        picture = data_url(shrunk(ImageFile(name).open()))
        caption = f"<figcaption>{cosines[i]:.3f} {escape(Path(name).name)}</figcaption>"
        figures.append(f"<figure class='block'><img src='{picture}' alt='{escape(name)}'>{caption}</figure>\n")
    head = f"<header><h1>{escape(text)}</h1></header>\n<main>\n<div class='blocks'>\n"
    atomic_write(page, document(text, [head, *figures, "</div></main>\n"]))
    print(f"{page}: the {len(best)} nearest of {len(cosines)} photos")


def main() -> None:
    """Read the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    indexing = verbs.add_parser("index")
    indexing.add_argument("--model", required=True, help="folder of a pruned CLIP, or of a BLIP for retrieval")
    indexing.add_argument("--photos", type=Path, required=True)
    querying = verbs.add_parser("query")
    querying.add_argument("text")
    querying.add_argument("--page", type=Path, default=Path("found.html"))
    querying.add_argument("--count", type=int, default=12)
    for verb in (indexing, querying):
        verb.add_argument("--index", type=Path, default=Path("photos.npz"))
    options = parser.parse_args()
    if options.verb == "index":
        index(options.model, options.photos, options.index)
    else:
        query(options.text, options.index, options.page, options.count)


if __name__ == "__main__":
    main()
