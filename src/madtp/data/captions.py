"""Pictures with captions, for captioning and retrieval: COCO and Flickr30k in Karpathy's file and in BLIP's.

Karpathy's (https://cs.stanford.edu/people/karpathy/deepimagesent/) is one file with all splits, BLIP's a file a split.
"""

from madtp.data.faults import pass_over
from madtp.data.files import Entry, read_entries
from madtp.data.gather import Request, group
from madtp.data.sample import CaptionSample, Data
from madtp.errors import InputError

KARPATHY = ("dataset_coco.json", "dataset_flickr30k.json", "dataset_flickr8k.json", "dataset_scenes.json")
# What is not val or test there trains: COCO's "restval" is the part of its val pictures that no split took.
KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
FOLDERS = {
    "coco": ("coco", "../coco", "../coco/images", "../datasets/vision/coco", "../datasets/vision/coco/images"),
    "flickr30k": ("flickr30k-images", "flickr30k_images", "flickr30k", "../flickr30k", "../datasets/vision/flickr"),
}


def load_karpathy(request: Request) -> Data[CaptionSample]:
    """One split of ``dataset_coco.json`` or ``dataset_flickr30k.json``.

    Raises:
        InputError: several such files, a fault in one, or pictures are missing.
    """
    files = request.annotations(*KARPATHY)
    if len(files) > 1:
        raise InputError(f"holds {', '.join(file.name for file in files)}", request.path, "give the one file")
    entries = []
    for entry in read_entries(files[0], "images"):
        split = entry.get("split")
        if not isinstance(split, str) or split not in KARPATHY_SPLITS:
            fix = f"expected one of {', '.join(KARPATHY_SPLITS)}"
            pass_over(InputError(f"the split is {split!r:.60}", entry.where, fix), entry.where)
        elif KARPATHY_SPLITS[split] == request.split:
            entries.append(entry)

    def captions(entry: Entry) -> list[str]:
        sentences = entry.get("sentences")
        if not isinstance(sentences, list) or not all(isinstance(s, dict) and "raw" in s for s in sentences):
            raise InputError("has no list 'sentences' with 'raw' texts", entry.where, "give Karpathy's own file")
        return [entry.words(s["raw"], "raw") for s in sentences if str(s["raw"]).strip()]

    def names(entry: Entry) -> list[str]:
        return ["/".join([*entry.texts("filepath"), entry.text("filename")])]

    more = [place for places in FOLDERS.values() for place in places]
    return request.data(group(entries, names, captions), request.roots(*more), flat=True)


def blip_file(split: str, of: str) -> str:
    """Name of BLIP's file of a split: of ``coco`` or ``flickr30k``."""
    return f"{'coco_karpathy' if of == 'coco' else of}_{split}.json"


def load_blip_captions(request: Request, of: str) -> Data[CaptionSample]:
    """One split of ``coco`` or ``flickr30k`` in BLIP's files: a JSON list of ``{"image", "caption"}``.

    ``caption`` is one text in train, where a picture has several entries, and a list of texts in val and test.

    Raises:
        InputError: no file of the split, a fault in it, or pictures are missing.
    """
    file = request.split_file(blip_file(request.split, of))
    groups = group(read_entries(file), lambda entry: [entry.text("image")], lambda entry: entry.texts("caption"))
    return request.data(groups, request.roots(*FOLDERS[of]))
