"""Starting a model with fresh weights from the towers of another, made for another task or with other words."""

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.model.text_pair import both_sides

_WORDS = re.compile(
    r".*\.(?:word_embeddings|token_embedding)\.weight|.*\.cls\.predictions\.(?:bias|decoder\.(?:weight|bias))"
)
_PLACES = re.compile(r"(?:text_encoder|text_decoder\.bert|text_model)\.embeddings\.position_embeddings?\.weight")


def take_towers(
    model: Any, words: Mapping[str, int], lender: Any, lender_words: Mapping[str, int], source: str
) -> list[str]:
    """Copy what fits of another model's parameters: towers by name, word vectors by word. The rest stays fresh.

    Of texts' positions the first are taken where one model reads longer texts than the other.

    Args:
        model: receives them.
        words: its vocabulary, word -> id.
        lender: gives them; left as it is.
        lender_words: its vocabulary.
        source: what the lender is called, for the error.

    Returns:
        names of the parameters that were taken, in whole or (word vectors, positions) in part.

    Raises:
        InputError: the image tower does not fit, so that little is left to start from.
    """
    mine, theirs = dict(model.named_parameters()), dict(lender.named_parameters())
    if "vision_model.pre_layrnorm.weight" in mine and "vision_model.pre_layrnorm.weight" not in theirs:
        theirs = _as_clip(theirs)
    given = {copy: tensor for name, tensor in theirs.items() for copy in ([name] if name in mine else both_sides(name))}
    vision = [name for name in mine if name.startswith("vision_model.")]
    if any(name not in given or given[name].shape != mine[name].shape for name in vision):
        raise InputError("its image tower is of another kind or size", source, "choose the --size it was made with")
    shared = [word for word in words if word in lender_words]
    rows = torch.tensor([words[word] for word in shared], dtype=torch.long)
    their_rows = torch.tensor([lender_words[word] for word in shared], dtype=torch.long)
    taken = []
    with torch.no_grad():
        for name, tensor in given.items():
            if name not in mine or name.startswith("madtp_"):
                continue
            if _WORDS.fullmatch(name) and tensor.shape[1:] == mine[name].shape[1:]:
                mine[name][rows] = tensor[their_rows].to(mine[name])
            elif tensor.shape == mine[name].shape:
                mine[name].copy_(tensor)
            elif _PLACES.fullmatch(name) and tensor.shape[1:] == mine[name].shape[1:]:
                both = min(len(tensor), len(mine[name]))  # a lender that reads longer texts has the first places too
                mine[name][:both] = tensor[:both].to(mine[name])
            else:
                continue
            taken.append(name)
    return sorted(taken)


def take_guidance(model: Any, lender: Any, source: str) -> None:
    """Copy another model's semantic tokens, their number too, and the maps of tokens that go with them.

    What they mean was learned with the lender's towers, so it helps a model whose towers come from the same ones.

    Args:
        model: receives them.
        lender: gives them; left as it is.
        source: what the lender is called, for the error.

    Raises:
        InputError: they are of another width, or other maps go with them.
    """
    mine, theirs = (dict(each.madtp_guidance.named_parameters()) for each in (model, lender))
    tokens = theirs.pop("semantic_tokens")
    width = mine.pop("semantic_tokens").shape[1]
    if tokens.shape[1] != width:
        raise InputError(f"its semantic tokens are {tokens.shape[1]} wide, the model's {width}", source, "use its size")
    if {name: p.shape for name, p in theirs.items()} != {name: p.shape for name, p in mine.items()}:
        raise InputError("other maps of tokens go with its semantic tokens", source, "use a model of the same kind")
    model.renew_semantic_tokens(len(tokens))
    theirs["semantic_tokens"] = tokens
    with torch.no_grad():
        for name, parameter in model.madtp_guidance.named_parameters():
            parameter.copy_(theirs[name])


def _as_clip(theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """BLIP's image tower in CLIP's names; CLIP's norm before the first block, which BLIP has not, keeps the scale."""
    out: dict[str, Tensor] = {}
    for name, tensor in theirs.items():
        if not name.startswith("vision_model."):
            continue
        tensor = tensor.detach()
        if ".qkv." in name:
            out |= {name.replace(".qkv.", f".{part}_proj."): x for part, x in zip("qkv", tensor.chunk(3), strict=True)}
        elif not name.startswith("vision_model.embeddings."):
            out[name.replace(".projection.", ".out_proj.")] = tensor
    embeddings = "vision_model.embeddings."
    positions = theirs[f"{embeddings}position_embedding"].detach()[0].clone()
    positions[1:] += theirs[f"{embeddings}patch_embedding.bias"].detach()  # CLIP's patches have none of their own
    out[f"{embeddings}position_embedding.weight"] = positions
    out[f"{embeddings}patch_embedding.weight"] = theirs[f"{embeddings}patch_embedding.weight"].detach()
    out[f"{embeddings}class_embedding"] = theirs[f"{embeddings}class_embedding"].detach().flatten()
    white = positions[1:] + out[f"{embeddings}patch_embedding.weight"].sum((1, 2, 3))  # of an even picture
    out["vision_model.pre_layrnorm.weight"] = white.std(-1).mean().expand(positions.shape[-1])
    out["vision_model.pre_layrnorm.bias"] = positions.new_zeros(positions.shape[-1])
    return out
