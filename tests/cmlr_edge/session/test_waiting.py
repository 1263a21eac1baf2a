"""What a run waits for beside its frames is broken off when the run ends."""

from __future__ import annotations

import time

import pytest

from cmlr_edge.machine.waiting import Interrupted, tick
from cmlr_edge.session.updates import await_beating


def _for_ever() -> None:
    while True:
        tick()


def test_a_job_that_waits_is_broken_off_at_the_end_of_the_run() -> None:
    start_s, beats = time.monotonic(), [""] * 0
    with pytest.raises(Interrupted):
        await_beating(_for_ever, lambda: beats.append("beat"), lambda: len(beats) > 1)
    assert 1 < len(beats) < 4
    assert time.monotonic() - start_s < 2


def test_a_job_that_does_not_wait_is_done_whatever_ends() -> None:
    assert await_beating(lambda: 7, lambda: None, lambda: True) == 7
