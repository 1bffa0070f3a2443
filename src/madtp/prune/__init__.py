"""The method, alone: torch and nothing else. Tensors and floats in, tensors out.

Deciding (scores, threshold -> `Selection`) is apart from applying: `Selection.apply` to features, `.follow` for
provenance.
"""

from madtp.prune.align import ALIGNMENTS, affinity, alignment_loss, contrastive_alignment_loss, semantic_feature
from madtp.prune.downsample import downsample
from madtp.prune.merge import Selection, select
from madtp.prune.methods import METHODS
from madtp.prune.record import Record, is_recording, record, recording
from madtp.prune.score import class_score, self_score, token_importance, token_score
from madtp.prune.step import Decision, Evidence, Method
from madtp.prune.threshold import keep_above, threshold
from madtp.prune.trace import BlockTrace, Provenance, Trace

__all__ = [
    "ALIGNMENTS",
    "METHODS",
    "BlockTrace",
    "Decision",
    "Evidence",
    "Method",
    "Provenance",
    "Record",
    "Selection",
    "Trace",
    "affinity",
    "alignment_loss",
    "class_score",
    "contrastive_alignment_loss",
    "downsample",
    "is_recording",
    "keep_above",
    "record",
    "recording",
    "select",
    "self_score",
    "semantic_feature",
    "threshold",
    "token_importance",
    "token_score",
]
