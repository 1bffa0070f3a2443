"""Holding out val and test where a data set has none."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from madtp.data.gather import Names, full_id
from madtp.errors import InputError

VAL_SHARE = 0.1


def val_images(image_ids: Iterable[str]) -> frozenset[str]:
    """The tenth of ``image_ids`` (at least one of two or more) that is held out as val.

    They are the ones whose SHA-256 is smallest, so the choice hangs on the ids alone: not on order, seed or process.
    """
    ranked = sorted(set(image_ids), key=lambda image_id: hashlib.sha256(image_id.encode()).hexdigest())
    return frozenset(ranked[: held_out(len(ranked))])


def held_out(count: int) -> int:
    """How many of so many pictures `val_images` holds out."""
    return max(round(count * VAL_SHARE), min(count - 1, 1))


def hold_out(ids: Iterable[str], split: str, where: object, *, test: bool = False) -> frozenset[str]:
    """Those of ``ids`` that make the split where the data has none: val is `val_images`, train the rest.

    Args:
        ids: of all pictures.
        split: "train", "val" or "test".
        where: for error messages.
        test: hold out a test split too, a tenth of what is not val.

    Raises:
        InputError: nothing is left for the split.
    """
    every = frozenset(ids)
    parts = {"val": val_images(every)}
    rest = every - parts["val"]
    parts["test"] = val_images(rest) if test else frozenset()
    parts["train"] = rest - parts["test"]
    if not parts[split]:
        raise InputError(f"too few pictures for split {split!r}", where, f"give at least {'three' if test else 'two'}")
    return parts[split]


def choose_split(parts: Mapping[str, Mapping[Names, Any]], split: str, where: object) -> Mapping[Names, Any]:
    """The groups of a split, held out by `hold_out` where people's own data does not have it.

    Args:
        parts: groups by split; under ``""`` those of data that tells no splits, of which val and test are held out.
            Where there is train but no val, val is held out of train. Test is never made from train.
        split: "train", "val" or "test".
        where: for error messages.

    Raises:
        InputError: there is no such split.
    """
    source, held = split_source(parts, split, where)
    groups = parts[source]
    if held:
        chosen = hold_out(map(full_id, groups), split, where, test=source == "")
        return {names: texts for names, texts in groups.items() if full_id(names) in chosen}
    return groups


def split_source(parts: Collection[str], split: str, where: object) -> tuple[str, bool]:
    """Which of the splits that are there a split is taken from, as `choose_split`; whether others are held out of it.

    Raises:
        InputError: there is no such split.
    """
    source = "" if "" in parts else split if split == "test" or "val" in parts else "train"
    if source not in parts:
        raise InputError(f"no split {split!r}", where, f"it has {', '.join(parts)}")
    return source, source == "" or ("val" not in parts and source == "train")
