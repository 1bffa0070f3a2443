"""BLIP models with pruned towers: subclasses of transformers' classes, every parameter name kept."""

import copy
from typing import Any

import torch
from torch import Tensor
from transformers import BlipForQuestionAnswering, BlipTextConfig

from madtp.model.base import Pruned, blip_guidance
from madtp.model.config import MadtpBlipConfig
from madtp.model.decoding import asked_for, count_forced, count_generated, ended
from madtp.model.gaze import one_image
from madtp.model.output import Encoded, MadtpBlipVqaOutput
from madtp.model.ragged import Ragged
from madtp.model.text import MadtpBlipTextDecoder, MadtpBlipTextModel
from madtp.model.vision import MadtpBlipVisionModel
from madtp.prune import Trace


class MadtpBlipForQuestionAnswering(Pruned, BlipForQuestionAnswering):
    """BLIP for VQA: image tower and question encoder pruned, answer decoder stock but for an honoured mask.

    Differs from the host:
        - several questions may ask about one image, which runs through the image tower once (`image_index`);
        - several weighted answers may train one question (`answer_index`, `answer_weights`);
        - padding of questions and pruned tokens is masked everywhere (the host's decoder attends to it);
        - with `temperature=None` the outputs equal the host's but for that padding.
    """

    config_class = MadtpBlipConfig
    stock_class = BlipForQuestionAnswering

    def __init__(self, config: MadtpBlipConfig) -> None:
        super().__init__(config)
        self.vision_model = MadtpBlipVisionModel(config.vision_config)
        self.text_encoder = MadtpBlipTextModel(config.text_config, add_pooling_layer=False)
        self.text_decoder = MadtpBlipTextDecoder(_decoder_config(config.text_config))
        self.madtp_guidance = blip_guidance(config)
        self.post_init()

    def see(self, pixel_values: Tensor) -> Ragged:
        """The image tower alone, as it prunes now: `[b, 3, height, width]` pixels to ragged tokens."""
        return self.vision_model(pixel_values, self._pruner("vision", Trace(), gather=False, provenance=False))

    @property
    def word_vectors(self) -> Tensor:
        """`[vocabulary, c]` the decoder's output word embeddings."""
        weight: Tensor = self.text_decoder.get_output_embeddings().weight
        return weight

    def encode(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        image_index: Tensor | None = None,
        *,
        align: bool = False,
        provenance: bool = False,
        interpolate_pos_encoding: bool = False,
    ) -> Encoded:
        """Run both towers.

        Args:
            input_ids: `[q, l]` questions.
            pixel_values: `[b, 3, height, width]` images.
            attention_mask: `[q, l]`, nonzero = token, padding anywhere; None = no padding.
            image_index: `[q]` the image of each question, not descending; None = one question an image, in order.
            align: also compute the alignment loss.
            provenance: record in the trace where every patch and word is after each block.
            interpolate_pos_encoding: for images of another size than trained on.

        Raises:
            ValueError: `image_index` descends, or names an image that is not there.
        """
        images, questions = pixel_values.shape[0], input_ids.shape[0]
        image_index = one_image(image_index, images, questions)
        trace = Trace(image_index=image_index)
        backend = self.pruning.attention
        seer = self._pruner("vision", trace, gather=align, provenance=provenance)
        image = self.vision_model(pixel_values, seer, backend, interpolate_pos_encoding)
        reader = self._pruner("text", trace, gather=align, provenance=provenance)
        question = self.text_encoder(input_ids, attention_mask, reader, image, image_index, backend)
        alignment = None
        if align and seer.feature is not None and reader.feature is not None:
            seen = seer.feature.index_select(0, image_index.to(seer.feature.device))
            alignment = self._alignment(seen, reader.feature, image_index)
        return Encoded(image, question, trace, alignment)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        image_index: Tensor | None = None,
        answer_index: Tensor | None = None,
        answer_weights: Tensor | None = None,
        align: bool | None = None,
        provenance: bool = False,
        **kwargs: Any,
    ) -> MadtpBlipVqaOutput:
        """Teacher-forced answers.

        Args:
            input_ids, pixel_values, attention_mask, image_index, provenance, interpolate_pos_encoding: see `encode`.
            decoder_input_ids: `[a, l]`; None = `labels`.
            decoder_attention_mask: `[a, l]`; where it is 0, nothing is attended to and no loss is taken.
            labels: `[a, l]` answers from the start token on; the shift by one is done inside; -100 is ignored.
            answer_index: `[a]` the question of each answer; None = one answer a question, in order.
            answer_weights: `[a]`; the loss is then BLIP's: each answer's summed token loss, weighted, summed over the
                answers and divided by the number of questions. None = the host's mean over tokens.
            align: compute the alignment loss; None = when there are labels and the model `aligns`.

        Raises:
            ValueError: neither labels nor decoder_input_ids, or see `encode`.
        """
        if labels is None and decoder_input_ids is None:
            raise ValueError("pass labels (for a loss) or decoder_input_ids; to answer questions call generate or rank")
        if align is None:
            align = labels is not None and self.aligns
        encoded = self.encode(
            input_ids,
            pixel_values,
            attention_mask,
            image_index,
            align=align,
            provenance=provenance,
            interpolate_pos_encoding=interpolate_pos_encoding,
        )
        if decoder_input_ids is None:
            assert labels is not None
            decoder_input_ids = labels.masked_fill(labels == -100, self.decoder_pad_token_id)
        if labels is not None and decoder_attention_mask is not None:
            labels = labels.masked_fill(decoder_attention_mask == 0, -100)
        states, mask = encoded.states()
        questions = len(states)
        if answer_index is not None:
            states, mask = states.index_select(0, answer_index), mask.index_select(0, answer_index)
        answer = self.text_decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            labels=labels,
            reduction="mean" if answer_weights is None else "none",
        )
        count_forced(encoded.trace, decoder_input_ids, decoder_attention_mask, answer_index, questions)
        loss_task = answer.loss
        if loss_task is not None and answer_weights is not None:
            loss_task = (loss_task * answer_weights).sum() / questions
        loss, loss_align = self._losses(loss_task, encoded.alignment)
        return MadtpBlipVqaOutput(loss, answer.logits, loss_task, loss_align, encoded.trace, encoded)

    @torch.no_grad()
    def generate(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        interpolate_pos_encoding: bool = False,
        *,
        image_index: Tensor | None = None,
        encoded: Encoded | None = None,
        **generate_kwargs: Any,
    ) -> Tensor:
        """Answers as token ids `[q, l]`, by the stock decoder's `generate` (its arguments pass through).

        Args:
            input_ids, pixel_values, attention_mask, image_index, interpolate_pos_encoding: see `encode`.
            encoded: the towers' outputs, if they have run already (the arguments above are then not used).
        """
        if encoded is None:
            encoded = self.encode(
                input_ids,
                pixel_values,
                attention_mask,
                image_index,
                interpolate_pos_encoding=interpolate_pos_encoding,
            )
        states, mask = encoded.states()
        start = torch.full((len(states), 1), self.decoder_start_token_id, device=states.device)
        eos, pad = self.config.text_config.sep_token_id, self.config.text_config.pad_token_id
        out: Tensor = self.text_decoder.generate(
            input_ids=start,
            eos_token_id=eos,
            pad_token_id=pad,
            encoder_hidden_states=states,
            encoder_attention_mask=mask,
            **generate_kwargs,
        )
        beams = asked_for("num_beams", generate_kwargs, self.text_decoder)
        out, lengths = ended(out, 1, eos, pad)
        one = torch.ones(len(states), dtype=torch.long)
        count_generated(encoded.trace, lengths.view(len(states), -1), one, beams)
        return out

    @torch.no_grad()
    def rank(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        answer_ids: Tensor,
        answer_mask: Tensor,
        attention_mask: Tensor | None = None,
        *,
        k: int = 128,
        image_index: Tensor | None = None,
        encoded: Encoded | None = None,
    ) -> Tensor:
        """Index `[q]` of the likeliest of a closed list of answers, BLIP's way.

        The k answers whose first token is likeliest are scored whole (summed token log-likelihood with the training
        loss's label smoothing); the best wins.

        Args:
            input_ids, pixel_values, attention_mask, image_index, encoded: see `generate`.
            answer_ids: `[n, l]` from the start token to the end token, padded on the right.
            answer_mask: `[n, l]`, nonzero = token.
            k: answers to score whole.

        Raises:
            ValueError: an answer holds no token beside the start token.
        """
        if answer_ids.shape[0] == 0 or bool((answer_mask.sum(-1) < 2).any()):
            raise ValueError("rank needs at least one answer, each of the start token and at least one more")
        if encoded is None:
            encoded = self.encode(input_ids, pixel_values, attention_mask, image_index)
        states, mask = encoded.states()
        questions, k = len(states), min(k, len(answer_ids))
        start = answer_ids[:1, :1].expand(questions, 1)
        first = self.text_decoder(input_ids=start, encoder_hidden_states=states, encoder_attention_mask=mask).logits
        likelihood = first[:, 0].softmax(-1).index_select(1, answer_ids[:, 1])
        best = likelihood.topk(k, dim=1).indices
        ids, seen = answer_ids[best].flatten(0, 1), answer_mask[best].flatten(0, 1)
        loss = self.text_decoder(
            input_ids=ids,
            attention_mask=seen,
            encoder_hidden_states=states.repeat_interleave(k, 0),
            encoder_attention_mask=mask.repeat_interleave(k, 0),
            labels=ids.masked_fill(seen == 0, -100),
            reduction="none",
        ).loss
        lengths = answer_mask.sum(-1)[best].cpu()
        trace = encoded.trace
        trace.decoder_tokens, trace.decoder_pairs = lengths.sum(-1) + 1, lengths.square().sum(-1) + 1
        trace.decoder_sequences = torch.full((questions,), k + 1)
        trace.decoder_logits = None
        return best.gather(1, loss.view(questions, k).argmin(1, keepdim=True))[:, 0]


def _decoder_config(text: BlipTextConfig) -> BlipTextConfig:
    """The answer decoder attends to question states; the host builds it for image tokens, of another width maybe."""
    if text.encoder_hidden_size == text.hidden_size:
        return text
    text = copy.deepcopy(text)
    text.encoder_hidden_size = text.hidden_size
    return text
