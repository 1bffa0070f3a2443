"""Back to transformers: one of our models as the stock class, without what prunes."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from madtp.errors import InputError
from madtp.model.checkpoint import listed
from madtp.model.folder import check_destination, whole_folder
from madtp.model.load import load, quiet_host
from madtp.model.shape import kind_of, task_of

# Whatever a processor may have written beside the weights.
_PROCESSOR_FILES = (
    "processor_config.json", "preprocessor_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt", "chat_template*",
)  # fmt: skip
_OURS = ("model_type", "architectures", "madtp", "semantic_width")


@dataclass(frozen=True)
class DenseInfo:
    """What was written.

    Attributes:
        task: of the model.
        architecture: name of the stock class.
        tensors: written.
        dropped: names of the parameters that only pruning uses.
    """

    task: str
    architecture: str
    tensors: int
    dropped: tuple[str, ...]


def export_dense(
    source: str | Path, destination: str | Path, *, task: str | None = None, overwrite: bool = False
) -> DenseInfo:
    """Write one of our models as a folder of the stock transformers class, with its processor's files.

    The stock class gives the outputs that ours gives with `temperature=None`. The folder appears whole or not at all.

    Args:
        source: folder of one of our models.
        destination: folder to write.
        task: what the model must be for; None = any.
        overwrite: replace a model folder that is there.

    Raises:
        InputError: the source is no model folder, or of a model that transformers has not, or for another task; or the
            destination is taken or cannot be written.
    """
    source, destination = Path(source), Path(destination)
    if not source.exists():
        raise InputError("no such folder", source, "name a model folder")
    model: Any = load(source)
    check_destination(source, destination, overwrite)
    kind = kind_of(model)
    if task not in (None, task_of(kind)):
        raise InputError(f"is a model for {task_of(kind)}, not for {task}", source, "name its own --task")
    if not hasattr(model, "stock_class"):
        raise InputError("transformers has no model of two images a text, as visual reasoning needs", source)
    try:
        plain, dropped = _stock(model)
    except InputError as error:
        raise InputError(error, source) from error
    with whole_folder(destination) as part, quiet_host():
        plain.save_pretrained(part)
        for file in (file for pattern in _PROCESSOR_FILES for file in source.glob(pattern)):
            shutil.copyfile(file, part / file.name)
    return DenseInfo(task_of(kind), type(plain).__name__, len(list(plain.parameters())), dropped)


def _stock(model: Any) -> tuple[Any, tuple[str, ...]]:
    """The stock model, its parameters shared with ours, and the names of those it has no place for."""
    settings = {key: value for key, value in model.config.to_dict().items() if key not in _OURS}
    with torch.device("meta"):
        plain = model.stock_class(model.stock_class.config_class(**settings))
    state = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("madtp_")}
    wrong = [
        f"{name} {list(state[name].shape)} for {list(tensor.shape)}"
        for name, tensor in plain.state_dict().items()
        if state[name].shape != tensor.shape
    ]
    if wrong:
        raise InputError(
            f"a {type(plain).__name__} has other shapes for {listed(wrong)}",
            fix="its decoder reads what is as wide as the image tower; a model of two widths stays with madtp",
        )
    plain.load_state_dict(state, assign=True)
    plain.tie_weights()
    if getattr(model, "generation_config", None) is not None:
        plain.generation_config = model.generation_config
    ours = tuple(name for name, _ in model.named_parameters() if name.startswith("madtp_"))
    return plain.eval(), ours
