"""The model card that goes to a hub with a model: how to load it, and what was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from madtp.report.table import Report, markdown_table

PIPELINE_TAGS = {
    "vqa": "visual-question-answering",
    "caption": "image-to-text",
    "reasoning": "visual-question-answering",
    "retrieval": "zero-shot-image-classification",
}
_MEASURED = ("task", "data", "split", "n", "model", "batch_size", "dtype", "device", "hardware", "versions", "commit")


def model_card(name: str, facts: Mapping[str, Any], report: Report | None) -> str:
    """The card's text, its YAML head first.

    Args:
        name: where the model can be loaded from.
        facts: `class`, `task`, `method`, `temperature`, `reduction`, `parameters` and `curve` (as `config.madtp` has
            it, or None) of the model.
        report: as `report.json` has it; None = nothing was measured beside the reduction.
    """
    tags = "".join(f"- {tag}\n" for tag in ("madtp", "token-pruning", "vision-language"))
    head = f"---\nlibrary_name: transformers\npipeline_tag: {PIPELINE_TAGS[facts['task']]}\ntags:\n{tags}---\n"
    return (
        f"{head}\n# {name.rstrip('/').rpartition('/')[2]}\n\n{_what(facts)}\n\n"
        f'```python\nimport madtp\n\npipe = madtp.pipeline("{facts["task"]}", model="{name}")\n'
        f'model = madtp.{facts["class"]}.from_pretrained("{name}")\n```\n\n'
        f"{_budgets(facts)}## Measured\n\n{_measured(facts, report)}"
    )


def _what(facts: Mapping[str, Any]) -> str:
    if facts["temperature"] is None:
        how = "It runs dense: no token is pruned"
    else:
        saved = facts["reduction"]
        share = "" if saved is None else f", which saved {100 * saved:.1f}% of the GFLOPs where it was chosen"
        how = f"Tokens are pruned by `{facts['method']}` at temperature {facts['temperature']:.4g}{share}"
    return (
        f"A `{facts['class']}` of {facts['parameters'] / 1e6:.3g} million parameters for {facts['task']}, by madtp "
        f"(token pruning guided by the alignment of image and text, arXiv 2403.02991). {how}."
    )


def _budgets(facts: Mapping[str, Any]) -> str:
    curve = facts.get("curve")
    if curve is None:
        return ""
    rows = "".join(f"| {100 * saved:.1f}% | {temperature:.4g} |\n" for temperature, saved in curve["points"])
    return (
        "## Other budgets\n\n`model.set_reduction(0.5)` sets the temperature that saves half of the GFLOPs, "
        f"`model.set_reduction(0)` runs it dense. Measured on {curve['data']} ({curve['n']} texts); what lies between "
        f"is read off, not measured:\n\n| saves | temperature |\n|---:|---:|\n{rows}\n"
    )


def _measured(facts: Mapping[str, Any], report: Report | None) -> str:
    if report is None:
        return (
            "Quality was not measured: `madtp evaluate --out DIR` does it and writes the report that this page takes.\n"
        )
    known = [f"{key.replace('_', ' ')}: {_words(report[key])}" for key in _MEASURED if report.get(key) is not None]
    return (
        f"{markdown_table(report)}\nGFLOPs are multiply-accumulates / 10⁹ an example; the reduction is measured. "
        f"{'; '.join(known)}.\n"
    )


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_words(of)}" for key, of in value.items() if of is not None)
    return f"{value:g}" if isinstance(value, float) else str(value)
