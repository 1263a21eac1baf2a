"""What is said of an engine on trial that somebody rolled back by hand."""

from __future__ import annotations

import errno
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cmlr_edge.errors import EngineError
from cmlr_edge.service.store import EngineStore
from cmlr_edge.session.updates import EngineUpdates
from tests.cmlr_edge.service.tiny_engines import scaled_engine


def updates_of(store: EngineStore, trial_s: float) -> tuple[EngineUpdates, Any]:
    engine = SimpleNamespace(update=SimpleNamespace(trial_s=trial_s))
    serving = store.state.serving
    assert serving is not None
    session = SimpleNamespace(engine_id=serving.id, config=SimpleNamespace(engine=engine))
    ways: Any = {"beat": lambda: None, "is_ending": lambda: False}
    return EngineUpdates(cast("Any", session), store, on_trial=True, **ways), session


@pytest.fixture
def store(tmp_path: Path) -> EngineStore:
    store = EngineStore(tmp_path / "store")
    for number in (1, 2):
        store.accept(store.add(scaled_engine(tmp_path / str(number), 1 / number)))
    assert store.state.on_trial
    return store


def test_an_engine_that_was_rolled_back_passes_no_trial(
    store: EngineStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    updates, session = updates_of(store, 0.0)
    session.engine_id = store.roll_back().serving.id  # type: ignore[union-attr]  # and reloaded
    updates.tend()
    assert "trial" not in caplog.text


def test_the_engine_that_was_gone_back_to_did_not_fail_on_trial(
    store: EngineStore, caplog: pytest.LogCaptureFixture
) -> None:
    updates, session = updates_of(store, 60.0)
    session.engine_id = store.roll_back().serving.id  # type: ignore[union-attr]  # and reloaded
    updates.note_failure(EngineError("the GPU is gone"))
    assert "trial" not in caplog.text


def test_an_engine_that_is_on_trial_passes_it(
    store: EngineStore, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    updates_of(store, 0.0)[0].tend()
    assert "has passed its trial" in caplog.text
    assert not store.state.on_trial


def test_a_store_on_a_disk_that_takes_no_change_is_told_once_and_ends_no_run(
    store: EngineStore, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates, _ = updates_of(store, 0.0)

    def is_read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    with monkeypatch.context() as disk:
        disk.setattr(EngineStore, "confirm", is_read_only)
        updates.tend()
        updates.tend()
    (record,) = caplog.records
    assert "Read-only file system" in record.message
    assert store.state.on_trial
    updates.tend()  # it is well again
    assert not store.state.on_trial
