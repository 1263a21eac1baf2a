from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import count, groupby

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from cmlr_edge.errors import SpecError
from cmlr_edge.events.event import Event
from cmlr_edge.events.tracker import EventTracker
from cmlr_edge.model.stability import LabelStability, stability_from_thresholds

DIRECT = LabelStability(0.5, 0.4, smoothing_s=0, min_duration_s=0, min_gap_s=0)


@dataclass(frozen=True)
class Sample:
    time_s: float
    score: float
    valid: bool = True


def track(samples: list[Sample], stability: LabelStability, *, finish: bool = True) -> list[Event]:
    numbers = count()
    tracker = EventTracker({"dog": stability}, new_id=lambda: str(next(numbers)))
    events = []
    for sample in samples:
        scores = np.array([sample.score], np.float64)
        events += tracker.add(scores, sample.time_s, valid=sample.valid)  # type: ignore[arg-type]
    return events + (tracker.finish() if finish else [])


def spans(events: list[Event]) -> list[tuple[float, float]]:
    ended = [event for event in events if event.kind == "end"]
    return [(event.start_s, event.end_s) for event in ended if event.end_s is not None]


def sample_scene(steps: list[tuple[float, float]], fps: float, length_s: float) -> list[Sample]:
    """A scene whose score changes at given times, seen by a camera."""
    samples = []
    for i in range(math.ceil(length_s * fps)):
        score = 0.0
        for since_s, value in steps:
            score = value if i / fps >= since_s - 1e-9 else score
        samples.append(Sample(i / fps, score))
    return samples


def slow_reference(samples: list[Sample], stability: LabelStability) -> list[tuple[float, float]]:
    """Look at the whole recording: smooth it, cut it into runs, keep and join runs by length."""
    clock, smoothed, present = 0.0, None, False
    rows: list[tuple[bool, float, float]] = []  # present, observed clock, time
    for before, sample in zip([samples[0], *samples], samples, strict=False):
        if not sample.valid:
            continue
        step = min(max(0.0, sample.time_s - before.time_s), stability.max_step_s)
        clock += step
        tau = stability.smoothing_s
        weight = 1 - math.exp(-step / tau) if tau else 1.0
        smoothed = sample.score if smoothed is None else smoothed + weight * (
            sample.score - smoothed
        )  # fmt: skip
        for level in (stability.enter, stability.leave):  # rounding may decide: no reference there
            assume(tau == 0 or abs(smoothed - level) > 1e-9)
        present = smoothed >= (stability.leave if present else stability.enter)
        rows.append((present, clock, sample.time_s))
    runs = [list(group) for _, group in groupby(rows, key=lambda row: row[0])]
    found: list[tuple[float, float]] = []
    start: float | None = None
    for run in runs:
        there, lasted = run[0][0], run[-1][1] - run[0][1]
        if there and start is None and lasted >= stability.min_duration_s:
            start = run[0][2]
        if not there and start is not None and lasted >= stability.min_gap_s:
            found.append((start, run[0][2]))
            start = None
    if start is not None:
        found.append((start, samples[-1].time_s if runs[-1][0][0] else runs[-1][0][2]))
    return found


# Multiples of 1/16 add up without rounding.
sixteenths = st.integers(0, 48).map(lambda n: n / 16)
recordings = st.lists(
    st.tuples(st.integers(-8, 48).map(lambda n: n / 16), sixteenths, st.integers(0, 9)),
    min_size=1,
    max_size=60,
)
stabilities = st.builds(
    LabelStability,
    enter=st.just(0.5),
    leave=st.sampled_from([0.25, 0.5]),
    smoothing_s=st.sampled_from([0.0, 0.25, 1.0]),
    min_duration_s=sixteenths,
    min_gap_s=sixteenths,
    update_every_s=st.just(1e9),
    max_step_s=st.sampled_from([0.5, 2.0]),
)


def build_recording(steps: list[tuple[float, float, int]]) -> list[Sample]:
    times = np.cumsum([step for step, _, _ in steps]).tolist()
    return [
        Sample(time_s, score / 3, valid=luck > 0)
        for time_s, (_, score, luck) in zip(times, steps, strict=True)
    ]


@settings(deadline=None, max_examples=400)
@given(recordings, stabilities)
def test_events_are_those_of_the_slow_reference(
    steps: list[tuple[float, float, int]], stability: LabelStability
) -> None:
    samples = build_recording(steps)
    assert spans(track(samples, stability)) == slow_reference(samples, stability)


@settings(deadline=None, max_examples=200)
@given(recordings, stabilities)
def test_every_event_starts_once_and_ends_once_in_order_under_one_id(
    steps: list[tuple[float, float, int]], stability: LabelStability
) -> None:
    events = track(build_recording(steps), replace(stability, update_every_s=0.5))
    for number, group in groupby(events, key=lambda event: event.id):
        kinds = [event.kind for event in group]
        assert kinds == ["start", *["update"] * (len(kinds) - 2), "end"], number
    assert len({event.id for event in events}) == len(spans(events))


@settings(deadline=None, max_examples=200)
@given(recordings, stabilities, st.integers(1, 20), st.floats(0, 1))
def test_invalid_frames_alone_neither_start_nor_end_an_event(
    steps: list[tuple[float, float, int]], stability: LabelStability, number: int, score: float
) -> None:
    samples = build_recording(steps)
    last = samples[-1].time_s
    outage = [Sample(last + i, score, valid=False) for i in range(1, number + 1)]
    with_outage = track(samples + outage, stability, finish=False)
    assert with_outage == track(samples, stability, finish=False)


SCENE = [(1.03, 0.9), (4.21, 0.1), (6.5, 0.8), (6.77, 0.0), (8.0, 0.95), (9.0, 0.2), (9.5, 0.9),
         (13.37, 0.0)]  # fmt: skip


@pytest.mark.parametrize("stability", [DIRECT, LabelStability(0.5, 0.4)], ids=["direct", "default"])
def test_events_are_the_same_at_5_10_and_30_frames_per_second(stability: LabelStability) -> None:
    stability = replace(stability, min_duration_s=0.6, min_gap_s=1.0)
    found = {fps: spans(track(sample_scene(SCENE, fps, 16), stability)) for fps in (5, 10, 30)}
    assert len(found[30]) == 2  # the short one is no event, the short gap no end
    for fps in (5, 10):
        assert len(found[fps]) == len(found[30])
        np.testing.assert_allclose(found[fps], found[30], atol=1 / fps, rtol=0)


@settings(deadline=None)
@given(st.floats(0, 0.5), st.floats(1, 3), st.sampled_from([3, 5, 7.5, 10, 24, 30, 60]))
def test_a_step_enters_and_leaves_when_the_formula_says_within_a_frame(
    start_s: float, length_s: float, fps: float
) -> None:
    stability = LabelStability(0.6, 0.3, smoothing_s=0.4, min_duration_s=0, min_gap_s=0)
    scene = [(1 + start_s, 1.0), (1 + start_s + length_s, 0.0)]
    ((start, end),) = spans(track(sample_scene(scene, fps, 8), stability))
    # 1 - exp(-t / tau) = enter, and exp(-t / tau) * peak = leave.
    entered = 1 + start_s - 0.4 * math.log(1 - 0.6)
    peak = 1 - math.exp(-length_s / 0.4)
    left = 1 + start_s + length_s - 0.4 * math.log(0.3 / peak)
    assert start == pytest.approx(entered, abs=1 / fps)
    assert end == pytest.approx(left, abs=1.1 / fps)  # the peak is a frame early or late, too


def test_a_label_between_its_two_thresholds_stays_what_it_was() -> None:
    scores = [0.45, 0.5, 0.45, 0.4, 0.45, 0.39, 0.45]
    events = track([Sample(i, score) for i, score in enumerate(scores)], DIRECT)
    assert spans(events) == [(1, 5)]


def test_a_label_that_enters_at_one_never_comes() -> None:
    always = sample_scene([(0.0, 1.0)], fps=5, length_s=3)
    assert track(always, replace(DIRECT, enter=0.99))
    assert not track(always, replace(DIRECT, enter=1.0))


def test_an_outage_does_not_count_as_presence() -> None:
    patient = replace(DIRECT, min_duration_s=3, max_step_s=1)
    seen_twice = [Sample(0, 0.9), Sample(60, 0.9)]
    assert track(seen_twice, patient) == []
    assert len(spans(track([*seen_twice, Sample(61, 0.9), Sample(62, 0.9)], patient))) == 1


def test_a_clock_that_steps_back_ends_nothing() -> None:
    samples = [Sample(t, 0.9) for t in (0, 1, 2, -500, -499, -498)]
    (event,) = track(samples, replace(DIRECT, min_gap_s=1), finish=False)
    assert event.kind == "start"


def test_labels_have_their_own_settings_and_updates_tell_the_highest_score() -> None:
    stability = stability_from_thresholds({"cat": 0.2, "dog": 0.5})
    assert stability["cat"].enter == 0.2
    assert stability["dog"].leave == pytest.approx(0.4)
    direct = {
        label: replace(item, smoothing_s=0, min_duration_s=0, min_gap_s=0, update_every_s=2)
        for label, item in stability.items()
    }
    tracker = EventTracker(direct, source="door")
    events = []
    for time_s, cat in enumerate([0.3, 0.7, 0.4, 0.1]):
        scores = np.array([cat, 0.3], np.float32)
        events += tracker.add(scores, time_s, captured_at=100.0 + time_s)
    assert [(event.label, event.kind) for event in events] == [
        ("cat", "start"), ("cat", "update"), ("cat", "end"),
    ]  # fmt: skip
    assert [event.max_score for event in events] == pytest.approx([0.3, 0.7, 0.7])
    assert {event.source for event in events} == {"door"}
    assert events[-1].to_record()["captured_at"] == 103.0


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"leave": 0.6}, "leave <= enter"),
        ({"enter": 1.5}, "enter <= 1"),
        ({"smoothing_s": -1.0}, "smoothing_s"),
        ({"min_gap_s": math.nan}, "min_gap_s"),
        ({"max_step_s": 0.0}, "max_step_s"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(changes: dict[str, float], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        replace(DIRECT, **changes)
