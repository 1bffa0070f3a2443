"""Loading a model folder whose class is not known beforehand, and the processor beside it."""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from madtp.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

logger = logging.getLogger(__name__)

# `architectures` of config.json -> kind of model (madtp.model.shape). A stock model loads as ours, dense.
CLASSES = {
    "BlipForQuestionAnswering": "vqa",
    "BlipForConditionalGeneration": "caption",
    "BlipForImageTextRetrieval": "retrieval",
    "CLIPModel": "clip",
    "MadtpBlipForQuestionAnswering": "vqa",
    "MadtpBlipForVisualReasoning": "reasoning",
    "MadtpBlipForConditionalGeneration": "caption",
    "MadtpBlipForImageTextRetrieval": "retrieval",
    "MadtpCLIPModel": "clip",
}
MODEL_TYPES = {"blip": "blip", "madtp_blip": "blip", "clip": "clip", "madtp_clip": "clip"}  # -> family
MOST, MOST_LAYERS = 2**20, 256  # of any whole number in a config.json, and of layers
_HUB_ID = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}")
_LAYER = re.compile(r"\.layers?\.\d+\.")


def load(path: str | Path, **kwargs: Any) -> "PreTrainedModel":
    """Load a model of ours, or a stock BLIP or CLIP as one of ours, from a folder or a hub id.

    Args:
        path: folder with config.json and weights, or a hub id.
        **kwargs: passed to `from_pretrained`.

    Raises:
        InputError: no such folder, no config.json, an architecture that is not supported, or weights that are missing,
            cut short, or of another shape than config.json says.
    """
    folder = Path(path)
    if os.path.isfile(folder):  # os.path's do not raise where a name is too long
        raise InputError("is a file, not a model folder", path, "convert a checkpoint with `madtp convert` first")
    config = _config(path, kwargs)
    if os.path.isdir(folder):
        _check_weights(folder)
    cls = _class(config, path)
    try:
        with quiet_host():
            model, report = cls.from_pretrained(path, output_loading_info=True, **kwargs)
    except InputError as error:
        raise InputError(error, folder / "config.json") from error
    except OSError as error:
        raise InputError(f"no weights can be loaded: {error}", path) from error
    except Exception as error:  # a config of strange values can make the host stumble anywhere
        fix = "keep config.json and weights of one model together"
        if "mismatch" in str(error):
            raise InputError("the weights have other shapes than config.json says", path, fix) from error
        said = f"no model can be made of its config.json and weights: {short(error)}"
        raise InputError(said, path, fix) from error
    _check_report(report, config, path)
    return model


def load_processor(path: str | Path) -> "ProcessorMixin":
    """The stock processor (images and tokenizer) of a model folder or hub id: a `BlipProcessor` or a `CLIPProcessor`.

    As their `from_pretrained`, without the host's warning that our model type is not one of its own; with [DEC] and
    [ENC] where BLIP's model has them and its tokenizer has not.

    Raises:
        InputError: there is none, no config.json to tell which, or one that asks for code of its own.
    """
    from transformers import BlipProcessor, CLIPProcessor

    config = _config(path, {})
    cls: Any = CLIPProcessor if MODEL_TYPES.get(str(config.get("model_type"))) == "clip" else BlipProcessor
    try:
        with quiet_host():
            processor: ProcessorMixin = cls.from_pretrained(path, trust_remote_code=False)
    except Exception as error:  # damaged files make the host stumble anywhere
        fix = f"save the {cls.__name__} into the folder"
        raise InputError(own_code(error) or f"no processor beside the model: {short(error)}", path, fix) from error
    text = config.get("text_config")
    if cls is BlipProcessor and isinstance(text, dict):
        name_first_tokens(processor.tokenizer, text.get("vocab_size"), text.get("bos_token_id"))
    return processor


def name_first_tokens(tokenizer: Any, vocabulary: int | None, start: int | None = None) -> None:
    """Add [DEC] and [ENC] to a tokenizer that lacks the model's last two words, as those of the hub's BLIPs do.

    BLIP was trained with them in front of texts that it writes and of texts that look at a picture.

    Args:
        tokenizer: gets them.
        vocabulary: words of the model.
        start: the model's `bos_token_id`; None = not known.
    """
    if vocabulary is not None and len(tokenizer) == vocabulary - 2 and start in (None, vocabulary - 2):
        tokenizer.add_special_tokens({"bos_token": "[DEC]", "extra_special_tokens": ["[ENC]"]})


def is_hub_id(path: str | Path) -> bool:
    """`owner/name`, unless there is a folder of the owner's name here: then a folder was meant."""
    text = str(path)
    return bool(_HUB_ID.fullmatch(text)) and not text.startswith(".") and not os.path.isdir(text.partition("/")[0])


def own_code(error: Exception) -> str | None:
    """What to say where the host would have had to run code that lies beside a model; None if `error` is another."""
    return "asks for code of its own, which is never run" if "custom code" in str(error) else None


def short(error: BaseException) -> str:
    """Type and text of an error that is not ours, at most 200 characters on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def _config(path: str | Path, kwargs: dict[str, Any]) -> dict[str, Any]:
    """What config.json says, of a folder or a hub id; `kwargs` are those of `from_pretrained`."""
    if os.path.isdir(path):
        return _folder_config(Path(path))
    if is_hub_id(path):
        return _hub_config(str(path), kwargs)
    raise InputError("no such folder", path, "name a model folder or a hub id")


def _folder_config(folder: Path) -> dict[str, Any]:
    file = folder / "config.json"
    if not file.is_file():
        raise InputError("no config.json in this folder", folder, "name a model folder (see `madtp convert`)")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise InputError(f"not JSON: {error}", file) from error
    except RecursionError as error:
        raise InputError("not JSON that can be read: nested too deep", file) from error
    if not isinstance(config, dict):
        raise InputError("holds no JSON object", file)
    _check_sizes(config, file)
    return config


def _check_sizes(config: Any, file: Path, name: str = "") -> None:
    """Refuse numbers with which the empty model alone would fill memory."""
    if name.count(".") > 20:
        raise InputError("nested too deep", file)
    for key, value in config.items() if isinstance(config, dict) else ():
        most = MOST_LAYERS if "layers" in str(key) else MOST
        if isinstance(value, int) and value > most:
            raise InputError(f"{name}{key} is {value}, more than {most}", file, "give the config of the weights")
        _check_sizes(value, file, f"{name}{key}.")


def _hub_config(name: str, kwargs: dict[str, Any]) -> dict[str, Any]:
    from transformers import PreTrainedConfig

    keys = ("revision", "cache_dir", "token", "local_files_only", "subfolder")
    try:
        with quiet_host():
            config: dict[str, Any] = PreTrainedConfig.get_config_dict(
                name, **{key: kwargs[key] for key in keys if key in kwargs}
            )[0]
    except OSError as error:
        raise InputError("no such folder, and no model of this name on the hub can be reached", name) from error
    return config


def _class(config: dict[str, Any], path: str | Path) -> Any:
    file, model_type = Path(path) / "config.json", config.get("model_type")
    names = config.get("architectures")
    if not names and model_type in MODEL_TYPES:
        fix = 'add it, e.g. "architectures": ["BlipForQuestionAnswering"]'
        raise InputError('says no "architectures", and so not what the model is for', file, fix)
    architecture = str(names[0] if isinstance(names, list) and names else names)
    if model_type not in MODEL_TYPES or architecture not in CLASSES:
        said = f"architecture {architecture} (model_type {model_type}) is not supported"
        raise InputError(said, file, f"supported are {', '.join(CLASSES)}")
    if (CLASSES[architecture] == "clip") != (MODEL_TYPES[model_type] == "clip"):
        raise InputError(f"architecture {architecture} is none of model_type {model_type}", file)
    from madtp.model.shape import class_of

    return class_of(CLASSES[architecture])


def _check_weights(folder: Path) -> None:
    from madtp.model.checkpoint import read_checkpoint, read_safetensors

    index = folder / "model.safetensors.index.json"
    if index.is_file():
        try:
            names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, OSError, KeyError, TypeError, AttributeError) as error:
            raise InputError("not an index of weight files", index) from error
        missing = [name for name in names if not (folder / name).is_file()]
        if missing:
            raise InputError(f"names files that are not there: {', '.join(missing[:5])}", index)
    weights = sorted(folder.glob("*.safetensors"))
    for file in weights:
        read_safetensors(file, tensors=False)
    for file in [] if weights else sorted(folder.glob("pytorch_model*.bin")):
        read_checkpoint(file)


def _check_report(report: dict[str, Any], config: dict[str, Any], path: str | Path) -> None:
    from madtp.model.checkpoint import listed

    stock = config["model_type"] in ("blip", "clip")  # has no guidance; it starts untrained
    missing = {name for name in report["missing_keys"] if not (stock and name.startswith("madtp_"))}
    if missing:
        raise InputError(f"the weights lack {listed(missing)}", path, "the file is of another model, or incomplete")
    left = {name for name in report["unexpected_keys"] if not name.endswith("position_ids")}
    if layers := {name for name in left if _LAYER.search(name)}:
        fix = "keep config.json and weights of one model together"
        raise InputError(f"config.json knows of no such layers: {listed(layers)}", path, fix)
    if left:
        logger.warning("%s: weights that this model does not use: %s", path, listed(left))


@contextmanager
def quiet_host() -> Iterator[None]:
    """Transformers without progress bars and warnings (it remarks on every stock model loaded as ours)."""
    from transformers.utils import logging as host

    level, bars = host.get_verbosity(), host.is_progress_bar_enabled()
    hub = logging.getLogger("huggingface_hub")  # remarks on every try to reach the hub
    hub_level = hub.level
    hub.setLevel(logging.ERROR)
    host.set_verbosity_error()
    host.disable_progress_bar()
    try:
        yield
    finally:
        host.set_verbosity(level)
        hub.setLevel(hub_level)
        if bars:
            host.enable_progress_bar()
