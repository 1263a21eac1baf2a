"""Visits on a wall clock that is set while they last, and of films that are read faster than they play."""

from __future__ import annotations

from dataclasses import replace

import pytest

from cmlr_edge.events.event import Event, EventKind
from cmlr_edge.page.visits import VisitLog
from cmlr_edge.sinks.base import Result
from tests.cmlr_edge.sinks.samples import event, frame, prediction


class Clocks:
    """A log and the clocks that it reads."""

    def __init__(self) -> None:
        self.now_s, self.wall_s = 500.0, 1e9
        self.log = VisitLog(clock=lambda: self.now_s, wall_clock=lambda: self.wall_s)

    def pass_(self, seconds: float) -> None:
        self.now_s += seconds
        self.wall_s += seconds

    def tell(self, kind: EventKind, time_s: float, start_s: float, end_s: float | None) -> None:
        told: Event = replace(
            event(1),
            kind=kind,
            time_s=time_s,
            start_s=start_s,
            end_s=end_s,
            captured_at=self.wall_s,
        )
        self.log.write(Result(frame(0), prediction(), (told,), "door"))


@pytest.mark.parametrize("set_by_s", [-3600.0, 1.7e9 - 1e9, -0.9])
@pytest.mark.parametrize("is_over", [False, True])
def test_a_wall_clock_that_is_set_moves_visits_and_makes_none_negative(
    set_by_s: float, is_over: bool
) -> None:
    clocks = Clocks()
    clocks.tell("start", 11.0, 10.0, None)
    (before,) = clocks.log.newest(9)
    assert before.start_at == pytest.approx(1e9 - 1)
    if is_over:
        clocks.pass_(5)
        clocks.tell("end", 16.0, 10.0, 14.0)
    clocks.wall_s += set_by_s
    clocks.pass_(5)
    if not is_over:
        clocks.tell("end", 16.0, 10.0, 14.0)
    (visit,) = clocks.log.newest(9, after_revision=before.revision + int(is_over))
    assert visit.start_at == pytest.approx(1e9 - 1 + set_by_s)
    assert visit.end_at == pytest.approx(visit.start_at + 4)


def test_a_visit_that_lasts_never_starts_in_the_future() -> None:
    clocks = Clocks()
    clocks.tell("start", 11.0, 10.0, None)
    clocks.wall_s -= 7200
    clocks.pass_(3)
    (visit,) = clocks.log.newest(9)
    assert clocks.wall_s - visit.start_at == pytest.approx(4)


def test_a_film_read_faster_than_it_plays_has_visits_as_long_as_they_are_in_it() -> None:
    clocks = Clocks()
    clocks.tell("start", 3.7, 3.2, None)
    clocks.pass_(0.05)
    clocks.tell("end", 8.2, 3.2, 7.2)
    (visit,) = clocks.log.newest(9)
    assert visit.end_at == pytest.approx(visit.start_at + 4)
