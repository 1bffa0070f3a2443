"""A dense teacher: what tokens stand for, distances that are zero where nothing is pruned, and which way they pull."""

from typing import Any

import pytest
import torch

from madtp.model.ragged import Ragged
from madtp.prune import Provenance
from madtp.task.distill import Teacher, divergence, stands_for
from small import KINDS, nano, nano_task, samples

EACH_KIND = pytest.mark.parametrize("kind", KINDS)
TEMPERATURE = 1.0


def lesson(kind: str, model: Any, teacher: Teacher | None) -> tuple[torch.Tensor, dict[str, float]]:
    """Training loss of three samples."""
    task = nano_task(kind, **({"queue": 0, "momentum": 0} if kind in ("retrieval", "clip") else {}))
    dataset = task.dataset(samples(task.name, "train", 3), training=True, per_image=2)
    batch = task.collate([dataset[i] for i in range(3)])
    loss, logs, _ = task.loss(model, batch, task.helper(model, 0, 1), teacher)
    return loss, logs


@pytest.mark.parametrize("tail", [0, 1])
def test_a_token_stands_for_the_weighted_mean_of_what_it_holds(tail: int) -> None:
    generator = torch.Generator().manual_seed(5)
    content, left, width = [7, 5, 3], [3, 5, 1], 11

    def ragged(counts: list[int]) -> Ragged:
        lengths = torch.tensor(counts) + 1 + tail
        return Ragged(torch.randn(int(lengths.sum()), width, generator=generator), lengths)

    theirs, mine = ragged(content), ragged(left)
    owners = [[1, 3, 3, 2, 3, 3, 3], [1, 2, 3, 4, 5], [1, 1, 1]]
    shares = [[1, 0.1, 0.2, 1, 0.3, 0.15, 0.25], [1] * 5, [0.7, 0.2, 0.1]]
    flat = [
        torch.cat([torch.tensor(row, dtype=kind) for row in of]) for of, kind in ((owners, torch.long), (shares, None))
    ]
    where = Provenance(torch.tensor(content), *flat)
    got = stands_for(mine, theirs, where)
    for i in range(3):
        full, rows = theirs.instance(i), []
        rows.append(full[0])
        for token in range(1, left[i] + 1):
            held = [j for j in range(content[i]) if owners[i][j] == token]
            weight = sum(shares[i][j] for j in held)
            rows.append(sum(full[1 + j] * shares[i][j] / weight for j in held))
        rows += [full[-1]] * tail
        assert torch.allclose(got[mine.offsets[i] : mine.offsets[i + 1]], torch.stack(rows), atol=1e-6)


@EACH_KIND
def test_a_dense_model_is_at_no_distance_from_itself(kind: str) -> None:
    model = nano(kind)
    loss, logs = lesson(kind, model, Teacher(model, 3.0))
    alone, _ = lesson(kind, model, None)
    assert logs["loss_distill"] == pytest.approx(0, abs=1e-5) and float(loss.detach()) == pytest.approx(
        float(alone.detach()), abs=1e-4
    )


@EACH_KIND
def test_the_distance_is_part_of_the_loss_by_its_weight(kind: str) -> None:
    model = nano(kind, temperature=TEMPERATURE)
    alone, without = lesson(kind, model, None)
    taught, logs = lesson(kind, model, Teacher(model, 3.0))
    assert "loss_distill" not in without and logs["loss_distill"] > 0.01
    assert float(taught.detach()) == pytest.approx(float(alone.detach()) + 3 * logs["loss_distill"], rel=1e-4)


@EACH_KIND
def test_following_it_leads_nearer_and_leaves_the_teacher_as_it_is(kind: str) -> None:
    model = nano(kind, temperature=TEMPERATURE)
    teacher = Teacher(model, 1e3)  # next to which the task's loss is nothing
    before = {name: value.clone() for name, value in teacher.model.state_dict().items()}
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-2)
    distances = []
    for _ in range(7):
        optimizer.zero_grad()
        loss, logs = lesson(kind, model, teacher)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        distances.append(logs["loss_distill"])
    assert distances[-1] < distances[0]
    assert all(torch.equal(value, before[name]) for name, value in teacher.model.state_dict().items())
    assert not any(p.requires_grad or p.grad is not None for p in teacher.model.parameters())


def test_the_teacher_is_dense_whatever_it_was_copied_from() -> None:
    model = nano("vqa", temperature=TEMPERATURE)
    teacher = Teacher(model.train(), 1.0)
    assert teacher.model.temperature is None and not teacher.model.training
    assert model.temperature == TEMPERATURE and model.training


def test_next_tokens_count_where_the_label_is_known() -> None:
    """The logits at the last token of a caption, and at padding, predict nothing."""
    model = nano("caption", temperature=TEMPERATURE)
    task = nano_task("caption")
    dataset = task.dataset(samples("caption", "train", 3))
    batch = task.collate([dataset[i] for i in range(3)])
    arguments = {k: batch[k] for k in ("pixel_values", "input_ids", "attention_mask", "labels", "image_index")}
    teacher, output = Teacher(model, 1.0), model(**arguments, provenance=True)
    expected = float(teacher.distance(output, arguments).detach())
    known = torch.nn.functional.pad(batch["labels"][:, 1:] != -100, (0, 1))
    assert 0 < int(known.sum()) < known.numel()
    for where, changes in ((~known, False), (known, True)):
        other = model(**arguments, provenance=True)
        other.logits = output.logits + where[..., None] * torch.arange(output.logits.shape[-1])
        assert (float(teacher.distance(other, arguments).detach()) != pytest.approx(expected, rel=1e-5)) == changes


def test_the_divergence_is_that_of_kullback_and_leibler() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, wanted = (torch.randn(5, 7, generator=generator) for _ in range(2))
    p, q = wanted.softmax(-1), logits.softmax(-1)
    expected = (p * (p / q).log()).sum(-1).mean()
    assert float(divergence(logits, wanted)) == pytest.approx(float(expected), rel=1e-5)
    assert float(divergence(wanted, wanted)) == pytest.approx(0, abs=1e-6)
    assert float(divergence(logits[:0], wanted[:0])) == 0
