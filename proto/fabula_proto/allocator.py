"""What the C library does with memory that is free again. Here because trainer and evaluator share nothing else."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MOST = 2**31 - 1
KEPT_BYTES = 2**30


def keep_freed_memory() -> bool:
    """Keep free blocks of up to KEPT_BYTES for the next operator; whether that was set.

    glibc by itself hands large blocks back to the system at once, and an operator's output then begins with pages that
    the system must find and clear: a seventh of an RL step on two cores. The process stays as large as it once was.
    Where there is no glibc, nothing changes.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_TRIM_THRESHOLD, _MOST) and mallopt(_MMAP_THRESHOLD, KEPT_BYTES))
