"""What models with an image tower and a text tower that run apart share: BLIP for retrieval, and CLIP."""

from typing import Any, ClassVar

from torch import Tensor
from torch.nn.functional import normalize

from madtp.model.base import Pruned
from madtp.model.output import ImageSide, Paired, TextSide
from madtp.model.ragged import Ragged
from madtp.prune import Trace


class DualEncoder(Pruned):
    """Mixin of a model whose towers run alone (`see`, `read`), so that an index sees its images and texts once.

    A model sets `image_pruning` and `text_pruning`, further fields of its towers' `Pruner`, and says how its text tower
    is called and how the pooled tokens become features.
    """

    image_pruning: ClassVar[dict[str, Any]] = {}
    text_pruning: ClassVar[dict[str, Any]] = {}
    vision_model: Any

    @property
    def feature_width(self) -> int:
        """Numbers in an image's or a text's contrastive feature."""
        raise NotImplementedError

    def _text_tower(self, input_ids: Tensor, attention_mask: Tensor | None, pruner: Any) -> Ragged:
        """Text states of `[q, l]` ids."""
        raise NotImplementedError

    def _project_image(self, tokens: Ragged) -> Tensor:
        """`[b, d]` features, of any length, of image tokens."""
        raise NotImplementedError

    def _project_text(self, states: Ragged) -> Tensor:
        """`[q, d]` features, of any length, of text states."""
        raise NotImplementedError

    def see(
        self,
        pixel_values: Tensor,
        *,
        align: bool = False,
        provenance: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> ImageSide:
        """The image tower: `[b, 3, height, width]` pixels to tokens and contrastive features.

        Args:
            pixel_values: images.
            align: also gather the semantic features, for the alignment loss.
            provenance: record in the trace where every patch is after each block.
            interpolate_pos_encoding: for images of another size than trained on.
        """
        trace = Trace()
        pruner = self._pruner("vision", trace, gather=align, provenance=provenance, **self.image_pruning)
        tokens = self.vision_model(pixel_values, pruner, self.pruning.attention, interpolate_pos_encoding)
        return ImageSide(tokens, normalize(self._project_image(tokens), dim=-1), trace, pruner.feature)

    def read(
        self, input_ids: Tensor, attention_mask: Tensor | None = None, *, align: bool = False, provenance: bool = False
    ) -> TextSide:
        """The text tower without images: `[q, l]` ids to states and contrastive features.

        Args:
            input_ids: texts; CLIP's from the tokenizer's start token to its end token.
            attention_mask: `[q, l]`, nonzero = token, padding anywhere; None = none (but behind CLIP's end token).
            align: also gather the semantic features, for the alignment loss.
            provenance: record in the trace where every word is after each block.

        Raises:
            ValueError: a text has no token; CLIP: it has no end token, or too many tokens.
        """
        trace = Trace()
        pruner = self._pruner("text", trace, gather=align, provenance=provenance, **self.text_pruning)
        states = self._text_tower(input_ids, attention_mask, pruner)
        return TextSide(states, normalize(self._project_text(states), dim=-1), trace, pruner.feature)

    def _pair(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None,
        index: Tensor | None,
        align: bool,
        provenance: bool,
        interpolate_pos_encoding: bool,
    ) -> Paired:
        """Both towers and, if asked for, the alignment loss of every text and its image `index [q]`."""
        image = self.see(
            pixel_values, align=align, provenance=provenance, interpolate_pos_encoding=interpolate_pos_encoding
        )
        text = self.read(input_ids, attention_mask, align=align, provenance=provenance)
        alignment = None
        if image.semantic is not None and text.semantic is not None:
            assert index is not None
            seen = image.semantic.index_select(0, index.to(image.semantic.device))
            alignment = self._alignment(seen, text.semantic, index)
        return Paired(image, text, Trace([*image.trace.blocks, *text.trace.blocks], index), alignment=alignment)
