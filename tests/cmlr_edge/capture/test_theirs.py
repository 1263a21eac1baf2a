"""Sources of other people's packages: whatever they do or say is one line."""

from __future__ import annotations

import math
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmlr_edge import open_source
from cmlr_edge.capture import theirs
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.machine import entry_points

FRAME = Frame(np.zeros((4, 6, 3), np.uint8), 0, 0.5, 1.0, 0.1, "mine")


class Unsayable(Exception):
    def __str__(self) -> str:
        raise ValueError("not even this")


class Mine:
    """A source that says and does what a test wants."""

    def __init__(self, *given: Any, **said: Any) -> None:
        self.name, self.num_frames, self.fps = "mine", None, 5.0
        self.files: Sequence[Path] = ()
        self.closed = 0
        vars(self).update(said)
        self.given = given

    def __iter__(self) -> Iterator[Any]:
        for item in self.given:
            if callable(item):
                item()
            yield item

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def brought(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that lets an installed package answer with an object, or raise it."""

    def bring(answer: Any) -> None:
        def load(_point: EntryPoint) -> Any:
            return lambda _uri: answer() if callable(answer) else answer

        monkeypatch.setattr(EntryPoint, "load", load)
        point = EntryPoint("mine", "mine:opener", "cmlr_edge.sources")
        monkeypatch.setattr("cmlr_edge.capture.entry_points", lambda _group: {"mine": point})

    return bring


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"name": None}, "name is of type NoneType"),
        ({"num_frames": "many"}, "num_frames is of type str"),
        ({"fps": "5"}, "fps is of type str"),
        ({"fps": math.nan}, "fps is nan"),
        ({"fps": -1.0}, "fps is -1.0"),
        ({"files": None}, "TypeError"),
        ({"files": [1]}, "TypeError"),
    ],
)
def test_what_a_source_says_of_itself_is_looked_at(
    brought: Any, said: dict[str, Any], words: str
) -> None:
    brought(Mine(**said))
    with pytest.raises(CaptureError, match=rf"cannot open mine://.* {words}") as caught:
        open_source("mine://place")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (np.zeros((4, 6, 3), np.uint8), "expected a Frame, got ndarray"),
        (replace(FRAME, image_bgr=None), "image_bgr is of type NoneType"),  # type: ignore[arg-type]
        (replace(FRAME, image_bgr=np.zeros((4, 6), np.uint8)), r"image_bgr is uint8 \(4, 6\)"),
        (replace(FRAME, image_bgr=np.zeros((4, 6, 3))), "image_bgr is float64"),  # type: ignore[arg-type]
        (replace(FRAME, index=None), "index is of type NoneType"),  # type: ignore[arg-type]
        (replace(FRAME, time_s="x"), "time_s is of type str"),  # type: ignore[arg-type]
        (replace(FRAME, captured_at=math.nan), "captured_at is nan"),
        (replace(FRAME, capture_ms=math.inf), "capture_ms is inf"),
        (lambda: sys.exit("I go"), "SystemExit: I go"),
        (Unsayable, "expected a Frame, got type"),
    ],
)
def test_what_is_no_frame_ends_the_source_with_its_reason(
    brought: Any, frame: Any, words: str
) -> None:
    brought(Mine(FRAME, frame))
    with open_source("mine://place") as source:
        frames = iter(source)
        assert next(frames) is FRAME
        with pytest.raises(CaptureError, match=rf"^mine: .*{words}"):
            next(frames)


@pytest.mark.parametrize("buffer", ["a view", "an array"])
def test_a_source_that_fills_one_memory_again_and_again_gives_frames_that_stay(
    brought: Any, buffer: str
) -> None:
    memory = np.zeros((1, 4, 6, 3), np.uint8)
    pixels = memory[0] if buffer == "a view" else np.zeros((4, 6, 3), np.uint8)

    class Camera(Mine):
        def __iter__(self) -> Iterator[Frame]:
            for index in range(4):
                pixels[:] = index
                yield replace(FRAME, image_bgr=pixels, index=index)

    brought(Camera())
    with open_source("mine://place") as source:
        frames = [*source]
    found = [int(frame.image_bgr.max()) for frame in frames]
    assert found[1:] == [1, 2, 3]  # of an array, that it is filled again shows with the second
    assert buffer == "an array" or found[0] == 0


def fail() -> None:
    raise Unsayable


def test_an_error_that_cannot_be_said_is_told_by_its_type(brought: Any) -> None:
    brought(fail)
    with pytest.raises(CaptureError, match=r"failed: Unsayable: Unsayable$"):
        open_source("mine://place")
    brought(Mine(fail))
    with open_source("mine://place") as source, pytest.raises(CaptureError, match="Unsayable"):
        list(source)


def test_one_whose_opening_or_end_hangs_is_left_behind(
    brought: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    may = threading.Event()
    monkeypatch.setattr(entry_points, "_OPENING_S", 0.05)
    monkeypatch.setattr(theirs, "_CLOSE_S", 0.05)
    brought(lambda: may.wait() and Mine())
    with pytest.raises(CaptureError, match=r"mine:opener gave no answer in 0\.05 s$"):
        open_source("mine://place")
    brought(Mine(close=may.wait))
    source = open_source("mine://place")
    with pytest.raises(CaptureError, match="mine cannot be closed: gave no answer"):
        source.close()
    source.close()  # nobody waits twice
    may.set()


def test_a_source_is_closed_once(brought: Any) -> None:
    mine = Mine(FRAME)
    brought(lambda: mine)
    with open_source("mine://place") as source:
        source.close()
    assert mine.closed == 1
