"""Checkpoints of the original BLIP, of CLIP and of the public MADTP code, to a folder that `from_pretrained` reads."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from madtp.errors import InputError
from madtp.model.block import Guidance
from madtp.model.checkpoint import listed, read_checkpoint
from madtp.model.config import MadtpBlipConfig, MadtpCLIPConfig
from madtp.model.convert_clip import clip_config, map_clip_keys
from madtp.model.convert_config import blip_config
from madtp.model.convert_names import BLIP_PARTS, ConvertedInfo, bare, kinds_of, map_blip_keys
from madtp.model.folder import check_destination, whole_folder
from madtp.model.load import name_first_tokens, own_code, quiet_host
from madtp.model.shape import class_of, task_of
from madtp.pace import growing, tell

__all__ = ["AUTO", "ConvertedInfo", "convert"]

logger = logging.getLogger(__name__)

AUTO = "auto"  # the task that the checkpoint's names tell


def convert(
    source: str | Path,
    destination: str | Path,
    *,
    task: str = AUTO,
    heads: int | None = None,
    start_token_id: int | None = None,
    end_token_id: int | None = None,
    tokenizer: str | None = None,
    overwrite: bool = False,
) -> ConvertedInfo:
    """Convert a checkpoint of BLIP, CLIP or MADTP to a folder of one of our models.

    The folder appears whole or not at all. A checkpoint of BLIP or CLIP has no semantic tokens: they start untrained,
    the same for every conversion, and the model is dense. A MADTP checkpoint's temperature goes into `config.madtp`.

    Args:
        source: `.pth`, TorchScript archive or `.safetensors` file, in public names (`madtp.model.convert_names`,
            `madtp.model.convert_clip`).
        destination: folder to write.
        task: vqa, reasoning, caption or retrieval; "auto" = the one that the names tell. BLIP's pre-trained checkpoint
            fits several, and one must be said.
        heads: attention heads of both towers; None = width / 64, as in every BLIP and CLIP.
        start_token_id: begins an answer or caption; None = [DEC], which stands last but one in BLIP's vocabulary.
        end_token_id: ends it; None = BERT's [SEP], for BERT's vocabulary.
        tokenizer: folder or hub id of the tokenizer, e.g. `bert-base-uncased`, to save with image processor beside the
            weights: a checkpoint has no vocabulary. None = the folder gets none.
        overwrite: replace a model folder that is there.

    Raises:
        InputError: the source is no such checkpoint, or one for another task, or the destination is taken or cannot be
            written.
    """
    source, destination = Path(source), Path(destination)
    rewritten = source.stat().st_size if source.is_file() else 0  # about as much is to be written as is read
    tell(0, rewritten)
    checkpoint = read_checkpoint(source)
    check_destination(source, destination, overwrite)
    ids = {"start_token_id": start_token_id, "end_token_id": end_token_id}
    try:
        given = bare(checkpoint.state)
        kind = _kind(given, task)
        if "text_decoder" not in BLIP_PARTS.get(kind, ()) and any(number is not None for number in ids.values()):
            raise InputError("a model without a decoder writes no text", fix="leave out --start-token and --end-token")
        state, info = map_clip_keys(given) if kind == "clip" else map_blip_keys(given, kind)
        info = replace(info, temperature=checkpoint.temperature, kind=kind)
        config: MadtpBlipConfig | MadtpCLIPConfig
        if kind == "clip":
            config = clip_config(state, info, heads=heads)
        else:
            config = blip_config(state, info, kind, heads=heads, **ids)
        model = _assemble(kind, config, state)
    except InputError as error:
        raise InputError(error, source) from error
    processor = None if tokenizer is None else _processor(kind, tokenizer, config)
    size = sum(parameter.nbytes for parameter in model.parameters())
    with whole_folder(destination) as part, quiet_host(), growing(part, size, rewritten):
        model.save_pretrained(part)
        if processor is not None:
            processor.save_pretrained(part)
    logger.info("%s: %d tensors converted, %s dropped", source, info.tensors, listed(list(info.dropped)))
    if info.semantic_tokens is None:
        logger.info("%s has no semantic tokens: they start untrained", source)
    return info


def _kind(state: Mapping[str, Tensor], task: str) -> str:
    """What to make of tensors in public names: a key of `madtp.model.shape.CLASSES`."""
    tasks = list(BLIP_PARTS)
    if task not in (AUTO, *tasks):
        raise InputError(f"unknown task {task!r}", fix=f"use {AUTO}, {_either(tasks)}")
    kinds = kinds_of(state)
    fit = [kind for kind in kinds if task in (AUTO, task_of(kind))]
    if len(fit) == 1:
        return fit[0]
    meant = _either([task_of(kind) for kind in kinds])
    if fit:
        raise InputError(f"is a pre-trained checkpoint, which can become a model for {meant}", fix="choose with --task")
    if kinds:
        raise InputError(
            f"is a checkpoint for {meant}, not for {task}", fix="name its own --task or another checkpoint"
        )
    if task == AUTO:
        raise InputError(
            f"is not a whole checkpoint of BLIP, CLIP or MADTP for any task, by its names: {listed(set(state))}",
            fix="name the --task to be told what it lacks",
        )
    return task  # what is missing or unknown is told when it is mapped


def _either(words: list[str]) -> str:
    """`a, b or c`."""
    return " or ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))


def _assemble(kind: str, config: MadtpBlipConfig | MadtpCLIPConfig, state: dict[str, Tensor]) -> Any:
    """A model that holds the tensors of `state`, all of them accounted for."""
    with torch.device("meta"):
        model = class_of(kind)(config)
    fresh = "madtp_guidance." if not any(name.startswith("madtp_guidance.") for name in state) else None
    expected = {name: parameter.shape for name, parameter in model.named_parameters()}
    missing = [name for name in expected if name not in state and not (fresh and name.startswith(fresh))]
    if missing:
        raise InputError(f"missing tensors: {listed(missing)}", fix="a whole checkpoint is needed")
    unknown = [name for name in state if name not in expected]
    if unknown:
        raise InputError(f"tensors that a {type(model).__name__} of these sizes has not: {listed(unknown)}")
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


def _processor(kind: str, tokenizer: str, config: MadtpBlipConfig | MadtpCLIPConfig) -> Any:
    """The tokenizer, for BLIP with [DEC] and [ENC], and images of the checkpoint's size."""
    from transformers import AutoTokenizer, BlipImageProcessorPil, BlipProcessor, CLIPImageProcessorPil, CLIPProcessor

    try:
        with quiet_host():
            words = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except Exception as error:  # damaged files make the host stumble anywhere
        said = own_code(error) or "no tokenizer can be loaded from there"
        raise InputError(said, tokenizer, "name a local folder or a hub id") from error
    vocabulary, size = config.text_config.vocab_size, config.vision_config.image_size
    if kind != "clip":
        name_first_tokens(words, vocabulary)
    if len(words) != vocabulary:
        raise InputError(
            f"has {len(words)} words, the checkpoint {vocabulary}", tokenizer, "name the one it was trained with"
        )
    square = {"height": size, "width": size}
    if kind == "clip":
        return CLIPProcessor(CLIPImageProcessorPil(size={"shortest_edge": size}, crop_size=square), words)
    return BlipProcessor(BlipImageProcessorPil(size=square), words)
