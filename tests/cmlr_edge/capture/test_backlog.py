"""How old frames of a network stream are said to be, on clocks that the tests turn."""

from __future__ import annotations

import random

import pytest

from cmlr_edge.capture.backlog import Backlog, Verdict


class Connection:
    """Frames that are sent at known times and arrive at others."""

    def __init__(self, fps: float | None = 25.0, *, has_times: bool = True) -> None:
        self.backlog = Backlog(fps, has_times=has_times)
        self.now_s = 1000.0

    def receive(self, stream_s: float | None, arrives_s: float) -> Verdict:
        waited_s = max(0.0, arrives_s - self.now_s)
        self.now_s = max(self.now_s, arrives_s) + 1e-4  # to take it off the socket
        return self.backlog.judge(stream_s, waited_s, self.now_s)


def flow(connection: Connection, start: int, count: int, fps: float = 25.0) -> list[Verdict]:
    """Frames that arrive 10 ms after they were taken."""
    return [
        connection.receive(number / fps, 1000 + number / fps + 0.01)
        for number in range(start, start + count)
    ]


def test_what_piled_up_while_the_stream_was_opened_is_old() -> None:
    connection = Connection(fps=None)
    connection.now_s = 1001.9
    verdicts = flow(connection, 0, 60)
    piled = [verdict for number, verdict in enumerate(verdicts) if number / 25 + 0.01 < 1.9]
    assert all(verdict.is_queued for verdict in piled)
    fresh = verdicts[len(piled) + 1 :]
    assert not any(verdict.is_queued for verdict in fresh)
    assert all(verdict.age_s < 0.05 for verdict in fresh)


@pytest.mark.parametrize("fps", [1.0, 5.0, 25.0])
def test_what_a_pause_of_the_network_held_back_is_as_old_as_it_is(fps: float) -> None:
    connection = Connection(fps)
    flow(connection, 0, 30, fps)
    stalled = 30 / fps
    held = [number for number in range(30, 200) if number / fps < stalled + 1.7]
    for number in held:
        verdict = connection.receive(number / fps, 1000 + stalled + 1.7)
        true_age_s = connection.now_s - 1000 - number / fps
        assert verdict.age_s == pytest.approx(true_age_s, abs=0.05)
        assert verdict.is_queued == (true_age_s > 0.22) or true_age_s < 0.3
    after = flow(connection, held[-1] + 1, 10, fps)
    assert not any(verdict.is_queued for verdict in after[1:])


def test_a_late_frame_behind_which_none_waits_is_not_left_out_for_long() -> None:
    connection = Connection()
    flow(connection, 0, 50)
    later = [
        connection.receive(number / 25, 1000 + number / 25 + 0.5)  # another way, for good
        for number in range(50, 100)
    ]
    assert sum(verdict.is_queued for verdict in later) <= 1
    assert all(verdict.age_s == 0 for verdict in later[5:])


@pytest.mark.parametrize("claimed_fps", [24.0, 20.0, 26.0, 40.0])
def test_a_camera_whose_clock_is_wrong_gives_frames(claimed_fps: float) -> None:
    connection = Connection()
    verdicts = [
        connection.receive(number / claimed_fps, 1000 + number / 25) for number in range(2000)
    ]
    assert sum(verdict.is_queued for verdict in verdicts) < 20
    assert all(verdict.age_s < 0.3 for verdict in verdicts)


def test_a_camera_whose_clock_drifts_stays_fresh_for_days() -> None:
    connection, rng = Connection(), random.Random(0)
    verdicts = [
        connection.receive(number / 5, 1000 + number / 5 * 1.0002 + rng.random() * 0.05)
        for number in range(100_000)
    ]
    assert not any(verdict.is_queued for verdict in verdicts[1:])
    assert max(verdict.age_s for verdict in verdicts) < 0.1


def test_times_that_start_again_or_stand_still_or_are_missing_do_not_make_frames_old() -> None:
    again = Connection()
    flow(again, 0, 50)
    verdicts = [again.receive(number / 25, 1002 + number / 25 + 0.01) for number in range(50)]
    assert sum(verdict.is_queued for verdict in verdicts) <= 1
    for stream_s in (7.0, None):
        still = Connection()
        verdicts = [still.receive(stream_s, 1000 + number / 25) for number in range(60)]
        assert sum(verdict.is_queued for verdict in verdicts) <= 3


def test_frames_that_are_shown_in_another_order_are_not_old() -> None:
    connection = Connection()
    order = [base + step for base in range(0, 90, 3) for step in (2, 0, 1)]
    verdicts = [
        connection.receive(shown / 25, 1000 + (number + 3) / 25)
        for number, shown in enumerate(order)
    ]
    assert sum(verdict.is_queued for verdict in verdicts[1:]) == 0
    assert all(verdict.age_s < 0.1 for verdict in verdicts)


def test_without_times_a_burst_after_a_pause_is_queued() -> None:
    connection = Connection(has_times=False)
    assert not any(verdict.is_queued for verdict in flow(connection, 0, 50)[1:])
    burst = [connection.receive(None, 1004.0) for _ in range(40)]
    assert all(verdict.is_queued for verdict in burst)
    assert not connection.receive(None, 1004.2).is_queued
