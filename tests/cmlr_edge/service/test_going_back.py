"""A roll-back to an engine that can do less than the configuration asks for comes to a service that starts."""

from __future__ import annotations

import errno
import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.service.store import MAX_UNCONFIRMED_STARTS, EngineStore, StoredEngine
from cmlr_edge.session.config import load_config
from cmlr_edge.session.engines import load_serving
from cmlr_edge.session.session import Session
from cmlr_edge.session.updates import EngineUpdates
from tests.cmlr_edge.service.tiny_engines import scaled_engine
from tests.conftest import make_spec, mean_color_model, write_engine

CONFIG = """
explain = true
[engine]
store = "store"
[thresholds]
red = 0.05
yellow = 0.3
[stability.labels.yellow]
min_gap_s = 2
[collect]
folder = "to_label"
without = ["yellow"]
[[sources]]
name = "door"
uri = "test://?fps=100&size=128x96&frames=3"
policy = "every"
labels = ["yellow", "green"]
[sources.thresholds]
yellow = 0.2
green = 0
[sources.stability.labels.yellow]
min_gap_s = 3
[[sources]]
name = "gate"
uri = "test://?frames=3"
labels = ["yellow"]
"""

PLAIN = """
[engine]
store = "store"
[[sources]]
name = "door"
uri = "test://?fps=100&size=128x96&frames=3"
"""


def fails(store: EngineStore, _engine: StoredEngine) -> None:
    store.roll_back()  # as a run does whose runtime fails


def never_outlives_its_trial(store: EngineStore, _engine: StoredEngine) -> None:
    for _ in range(MAX_UNCONFIRMED_STARTS):
        store.note_start()


def rots(store: EngineStore, taught: StoredEngine) -> None:
    store.path(taught).write_bytes(b"rotten")


def rots_later(store: EngineStore, taught: StoredEngine) -> None:
    store.confirm()
    rots(store, taught)


def stays_on_trial(_store: EngineStore, _engine: StoredEngine) -> None:
    """Do nothing to it."""


@pytest.fixture
def store(tmp_path: Path, engine: Path) -> EngineStore:
    """Its first engine knows red, green and blue, the second, on trial, yellow for blue."""
    store = EngineStore(tmp_path / "store")
    store.accept(store.add(engine))
    content, folder = mean_color_model(), tmp_path / "taught"
    folder.mkdir()
    spec = make_spec(content, ("red", "green", "yellow"))
    store.accept(store.add(write_engine(folder, content, spec)))
    return store


def both_of(store: EngineStore) -> tuple[StoredEngine, StoredEngine]:
    """The one on trial, and the one before."""
    taught, first = store.state.serving, store.state.fallback
    assert taught is not None
    assert first is not None
    return taught, first


def config_in(folder: Path, text: str) -> Path:
    (folder / "device.toml").write_text(text)
    return folder / "device.toml"


@pytest.mark.parametrize("end", [fails, never_outlives_its_trial, rots])
def test_a_taught_engine_that_fails_leaves_a_service_that_starts_without_its_label(
    end: Callable[[EngineStore, StoredEngine], None],
    store: EngineStore,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = config_in(tmp_path, CONFIG)
    taught, first = both_of(store)
    end(store, taught)
    with caplog.at_level(logging.ERROR), Session(load_config(path), folder=tmp_path) as session:
        assert session.engine_id == first.id
        assert [*session.names()] == ["door"]  # the gate could show nothing
        session.streams.start()
        session.streams.wait()
        [status] = session.status()
        assert status.frames == 3
        latest = session.streams.latest("door")
        assert latest is not None
        assert [item.label for item in latest.prediction.labels] == ["green"]
    assert not (tmp_path / "to_label").exists()  # yellow things might be kept
    left_out = "source gate, label yellow, collect, explain"
    assert f"{first.id}, which was gone back to, cannot" in caplog.text
    assert caplog.text.count(f"serves without: {left_out}") == 1


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (never_outlives_its_trial, "was started too often without passing its trial"),
        (rots, "cannot be used: "),
    ],
)
def test_the_log_of_a_start_names_the_engine_that_was_gone_back_to(
    end: Callable[[EngineStore, StoredEngine], None],
    why: str,
    store: EngineStore,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    path = config_in(tmp_path, PLAIN)
    taught, first = both_of(store)
    end(store, taught)
    with caplog.at_level(logging.ERROR), Session(load_config(path), folder=tmp_path):
        pass
    [line] = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"engine {taught.id} {why}")
    assert line.endswith(f"; engine {first.id} serves again")


@pytest.mark.parametrize(
    ("end", "why"),
    [
        (stays_on_trial, "is on trial, and its start cannot be counted: "),
        (never_outlives_its_trial, "is on trial, and its start cannot be counted: "),
        (rots_later, "cannot be used: "),
    ],
)
def test_a_service_starts_with_the_engine_before_where_the_store_cannot_keep_that(
    end: Callable[[EngineStore, StoredEngine], None],
    why: str,
    store: EngineStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    taught, first = both_of(store)
    end(store, taught)
    before = store.state

    def is_read_only(*_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("cmlr_edge.service.store.write_json", is_read_only)
    config = load_config(config_in(tmp_path, PLAIN))
    with caplog.at_level(logging.ERROR), Session(config, folder=tmp_path) as session:
        assert (session.engine_id, session.on_trial) == (first.id, False)
    assert store.state == before  # tried again when the disk is well
    [line] = caplog.messages
    assert line.startswith(f"engine {taught.id} {why}")
    assert "Read-only file system" in line
    assert line.endswith(f"; engine {first.id} serves again")


@pytest.mark.parametrize("by_hand", [False, True])
def test_the_log_of_a_run_that_fails_names_the_engine_that_serves_from_then_on(
    by_hand: bool, store: EngineStore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = config_in(tmp_path, PLAIN)
    taught, first = both_of(store)
    with caplog.at_level(logging.ERROR), Session(load_config(path), folder=tmp_path) as session:
        updates = EngineUpdates(
            session, store, on_trial=session.on_trial, beat=lambda: None, is_ending=bool
        )
        if by_hand:
            store.roll_back()
        updates.note_failure(EngineError("the runtime failed"))
    assert store.state.serving == first
    [line] = [record.getMessage() for record in caplog.records]
    assert (
        line
        == f"engine {taught.id} failed on trial: the runtime failed; engine {first.id} serves again"
    )


def test_the_log_names_the_engine_that_a_reload_takes(
    tmp_path: Path, engine: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = EngineStore(tmp_path / "store")
    store.accept(first := store.add(engine))
    config = load_config(config_in(tmp_path, PLAIN))
    with caplog.at_level(logging.INFO), Session(config, folder=tmp_path) as session:
        store.accept(other := store.add(scaled_engine(tmp_path / "other", 0.5)))
        recognizer, engine_id, _ = load_serving(config, tmp_path)
        session.swap(recognizer, engine_id).close()
    assert f"engine {other.id} serves, in the place of {first.id}" in caplog.messages


def test_what_an_engine_cannot_do_is_refused_where_none_was_gone_back_from(
    tmp_path: Path, engine: Path
) -> None:
    store = EngineStore(tmp_path / "store")
    store.accept(store.add(engine))
    path = config_in(tmp_path, CONFIG.replace("explain = true", ""))
    with pytest.raises(SpecError, match="yellow"), Session(load_config(path), folder=tmp_path):
        pass


def test_a_service_that_could_show_nothing_at_all_says_why_and_does_not_start(
    tmp_path: Path, store: EngineStore
) -> None:
    store.roll_back()
    path = config_in(tmp_path, CONFIG.replace('"yellow", "green"', '"yellow"'))
    with (
        pytest.raises(SpecError, match="labels name unknown labels"),
        Session(load_config(path), folder=tmp_path),
    ):
        pass
