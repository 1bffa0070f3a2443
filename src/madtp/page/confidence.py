"""How sure a model is of an answer it gave."""

from typing import Any

import torch

from madtp.task.base import Batch, Prediction, Task


def confidence(model: Any, task: Task, batch: Batch, prediction: Prediction, encoded: Any) -> float | None:
    """Probability that the model gives its own answer, 0..1.

    Of a generated answer the product over its tokens, the end included; of a caption, which is long, the geometric mean
    of a token; of a statement the softmax of the head; of picture and text the matching head's, which is the answer
    itself. None for CLIP: a cosine is no probability.

    Args:
        model, task, batch: that answered; the batch holds one text (or one picture to caption).
        prediction: what was answered.
        encoded: what `task.predict` returned beside it.
    """
    if task.name == "reasoning":
        return float(model.classify(encoded).float().softmax(-1).max())
    if task.name == "retrieval":
        logits = getattr(encoded, "logits", None)
        return None if logits is None else float(logits.float().softmax(-1)[0, 1])
    words: Any = task
    prompt = words.prompt if task.name == "caption" else ""
    begun = words.prompt_tokens if task.name == "caption" else 1
    ids, _ = words.texts.said([f"{prompt} {prediction.answer}".strip()])
    ids = ids.to(model.device)
    states, mask = encoded.states()
    logits = model.text_decoder(input_ids=ids, encoder_hidden_states=states, encoder_attention_mask=mask).logits
    told = logits[0, :-1].float().log_softmax(-1).gather(-1, ids[0, 1:, None])[begun - 1 :, 0]
    likelihood = told.mean() if task.name == "caption" else told.sum()
    return float(torch.exp(likelihood))
