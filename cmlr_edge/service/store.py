"""Engines on disk, so that one valid engine is in service whatever stops the machine, and when.

    STORE/engines/ID/     an engine and its spec, complete and never changed; ID names their content.
                          Their signature, where there is one, lies beside them
    STORE/engines/.*      being copied; left behind by whatever stopped the copying
    STORE/state.json      which engine serves and which is to serve if that one fails
    STORE/offer.json      the engine to be tried next
    STORE/reports/ID.json what became of an offer

Every change is one rename of a complete file or folder that was flushed to the disk before.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.machine.waiting import await_lock, try_lock
from cmlr_edge.model.files import (
    model_path,
    require_unchanged,
    signature_path,
    spec_path,
    write_atomically,
)
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.strict_json import read_json, write_json
from cmlr_edge.service.update import UpdateReport

MAX_UNCONFIRMED_STARTS = 2  # of an engine on trial, before the former one is taken again
# That a service which starts waits for those who ask whether there is one: an instant each.
_ASKED_S = 1.0
_PATIENCE_S = 30.0  # with another process that changes the store: far more than a copy takes


class InServiceError(EngineError):
    """A service holds the store already."""


@dataclass(frozen=True)
class StoredEngine:
    """One engine in the store."""

    id: str
    file: str  # name of the model file; its spec has the same name, ending in .json

    def __post_init__(self) -> None:
        """Refuse what would lead out of the store: records may be anybody's."""
        if not re.fullmatch(r"[0-9a-f]{16}", self.id):
            raise SpecError(f"id {self.id!r} is not 16 lower-case hexadecimal digits")
        name = Path(self.file)
        if not name.stem or name.name != self.file or name.suffix not in {".onnx", ".engine"}:
            raise SpecError(f"file {self.file!r} is not the name of an .onnx or .engine file")


@dataclass(frozen=True)
class StoreState:
    """What the store stands for, at any moment."""

    serving: StoredEngine | None = None
    fallback: StoredEngine | None = None  # served before, and is known to work
    on_trial: bool = False  # `serving` has not yet proved itself in service
    unconfirmed_starts: int = 0  # of the service since the trial began
    refused: str = ""  # the engine that was last rolled back

    def rolled_back(self) -> StoreState:
        """What is to be where the serving engine is none to serve."""
        assert self.serving is not None
        return StoreState(serving=self.fallback, refused=self.serving.id)


class EngineStore:
    """Changes are made one at a time, whichever processes make them."""

    def __init__(self, folder: Path) -> None:
        """Use the store in `folder`, which need not exist.

        Raises:
            EngineError: Something else lies there.
        """
        if os.path.lexists(folder) and not folder.is_dir():
            raise EngineError(
                f"{folder} is no folder, and the store of engines is one: move it away, or give store "
                "another name in the configuration"
            )
        self._folder = folder
        self._engines = folder / "engines"
        self._reports = folder / "reports"
        self._offered = folder / "offer.json"

    @staticmethod
    def is_store(folder: Path) -> bool:
        """Tell a store from the folder of one model."""
        return (folder / "engines").is_dir() and not (folder / "model.onnx").exists()

    @property
    def state(self) -> StoreState:
        """What serves now.

        Raises:
            EngineError: The record is not one that this class wrote.
        """
        try:
            return read_json(self._folder / "state.json", StoreState)
        except FileNotFoundError:
            return StoreState()
        except (ValueError, OSError) as error:
            raise EngineError(
                f"{self._folder / 'state.json'} cannot be used: {error}; delete it and put an "
                "engine in service again: cmlr-edge service update CONFIG MODEL"
            ) from error

    def path(self, engine: StoredEngine) -> Path:
        """Where the model file of `engine` lies."""
        return self._engines / engine.id / engine.file

    def checked(self, engine: StoredEngine) -> ModelPair:
        """Read `engine` and compare it with its id; what is returned is what was compared.

        Raises:
            EngineError: Engine or spec is missing or no longer what was added.
        """
        path = self.path(engine)
        try:
            pair = ModelPair.read(path)
        except SpecError as error:
            raise EngineError(f"{path.parent} was changed: {error}") from error
        if pair.identity != engine.id:
            raise EngineError(f"{path.parent} was changed: its content makes {pair.identity}")
        return pair

    def add(self, source: Path) -> StoredEngine:
        """Copy an engine and its spec into the store, complete or not at all.

        Args:
            source: The model file or its folder, as for `Recognizer.from_engine`.

        Raises:
            SpecError: The spec cannot be used.
            EngineError: The file is missing, or not the one that the spec describes.
        """
        source = model_path(source)
        pair = _read_checked(source)
        engine = StoredEngine(pair.identity, source.name)
        with self._locked():
            if self.path(engine).is_file():
                if pair.signature is not None:  # it may have been added without
                    write_atomically(signature_path(self.path(engine)), pair.signature)
                return engine
            partial = self._engines / f".{engine.id}"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            _write_durably(partial / source.name, pair.content)
            _write_durably(partial / spec_path(source).name, pair.spec_text)
            if pair.signature is not None:
                _write_durably(signature_path(partial / source.name), pair.signature)
            flush_folder(partial)
            partial.rename(self._engines / engine.id)
            flush_folder(self._engines)
        return engine

    def offer(self, engine: StoredEngine, *, again: bool = False) -> None:
        """Ask the service to try `engine`. The report of one that waits already says that it gives way.

        Args:
            engine: In the store.
            again: It was taken and not judged; it gives way itself to what was offered since.
        """
        with self._locked():
            waiting = None
            with suppress(FileNotFoundError, ValueError):  # one that nobody can take
                waiting = read_json(self._offered, StoredEngine)
            wins, gives_way = (waiting, engine) if again and waiting else (engine, waiting)
            if gives_way is not None and gives_way != wins:
                reason = f"{wins.id} was offered after it, and takes its place"
                report = UpdateReport(gives_way.id, "", accepted=False, reason=reason)
                self._write(self.report_path(gives_way), report)
            if wins != waiting:
                self.report_path(wins).unlink(missing_ok=True)
                self._write(self._offered, wins)

    def take_offer(self) -> StoredEngine | None:
        """Take the engine that is to be tried, once: one that kills the service is not tried again.

        Raises:
            EngineError: The offer cannot be read; it is gone.
        """
        path = self._offered
        if not path.is_file():  # asked all the time: neither the disk nor a lock is touched
            return None
        with self._locked():
            if not path.is_file():
                return None
            try:
                return read_json(path, StoredEngine)
            except ValueError as error:
                raise EngineError(f"{path} was not written by this program: {error}") from error
            finally:
                path.unlink()
                flush_folder(self._folder)

    def accept(self, engine: StoredEngine) -> None:
        """Let `engine` serve, on trial where something served before: that is its fallback."""
        with self._locked():
            if engine == (now := self.state).serving:
                return
            fallback = now.fallback if now.on_trial else now.serving
            self._write_state(StoreState(engine, fallback, fallback is not None))

    def confirm(self) -> None:
        """The serving engine has proved itself."""
        with self._locked():
            if (now := self.state).on_trial:
                self._write_state(replace(now, on_trial=False, unconfirmed_starts=0))

    def note_start(self) -> StoreState:
        """Count a start of the service, and roll back if the trial engine had too many of them."""
        with self._locked():
            now = self.state
            if not now.on_trial:
                return now
            if now.unconfirmed_starts < MAX_UNCONFIRMED_STARTS:
                now = replace(now, unconfirmed_starts=now.unconfirmed_starts + 1)
            else:
                now = now.rolled_back()
            self._write_state(now)
            return now

    def roll_back(self) -> StoreState:
        """Let the fallback serve again.

        Raises:
            EngineError: There is none.
        """
        with self._locked():
            now = self.state
            if now.fallback is None:
                raise EngineError(f"{self._folder} holds no earlier engine to go back to")
            now = now.rolled_back()
            self._write_state(now)
            return now

    @contextmanager
    def served(self) -> Generator[None, None, None]:
        """Hold the store as the one service that it has.

        Raises:
            InServiceError: Another one holds it.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with _opened_lock(self._folder / ".service") as lock:
            give_up_s = time.monotonic() + _ASKED_S
            if not await_lock(lock, lambda: time.monotonic() > give_up_s):
                raise InServiceError(f"another service already uses {self._folder}")
            yield

    @property
    def is_served(self) -> bool:
        """Whether a service, or whoever puts the first engine into it, holds the store."""
        if not self._folder.is_dir():
            return False
        with _opened_lock(self._folder / ".service") as lock:
            return not try_lock(lock, shared=True)  # those who ask do not see each other

    def clean(self) -> None:
        """Delete what can be deleted of engines that neither serve nor could, and of half copies."""
        with self._locked():
            now = self.state
            kept = {engine.id for engine in (now.serving, now.fallback) if engine is not None}
            with suppress(FileNotFoundError, ValueError):  # one that nobody can take
                kept.add(read_json(self._offered, StoredEngine).id)
            for item in [item for item in self._engines.iterdir() if item.name not in kept]:
                with suppress(OSError):  # what root brought, or on a disk that takes no change
                    if item.is_symlink() or not item.is_dir():  # somebody else's: no engine is one
                        item.unlink()
                    else:
                        shutil.rmtree(item)

    def write_report(self, engine: StoredEngine, record: object) -> None:
        """Say what became of an offer; `record` is a dataclass."""
        self._reports.mkdir(parents=True, exist_ok=True)
        self._write(self.report_path(engine), record)

    def report_path(self, engine: StoredEngine) -> Path:
        """Where the report on the newest offer of `engine` appears."""
        return self._reports / f"{engine.id}.json"

    def _write_state(self, state: StoreState) -> None:
        self._write(self._folder / "state.json", state)

    def _write(self, path: Path, record: object) -> None:
        write_json(path, record)
        flush_folder(path.parent)

    @contextmanager
    def _locked(self) -> Generator[None, None, None]:
        """Exclude other processes; the lock goes with the process that holds it."""
        self._engines.mkdir(parents=True, exist_ok=True)
        self._reports.mkdir(exist_ok=True)
        with _opened_lock(self._folder / ".lock") as lock:
            give_up_s = time.monotonic() + _PATIENCE_S
            if not await_lock(lock, lambda: time.monotonic() > give_up_s):
                raise EngineError(
                    f"another process has been changing {self._folder} for {_PATIENCE_S:g} s: it "
                    f"may be stopped or hang; `fuser {self._folder / '.lock'}` names it"
                )
            yield


def _opened_lock(path: Path) -> IO[bytes]:
    """Open a file to lock it, and change nothing of it: also another user's, or on a read-only disk."""
    try:
        return path.open("a+b")  # over a network, a shared lock wants a file that can be read
    except OSError:
        if not path.is_file():
            raise
        return path.open("rb")


def _read_checked(path: Path) -> ModelPair:
    pair = ModelPair.read(path)
    built = pair.spec.files.get(path.name)
    if built is None:
        raise EngineError(
            f"{path} cannot be added: the file and its spec must lie together, and the spec "
            f"describes {sorted(pair.spec.files)}; copy both again"
        )
    require_unchanged(path, pair.content, built.sha256)
    return pair


def _write_durably(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make renames in `folder` survive a power cut."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
