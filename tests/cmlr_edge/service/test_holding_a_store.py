"""Who holds an engine store, who asks for that, and who waits for whom."""

from __future__ import annotations

import errno
import fcntl
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from cmlr_edge.errors import EngineError
from cmlr_edge.service import store as store_module
from cmlr_edge.service.store import EngineStore
from tests.waiting import wait_until


def test_a_store_serves_one_service(
    store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_ASKED_S", 0.0)
    with (
        store.served(),
        pytest.raises(EngineError, match="another service"),
        EngineStore(tmp_path / "store").served(),
    ):
        pass


def test_whoever_asks_whether_a_service_is_there_keeps_none_from_starting(
    store: EngineStore, engine: Path, tmp_path: Path
) -> None:
    store.add(engine)
    lock = (tmp_path / "store" / ".service").open("a+b")
    fcntl.flock(lock, fcntl.LOCK_SH)  # one who asks, at that instant
    assert not store.is_served  # nor is such a one taken for a service
    threading.Timer(0.1, lock.close).start()
    with store.served():
        assert store.is_served


def test_a_change_by_a_process_that_is_stopped_is_not_waited_for_for_ever(
    store: EngineStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_PATIENCE_S", 0.2)
    store.clean()
    with (tmp_path / "store" / ".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(EngineError, match="another process has been changing"):
            store.clean()
    store.clean()


def test_an_update_does_not_wait_for_the_verdict_of_a_service_that_is_gone(
    store: EngineStore, engine: Path, device: Path
) -> None:
    from cmlr_edge.cli import service

    done: list[BaseException] = []

    def update() -> None:
        try:
            service.update_engine(device, engine, wait_s=20.0)
        except EngineError as error:
            done.append(error)

    updating = threading.Thread(target=update)
    with store.served():
        updating.start()
        wait_until((device.parent / "store" / "offer.json").exists)
    updating.join()
    assert "no service is there any more" in str(done[0])


def test_looking_for_an_offer_writes_nothing_and_waits_for_nobody(
    store: EngineStore, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "_PATIENCE_S", 0.1)
    store.accept(store.add(engine))
    lock = tmp_path / "store" / ".lock"
    with lock.open("ab") as held:
        before = lock.stat()
        fcntl.flock(held, fcntl.LOCK_EX)  # who copies a large engine
        assert store.take_offer() is None
    store.clean()
    assert lock.stat() == before


def test_a_store_that_cannot_be_written_can_be_served(
    store: EngineStore, engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.accept(store.add(engine))
    (tmp_path / "store" / "engines" / "left").mkdir()
    with store.served():
        pass
    opened = Path.open

    def reading(path: Path, mode: str = "r", *given: Any, **named: Any) -> Any:
        if set(mode) & set("wa+"):
            raise OSError(errno.EROFS, "Read-only file system", str(path))
        return opened(path, mode, *given, **named)

    def stays(path: Path, **_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", reading)
    monkeypatch.setattr(shutil, "rmtree", stays)
    assert not store.is_served
    with store.served():
        store.clean()
        assert store.is_served
