"""Stock transformers with our models: Auto classes, pipelines where they fit, and the Trainer."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import Trainer, TrainingArguments

import madtp
from madtp.model.curve import BudgetCurve
from madtp.model.features import ImageFeatures
from madtp.model.shape import class_of
from pipelines.stock import LABELS, TEMPERATURE, close, folder, pictures
from small import KINDS, nano, nano_processor
from test_house import PACKAGE


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    madtp.register()
    madtp.register()


def test_nothing_is_registered_unasked() -> None:
    code = (
        "import madtp, transformers; madtp.MadtpCLIPModel, madtp.MadtpBlipForQuestionAnswering\n"
        "from transformers.models.auto.configuration_auto import CONFIG_MAPPING as known\n"
        "print('madtp_blip' in known, end=' '); madtp.register(); print('madtp_blip' in known)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["False", "True"]


@pytest.mark.parametrize("kind", KINDS)
def test_auto_classes_load_a_folder(kind: str, tmp_path: Path) -> None:
    saved = folder(kind, tmp_path)
    model = transformers.AutoModel.from_pretrained(saved)
    assert type(model) is class_of(kind) and model.temperature == TEMPERATURE
    assert type(transformers.AutoConfig.from_pretrained(saved)) is class_of(kind).config_class
    theirs = nano(kind).state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in model.state_dict().items())
    processor = transformers.AutoProcessor.from_pretrained(saved)
    assert type(processor) is type(nano_processor(kind))
    tokenizer = transformers.AutoTokenizer.from_pretrained(saved)
    assert tokenizer(LABELS).input_ids == nano_processor(kind).tokenizer(LABELS).input_ids
    images = transformers.AutoImageProcessor.from_pretrained(saved)
    assert images.size == nano_processor(kind).image_processor.size


def test_task_auto_classes(tmp_path: Path) -> None:
    for kind, auto in (
        ("vqa", transformers.AutoModelForVisualQuestionAnswering),
        ("caption", transformers.AutoModelForImageTextToText),
        ("clip", transformers.AutoModelForZeroShotImageClassification),
    ):
        assert type(auto.from_pretrained(folder(kind, tmp_path))) is class_of(kind)


def test_zero_shot_classification_as_ours(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    saved = folder("clip", tmp_path)
    stock = transformers.pipeline("zero-shot-image-classification", model=str(saved))
    assert "is not supported" not in caplog.text
    one, seven = (stock(pictures(), candidate_labels=LABELS, batch_size=size) for size in (1, 7))
    assert len(one) == 7 and close(one, seven)
    ours = madtp.pipeline("retrieval", saved, batch_size=3)
    assert close(one, ours(pictures(), LABELS, "This is a photo of {}."))


@pytest.mark.parametrize("kind", KINDS)
def test_image_features(kind: str) -> None:
    model = nano(kind, temperature=TEMPERATURE)
    before = model.config.to_dict()
    stock = transformers.pipeline(
        "image-feature-extraction", model=ImageFeatures(model), image_processor=nano_processor(kind).image_processor
    )
    for options in ({}, {"pool": True}):
        one, seven = (stock(pictures(), batch_size=size, return_tensors=True, **options) for size in (1, 7))
        assert len(one) == 7
        for a, b in zip(one, seven, strict=True):
            torch.testing.assert_close(a.view(-1), b.view(-1), atol=1e-5, rtol=1e-5)
    assert stock(pictures()[0], return_tensors=True).shape == (1, 50, 20)
    assert model.config.to_dict() == before
    if kind in ("retrieval", "clip"):
        ours = madtp.pipeline(None, model, nano_processor(kind)).embed(pictures())
        torch.testing.assert_close(torch.stack([pooled.view(-1) for pooled in one]), ours, atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:`max_length` is ignored")  # the host's own remark on a list of prompts
def test_captions_by_image_text_to_text(tmp_path: Path) -> None:
    saved = folder("caption", tmp_path)
    stock = transformers.pipeline("image-text-to-text", model=str(saved))

    def options() -> dict[str, Any]:  # the stock pipeline writes into the one that it is given
        return {"max_new_tokens": 7, "generate_kwargs": {"num_beams": 3, "do_sample": False}}

    inputs = [{"images": image, "text": "a picture of"} for image in pictures()[:3]]
    one = [stock(**each, **options())[0]["generated_text"] for each in inputs]
    ours = madtp.pipeline("caption", saved, batch_size=7)
    task_options = {"max_new_tokens": 7, "generate_kwargs": {"min_length": 0}}
    assert one == [found["generated_text"] for (found,) in ours(pictures()[:3], "a picture of", **task_options)]
    together = stock(images=pictures()[:3], text=["a picture of"] * 3, **options())
    assert [found["generated_text"] for found in together] == one


def rows(count: int = 7) -> list[dict[str, Any]]:
    texts = ["a red circle", "what color is it?", "there is a blue square"]
    return [{"image": image, "text": texts[i % 3], "label": i % 2} for i, image in enumerate(pictures(count))]


def collate(kind: str) -> Any:
    """As a user of the stock processor writes it."""
    processor = nano_processor(kind)

    def collated(some: list[dict[str, Any]]) -> dict[str, Any]:
        words = processor.tokenizer(
            [row["text"] for row in some], padding=True, return_tensors="pt", return_token_type_ids=False
        )
        pixels = processor.image_processor([row["image"] for row in some], return_tensors="pt")["pixel_values"]
        batch = {"pixel_values": pixels, **words}
        if kind in ("vqa", "caption"):
            batch["labels"] = words["input_ids"].masked_fill(words["attention_mask"] == 0, -100)
        elif kind == "reasoning":
            batch |= {
                "pixel_values": pixels.repeat_interleave(2, 0),
                "labels": torch.tensor([r["label"] for r in some]),
            }
        elif kind == "clip":
            batch["return_loss"] = True
        return batch

    return collated


def trainer(kind: str, out: Path, model: Any = None, **options: Any) -> Trainer:
    settings = {
        "output_dir": str(out), "max_steps": 2, "per_device_train_batch_size": 3, "learning_rate": 1e-2,
        "use_cpu": True, "remove_unused_columns": False, "disable_tqdm": True, "report_to": [], "save_steps": 2,
        **options,
    }  # fmt: skip
    curve = BudgetCurve(((TEMPERATURE, 0.4),), "scenes val", 13)
    model = nano(kind, temperature=TEMPERATURE, curve=curve) if model is None else model
    data = rows()
    return Trainer(
        model=model,
        args=TrainingArguments(**settings),
        train_dataset=data,
        eval_dataset=data,
        data_collator=collate(kind),
    )


@pytest.mark.parametrize("kind", ["vqa", "caption", "reasoning", "clip"])
def test_the_stock_trainer_trains_saves_and_judges(kind: str, tmp_path: Path) -> None:
    run = trainer(kind, tmp_path)
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < before
    predicted = run.predict(rows(3)).predictions
    assert all(hasattr(part, "shape") for part in (predicted if isinstance(predicted, tuple) else [predicted]))
    loaded = madtp.load(tmp_path / "checkpoint-2")
    assert loaded.temperature == TEMPERATURE
    assert loaded.pruning.curve is None, "it was that of other weights"
    theirs = run.model.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in loaded.state_dict().items())


def test_the_trainer_takes_several_small_batches_for_a_large_one(tmp_path: Path) -> None:
    """Losses are means: the Trainer must divide them (`accepts_loss_kwargs`), whatever `forward` swallows."""
    steps = {}
    for size, parts in ((6, 1), (3, 2)):
        options = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts, "max_steps": 1}
        run = trainer("reasoning", tmp_path / str(size), optim="sgd", max_grad_norm=0, **options)
        run.train_dataset = rows(6)
        run.train()
        steps[size] = torch.cat(
            [value.flatten() for value in run.model.state_dict().values() if value.is_floating_point()]
        )
    torch.testing.assert_close(steps[6], steps[3], atol=1e-5, rtol=1e-4)
