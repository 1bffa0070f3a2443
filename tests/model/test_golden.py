"""Equal to the method's public implementation, through the converter: see tests/golden/README.md."""

from typing import Any

import pytest
import torch
from transformers import BlipVisionConfig

from goldens import HEADS, META, TEMPERATURES, close, expected, golden, same_rows
from madtp.model.block import Pruner
from madtp.model.convert_config import vision_sizes
from madtp.model.convert_names import SEMANTIC_TOKENS, map_vision_keys
from madtp.model.vision import MadtpBlipVisionModel
from madtp.prune import METHODS, Trace
from model.golden_models import first_ids, golden_model

PATCHES = (META["config"]["img"] // META["config"]["patch"]) ** 2


@pytest.fixture(scope="module")
def vqa(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return golden_model("vqa", tmp_path_factory.mktemp("golden") / "vqa")


def test_same_rows_can_tell() -> None:
    rows = torch.tensor([[0.0, 1.0], [2.0, 3.0], [5.0, 7.0]])
    assert same_rows(rows[[2, 0, 1]], rows)
    assert not same_rows(rows[[0, 0, 1]], rows)
    assert not same_rows(rows + 2e-4, rows)
    assert not same_rows(rows[:2], rows)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_vqa(vqa: Any, temperature: float) -> None:
    theirs = expected("vqa", temperature)
    io = golden("vqa.io")
    question, answer = io["question_ids"].clone(), io["answer_ids"].clone()
    question[:, 0], answer[:, 0] = first_ids("vqa")
    vqa.temperature = temperature or None
    with torch.no_grad():
        out = vqa(
            question,
            io["image"],
            labels=answer,
            answer_index=torch.zeros(len(answer), dtype=torch.long),
            answer_weights=io["answer_weights"],
        )
    steps = [list(step) for step in out.trace.steps()]
    if temperature:
        assert steps == META["cases"]["vqa"]["trace"][str(temperature)]
    else:  # dense: one entry a block, nothing pruned
        config = META["config"]
        assert len(steps) == config["vdepth"] + config["tdepth"]
        assert all(before == after for _, before, after in steps)
    states = out.encoded.question.instance(0)
    assert close(states[0], theirs["question_states"][0, 0])
    assert same_rows(states[1:], theirs["question_states"][0, 1:])
    assert close(out.loss_task, theirs["loss_task"])
    if temperature:  # at 0 the public code reports its task loss here
        assert close(out.loss_align, theirs["loss_align"])
        assert close(out.loss, theirs["loss_task"] + 0.1 * theirs["loss_align"])
    else:
        assert out.loss_align is None


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_image_tower_of_nlvr(temperature: float) -> None:
    state = map_vision_keys(golden("nlvr.weights"))
    io = golden("nlvr.io")
    tower = MadtpBlipVisionModel(BlipVisionConfig(**vision_sizes(state, HEADS))).eval()
    prefix = "vision_model."
    tower.load_state_dict({k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)})
    trace = Trace()
    pruner = Pruner(
        "vision", trace, METHODS["madtp"], temperature or None, semantic=state[SEMANTIC_TOKENS].float(), gather=True
    )
    with torch.no_grad():
        tokens = tower(io["image"], pruner)
    for i in range(2):  # together in one batch, each as if alone
        theirs = io[f"t{temperature}.image{i}_embeds"][0]
        assert close(tokens.instance(i)[0], theirs[0])
        assert same_rows(tokens.instance(i)[1:], theirs[1:])
        assert trace.blocks[-1].tokens_out[i] == len(theirs) - 1
    if temperature:
        # meta.json's trace is of the public code's coupled batch, which keeps the larger of both numbers; from the
        # second block on its images are no longer ours.
        coupled = META["cases"]["nlvr"]["trace"][str(temperature)]
        assert coupled[0] == ["vision", PATCHES, int(trace.blocks[0].tokens_out.max())]
    assert pruner.feature is not None
    assert close(pruner.feature[0], io[f"t{temperature}.image0_semantic_sum"][0])
