"""Where generated sequences end and how they are counted, by hand. Against a real decoder: test_blip_caption.py."""

import torch
from transformers import GenerationConfig

from madtp.model.decoding import asked_for, count_forced, count_generated, ended
from madtp.prune import Trace
from model.tiny import tiny_stock_captioner

START, END, PAD = 97, 89, 0


def test_nothing_but_padding_after_the_end() -> None:
    written = torch.tensor(
        [
            [START, 5, END, END, END, END],  # the host repeats it
            [START, END, 7, 0, 0, 0],
            [START, 0, 5, 0, END, 0],  # a padding token may be written, too
        ]
    )
    out, lengths = ended(written, prompt=1, end=END, pad=PAD)
    assert out.tolist() == [[START, 5, END, 0, 0], [START, END, 0, 0, 0], [START, 0, 5, 0, END]]
    assert lengths.tolist() == [3, 2, 5]
    out, lengths = ended(written, prompt=3, end=END, pad=PAD)  # ends in a prompt do not count
    assert lengths.tolist() == [4, 6, 5]
    assert out[1].tolist() == written[1].tolist()


def counts(trace: Trace) -> list[list[int]]:
    return [t.tolist() for t in (trace.decoder_tokens, trace.decoder_pairs, trace.decoder_sequences) if t is not None]


def test_generated() -> None:
    trace = Trace()
    count_generated(trace, torch.tensor([[4], [2]]), prompt=torch.tensor([1, 1]), beams=1)
    assert counts(trace) == [[3, 1], [1 + 2 + 3, 1], [1, 1]]
    count_generated(trace, torch.tensor([[6]]), prompt=torch.tensor([3]), beams=1)  # 3 at once, then 2
    assert counts(trace) == [[5], [9 + 4 + 5], [1]]
    count_generated(trace, torch.tensor([[4, 3]]), prompt=torch.tensor([1]), beams=1)  # two samples
    assert counts(trace) == [[3 + 2], [6 + 3], [2]]
    count_generated(trace, torch.tensor([[4, 3]]), prompt=torch.tensor([1]), beams=5)  # the best two of five
    assert counts(trace) == [[3 * 5], [6 * 5], [5]]


def test_forced() -> None:
    trace, ids = Trace(), torch.ones(3, 5, dtype=torch.long)
    count_forced(trace, ids, None, None, 3)
    assert counts(trace) == [[5] * 3, [25] * 3, [1] * 3]
    mask = torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0], [1, 1, 1, 0, 0]])
    count_forced(trace, ids, mask.bool(), torch.tensor([1, 0, 1]), 3)
    assert counts(trace) == [[2, 8, 0], [4, 34, 0], [1, 2, 0]]


def test_settings_are_read_where_the_host_reads_them() -> None:
    decoder = tiny_stock_captioner().text_decoder
    assert asked_for("num_beams", {}, decoder) == 1
    assert asked_for("num_beams", {"num_beams": 3}, decoder) == 3
    given = {"generation_config": GenerationConfig(num_beams=5)}
    assert asked_for("num_beams", given, decoder) == 5
    assert asked_for("num_beams", given | {"num_beams": 2}, decoder) == 2
    decoder.generation_config.num_beams = 7
    assert asked_for("num_beams", {}, decoder) == 7
