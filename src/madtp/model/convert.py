"""Checkpoints of the original BLIP and of the public MADTP code, to a folder that `from_pretrained` reads.

Sizes are read off the tensors. What those codes set and transformers' defaults get wrong is set in the config: the
image tower's `layer_norm_eps`, the number of heads, label smoothing, and the ids that begin and end an answer.
"""

import logging
import math
import os
import re
import shutil
import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.model.blip import MadtpBlipForQuestionAnswering
from madtp.model.block import Guidance
from madtp.model.checkpoint import listed, read_checkpoint
from madtp.model.config import MadtpBlipConfig, PruneConfig
from madtp.model.convert_names import ConvertedInfo, map_vision_keys, map_vqa_keys
from madtp.model.load import quiet_host
from madtp.model.save import disk_says

__all__ = ["ConvertedInfo", "convert_vqa", "map_vision_keys", "map_vqa_keys", "vision_sizes", "vqa_config"]

logger = logging.getLogger(__name__)

HEAD_WIDTH = 64  # of every BLIP
BERT_VOCABULARY, BERT_SEP = 30524, 102  # bert-base-uncased with [DEC] and [ENC] behind it


def convert_vqa(
    source: str | Path,
    destination: str | Path,
    *,
    heads: int | None = None,
    start_token_id: int | None = None,
    end_token_id: int | None = None,
    tokenizer: str | None = None,
    overwrite: bool = False,
) -> ConvertedInfo:
    """Convert a BLIP or MADTP checkpoint for VQA to a `MadtpBlipForQuestionAnswering` folder.

    The folder appears whole or not at all. A BLIP checkpoint has no semantic tokens: they start untrained, the same for
    every conversion, and the model is dense. A MADTP checkpoint's temperature goes into `config.madtp`.

    Args:
        source: `.pth` or `.safetensors` file; see `map_vqa_keys` for what it may hold.
        destination: folder to write.
        heads: attention heads of both towers; None = width / 64, as in every BLIP.
        start_token_id: begins an answer; None = [DEC], which stands last but one in BLIP's vocabulary.
        end_token_id: ends an answer; None = BERT's [SEP], for BERT's vocabulary.
        tokenizer: folder or hub id of the tokenizer, e.g. `bert-base-uncased`, to save with image processor beside the
            weights: a checkpoint has no vocabulary. None = the folder gets none.
        overwrite: replace a model folder that is there.

    Raises:
        InputError: the source is no such checkpoint, or the destination is taken or cannot be written.
    """
    source, destination = Path(source), Path(destination)
    checkpoint = read_checkpoint(source)
    _check_destination(source, destination, overwrite)
    try:
        state, info = map_vqa_keys(checkpoint.state)
        info = replace(info, temperature=checkpoint.temperature)
        config = vqa_config(state, info, heads=heads, start_token_id=start_token_id, end_token_id=end_token_id)
        model = _assemble(config, state)
    except InputError as error:
        raise InputError(error, source) from error
    processor = None if tokenizer is None else _processor(tokenizer, config)
    part = destination.absolute().parent / f".{destination.name}.{uuid.uuid4().hex[:8]}.part"
    try:
        part.mkdir(parents=True)
        with quiet_host():
            model.save_pretrained(part)
            if processor is not None:
                processor.save_pretrained(part)
        _put(part, destination)
    except Exception as error:
        if (said := disk_says(error)) is None:
            raise
        raise InputError(f"cannot write: {said}", destination, "free the disk or choose another folder") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
    logger.info("%s: %d tensors converted, %s dropped", source, info.tensors, listed(list(info.dropped)))
    if info.semantic_tokens is None:
        logger.info("%s has no semantic tokens: they start untrained", source)
    return info


def vision_sizes(state: Mapping[str, Tensor], heads: int | None = None) -> dict[str, Any]:
    """Settings of a `BlipVisionConfig`, read off a state dict from `map_vision_keys`.

    Args:
        state: in our names.
        heads: attention heads; None = width / 64.

    Raises:
        InputError: a tensor is missing, or the sizes are not a BLIP's.
    """
    patches = _shape(state, "vision_model.embeddings.patch_embedding.weight", 4)
    positions = _shape(state, "vision_model.embeddings.position_embedding", 3)[1]
    grid = math.isqrt(max(positions - 1, 0))
    if grid < 1 or grid * grid != positions - 1:
        raise InputError(f"{positions} image positions are not a square of patches and one more", fix="see pos_embed")
    return {
        "hidden_size": patches[0],
        "intermediate_size": _shape(state, "vision_model.encoder.layers.0.mlp.fc1.weight", 2)[0],
        "num_hidden_layers": _depth(state, "vision_model.encoder.layers"),
        "num_attention_heads": _heads(patches[0], heads, "image tower"),
        "image_size": grid * patches[-1],
        "patch_size": patches[-1],
        "layer_norm_eps": 1e-6,
        "initializer_range": 0.02,
    }


def vqa_config(
    state: Mapping[str, Tensor],
    info: ConvertedInfo,
    *,
    heads: int | None = None,
    start_token_id: int | None = None,
    end_token_id: int | None = None,
) -> MadtpBlipConfig:
    """The config of a state dict from `map_vqa_keys`; arguments as in `convert_vqa`.

    Raises:
        InputError: a tensor is missing, the sizes are not a BLIP's, or an id must be given.
    """
    vision = vision_sizes(state, heads)
    vocabulary, width = _shape(state, "text_encoder.embeddings.word_embeddings.weight", 2)
    if end_token_id is None:
        if vocabulary != BERT_VOCABULARY:
            raise InputError(
                f"the vocabulary has {vocabulary} entries, not BERT's {BERT_VOCABULARY}",
                fix="give the id of [SEP] (--end-token)",
            )
        end_token_id = BERT_SEP
    start_token_id = vocabulary - 2 if start_token_id is None else start_token_id
    for name, number in (("start_token_id", start_token_id), ("end_token_id", end_token_id)):
        if not 0 <= number < vocabulary:
            raise InputError(f"{name} {number} is outside the vocabulary", fix=f"use 0..{vocabulary - 1}")
    text = {
        "vocab_size": vocabulary,
        "hidden_size": width,
        "encoder_hidden_size": vision["hidden_size"],
        "intermediate_size": _shape(state, "text_encoder.encoder.layer.0.intermediate.dense.weight", 2)[0],
        "num_hidden_layers": _depth(state, "text_encoder.encoder.layer"),
        "num_attention_heads": _heads(width, heads, "text tower"),
        "max_position_embeddings": _shape(state, "text_encoder.embeddings.position_embeddings.weight", 2)[0],
        "bos_token_id": start_token_id,
        "sep_token_id": end_token_id,
        "eos_token_id": end_token_id,
        "label_smoothing": 0.1,
    }
    madtp = PruneConfig(temperature=info.temperature)
    if info.semantic_tokens is not None:
        madtp = replace(madtp, semantic_tokens=info.semantic_tokens)
    return MadtpBlipConfig(vision_config=vision, text_config=text, label_smoothing=0.1, madtp=madtp.to_dict())


def _assemble(config: MadtpBlipConfig, state: dict[str, Tensor]) -> MadtpBlipForQuestionAnswering:
    """A model that holds the tensors of `state`, all of them accounted for."""
    with torch.device("meta"):
        model = MadtpBlipForQuestionAnswering(config)
    fresh = "madtp_guidance." if not any(name.startswith("madtp_guidance.") for name in state) else None
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    missing = [name for name in expected if name not in state and not (fresh and name.startswith(fresh))]
    if missing:
        raise InputError(
            f"missing tensors: {listed(missing)}", fix="a whole checkpoint of BLIP or MADTP for VQA is needed"
        )
    unknown = [name for name in state if name not in expected]
    if unknown:
        raise InputError(f"tensors that a BLIP of these sizes has not: {listed(unknown)}")
    wrong = [
        f"{n} {list(state[n].shape)} for {list(s)}" for n, s in expected.items() if n in state and state[n].shape != s
    ]
    if wrong:
        raise InputError(f"tensors of another shape than the others imply: {listed(wrong)}")
    model.load_state_dict(state, strict=False, assign=True)
    if fresh:
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)  # converting twice gives the same file
            for module in model.modules():
                if isinstance(module, Guidance):
                    module.to_empty(device="cpu")
                    for part in module.modules():
                        model._init_weights(part)
    model.tie_weights()
    return model.eval()


def _shape(state: Mapping[str, Tensor], name: str, dimensions: int) -> torch.Size:
    if name not in state:
        raise InputError(f"missing tensor {name}", fix="a whole checkpoint of BLIP or MADTP for VQA is needed")
    if state[name].dim() != dimensions:
        raise InputError(f"{name} has the shape {list(state[name].shape)}", fix=f"it needs {dimensions} dimensions")
    return state[name].shape


def _depth(state: Mapping[str, Tensor], prefix: str) -> int:
    found = {int(m[1]) for name in state if (m := re.match(rf"{re.escape(prefix)}\.(\d+)\.", name))}
    return max(found, default=-1) + 1


def _heads(width: int, heads: int | None, where: str) -> int:
    count = width // HEAD_WIDTH if heads is None else heads
    if count < 1 or width % count:
        raise InputError(f"{count} heads do not share the {where}'s width of {width}", fix="give the number of heads")
    return count


def _processor(tokenizer: str, config: MadtpBlipConfig) -> Any:
    """BLIP's processor: the tokenizer with [DEC] and [ENC], and images of the checkpoint's size."""
    from transformers import AutoTokenizer, BlipImageProcessorPil, BlipProcessor

    try:
        words = AutoTokenizer.from_pretrained(tokenizer)
    except (OSError, ValueError) as error:
        raise InputError(
            "no tokenizer can be loaded from there", tokenizer, "name a local folder or a hub id"
        ) from error
    vocabulary = config.text_config.vocab_size
    if len(words) == vocabulary - 2:
        words.add_special_tokens({"bos_token": "[DEC]", "extra_special_tokens": ["[ENC]"]})
    if len(words) != vocabulary:
        raise InputError(
            f"has {len(words)} words, the checkpoint {vocabulary}", tokenizer, "name the one it was trained with"
        )
    size = config.vision_config.image_size
    return BlipProcessor(BlipImageProcessorPil(size={"height": size, "width": size}), words)


def _check_destination(source: Path, destination: Path, overwrite: bool) -> None:
    if destination.exists() and not destination.is_dir():
        raise InputError("is a file, not a folder", destination, "choose another folder")
    if not destination.is_dir() or not any(destination.iterdir()):
        return
    if not overwrite:
        raise InputError("is not empty", destination, "choose another folder or add --overwrite")
    if not (destination / "config.json").is_file():
        raise InputError("holds something that is no model", destination, "choose another folder")
    if source.resolve().is_relative_to(destination.resolve()):
        raise InputError("holds the checkpoint itself", destination, "choose another folder")


def _put(part: Path, destination: Path) -> None:
    """Rename `part` to `destination`; what was there goes only once the new folder stands."""
    old = part.with_suffix(".old")
    if destination.is_dir():
        os.replace(destination, old)
    try:
        os.replace(part, destination)
    except OSError:
        if old.is_dir():
            os.replace(old, destination)
        raise
    shutil.rmtree(old, ignore_errors=True)
