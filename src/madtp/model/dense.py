"""Back to transformers: one of our models as the stock class, without what prunes."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from madtp.errors import InputError
from madtp.model.folder import check_destination, whole_folder
from madtp.model.load import load, quiet_host
from madtp.model.shape import kind_of, task_of
from madtp.model.stock import stock_of
from madtp.pace import growing

# Whatever a processor may have written beside the weights.
_PROCESSOR_FILES = (
    "processor_config.json", "preprocessor_config.json", "tokenizer*", "special_tokens_map.json", "added_tokens.json",
    "vocab.*", "merges.txt", "chat_template*",
)  # fmt: skip


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
    try:
        plain, dropped = stock_of(model)
    except InputError as error:
        raise InputError(error, source) from error
    size = sum(parameter.nbytes for parameter in plain.parameters())
    with whole_folder(destination) as part, quiet_host(), growing(part, size):
        plain.save_pretrained(part)
        for file in (file for pattern in _PROCESSOR_FILES for file in source.glob(pattern)):
            shutil.copyfile(file, part / file.name)
    return DenseInfo(task_of(kind), type(plain).__name__, len(list(plain.parameters())), dropped)
