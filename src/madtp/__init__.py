"""MADTP: vision-language transformers made cheaper by pruning tokens, guided by how image and text align.

The public names come on demand, so that `import madtp` stays light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madtp.model.blip import MadtpBlipForQuestionAnswering
    from madtp.model.config import MadtpBlipConfig, PruneConfig
    from madtp.model.load import load, load_processor

__version__ = "0.1.0"

__all__ = ["MadtpBlipConfig", "MadtpBlipForQuestionAnswering", "PruneConfig", "__version__", "load", "load_processor"]

_HOME = {
    "MadtpBlipConfig": "madtp.model.config",
    "MadtpBlipForQuestionAnswering": "madtp.model.blip",
    "PruneConfig": "madtp.model.config",
    "load": "madtp.model.load",
    "load_processor": "madtp.model.load",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'madtp' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
