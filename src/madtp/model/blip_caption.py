"""BLIP for captioning."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers import BlipForConditionalGeneration

from madtp.model.base import Pruned, blip_guidance
from madtp.model.config import MadtpBlipConfig
from madtp.model.decoding import asked_for, count_forced, count_generated, ended
from madtp.model.gaze import one_image
from madtp.model.output import Encoded, MadtpBlipCaptionOutput
from madtp.model.ragged import Ragged
from madtp.model.text import MadtpBlipTextDecoder
from madtp.model.vision import MadtpBlipVisionModel
from madtp.prune import Trace


class MadtpBlipForConditionalGeneration(Pruned, BlipForConditionalGeneration):
    """BLIP for captioning: image tower pruned, caption decoder stock but for an honoured mask.

    Differs from the host:
        - several captions may train one image, which runs through the image tower once (`image_index`);
        - pruned tokens and padding are masked everywhere; prompts may have any length and padding anywhere, where the
          host wants them of one length (it cuts off the last token of a row, be it padding or not);
        - after a caption's end token there is nothing but padding (in some batches the host repeats that token);
        - with `temperature=None` the outputs equal the host's but for that padding.
    """

    config_class = MadtpBlipConfig
    stock_class = BlipForConditionalGeneration

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = MadtpBlipVisionModel(config.vision_config)
        self.text_decoder = MadtpBlipTextDecoder(config.text_config)
        self.madtp_guidance = blip_guidance(config)
        self.post_init()

    def encode(
        self,
        pixel_values: Tensor,
        *,
        align: bool = False,
        provenance: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> Encoded:
        """Run the image tower.

        Args:
            pixel_values: `[b, 3, height, width]` images.
            align: of no effect: there is no text tower to align with.
            provenance: record in the trace where every patch is after each block.
            interpolate_pos_encoding: for images of another size than trained on.
        """
        trace = Trace(image_index=torch.arange(len(pixel_values)))
        pruner = self._pruner("vision", trace, gather=False, provenance=provenance)
        image = self.vision_model(pixel_values, pruner, self.pruning.attention, interpolate_pos_encoding)
        return Encoded(image, None, trace)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        logits_to_keep: int | Tensor = 0,
        *,
        image_index: Tensor | None = None,
        align: bool | None = None,
        provenance: bool = False,
        **kwargs: Any,
    ) -> MadtpBlipCaptionOutput:
        """Teacher-forced captions.

        Args:
            pixel_values, align, provenance, interpolate_pos_encoding: see `encode`.
            input_ids: `[c, l]` captions from the start token on; None = `labels`.
            attention_mask: `[c, l]`, 0 = padding on the right: not attended to, and no loss is taken.
            labels: `[c, l]`; the shift by one is done inside; -100 is ignored. The loss is a mean over tokens.
            logits_to_keep: of how many of the last positions to return logits; 0 = all. Not with labels.
            image_index: `[c]` the image of each caption, not descending; None = one caption an image, in order.
            **kwargs: passed to the decoder.

        Raises:
            ValueError: neither input_ids nor labels; padding before a token; `image_index` descends or names an image
                that is not there.
        """
        if input_ids is None:
            if labels is None:
                raise ValueError("pass input_ids, or labels for a loss; to write captions call generate")
            input_ids = labels.masked_fill(labels == -100, self.decoder_pad_token_id)
        if attention_mask is not None and bool(((attention_mask != 0).long().diff(dim=-1) > 0).any()):
            raise ValueError("captions are padded on the right: attention_mask holds a 0 before a 1")
        captions = len(input_ids)
        index = one_image(image_index, len(pixel_values), captions, "captions")
        encoded = self.encode(pixel_values, provenance=provenance, interpolate_pos_encoding=interpolate_pos_encoding)
        states, mask = encoded.states()
        if image_index is not None:
            place = index.to(states.device)
            states, mask = states.index_select(0, place), mask.index_select(0, place)
        if labels is not None and attention_mask is not None:
            labels = labels.masked_fill(attention_mask == 0, -100)
        caption = self.text_decoder(
            input_ids=input_ids,
            attention_mask=attention_mask,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            labels=labels,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        encoded.trace.image_index = index
        count_forced(encoded.trace, input_ids, attention_mask, None, captions)
        return MadtpBlipCaptionOutput(caption.loss, caption.logits, caption.loss, None, encoded.trace, encoded)

    @torch.no_grad()
    def generate(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        encoded: Encoded | None = None,
        **generate_kwargs: Any,
    ) -> Tensor:
        """Captions as token ids `[b * r, l]`, r sequences an image, by the stock decoder's `generate`.

        Prompts are taken as the host takes them: the first token becomes the start token, the last one, a separator,
        is cut off. Prompts of unlike lengths are continued length by length, each as if it were alone; lengths asked
        for (`min_length`, `max_length`) count the prompt, without its padding. Captions are padded on the right.

        Args:
            pixel_values, interpolate_pos_encoding: see `encode`.
            input_ids: `[b, l]` a prompt for each image, from a first token to a separator; None = no prompt.
            attention_mask: `[b, l]`, 0 = padding, anywhere; None = padding is where `input_ids` holds the pad token.
            encoded: the image tower's output, if it has run already (`pixel_values` is then not used).
            **generate_kwargs: `num_beams`, `do_sample`, `top_p`, `min_length`, `num_return_sequences` and so on.

        Raises:
            ValueError: neither pixels nor `encoded`, not one prompt an image, a prompt of less than two tokens, or a
                dictionary asked for.
        """
        if encoded is None:
            if pixel_values is None:
                raise ValueError("pass pixel_values, or encoded")
            encoded = self.encode(pixel_values, interpolate_pos_encoding=interpolate_pos_encoding)
        if generate_kwargs.get("return_dict_in_generate"):
            raise ValueError("generate returns token ids; return_dict_in_generate is not supported")
        states, mask = encoded.states()
        prompts = self._prompts(input_ids, attention_mask, len(states), states.device)
        end, pad = self.config.text_config.sep_token_id, self.config.text_config.pad_token_id
        written: dict[int, tuple[Tensor, Tensor]] = {}  # captions and their lengths, by image
        for length in prompts.lengths.unique().tolist():
            group = (prompts.lengths == length).nonzero()[:, 0]
            place = group.to(states.device)
            start = prompts.select(group).values.view(len(group), length)
            out = self.text_decoder.generate(
                input_ids=start,
                eos_token_id=end,
                pad_token_id=pad,
                attention_mask=torch.ones_like(start),
                encoder_hidden_states=states.index_select(0, place),
                encoder_attention_mask=mask.index_select(0, place),
                **generate_kwargs,
            )
            out, lengths = ended(out, length, end, pad)
            each = zip(out.chunk(len(group)), lengths.chunk(len(group)), strict=True)
            written.update(zip(group.tolist(), each, strict=True))
        captions, counts = zip(*(written[i] for i in range(len(states))), strict=True)
        beams = asked_for("num_beams", generate_kwargs, self.text_decoder)
        encoded.trace.image_index = torch.arange(len(states))
        count_generated(encoded.trace, torch.stack(counts), prompts.lengths, beams)
        longest = max(rows.shape[1] for rows in captions)
        return torch.cat([nn.functional.pad(rows, (0, longest - rows.shape[1]), value=pad) for rows in captions])

    def _prompts(
        self, input_ids: Tensor | None, attention_mask: Tensor | None, images: int, device: torch.device
    ) -> Ragged:
        """Prompts `[t]` without padding and separator, start token first; by default the start token alone."""
        bos, pad = self.config.text_config.bos_token_id, self.config.text_config.pad_token_id
        if input_ids is None:
            return Ragged(torch.full((images,), bos, device=device), torch.ones(images, dtype=torch.long))
        input_ids = torch.as_tensor(input_ids, device=device)  # the host takes lists, too
        if len(input_ids) != images:
            raise ValueError(f"{len(input_ids)} prompts for {images} images: pass one for each")
        given = Ragged.from_padded(input_ids, input_ids != pad if attention_mask is None else attention_mask)
        if bool((given.lengths < 2).any()):
            raise ValueError("a prompt goes from a first token, which becomes the start token, to a separator")
        rows = [torch.cat([row.new_tensor([bos]), row[1:-1]]) for row in given.values.split(given.lengths.tolist())]
        return Ragged(torch.cat(rows), given.lengths - 1)
