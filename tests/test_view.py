"""Looking at examples: what is shown is what the towers did, for every task, and the page stands by itself."""

import base64
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from PIL import Image

from madtp.data.faults import Faults
from madtp.data.images import ImageFile
from madtp.errors import InputError
from madtp.evaluate import evaluating
from madtp.prune import METHODS, Decision, Evidence, Method, recording, self_score, threshold, token_importance
from madtp.prune import token_score as of_token
from madtp.report.draw_claims import claims_of
from madtp.report.draw_scores import importance_histogram
from madtp.report.seen import SCORES, View
from madtp.report.sheet import KEPT, MERGED
from madtp.report.view_page import view_page, worst_page
from madtp.report.write_view import write_view
from madtp.task.base import Item
from madtp.task.words import pieces
from madtp.view import compare, look, shares, towers_of, worse
from report.test_report import Page
from small import KINDS, PATCHES, nano, nano_processor, nano_task, samples

TEMPERATURE = 2.0
TOWERS = {
    "vqa": ["picture", "text"],
    "reasoning": ["left picture", "right picture", "text"],
    "caption": ["picture"],
    "retrieval": ["picture", "text", "text, looking at the picture (match)"],
    "clip": ["picture", "text"],
}
QUICK = {"caption": {"beams": 1, "longest": 11}}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def an_item(kind: str, number: int = 0) -> tuple[Any, Item]:
    """The task, and one sample of its data with its first text."""
    task = nano_task(kind, **QUICK.get(kind, {}))
    pixels, sample, texts = task.dataset(samples(task.name, "test", number + 1))[number]
    return task, (pixels, sample, texts[:1])


def view_of(kind: str, **settings: Any) -> View:
    task, item = an_item(kind)
    return look(nano(kind, temperature=TEMPERATURE, **settings), task, item, name="nano", how="as asked for")


@contextmanager
def watched(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Evidence]]:
    """What every block has to decide on."""
    seen: list[Evidence] = []
    method = METHODS["madtp"]

    def decide(evidence: Evidence, strength: float, training: bool = False) -> Decision:
        seen.append(evidence)
        return method.decide(evidence, strength, training)

    with monkeypatch.context() as patch:
        patch.setitem(METHODS, "madtp", Method("madtp", method.knob, method.guided, decide, method.bounds))
        yield seen


def test_scores_are_those_of_the_methods_functions(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with watched(monkeypatch) as seen:
        view = view_of(kind)
    assert [tower.name for tower in view.towers] == TOWERS[kind]
    pictures = len(view.pictures)
    blocks = [[tower.steps[number] for tower in view.pictures] for number in range(len(view.pictures[0].steps))]
    blocks += [[step] for tower in view.texts for step in tower.steps]
    assert len(blocks) == len(seen)
    for steps, evidence in zip(blocks, seen, strict=True):
        assert len(steps) == len(evidence.lengths) in (1, pictures)
        content = evidence.content
        assert evidence.affinity is not None
        affinity = evidence.padded(evidence.affinity)
        scores = {
            "class": evidence.class_scores(),
            "self": self_score(evidence.padded(evidence.column), content),
            "token": of_token(affinity.amax(-1), content),
        }
        scores["importance"] = token_importance(*scores.values())
        theta = threshold(affinity, scores["importance"], content, TEMPERATURE)
        for i, step in enumerate(steps):
            for name, score in scores.items():
                assert np.array_equal(step.scores[name], score[i][content[i]].numpy())
            assert step.threshold == float(theta[i])
            above = step.scores["importance"] > step.threshold
            assert step.stays is not None and step.claim is not None
            assert np.array_equal(step.stays, above) or step.stays.all()
            assert np.array_equal(step.claim, affinity[i][content[i]].argmax(-1).numpy())


def test_recording_changes_nothing(kind: str) -> None:
    task, item = an_item(kind)
    model, batch = nano(kind, temperature=TEMPERATURE), task.collate([item])
    with evaluating(model):
        (plain,), encoded = task.predict(model, batch, provenance=True)
        with recording():
            (again,), recorded = task.predict(model, batch, provenance=True)
    assert again == plain
    assert all(block.record is None for block in encoded.trace.blocks)
    for one, other in zip(encoded.trace.blocks, recorded.trace.blocks, strict=True):
        assert other.record is not None
        assert torch.equal(one.tokens_out, other.tokens_out)
        assert torch.equal(one.provenance.owner, other.provenance.owner)


def test_what_is_kept_and_where_it_is_follow_from_provenance(kind: str) -> None:
    task, item = an_item(kind)
    model = nano(kind, temperature=TEMPERATURE)
    with evaluating(model), recording():
        _, encoded = task.predict(model, task.collate([item]), provenance=True)
    towers = towers_of(task, encoded.trace, item, None)
    merged = False
    for instance, tower in enumerate(towers):
        held = list(range(PATCHES))  # before the first block: content token -> itself
        for step, block in zip(tower.steps, encoded.trace.tower("vision"), strict=True):
            assert block.provenance is not None
            owner, share = (part.tolist() for part in block.provenance.of(instance))
            assert step.entered.tolist() == held
            assert step.kept.tolist() == [owner.count(token) == 1 for token in owner]
            assert [bool(x) for x in step.share >= 1] == step.kept.tolist()
            assert step.share[~step.kept] == pytest.approx(np.array(share)[~step.kept])
            assert step.stays is not None
            stays = step.alone & step.stays[step.entered]  # itself until now, and not merged here
            assert np.array_equal(stays, step.kept)
            held = [token - 1 for token in owner]
            merged |= not step.kept.all()
    assert merged


def pictures(html: str) -> list[tuple[str, Image.Image]]:
    """Alternative text and picture of every block on a page."""
    found = re.findall(r"<figure class='block'><img src='data:[^,]*,([^']*)' alt='([^']*)'", html)
    return [(alt, Image.open(io.BytesIO(base64.b64decode(data)))) for data, alt in found]


def test_pictures_show_the_kept_patches() -> None:
    view = view_of("reasoning")
    white = [replace(tower, image=Image.new("RGB", (140, 140), "white")) for tower in view.pictures]
    shown = pictures(view_page(replace(view, towers=(*white, *view.texts)), [], {}))
    steps = [step for tower in white for step in tower.steps]
    assert len(shown) == len(steps)
    for (alt, picture), step in zip(shown, steps, strict=True):
        assert f"{step.kept.sum()} of {PATCHES} patches kept" in alt
        grey = np.asarray(picture.convert("L"), dtype=float)
        rows = [np.array_split(row, 7, axis=1) for row in np.array_split(grey, 7, axis=0)]
        bright = np.array([np.median(patch[2:-2, 2:-2]) for row in rows for patch in row])
        assert np.array_equal(bright > 250, step.kept)


def test_shares_out_of_range_are_drawn_as_weights() -> None:
    task, item = an_item("vqa")
    model = nano("vqa", temperature=TEMPERATURE)
    with evaluating(model):
        _, encoded = task.predict(model, task.collate([item]), provenance=True)
    block = encoded.trace.tower("vision")[-1]
    merged = (~block.provenance.kept(0)).nonzero().view(-1)
    odd = block.provenance.share.clone()
    odd[merged[:2]] = torch.tensor([1.5, -0.5])
    kept, share = shares(replace(block, provenance=replace(block.provenance, share=odd)), 0)
    assert np.array_equal(kept, block.provenance.kept(0).numpy())
    assert 0 < share[merged[0]] < 1 and share[merged[1]] == 0


@pytest.mark.parametrize("kind", ["vqa", "clip"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_words_stand_over_their_tokens(kind: str, side: str) -> None:
    """Subwords are shown, whole words too, and padding is none of them, wherever it stands."""
    tokenizer = nano_processor(kind).tokenizer
    tokenizer.padding_side = side
    try:
        both = tokenizer(["a zebra?", "is there a red circle left of the blue square?"], padding=True)
    finally:
        tokenizer.padding_side = "right"
    ids, mask = (torch.tensor(both[name]) for name in ("input_ids", "attention_mask"))
    first, last = ("[CLS]", "[SEP]") if kind == "vqa" else ("<|startoftext|>", "<|endoftext|>")
    words = pieces(tokenizer, ids[0][mask[0].bool()])
    assert (words[0], words[-1]) == (first, last)
    joined = "".join(f" {word}" for word in words[1:-1]).replace("· ·", "")
    assert joined == " a zebra ?" and len(words) > 5
    task, item = an_item(kind)
    pixels, sample, (text,) = item
    text = replace(text, text="a zebra?") if kind == "vqa" else "a zebra?"
    model = nano(kind, temperature=TEMPERATURE)
    tower = look(model, task, (pixels, sample, [text])).texts[0]
    assert tower.words == (words[1:] if kind == "vqa" else words[1:-1])  # what may be pruned: all but the protected
    assert {len(step.kept) for step in tower.steps} == {len(tower.words)}


def test_a_view_has_answers_and_costs_of_both(kind: str) -> None:
    task, item = an_item(kind)
    model = nano(kind, temperature=TEMPERATURE)
    view = look(model, task, item)
    assert model.temperature == TEMPERATURE
    assert 0 < view.gflops < view.gflops_dense
    model.temperature = None
    with evaluating(model):
        (dense,), _ = task.predict(model, task.collate([item]))
    assert view.dense == task.words_for(dense)[0]
    other = nano(kind, seed=5)
    with evaluating(other):
        (dense,), _ = task.predict(other, task.collate([item]))
    against = look(nano(kind, temperature=TEMPERATURE), task, item, reference=("other", other))
    assert (against.dense, against.pruned, against.reference) == (task.words_for(dense)[0], view.pruned, "other")


def check_page(html: str) -> Page:
    """Nothing runs, nothing is fetched, every picture is in it."""
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "base"}
    assert all(source and source.startswith("data:image/") for source in page.attributes("src"))
    links = [link or "" for name in ("href", "xlink:href") for link in page.attributes(name)]
    assert all(re.fullmatch(r"#.+|data:image/.+|\d\d/view\.html", link, re.S) for link in links)
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    assert "default-src 'none'" in html
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    return page


def test_files_of_every_task(kind: str, tmp_path: Path) -> None:
    view = view_of(kind)
    files = write_view(tmp_path, view, {"commit": "0123abc"})
    assert {file.name for file in tmp_path.iterdir()} == set(files)
    names = {"kept", "claims", "scores-1" if kind == "reasoning" else "scores"}
    assert names <= {Path(file).stem for file in files}
    for file in files:
        if file.endswith(".png"):
            Image.open(tmp_path / file).load()
        elif file.endswith(".svg"):
            svg = (tmp_path / file).read_text()
            assert svg.startswith("<?xml") and 'fill="#ffffff"' in svg
            assert not re.search(r'href="(?!#|data:)', svg)
    page = check_page((tmp_path / "view.html").read_text())
    said = [view.dense, view.pruned, f"{100 * view.reduction:.0f}% fewer GFLOPs", "as asked for", "0123abc"]
    for part in [*said, *(word for tower in view.texts for word in tower.words)]:
        assert " ".join(part.split()) in page.text


def test_scores_are_drawn_as_maps_and_histograms_with_the_threshold(tmp_path: Path) -> None:
    view = view_of("vqa")
    write_view(tmp_path, view, {})
    tower = view.pictures[0]
    svg = (tmp_path / "scores.svg").read_text()
    assert svg.count("<image") == len(SCORES) * len(tower.steps), "a map a score and block"
    for said in (*SCORES.values(), *(f"θ = {step.threshold:.3g}" for step in tower.steps)):
        assert said in svg, said
    for step in tower.steps:
        axes = Figure().add_subplot()
        importance_histogram(step)(axes)
        height = dict.fromkeys((MERGED, KEPT), 0.0)
        for bar in axes.patches:
            assert isinstance(bar, Rectangle)
            height[to_hex(bar.get_facecolor())] += bar.get_height()
        assert step.stays is not None
        assert height == {MERGED: int((~step.stays).sum()), KEPT: int(step.stays.sum())}
        (line,) = axes.lines
        assert list(np.asarray(line.get_xdata())) == [step.threshold] * 2


@pytest.mark.parametrize(("method", "scored"), [("class_attention", True), ("random", False)])
def test_comparators_show_what_they_have(method: str, scored: bool, tmp_path: Path) -> None:
    task, item = an_item("vqa")
    model = nano("vqa", method=method, temperature=0.3)
    files = write_view(tmp_path, look(model, task, item), {})
    assert ("scores.png" in files) is scored and "claims.png" not in files
    check_page((tmp_path / "view.html").read_text())


def test_text_of_others_is_escaped() -> None:
    nasty = "<script>alert(1)</script> $x^2$ & \"'"
    view = view_of("vqa")
    view = replace(view, text=nasty, dense=nasty, pruned=nasty, truth=nasty, model=nasty, how=nasty)
    for html in (view_page(view, [], {nasty: nasty}), worst_page(nasty, [nasty], [("01/view.html", view)], {})):
        assert check_page(html).text.count("<script>") >= 5


def test_claims_are_counted_from_the_steps() -> None:
    view = view_of("clip")
    claims = claims_of(view, most=99)
    steps = view.pictures[0].steps
    for claim in claims:
        by_hand = np.mean([(step.claims() == claim.number) & step.alone for step in steps], 0)
        assert np.array_equal(claim.patches[0], by_hand)
    assert sum(claim.share for claim in claims) == pytest.approx(1)
    text = view.texts[0]
    claimed = sum(int(step.alone.sum()) for step in text.steps)
    known = {int(number) for step in steps for number in step.claims()[step.alone]}
    missed = sum(int(number) not in known for step in text.steps for number in step.claims()[step.alone])
    assert sum(count for claim in claims for _, count in claim.words) == claimed - missed


def test_lost_examples_are_right_dense_and_wrong_pruned(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java
    task = nano_task(kind, **QUICK.get(kind, {}))
    model, reference = nano(kind, temperature=TEMPERATURE), nano(kind, seed=1)
    data = samples(task.name, "test", 13 if kind == "clip" else 5)
    if kind == "vqa":  # a fresh model says nothing that is right: what the dense one says is true of the first
        with evaluating(reference):
            dataset = task.dataset(data)
            told, _ = task.predict(reference, task.collate([dataset[i] for i in range(len(data))]))
        first, *others = data.samples
        questions = [
            replace(q, answers=(p.answer,), weights=(1.0,))
            for q, p in zip(first.questions, told[: len(first.questions)], strict=True)
        ]
        data = replace(data, samples=(replace(first, questions=tuple(questions)), *others))
    both = compare(model, task, data, reference=("dense", reference), batch_size=3)
    assert model.temperature == TEMPERATURE
    assert (both.dense.reduction, both.pruned.reduction > 0) == (0, True)
    assert both.lost
    marks = [lost.marks[0] - lost.marks[1] for lost in both.lost]
    assert marks == sorted(marks, reverse=True)
    for lost in both.lost:
        assert worse(task, *lost.marks)
        text = data[lost.sample].texts[lost.text]
        if kind == "caption":
            assert lost.marks[0] > lost.marks[1]
            continue
        assert getattr(text, "text", text) == lost.dense.text == lost.pruned.text
        answer, truth = task.words_for(lost.dense)
        assert answer == truth != task.words_for(lost.pruned)[0]
    right = {p.id for p in both.dense.predictions if kind != "caption" and len(set(task.words_for(p))) == 1}
    right -= {p.id for p in both.pruned.predictions if kind != "caption" and len(set(task.words_for(p))) == 1}
    assert kind == "caption" or right == {lost.dense.id for lost in both.lost}


def test_a_picture_that_vanishes_between_the_rounds_is_in_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # without Java
    task, data, done = nano_task("caption", **QUICK["caption"]), samples("caption", "test", 5), [0]
    reference = nano("caption", seed=1)

    def found(gone: int, faults: Faults | None) -> Any:
        """What is lost where a picture goes when all were answered once."""
        files = [ImageFile(tmp_path / f"{i}.png") for i in range(len(data))]
        for sample, file in zip(data.samples, files, strict=True):
            sample.image.open().save(file.path)
        on_disk = [replace(sample, image=file) for sample, file in zip(data.samples, files, strict=True)]
        done[0] = 0

        def advance(count: int) -> None:
            done[0] += count
            if done[0] == len(data):
                Path(files[gone].path).unlink()

        some = replace(data, samples=tuple(on_disk))
        model = nano("caption", temperature=TEMPERATURE)
        return compare(model, task, some, reference=("", reference), advance=advance, faults=faults)

    whole = compare(nano("caption", temperature=TEMPERATURE), task, data, reference=("", reference))
    (lost,) = (one.sample for one in whole.lost)
    assert lost > 0
    faults = Faults("skip", 0.2)
    both = found(0, faults)  # one before it: what is compared must not be shifted
    assert faults.counts() == {"test": 1}
    assert (len(both.pruned.predictions), len(both.dense.predictions)) == (5, 4)
    assert [one.sample for one in both.lost] == [lost]
    assert all(one.dense.id == one.pruned.id for one in both.lost)
    with pytest.raises(InputError, match=r"0\.png: no such image"):
        found(0, None)
