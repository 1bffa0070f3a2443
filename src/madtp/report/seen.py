"""What there is to look at in one example, in numbers: towers, their blocks, and the answers. Drawn elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

Numbers = npt.NDArray[np.floating]
Flags = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.integer]

RIGHT = 0.5  # a mark from which an answer counts as right
SCORES = {"class": "S_cls", "self": "S_self", "token": "S_tok", "importance": "TIS"}
"""Names of scores in a record, and in the method's words."""


@dataclass(frozen=True)
class Step:
    """One block's pruning step in one tower: p original patches or words, n tokens going in.

    Attributes:
        entered: `[p]` number, among the tokens going in, of the one that holds each original.
        alone: `[p]` True for an original that goes in as itself.
        kept: `[p]` True for an original that is still itself after the step.
        share: `[p]` weight it then carries in the token that holds it; 1 where kept, else below 1.
        scores: `[n]` by name (`SCORES`), those that the method has.
        stays: `[n]` True for a token that stays itself, False for one that is merged.
        threshold: TIS above which tokens stay; None where the method has none.
        claim: `[n]` semantic token of the largest affinity; None for methods without.
    """

    entered: Indices
    alone: Flags
    kept: Flags
    share: Numbers
    scores: Mapping[str, Numbers] = field(default_factory=dict)
    stays: Flags | None = None
    threshold: float | None = None
    claim: Indices | None = None

    def spread(self, name: str) -> Numbers:
        """`[p]` a score of the token that holds each original going in."""
        return self.scores[name][self.entered]

    def claims(self) -> Indices | None:
        """`[p]` semantic token that claims the token which holds each original going in."""
        return None if self.claim is None else self.claim[self.entered]

    def weights(self) -> str:
        """`12 of 64`: how many of the originals are kept."""
        return f"{int(self.kept.sum())} of {len(self.kept)}"


@dataclass(frozen=True)
class Tower:
    """One tower's pass over one picture or one text.

    Attributes:
        name: in words, e.g. "left picture".
        steps: block after block.
        image: the picture, or the part of it, that the patches were cut from; None for a text.
        words: the text's tokens.
    """

    name: str
    steps: tuple[Step, ...]
    image: Image.Image | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class View:
    """One example, dense and pruned.

    Attributes:
        task, model, method: names.
        text: question, statement or caption; "" in captioning.
        dense, pruned: answers in words.
        truth: the true one; "" = not known.
        gflops_dense, gflops: of this example; dense on the same inputs and the same decoding.
        temperature: the method's knob.
        how: where the temperature is from.
        towers: in order of execution; the pictures come first.
        marks: how good the answers are, dense and pruned; None = not known.
        mark_name: what a mark is; "" = an answer is right (from `RIGHT` on) or wrong.
        found: further pictures with what they are (retrieval: what each model ranks first).
        reference: name of the dense model; "" = the same weights without pruning.
    """

    task: str
    model: str
    method: str
    text: str
    dense: str
    pruned: str
    truth: str
    gflops_dense: float
    gflops: float
    temperature: float
    how: str
    towers: tuple[Tower, ...]
    marks: tuple[float, float] | None = None
    mark_name: str = ""
    found: tuple[tuple[str, Image.Image], ...] = ()
    reference: str = ""

    @property
    def reduction(self) -> float:
        """Measured: `1 - GFLOPs / dense GFLOPs`."""
        return 1 - self.gflops / self.gflops_dense

    @property
    def pictures(self) -> list[Tower]:
        """The image tower's pass over each picture."""
        return [tower for tower in self.towers if tower.image is not None]

    @property
    def texts(self) -> list[Tower]:
        """The passes over the text."""
        return [tower for tower in self.towers if tower.image is None]
