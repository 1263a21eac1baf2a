"""A process that labels units, one after another, and whoever has it: strange files may end it.

What it is told and says are lines of JSON. It says which picture it is about to read, so that one that
ends it again and again becomes a row with that error, and all others are labelled.
"""

from __future__ import annotations

import json
import logging
import math
import os
import queue
import random
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from cmlr_edge.archive.dataset import Counts, Tables
from cmlr_edge.archive.labeller import OPENING, Labeller
from cmlr_edge.archive.plan import Unit
from cmlr_edge.archive.stores import open_store
from cmlr_edge.errors import EngineError
from cmlr_edge.machine.allocator import bound_arenas
from cmlr_edge.machine.backoff import Backoff
from cmlr_edge.machine.child import Child, Ended, python_command
from cmlr_edge.machine.rarely import Rarely
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import one_line
from cmlr_edge.why import Explain

Task: TypeAlias = Literal["label", "join"]
_DEATHS = 3  # at one picture, which then is an error: somebody else may have ended the process
_CLOSE_S = 3.0  # for a process that waits for work to end
_START_S = 300.0  # for opening the model
_STARTS = 3  # without a word in between
_TRIES = 5  # of a unit whose storage does not answer
_POLL_S = 0.2
_MARK = "cmlr-archive "  # begins our lines, whatever libraries print
_log = logging.getLogger(__name__)
_sockets: list[socket.socket] = []  # of the cores that this process has taken


class UnitFailedError(EngineError):
    """A unit could not be done now; it may be later."""


class StoppedError(Exception):
    """The run ends."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker needs to begin."""

    engine: str
    provider: str
    thresholds: dict[str, float]
    root: str  # of the dataset
    about: dict[str, Any]  # model and versions, for every file
    cores: int  # that it may use alone
    max_fps: float | None = None  # of a film; None for every frame
    explain_margin: float | None = None  # None where rows do not say why
    memory: int | None = None  # bytes that it may hold
    identity: str = ""  # of model and spec, as `ModelPair` tells it; "" where any will do
    hang_s: float = 300.0  # for one picture, or one frame


class Worker:
    """A worker process and its unit; used by one thread, with which the process ends."""

    def __init__(self, settings: WorkerSettings, is_ending: Callable[[], bool]) -> None:
        """Start nothing yet.

        Args:
            settings: Of the process.
            is_ending: Asked several times a second; once true, work is dropped.
        """
        self._settings, self._is_ending = settings, is_ending
        self._child: Child | None = None
        self._lines: queue.Queue[dict[str, Any]] = queue.Queue()
        self._rarely = Rarely()
        self._is_busy = False
        self._is_ready = False  # the process has opened the model
        self._starts = 0  # since the last word

    def do(self, task: Task, unit: Unit) -> Counts:
        """Do a unit, however often the process dies of it.

        Raises:
            UnitFailedError: A storage does not answer, or the dataset cannot be written.
            EngineError: No process can be started that opens the model.
            StoppedError: The run ends.
        """
        deaths, skip = Counter[int](), dict[int, tuple[str, str]]()
        backoff, failures = Backoff(0.5, 20.0, random.random), 0
        while True:
            self._is_busy = True
            told, at = self._attempt(task, unit, skip)
            self._is_busy = False
            if isinstance(told, Counts):
                return told
            if isinstance(told, str):  # the worker lives and says why not
                failures += 1
                if failures == _TRIES:
                    raise UnitFailedError(told)
                if self._rarely.may_say():
                    _log.warning("%s: tried again", one_line(told))
                self._pause(backoff.next_s())
                continue
            if at is None:
                self._note_start_failure(told)
                continue
            deaths[at] += 1
            if deaths[at] == _DEATHS:
                skip[at] = _verdict(told)
            elif deaths[at] == 2 * _DEATHS:  # skipped, and what is behind it cannot be reached
                skip[OPENING] = _verdict(told)
            if deaths[at] == 3 * _DEATHS or (task == "join" and deaths[at] == _DEATHS):
                raise UnitFailedError(_verdict(told)[1])

    def close(self) -> None:
        """End the process: in order, if it waits for work, so that it removes what it has on the disk."""
        if self._child is not None:
            if not self._is_busy:
                self._child.hang_up()
                until_s = time.monotonic() + _CLOSE_S
                while self._child.poll() is None and time.monotonic() < until_s:
                    time.sleep(_POLL_S / 10)
            self._child.kill()
            self._child = None

    def _attempt(
        self, task: Task, unit: Unit, skip: dict[int, tuple[str, str]]
    ) -> tuple[Counts | str | Ended, int | None]:
        """Have it done once: the counts, a reason why not, or how the process ended and at what."""
        child = self._started()
        order = {"task": task, "unit": unit.to_record(), "skip": [*skip.items()]}
        at, heard_s, polled_s = None, time.monotonic(), 0.0
        while True:
            if at is None and self._is_ready:  # it reads: what it is sent may be long
                child.send(json.dumps(order))
                at = OPENING
            now_s = time.monotonic()
            if now_s - polled_s > _POLL_S:
                polled_s = now_s
                if self._is_ending():
                    self.close()
                    raise StoppedError
                limit_s = self._settings.hang_s if self._is_ready else _START_S
                if now_s - heard_s > limit_s:
                    ended = child.kill()
                    self._child = None
                    text = f"gave no answer in {limit_s:g} s"
                    return Ended(ended.code, "", text, ended.messages, "time"), at
                if (ended_now := child.poll()) is not None and self._lines.empty():
                    self._child = None
                    return ended_now, at
            with suppress(queue.Empty):
                line = self._lines.get(timeout=_POLL_S)
                heard_s = time.monotonic()
                self._starts = 0
                if "ready" in line:
                    self._is_ready = True
                elif "at" in line:
                    at = int(line["at"])
                elif "done" in line:
                    return Counts(**line["done"]), at
                elif "failed" in line:
                    return str(line["failed"]), at

    def _started(self) -> Child:
        if self._child is None:
            self._is_ready, self._lines = False, queue.Queue()
            lines = self._lines

            def take(text: str) -> None:
                if text.startswith(_MARK):
                    lines.put(json.loads(text[len(_MARK) :]))

            settings = json.dumps(asdict(self._settings))
            command = python_command("cmlr_edge.archive.worker", "serve", settings)
            memory = self._settings.memory
            self._child = Child(command, on_line=take, listens=True, memory=memory)
        return self._child

    def _note_start_failure(self, ended: Ended) -> None:
        self._starts += 1
        if self._starts >= _STARTS:
            raise EngineError(f"a worker cannot start: {ended.error or 'it ended'}")

    def _pause(self, pause_s: float) -> None:
        until_s = time.monotonic() + pause_s
        while (left_s := until_s - time.monotonic()) > 0:
            if self._is_ending():
                self.close()
                raise StoppedError
            time.sleep(min(_POLL_S, left_s))


def _verdict(ended: Ended) -> tuple[str, str]:
    """Kind and reason of what ends processes again and again."""
    kind = {"time": "hung", "memory": "too large"}.get(ended.limit, "crashed")
    return kind, f"the process that read it {ended.error or 'ended'}, {_DEATHS} times"


def serve(text: str) -> int:
    """Label what standard input asks for until it ends; the other side of `Worker`."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer

    def say(line: dict[str, Any]) -> None:
        said.write(f"{_MARK}{json.dumps(line)}\n")
        said.flush()

    bound_arenas()
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    settings = WorkerSettings(**json.loads(text))
    take_cores(settings.cores)
    pair = ModelPair.read(Path(settings.engine))
    if settings.identity not in {"", pair.identity}:  # rows of two models would look alike
        sys.exit(
            f"{settings.engine} was changed: put back the model that the dataset was begun with"
        )
    with Recognizer.from_pair(
        pair, provider=settings.provider, thresholds=settings.thresholds
    ) as recognizer:
        explain = None if settings.explain_margin is None else Explain(settings.explain_margin)
        tables = Tables(recognizer.labels, settings.about, explain is not None)
        store = open_store(settings.root)
        labeller = Labeller(
            recognizer, tables, store, lambda number: say({"at": number}), settings.max_fps, explain
        )
        say({"ready": True})
        for line in sys.stdin:
            _answer(labeller, json.loads(line), say)
    return 0


def _answer(
    labeller: Labeller, order: dict[str, Any], say: Callable[[dict[str, Any]], None]
) -> None:
    unit = Unit.from_record(order["unit"])
    try:
        if order["task"] == "join":
            counts = labeller.join(unit)
        else:
            counts = labeller.do(unit, {number: tuple(why) for number, why in order["skip"]})
    except Exception as error:  # noqa: BLE001 (of storages and disks; the process goes on)
        say({"failed": f"{type(error).__name__}: {error}"})
    else:
        say({"done": asdict(counts)})


def take_cores(count: int) -> None:
    """Keep this process on some cores that no other worker of this machine has, if there are any.

    A core is taken by a socket of its name, which the kernel frees when the process ends, however it does.
    """
    own: list[int] = []
    for core in sorted(os.sched_getaffinity(0)):
        if len(own) == count:
            break
        mark = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            mark.bind(f"\0cmlr-edge-archive-core-{core}")
        except OSError:
            mark.close()
            continue
        _sockets.append(mark)
        own.append(core)
    if len(own) == count:
        os.sched_setaffinity(0, own)


def split_cores(cores: int, workers: int) -> int:
    """Cores for each of some workers."""
    return max(1, math.floor(cores / workers))
