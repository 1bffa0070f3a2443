"""Which semantic token claims which part of the picture, and which words: the one of the largest affinity."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from madtp.report.draw_kept import FRAME, GAP, HATCHED, LINE_HEIGHT, WHOLE, abreast, show, wrapped
from madtp.report.seen import Step, Tower, View
from madtp.report.sheet import SOFT, TEXT, Draw, Drawing, Sheet
from madtp.report.view import tinted

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST = 6
COLOURS = ("#e0812b", "#3b7dd8", "#2a9d5c", "#c2438e", "#8d6be0", "#b8961a")
_OTHER = "#8a9099"
_DARK = (24, 27, 32)
LEGEND = (
    "A patch or word is claimed by the semantic token to which its affinity is largest: its S_tok, before it is made a "
    "share. Only what goes into a block as itself counts; what was merged before is dark or hatched."
)


@dataclass(frozen=True)
class Claim:
    """What one semantic token claims.

    Attributes:
        number: of the semantic token.
        patches: a picture each, `[p]`: share of the blocks in which it claims the patch.
        words: `(word, blocks)` that it claims, the most often claimed first.
        blocks: of the text towers together.
        share: of all claims on patches.
    """

    number: int
    patches: tuple[np.ndarray, ...]
    words: tuple[tuple[str, int], ...]
    blocks: int
    share: float


def claims_of(view: View, most: int = MOST) -> list[Claim]:
    """The semantic tokens that claim most; none where nothing is claimed.

    Half of them are those that claim on both sides, by the smaller of their shares; then by the share of patches.
    """
    of_patches, of_words = (_weights(towers) for towers in (view.pictures, view.texts))
    both = sorted(
        set(of_patches) & set(of_words), key=lambda number: (-min(of_patches[number], of_words[number]), number)
    )
    rest = sorted(of_patches, key=lambda number: (-of_patches[number], number))
    chosen = list(dict.fromkeys([*both[: most // 2], *rest, *both]))[:most]
    blocks = sum(len(tower.steps) for tower in view.texts)
    found = []
    for number in chosen:
        patches = tuple(np.mean([_claimed(step, number) for step in tower.steps], 0) for tower in view.pictures)
        words: Counter[tuple[int, str]] = Counter()
        for tower in view.texts:
            for step in tower.steps:
                words.update((place, tower.words[place]) for place in np.flatnonzero(_claimed(step, number)).tolist())
        told = tuple((word, count) for (_, word), count in words.most_common())
        found.append(Claim(number, patches, told, blocks, of_patches[number]))
    return found


def _claimed(step: Step, number: int) -> np.ndarray:
    claims = step.claims()
    return np.zeros(len(step.kept), dtype=bool) if claims is None else (claims == number) & step.alone


def _weights(towers: Sequence[Tower]) -> dict[int, float]:
    """Semantic token -> its share of all claims on originals that go into a block as themselves."""
    every = [claims[step.alone] for tower in towers for step in tower.steps if (claims := step.claims()) is not None]
    if not every:
        return {}
    numbers, counts = np.unique(np.concatenate(every), return_counts=True)
    whole = max(int(counts.sum()), 1)
    return {int(number): int(count) / whole for number, count in zip(numbers, counts, strict=True)}


def claims_in_words(claims: Sequence[Claim]) -> list[str]:
    """One line a semantic token."""
    lines = []
    for claim in claims:
        words = ", ".join(dict.fromkeys(word for word, _ in claim.words)) or "no word"
        lines.append(f"semantic token {claim.number}: {100 * claim.share:.0f}% of the claims on patches; {words}")
    return lines


def draw_claims(view: View) -> Drawing | None:
    """What the semantic tokens that claim most claim, together and block by block; None for a method without them."""
    claims = claims_of(view)
    if not claims:
        return None
    colour = {claim.number: COLOURS[i] for i, claim in enumerate(claims)}
    columns = abreast(max(len(tower.steps) for tower in view.pictures))
    sheet = Sheet(max(len(claims), columns) * (FRAME + GAP))
    sheet.text(0, 0, "what the semantic tokens claim", size=11, weight="bold")
    y = 0.32
    for i, claim in enumerate(claims):
        x = i * (FRAME + GAP)
        sheet.text(x, y, f"token {claim.number}", color=colour[claim.number], weight="bold")
    y += 0.22
    for place, tower in enumerate(view.pictures):
        assert tower.image is not None
        for i, claim in enumerate(claims):
            show(_lit(tower.image, claim, place, colour), sheet, i * (FRAME + GAP), y, FRAME)
        y += FRAME * tower.image.height / max(tower.image.size) + GAP / 2
    deepest = y
    for i, claim in enumerate(claims):
        deepest = max(deepest, _told(sheet, claim, i * (FRAME + GAP), y))
    y = sheet.note(0, deepest + 0.05, "Above: how often, over the blocks, each claims a patch. Below: block by block.")
    y += 0.15
    for tower in view.pictures:
        y = _strip(sheet, tower, colour, columns, y)
    for tower in view.texts:
        y = _words(sheet, tower, colour, y)
    sheet.note(0, y + 0.05, f"{LEGEND} Grey: other semantic tokens than these {len(claims)}.")
    return sheet.finish("claims", f"What semantic tokens claim. {'; '.join(claims_in_words(claims))}.")


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _lit(image: Image.Image, claim: Claim, place: int, colour: dict[int, str]) -> Image.Image:
    """The picture dark but where the semantic token claims it, there in its colour."""
    often = np.sqrt(claim.patches[place])  # the root brings out what is claimed in one block alone
    shade = often[:, None] * np.array(_rgb(colour[claim.number])) + (1 - often[:, None]) * np.array(_DARK)
    return tinted(image, shade, 0.85 - 0.25 * often, size=320)


def _told(sheet: Sheet, claim: Claim, x: float, y: float) -> float:
    """A semantic token's share and words, under its picture."""
    sheet.text(x, y, f"{100 * claim.share:.0f}% of patch claims", size=7.5, color=SOFT)
    shown = [f"{word}  {count}/{claim.blocks}" for word, count in claim.words[:4]]
    if len(claim.words) > len(shown):
        shown.append(f"… {len(claim.words) - len(shown)} more")
    for line, text in enumerate(shown, 1):
        sheet.text(x, y + 0.16 * line, text, size=8)
    return y + 0.16 * (1 + len(shown)) + 0.05


def _strip(sheet: Sheet, tower: Tower, colour: dict[int, str], columns: int, y: float) -> float:
    assert tower.image is not None
    sheet.text(0, y, tower.name, size=9, weight="bold")
    y += 0.22
    side = FRAME * tower.image.height / max(tower.image.size)
    for number, step in enumerate(tower.steps):
        row, column = divmod(number, columns)
        x, top = column * (FRAME + GAP), y + row * (side + 0.32)
        claims = step.claims()
        assert claims is not None
        shade = np.array([_rgb(colour.get(int(claim), _OTHER)) for claim in claims])
        shade[~step.alone] = _DARK
        strength = np.where(step.alone, 0.6, 0.8)
        show(tinted(tower.image, shade, strength, size=320), sheet, x, top, FRAME)
        sheet.text(x, top + side + 0.03, f"block {number + 1}", size=7.5)
    rows = -(-len(tower.steps) // columns)
    return y + rows * (side + 0.32) + 0.05


def _words(sheet: Sheet, tower: Tower, colour: dict[int, str], y: float) -> float:
    sheet.text(0, y, tower.name, size=9, weight="bold")
    y += 0.22
    label = 0.8
    for line in wrapped(tower.words, max(sheet.width - label, WHOLE)):
        width = line[-1][1] + line[-1][2]
        for number in range(len(tower.steps)):
            sheet.text(0, y + LINE_HEIGHT * (number + 1) + 0.04, f"block {number + 1}", size=7.5)
        height = LINE_HEIGHT * (1 + len(tower.steps))
        sheet.box(label, y, width, height, _cells(tower, line, width, colour))
        y += height + 0.1
    return y


def _cells(tower: Tower, line: Sequence[tuple[int, float, float]], width: float, colour: dict[int, str]) -> Draw:
    def draw(axes: Axes) -> None:
        from matplotlib.patches import Rectangle

        axes.set(xlim=(0, width), ylim=(1 + len(tower.steps), 0))
        axes.axis("off")
        for number, left, wide in line:
            middle = left + wide / 2
            axes.text(
                middle, 0.5, tower.words[number].replace("$", r"\$"), ha="center", va="center", size=8, color=TEXT
            )
            for row, step in enumerate(tower.steps, 1):
                corner, size = (left + 0.02, row + 0.08), (wide - 0.04, 0.84)
                claims = step.claims()
                if claims is None or not step.alone[number]:
                    axes.add_patch(Rectangle(corner, *size, **HATCHED))
                    continue
                claim = int(claims[number])
                axes.add_patch(Rectangle(corner, *size, facecolor=colour.get(claim, _OTHER), linewidth=0))
                axes.text(middle, row + 0.5, str(claim), ha="center", va="center", size=7, color="white")

    return draw
