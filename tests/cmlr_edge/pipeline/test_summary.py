"""The summary of a run against frames of known times."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from cmlr_edge.pipeline.summary import RunSummary
from tests.cmlr_edge.sinks.samples import frame, prediction


def test_seconds_count_the_time_a_label_was_there_whatever_the_frame_rate() -> None:
    summary = RunSummary()
    for index, time_s in enumerate([0.0, 0.5, 0.6, 2.0, 3.0]):
        labels = ("dog",) if index in (0, 1, 3) else ()
        summary.add(replace(frame(index), time_s=time_s), prediction(*labels))
    (dog,) = summary.labels.values()
    assert dog.seconds == pytest.approx(0.5 + 0.1 + 1.0)
    assert (dog.frames, dog.first, dog.last) == (3, 0.0, 2.0)
    assert summary.frames_per_second > 0


def test_pictures_have_no_seconds() -> None:
    summary = RunSummary()
    for index in range(3):
        summary.add(replace(frame(index), time_s=None), prediction("dog"))
    record = summary.to_record()["labels"][0]
    assert (record["seconds"], record["first"], record["last"]) == (None, 0.0, 2.0)


def test_each_label_names_the_picture_in_which_it_is_highest() -> None:
    summary = RunSummary()
    for index, score in enumerate((0.6, 0.9, 0.7)):
        dog = prediction("dog").labels[0]._replace(score=score)
        given = replace(prediction("dog"), labels=(dog,))
        summary.add(replace(frame(index), time_s=None, source=f"{index}.jpg"), given)
    assert summary.to_record()["labels"][0]["best_picture"] == "1.jpg"


def test_a_single_picture_has_no_rate_and_later_ones_are_counted_from_the_first() -> None:
    summary = RunSummary()
    summary.add(replace(frame(0), time_s=None), prediction("dog"))
    assert summary.frames_per_second == 0
    time.sleep(0.05)
    summary.add(replace(frame(1), time_s=None), prediction("dog"))
    assert 0 < summary.frames_per_second <= 1 / 0.05
