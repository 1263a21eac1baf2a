"""A source that the model does not keep up with is told, and is not well to whoever is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmlr_edge.session import Session
from cmlr_edge.session.config import load_config
from cmlr_edge.session.lateness import Lateness
from cmlr_edge.sinks.base import Result, SourceHealth
from tests.waiting import wait_until


def test_a_model_that_falls_behind_is_told_once_and_outputs_know(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "site.toml").write_text(
        f'[engine]\npath = "{engine}"\n[[sources]]\nuri = "test://?fps=30"\nname = "door"\n'
    )
    now_s, told = [0.0], list[SourceHealth]()
    with Session(load_config(tmp_path / "site.toml"), folder=tmp_path) as session:
        session._lateness = Lateness(lambda: now_s[0])
        monkeypatch.setattr(session.outputs, "watch", told.extend)
        session.streams.start()
        wait_until(lambda: session.streams.latest("door"))
        fresh = session.streams.latest("door")
        assert isinstance(fresh, Result)
        stale = replace(fresh, frame=replace(fresh.frame, status="stale"))
        seen = [
            (0.0, stale),
            (9.0, stale),
            (9.5, fresh),
            (12.0, stale),
            (20.0, stale),
            (22.5, stale),
            (23.0, fresh),
        ]
        for now_s[0], result in seen:
            monkeypatch.setattr(session.streams, "latest", lambda _name, newest=result: newest)
            session.tell_health(session.status())
    assert [item.is_ok for item in told] == [True] * 4 + [False] * 2 + [True]
    assert [item.newest for item in told] == [result for _, result in seen]
    assert len(told[0].known) == len(stale.prediction.scores)
    messages = [text for text in caplog.messages if "keep" in text]
    assert [text.split(": ")[0] for text in messages] == ["door", "door"]
    assert "max_fps" in messages[0]
    assert messages[1] == "door: the model keeps up again"
