"""Settings of the process that make the same work faster, or smaller; the command line applies them at its start."""

import ctypes
import os
import sys

# glibc's mallopt parameters (malloc.h).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4


def keep_freed_memory() -> bool:
    """Let glibc keep freed memory instead of handing every large tensor back to the system and faulting it in again.

    A training step of a tiny model is much faster for it. Returns False where it does not apply.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(
        mallopt(option, value) for option, value in ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1), (_TOP_PAD, 1 << 26))
    )


def few_kernels(most: int = 512) -> None:
    """Have oneDNN keep so many of its latest kernels, unless the environment says how many; before it is first used.

    It makes one for every shape. Linear maps meet few numbers of rows (`madtp.model.linear`), all of which fit;
    attention over ragged batches has new ones almost every time, and oneDNN's own 1024, twice, filled hundreds of MB.
    """
    for name in ("LRU_CACHE_CAPACITY", "ONEDNN_PRIMITIVE_CACHE_CAPACITY"):
        os.environ.setdefault(name, str(most))
