"""Clocks that only rise: the wall clock is set by hand, by the network, after a start without a battery."""

from __future__ import annotations

import time
from datetime import datetime

CLOCK_WAS_SET_S = 1_577_836_800.0  # 2020: what says earlier is a clock that nobody has set


def since_start_s() -> float:
    """Seconds since the machine was started; they go on while it sleeps, whatever the wall clock says."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def local_time(seconds: float, form: str) -> str:
    """Seconds since the epoch on this machine's clock, by `strftime`; "?" for a moment that no calendar has."""
    try:
        return f"{datetime.fromtimestamp(seconds).astimezone():{form}}"
    except (OverflowError, ValueError, OSError):
        return "?"
