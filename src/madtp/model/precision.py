"""The type of numbers that a model runs in: float32, bfloat16, or linear maps in int8 (CPU, through torchao)."""

from typing import Any

import torch
from torch import nn

from madtp.errors import InputError
from madtp.model.linear import FastLinear, unpack_weights

FLOAT32, BFLOAT16, INT8 = DTYPES = ("float32", "bfloat16", "int8")


def number_type(dtype: str) -> torch.dtype:
    """torch's type of what goes between the maps; with int8 that is float32. Raises InputError for an unknown name."""
    if dtype not in DTYPES:
        raise InputError(f"unknown type {dtype!r}", "--dtype", f"use {', '.join(DTYPES)}")
    return torch.bfloat16 if dtype == BFLOAT16 else torch.float32


def ready(model: Any, device: str | torch.device, dtype: str = FLOAT32) -> Any:
    """Put a model to use, in place: on its device, in its type, in evaluation mode, its weights laid out.

    Args:
        model: one of ours.
        device: "cpu" or "cuda".
        dtype: "float32", "bfloat16", or "int8" (see `quantize`).

    Raises:
        InputError: an unknown type; int8 on a GPU, or without torchao.
    """
    model.to(device, number_type(dtype)).eval()
    return quantize(model) if dtype == INT8 else model.pack_weights()


def quantize(model: Any) -> Any:
    """Let a model's linear maps multiply in int8, in place: for inference on the CPU alone.

    Weights get one scale an output channel, once; tokens one scale each, as they come: every row of a map is taken by
    itself. But what rounding differs by between batches elsewhere can tip a step of int8, and with it a token that is
    kept: answers are not quite the same in any batch. The guidance, norms, scores, thresholds, embeddings and words'
    own map stay as they are. A quantised model is not to be trained or saved.

    Raises:
        InputError: torchao is not installed, or the model is not on the CPU.
    """
    if model.device.type != "cpu":
        raise InputError("int8 is for the CPU", "--dtype", "use bfloat16 on a GPU")
    try:
        from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_
    except ImportError as error:
        raise InputError("int8 needs torchao, which is not there", "--dtype", "pip install 'madtp[quant]'") from error
    tied = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)}

    def chosen(module: nn.Module, name: str) -> bool:
        guides = name.startswith("madtp_guidance.")
        return isinstance(module, FastLinear) and id(module.weight) not in tied and not guides

    unpack_weights(model)  # what was laid out before would be used still
    quantize_(model, Int8DynamicActivationInt8WeightConfig(), filter_fn=chosen)
    return model
