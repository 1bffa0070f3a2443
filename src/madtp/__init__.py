"""MADTP: vision-language transformers made cheaper by pruning tokens, guided by how image and text align.

The public names come on demand, so that `import madtp` stays light.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from madtp.model.auto import register
    from madtp.model.blip import MadtpBlipForQuestionAnswering
    from madtp.model.blip_caption import MadtpBlipForConditionalGeneration
    from madtp.model.blip_reasoning import MadtpBlipForVisualReasoning
    from madtp.model.blip_retrieval import MadtpBlipForImageTextRetrieval
    from madtp.model.clip import MadtpCLIPModel
    from madtp.model.config import MadtpBlipConfig, MadtpCLIPConfig, PruneConfig
    from madtp.model.export import export_images
    from madtp.model.features import ImageFeatures
    from madtp.model.load import load, load_processor
    from madtp.pipelines.make import pipeline
    from madtp.publish import push_to_hub

__version__ = "0.1.0"

__all__ = [
    "ImageFeatures",
    "MadtpBlipConfig",
    "MadtpBlipForConditionalGeneration",
    "MadtpBlipForImageTextRetrieval",
    "MadtpBlipForQuestionAnswering",
    "MadtpBlipForVisualReasoning",
    "MadtpCLIPConfig",
    "MadtpCLIPModel",
    "PruneConfig",
    "__version__",
    "export_images",
    "load",
    "load_processor",
    "pipeline",
    "push_to_hub",
    "register",
]

_HOME = {
    "ImageFeatures": "madtp.model.features",
    "MadtpBlipConfig": "madtp.model.config",
    "MadtpBlipForConditionalGeneration": "madtp.model.blip_caption",
    "MadtpBlipForImageTextRetrieval": "madtp.model.blip_retrieval",
    "MadtpBlipForQuestionAnswering": "madtp.model.blip",
    "MadtpBlipForVisualReasoning": "madtp.model.blip_reasoning",
    "MadtpCLIPConfig": "madtp.model.config",
    "MadtpCLIPModel": "madtp.model.clip",
    "PruneConfig": "madtp.model.config",
    "export_images": "madtp.model.export",
    "load": "madtp.model.load",
    "load_processor": "madtp.model.load",
    "pipeline": "madtp.pipelines.make",
    "push_to_hub": "madtp.publish",
    "register": "madtp.model.auto",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'madtp' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
