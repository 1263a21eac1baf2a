"""The C library's allocator, set for processes that run for days; programs call it, the SDK never does."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8  # glibc's number of the option
_ARENAS = 2


def bound_arenas() -> None:
    """Keep glibc from giving each new thread a heap of its own.

    A camera that is opened again is read by a new thread, and its frames are freed by others: the
    heaps would all grow to their largest, and the process with them. Other C libraries are left alone.
    """
    try:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)
    except (OSError, AttributeError):
        return
