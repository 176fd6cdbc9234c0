"""Memory habits of long runs."""

import ctypes
import sys

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


def keep_freed_memory() -> None:
    """Let the C library reuse freed blocks instead of handing each back to the system.

    Every step of a reconstruction or of learning allocates and frees the same few megabytes;
    glibc's default maps and unmaps them each time, and the page faults cost a quarter of the step.
    Does nothing where the C library has no such switch.
    """
    if not sys.platform.startswith("linux"):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        if not mallopt(_M_MMAP_THRESHOLD, 2**30):
            mallopt(_M_MMAP_THRESHOLD, 2**25)  # the most that older versions take
        mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
