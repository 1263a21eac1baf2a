"""A line of times that only rises, whatever a stream says."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cmlr_edge.capture.timeline import TimeLine


@given(
    st.lists(st.none() | st.floats(), max_size=60),
    st.none() | st.floats(0.1, 1000),
    st.booleans(),
)
def test_it_rises_and_is_finite(stream: list[float | None], fps: float | None, jumps: bool) -> None:
    line = TimeLine(fps, may_jump=jumps)
    times = [line.place(time_s) for time_s in stream]
    assert times[:1] in ([], [0.0])
    assert all(after > before for before, after in pairwise(times))
    assert all(math.isfinite(time_s) for time_s in times)


def placed(stream: list[float | None], *, jumps: bool = False) -> list[float]:
    line = TimeLine(10, may_jump=jumps)
    return [round(line.place(time_s), 6) for time_s in stream]


def test_a_good_stream_keeps_its_times() -> None:
    assert placed([7.0, 7.1, 7.25, 9.0, 700.0]) == [0, 0.1, 0.25, 2.0, 693.0]


def test_a_stream_that_starts_again_goes_on() -> None:
    assert placed([7.0, 7.1, 1.0, 1.1, 1.3]) == [0, 0.1, 0.2, 0.3, 0.5]
    assert placed([1.0, 1.1, 900.0, 900.1], jumps=True) == [0, 0.1, 0.2, 0.3]


def test_frames_without_a_time_or_out_of_order_stand_behind_the_one_before() -> None:
    assert placed([1.0, None, None, 1.3]) == [0, 0.1, 0.2, 0.3]
    assert placed([None, None, 50.0, 50.1]) == [0, 0.1, 0.2, 0.3]
    assert placed([1.0, 1.2, 1.1, 1.3]) == [0, 0.2, pytest.approx(0.205), 0.3]
