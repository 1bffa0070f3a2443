"""Starting a model with fresh weights from the towers of another, made for another task or with other words."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from madtp.errors import InputError

# The cross-attention to one image, which a two-image model has twice (BLIP starts its NLVR2 model so).
_ONCE = re.compile(r"(.*\.crossattention\.)(self|output\.dense)(\..*)")
_WORDS = re.compile(r".*\.word_embeddings\.weight|.*\.cls\.predictions\.(?:bias|decoder\.(?:weight|bias))")


def take_towers(
    model: Any, words: Mapping[str, int], lender: Any, lender_words: Mapping[str, int], source: str
) -> list[str]:
    """Copy what fits of another model's parameters: towers by name, word vectors by word. The rest stays fresh.

    Args:
        model: receives them.
        words: its vocabulary, word -> id.
        lender: gives them; left as it is.
        lender_words: its vocabulary.
        source: what the lender is called, for the error.

    Returns:
        names of the parameters that were taken, in whole or (word vectors) in part.

    Raises:
        InputError: the image tower does not fit, so that little is left to start from.
    """
    mine, theirs = dict(model.named_parameters()), dict(lender.named_parameters())
    given = {copy: tensor for name, tensor in theirs.items() for copy in _copies(name, mine)}
    vision = [name for name in mine if name.startswith("vision_model.")]
    if any(name not in given or given[name].shape != mine[name].shape for name in vision):
        raise InputError("its image tower is of another kind or size", source, "choose the --size it was made with")
    shared = [word for word in words if word in lender_words]
    rows = torch.tensor([words[word] for word in shared])
    their_rows = torch.tensor([lender_words[word] for word in shared])
    taken = []
    with torch.no_grad():
        for name, tensor in given.items():
            if name not in mine or name.startswith("madtp_"):
                continue
            if _WORDS.fullmatch(name) and tensor.shape[1:] == mine[name].shape[1:]:
                mine[name][rows] = tensor[their_rows].to(mine[name])
            elif tensor.shape == mine[name].shape:
                mine[name].copy_(tensor)
            else:
                continue
            taken.append(name)
    return sorted(taken)


def _copies(name: str, mine: Mapping[str, Tensor]) -> list[str]:
    """The parameters of ours that one of the lender's is copied to."""
    once = _ONCE.fullmatch(name)
    if once is None or name in mine:
        return [name]
    return [once.expand(rf"\g<1>\g<2>{side}\g<3>") for side in (0, 1)]
