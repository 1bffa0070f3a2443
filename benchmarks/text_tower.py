"""CLIP's text tower at the lengths that captions have, dense, against transformers' own, which pads to 77 tokens.

    python benchmarks/text_tower.py

Random weights, captions of generated scenes, no token pruned: what stands behind a text's end token is left out, which
changes no feature. One JSON line.
"""

import argparse
import json
from statistics import mean, median

import torch

from madtp.cost.latency import time_pairs
from madtp.model.presets import build
from madtp.model.stock import stock_of
from madtp.report import settings
from madtp.runtime import keep_freed_memory


def main() -> None:
    """Read the options and print the row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="clip-vit-base-16")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--pairs", type=int, default=7)
    options = parser.parse_args()
    keep_freed_memory()
    model = build(options.preset, 0).eval().pack_weights()
    host, _ = stock_of(model)
    random = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 21, (options.batch_size,), generator=random)  # COCO's captions: 8 to 20 tokens, mostly
    end = model.config.text_config.eos_token_id
    ids = torch.randint(5, 40000, (options.batch_size, 77), generator=random)
    ids[:, 0] = model.config.text_config.bos_token_id
    place = torch.arange(77)
    ids = ids.masked_fill(place >= lengths[:, None] - 1, end)
    with torch.inference_mode():
        ours, theirs = (form.get_text_features(input_ids=ids) for form in (model, host))
        ours, theirs = (x if isinstance(x, torch.Tensor) else x.pooler_output for x in (ours, theirs))
        worst = float((ours - theirs).abs().max() / theirs.abs().max())
        times = time_pairs(
            lambda: host.get_text_features(input_ids=ids),
            lambda: model.get_text_features(input_ids=ids),
            pairs=options.pairs,
        )
    row = {
        "preset": options.preset,
        "batch_size": options.batch_size,
        "mean_tokens": mean(lengths.tolist()),
        "stock_ms": round(1000 * median(times.baseline), 2),
        "ours_ms": round(1000 * median(times.contender), 2),
        "speedup": round(times.speedup, 2),
        "largest_difference": worst,
    }
    print(json.dumps(row | settings()), flush=True)


if __name__ == "__main__":
    main()
