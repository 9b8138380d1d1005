"""What the C library does with memory that is free again. Here because trainer and evaluator share nothing else."""

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_MOST = 2**31 - 1
KEPT_BYTES = 2**30
RETURNED_BYTES = 2**22


def keep_freed_memory() -> bool:
    """Keep free blocks of up to KEPT_BYTES for the next operator; whether that was set.

    glibc by itself hands large blocks back to the system at once, and an operator's output then begins with pages that
    the system must find and clear: a seventh of an RL step on two cores. The process stays as large as it once was.
    Where there is no glibc, nothing changes.
    """
    glibc = _glibc()
    return glibc is not None and bool(
        glibc.mallopt(_TRIM_THRESHOLD, _MOST) and glibc.mallopt(_MMAP_THRESHOLD, KEPT_BYTES)
    )


def return_freed_memory() -> bool:
    """Hand blocks from RETURNED_BYTES on back to the system at once, and all that is free now; whether that was set.

    For a process that gathers weights and lets go of them over and over, to be small: in a heap that keeps everything
    they leave holes that fit nothing.
    """
    glibc = _glibc()
    if glibc is None:
        return False
    told = glibc.mallopt(_TRIM_THRESHOLD, RETURNED_BYTES) and glibc.mallopt(_MMAP_THRESHOLD, RETURNED_BYTES)
    glibc.malloc_trim(0)
    return bool(told)


def _glibc() -> ctypes.CDLL | None:
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
