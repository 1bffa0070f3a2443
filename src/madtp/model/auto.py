"""transformers' Auto classes told of our models, when asked."""

from madtp.model.config import MadtpBlipConfig, MadtpCLIPConfig
from madtp.model.shape import CLASSES, class_of


def register() -> None:
    """Let `AutoConfig`, `AutoModel`, `AutoProcessor` and the stock pipelines load folders of our models by name.

    Once in a program, before the first of them; again does nothing. Which class a folder is of is read from its
    `architectures`. Nothing of transformers is patched: these are its own registers.
    """
    import transformers as host

    blip = {kind: class_of(kind) for kind in CLASSES if kind != "clip"}
    clip = class_of("clip")
    host.AutoConfig.register(MadtpBlipConfig.model_type, MadtpBlipConfig, exist_ok=True)
    host.AutoConfig.register(MadtpCLIPConfig.model_type, MadtpCLIPConfig, exist_ok=True)
    # The classes of one config as a tuple, of which transformers takes the one that `architectures` names.
    for auto, config, classes in (
        (host.AutoModel, MadtpBlipConfig, tuple(blip.values())),
        (host.AutoModel, MadtpCLIPConfig, clip),
        (host.AutoModelForVisualQuestionAnswering, MadtpBlipConfig, blip["vqa"]),
        (host.AutoModelForImageTextToText, MadtpBlipConfig, blip["caption"]),
        (host.AutoModelForZeroShotImageClassification, MadtpCLIPConfig, clip),
    ):
        auto.register(config, classes, exist_ok=True)
    for config, processor, images, words in (
        (MadtpBlipConfig, host.BlipProcessor, host.BlipImageProcessorPil, host.BertTokenizer),
        (MadtpCLIPConfig, host.CLIPProcessor, host.CLIPImageProcessorPil, host.CLIPTokenizer),
    ):
        host.AutoProcessor.register(config, processor, exist_ok=True)
        host.AutoTokenizer.register(config, tokenizer_class=words, exist_ok=True)
        host.AutoImageProcessor.register(config, image_processor_classes={"pil": images}, exist_ok=True)
