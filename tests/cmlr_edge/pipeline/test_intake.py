"""What of a source is looked at: labels, masks, region, pace and hours, and that nothing else leaves."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmlr_edge import (
    IntakeSettings,
    Recognizer,
    SpecError,
    StabilityChange,
    StabilityRules,
    Streams,
)
from cmlr_edge.frame import Frame
from cmlr_edge.pipeline import intake as intake_module
from cmlr_edge.pipeline.intake import Intake, read_polygon
from cmlr_edge.session import Session
from cmlr_edge.session.config import EngineSettings, PageSettings, SessionConfig, SourceSettings
from cmlr_edge.sinks import Result
from tests.cmlr_edge.cli.command import run
from tests.conftest import Image, solid, write_video

LEFT = ((0.0, 0.0), (0.5, 0.0), (0.5, 1.0), (0.0, 1.0))
RIGHT = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))


def halves(left: tuple[int, int, int], right: tuple[int, int, int]) -> Image:
    """A picture of two colours, given as red, green, blue."""
    return np.concatenate([solid(*left, (40, 40)), solid(*right, (40, 40))], axis=1)


def frame_at(number: int, fps: float = 30.0, image: Image | None = None) -> Frame:
    pixels = solid(0, 0, 0) if image is None else image
    return Frame(pixels, number, number / fps, 0.0, 0.0, "x")


class Kept:
    """Keeps what it is given."""

    takes = "both"

    def __init__(self) -> None:
        self.results: list[Result] = []

    def write(self, result: Result) -> None:
        self.results.append(result)

    def close(self) -> None:
        """Nothing to finish."""


def recognise(engine: Path, clip: Path, settings: IntakeSettings) -> list[Result]:
    kept = Kept()
    with Recognizer.from_engine(engine) as recognizer, Streams(recognizer) as streams:
        streams.add(clip, name="x", sinks=[kept], intake=settings)
        streams.start()
        assert streams.wait(60)
        assert streams.error("x") is None
    return kept.results


@pytest.fixture
def two_colors(tmp_path: Path) -> Path:
    """A clip whose left half is red and whose right half is green."""
    return write_video(tmp_path / "two.mp4", [halves((250, 0, 0), (0, 250, 0))] * 20)


def test_only_wanted_labels_are_said_and_become_events(engine: Path, two_colors: Path) -> None:
    lower = StabilityRules(StabilityChange(enter=0.3, min_duration_s=0.1))
    every = recognise(engine, two_colors, IntakeSettings(thresholds={"red": 0.4, "green": 0.4}))
    assert {item.label for item in every[5].prediction.labels} == {"red", "green"}
    some = IntakeSettings(("green", "blue"), {"green": 0.4}, stability=lower)
    results = recognise(engine, two_colors, some)
    assert {item.label for result in results for item in result.prediction.labels} == {"green"}
    assert {event.label for result in results for event in result.events} == {"green"}
    assert results[0].prediction.scores[0] > 0.4  # scores stay what they are
    with pytest.raises(SpecError, match="did you mean green"):
        recognise(engine, two_colors, IntakeSettings(("gren",)))


def test_a_region_is_all_that_the_model_sees(engine: Path, two_colors: Path) -> None:
    left = recognise(engine, two_colors, IntakeSettings(region=LEFT))[5]
    right = recognise(engine, two_colors, IntakeSettings(region=RIGHT))[5]
    assert [left.prediction.labels[0].label, right.prediction.labels[0].label] == ["red", "green"]
    assert left.prediction.scores[1] < 0.1
    assert left.frame.image_bgr.shape == (40, 80, 3)  # people see the whole picture


def test_a_region_follows_a_recognizer_of_another_size(engine: Path) -> None:
    """What was prepared for one model is prepared again, from the region."""
    with Recognizer.from_engine(engine) as recognizer:
        frame = Intake(IntakeSettings(region=LEFT)).seen(
            frame_at(0, image=halves((250, 0, 0), (0, 250, 0)))
        )
        prepared = recognizer.prepare(frame)
        other = replace(prepared, spec=replace(prepared.spec, mean=(0.1, 0.1, 0.1)))
        [prediction] = recognizer.recognize_prepared([other])
    assert prediction.scores[0] > 0.9
    assert prediction.scores[1] < 0.1


@pytest.mark.parametrize("size_hw", [(40, 80), (41, 83), (3, 5), (1, 1)])
def test_masks_cover_what_they_should_and_no_more(size_hw: tuple[int, int]) -> None:
    image = np.full((*size_hw, 3), 255, np.uint8)
    kept = image.copy()
    masked = Intake(IntakeSettings(masks=(LEFT, ((0, 0), (1, 0), (0, 0.2))))).masked(
        frame_at(0, image=image)
    )
    assert (image == kept).all()  # others may look at the picture as it came
    width = size_hw[1]
    assert (masked.image_bgr[:, : width // 2] == 96).all()
    if width > 4:
        assert (masked.image_bgr[size_hw[0] // 2 :, -1] == 255).all()


def test_overlapping_masks_leave_no_hole() -> None:
    whole = ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    masked = Intake(IntakeSettings(masks=(whole, LEFT, whole))).masked(
        frame_at(0, image=np.full((20, 20, 3), 255, np.uint8))
    )
    assert (masked.image_bgr == 96).all()


@pytest.mark.parametrize(
    ("fps", "wanted"), [(30, 20.0), (30, 15.0), (30, 1.0), (10, 25.0), (25, 10.0)]
)
def test_a_pace_is_kept_on_the_average(fps: float, wanted: float) -> None:
    intake = Intake(IntakeSettings(max_fps=wanted))
    taken = sum(intake.wants(frame_at(number, fps)) for number in range(int(fps * 20)))
    assert taken == pytest.approx(min(fps, wanted) * 20, rel=0.06)


def test_a_pace_is_kept_after_a_pause() -> None:
    intake = Intake(IntakeSettings(max_fps=5))
    times = [*np.arange(0, 2, 0.04), *np.arange(60, 62, 0.04)]
    taken = sum(intake.wants(replace(frame_at(0), time_s=time_s)) for time_s in times)
    assert 19 <= taken <= 22


def test_each_nth_frame_is_looked_at_and_counted(engine: Path, two_colors: Path) -> None:
    results = recognise(engine, two_colors, IntakeSettings(every=4))
    assert [result.frame.index for result in results if result.frame.image_bgr.size][:5] == [
        0, 4, 8, 12, 16,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("active", "when", "expected"),
    [
        ("08:00-18:30", "2026-11-27 08:00", True),
        ("08:00-18:30", "2026-11-27 18:30", False),
        ("mon-fri 08:00-18:30", "2026-11-28 12:00", False),  # a Saturday
        ("sat 22:00-04:00", "2026-11-29 03:59", True),  # Sunday morning
        ("sat 22:00-04:00", "2026-11-28 03:59", False),
        ("fri-mon 00:00-24:00", "2026-11-29 23:59", True),
        ("fri-mon 00:00-24:00", "2026-11-25 23:59", False),
    ],
)
def test_hours_are_those_of_the_place(
    monkeypatch: pytest.MonkeyPatch, active: str, when: str, expected: bool
) -> None:
    class Clock(datetime):
        @classmethod
        def now(cls, _zone: Any = None) -> datetime:  # type: ignore[override]
            return datetime.fromisoformat(when)

    monkeypatch.setattr(intake_module, "datetime", Clock)
    assert Intake(IntakeSettings(active=(active,))).is_active() is expected


def test_hours_are_those_of_utc_where_nobody_can_read_the_zone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC+25:99")
        time.tzset()
        assert Intake(IntakeSettings(active=("00:00-24:00",))).is_active()
    time.tzset()


def test_outside_its_hours_nothing_is_looked_at_and_events_end(
    engine: Path,
    two_colors: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    calls = iter([True] * 10 + [False] * 1000)
    monkeypatch.setattr(Intake, "is_active", lambda _self: next(calls))
    settings = IntakeSettings(thresholds={"red": 0.4}, labels=("red",))
    with caplog.at_level(logging.INFO):
        results = recognise(engine, two_colors, settings)
    frames = [result for result in results if not result.ending and not result.beginning]
    assert [result.frame.index for result in frames] == [*range(10)]
    events = [event.kind for result in results for event in result.events]
    events = [kind for kind in events if kind in {"start", "update", "end"}]
    assert events[0] == "start"
    assert events[-1] == "end"
    assert "outside its hours" in caplog.text


def test_who_begins_outside_its_hours_is_warned(
    engine: Path,
    two_colors: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(Intake, "is_active", lambda _self: False)
    recognise(engine, two_colors, IntakeSettings(labels=("red",)))
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert ["outside its hours" in record.getMessage() for record in warnings] == [True]


@pytest.mark.parametrize(
    ("changes", "word"),
    [
        ({"every": 0}, "every"),
        ({"max_fps": 0.0}, "max_fps"),
        ({"max_fps": float("nan")}, "max_fps"),
        ({"thresholds": {"red": 1.5}}, "thresholds"),
        ({"masks": (((0, 0), (1, 1)),)}, "2 corners"),
        ({"masks": (((0, 0), (40, 0), (40, 30)),)}, "divide pixels"),
        ({"masks": (((0, 0), (1, 1), (0.5, 0.5)),)}, "no area"),
        ({"region": ((0, 0), (1, 0), (1, 3))}, "from 0 to 1"),
        ({"active": ("8-18",)}, "hours"),
        ({"tiles": "2"}, "tiles"),
        ({"tiles": "1x1"}, "2 to 16"),
        ({"tiles": "9x9"}, "2 to 16"),
        ({"active": ("abc 08:00-09:00",)}, "hours"),
        ({"active": ("25:00-26:00",)}, "24 hours"),
        ({"active": ("mon-fri 08:00-08:00",)}, "end when they begin"),
    ],
)
def test_what_could_not_be_meant_is_refused(changes: dict[str, Any], word: str) -> None:
    with pytest.raises(SpecError, match=word):
        IntakeSettings(**changes)


@pytest.mark.parametrize("flag", ["labels", "region", "tiles"])
def test_an_empty_flag_does_not_mean_all(engine: Path, flag: str) -> None:
    done = run("label", "test://", "--engine", engine, f"--{flag}", "", "--max-frames", "1")
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert "''" in done.stderr


def test_flags_and_file_say_the_same(tmp_path: Path, engine: Path) -> None:
    from cmlr_edge.cli.flags import Flags
    from cmlr_edge.session.config import load_config

    polygon = "0,0 0.5,0 0.5,1"
    flags = Flags(
        engine=engine, labels="red, blue", mask=[polygon], region=polygon, every=2, max_fps=5.0,
        active=["mon-fri 08:00-18:30"], tiles="3x2",
    )  # fmt: skip
    by_flags = flags.to_config(["test://"], append=False)[0].sources[0]
    corners = json.dumps([[0, 0], [0.5, 0], [0.5, 1]])
    (tmp_path / "x.toml").write_text(
        f'[engine]\npath = "{engine}"\n[[sources]]\nname = "x"\nuri = "test://"\n'
        f'labels = ["red", "blue"]\nmasks = [{corners}]\nregion = {corners}\nevery = 2\n'
        'max_fps = 5.0\ntiles = "3x2"\nactive = ["mon-fri 08:00-18:30"]\n'
    )
    by_file = load_config(tmp_path / "x.toml").sources[0]
    assert by_flags.intake() == by_file.intake()
    assert by_flags.intake().region == read_polygon(polygon)
    for text in ("", "0,0 1,0", "0;0 1;0 1;1", "0,0 1,0 1"):
        with pytest.raises(SpecError, match="polygon"):
            read_polygon(text)


def test_the_page_tells_what_is_wanted_and_from_which_score_on(engine: Path) -> None:
    source = SourceSettings("test://", "x", labels=("red", "blue"), thresholds={"blue": 0.9})
    config = SessionConfig(EngineSettings(path=str(engine)), (source,), page=PageSettings(port=0))
    with Session(config) as session:
        page: Any = session.watching.page
        [view] = page.state().sources
        assert (view.labels, view.thresholds) == (("red", "blue"), {"blue": 0.9})
