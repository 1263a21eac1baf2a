"""What the live page tells of a run, without a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmlr_edge import Recognizer
from cmlr_edge.page.state import LiveState
from cmlr_edge.pipeline.streams import Streams


def test_it_tells_where_frames_are_resized_now_and_not_when_the_run_began(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Recognizer.from_engine(engine) as recognizer, Streams(recognizer) as streams:
        live = LiveState(streams, recognizer)
        monkeypatch.setattr(recognizer._backend, "description", "a GPU, frames elsewhere")
        assert live.state().model.runtime.startswith("a GPU, frames elsewhere")
