"""One opened source given to two runs, at once or one after the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmlr_edge import Recognizer, open_source
from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.pipeline import Streams


@pytest.mark.parametrize("source", ["film", "test://?frames=20"])
def test_a_source_is_given_to_one_run(engine: Path, clip: Path, source: str) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        opened = open_source(clip if source == "film" else source, policy="every")
        with Streams(recognizer) as first, Streams(recognizer) as second:
            first.add(opened, name="a")
            for streams in (first, second):
                with pytest.raises(CaptureError, match="given to a run already"):
                    streams.add(opened, name="b")
            assert len(list(first.results())) == 20
        with Streams(recognizer) as third, pytest.raises(CaptureError, match="open it once more"):
            third.add(opened)


def test_one_that_a_run_refused_may_go_to_another(engine: Path, clip: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer, Streams(recognizer) as streams:
        opened = open_source(clip)
        with pytest.raises(SpecError):
            streams.add(opened, stability={"no such label": None})  # type: ignore[dict-item]
        streams.add(opened)
        assert len(list(streams.results())) == 20


def test_one_of_a_class_that_leaves_no_room_for_marks_is_read(engine: Path, clip: Path) -> None:
    class Narrow:
        __slots__ = ("files", "fps", "inner", "name", "num_frames")

        def __init__(self) -> None:
            self.inner = open_source(clip)
            self.name, self.fps, self.files = "narrow", 10.0, ()
            self.num_frames = 20

        def __iter__(self):  # type: ignore[no-untyped-def]
            return iter(self.inner)

        def close(self) -> None:
            self.inner.close()

    with Recognizer.from_engine(engine) as recognizer, Streams(recognizer) as streams:
        streams.add(Narrow())  # type: ignore[arg-type]
        assert len(list(streams.results())) == 20
