"""Waiting for what another thread or process does."""

from __future__ import annotations

import time
from collections.abc import Callable
from subprocess import Popen
from typing import Any


def wait_until(
    condition: Callable[[], object], process: Popen[Any] | None = None, *, limit_s: float = 60
) -> float:
    """Return the seconds that it took. process: must not end before."""
    began_s = time.monotonic()
    while not condition():
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() - began_s < limit_s, "it did not happen in time"
        time.sleep(0.005)
    return time.monotonic() - began_s
