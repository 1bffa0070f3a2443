"""The table of all methods by name: MADTP, the comparators, and MADTP with one part changed."""

from madtp.prune import ablation
from madtp.prune.baselines import class_attention, random
from madtp.prune.crossget import crossget
from madtp.prune.downsample import whole
from madtp.prune.elip import elip, ends_stage
from madtp.prune.nearest import madtp_nearest
from madtp.prune.step import Method, madtp
from madtp.prune.tome import tome
from madtp.prune.tome_dynamic import sees, tome_dynamic

_TEMPERATURE, _SHARE, _TAKEN = (0.02, 4096.0), (0.005, 0.95), (0.001, 0.5)
_NOTHING: frozenset[str] = frozenset()
_MATCHING = frozenset({"key", "size"})

METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method("madtp", "temperature", True, madtp, _TEMPERATURE),
        Method("madtp_nearest", "temperature", True, madtp_nearest, _TEMPERATURE, _MATCHING | {"attention"}),
        Method("class_attention", "prune_share", False, class_attention, _SHARE),
        Method("random", "prune_share", False, random, _SHARE, _NOTHING),
        Method("tome", "prune_share", False, tome, _TAKEN, _MATCHING),
        Method("tome_dynamic", "distance", False, tome_dynamic, (1e-4, 2.0), _MATCHING, acts=sees),
        Method("crossget", "prune_share", True, crossget, _TAKEN, frozenset({"key"})),
        Method("elip", "prune_share", True, elip, _SHARE, acts=ends_stage),
        Method("downsample", "prune_share", False, whole, (0.005, 0.99), _NOTHING, pixels=True),
        Method("upop", "prune_share", False, whole, (0.005, 0.99), _NOTHING, weights=True),
        Method("madtp_no_class", "temperature", True, ablation.without_class, _TEMPERATURE),
        Method("madtp_no_self", "temperature", True, ablation.without_self, _TEMPERATURE),
        Method("madtp_no_token", "temperature", True, ablation.without_token, _TEMPERATURE),
        Method("madtp_robust", "temperature", True, ablation.robust, _TEMPERATURE),
        Method("madtp_unguided", "factor", False, ablation.unguided, (0.1, 2.0)),
        Method("madtp_static", "prune_share", True, ablation.static, _SHARE),
        Method("madtp_drop", "temperature", True, ablation.dropping, _TEMPERATURE),
        Method("madtp_batch_max", "temperature", True, ablation.batch_max, _TEMPERATURE),
    )
}
