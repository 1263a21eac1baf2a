"""The life of a session: signs of life, reloads and engine updates until it ends; the same for every command."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from cmlr_edge.errors import EngineError
from cmlr_edge.machine.waiting import Interrupted
from cmlr_edge.pipeline import SourceStatus
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import told
from cmlr_edge.service.notify import Supervisor
from cmlr_edge.session.config import SessionConfig, naming_line
from cmlr_edge.session.editing import SourceEditing
from cmlr_edge.session.engines import load_serving, store_of
from cmlr_edge.session.session import Session
from cmlr_edge.session.updates import TICK_S, EngineUpdates, await_beating
from cmlr_edge.wording import counted

_log = logging.getLogger(__name__)


class Runner:
    """Runs one session; everything but `request_*` belongs to one thread."""

    def __init__(
        self,
        session: Session,
        *,
        reread: Callable[[Path | None], SessionConfig] | None = None,
        file: Path | None = None,
        supervisor: Supervisor | None = None,
        until_over: bool = True,
    ) -> None:
        """Take an opened session; nothing starts yet.

        Args:
            session: Stays its owner's to close.
            reread: Reads the configuration again, for `request_reload`; or from the file that it is
                given, which lies beside that one.
            file: The configuration; visitors of the page who know its token may change sources there.
            supervisor: Told that all is well.
            until_over: End when every source is over; else only when asked to.
        """
        self._session, self._reread, self._file = session, reread, file
        self._supervisor = supervisor or Supervisor()
        self._until_over = until_over
        self._changes = SourceEditing(session, file, reread)
        session.take_changes(self._changes)
        self._started_s = time.time()  # about when the environment was read
        self._end_requested = self._reload_requested = False

    def request_end(self) -> None:
        """Finish the frames that were taken, then return from `run`. A signal handler may call it."""
        self._end_requested = True
        self._session.request_end()

    def request_reload(self) -> None:
        """Read the configuration again. A signal handler may call it."""
        self._reload_requested = True

    def run(self) -> None:
        """Go on until the end is requested, or every source is over.

        Raises:
            EngineError: The runtime failed; whatever else it raised comes as it was.
        """
        session, updates = self._session, None
        if session.store is not None:
            updates = EngineUpdates(
                session,
                session.store,
                on_trial=session.on_trial,
                beat=self._beat,
                is_ending=self._is_ending,
            )
        session.streams.start()
        self._supervisor.ready(self._summary())
        try:
            while not self._is_over():
                self._beat()
                if self._reload_requested:
                    self._reload_requested = False
                    self._reload()
                self._changes.tend()
                if updates is not None:
                    updates.tend()
        except EngineError as error:
            if updates is not None:
                updates.note_failure(error)
            raise
        finally:
            self._changes.end()
            self._supervisor.stopping()

    def _is_ending(self) -> bool:
        return self._end_requested  # a signal handler sets it at any moment

    def _is_over(self) -> bool:
        over = self._session.streams.wait(TICK_S)
        if over and not self._until_over and not self._end_requested:
            time.sleep(TICK_S)
            return False
        return over or self._session.waited_enough()

    def _beat(self) -> None:
        """Tell the supervisor that all is well, unless the model hangs."""
        status = self._session.status()
        if not self._end_requested:  # sources that end with the program have not failed
            self._session.tell_health(status)
        limit_s = self._session.config.limits.stuck_after_s
        if self._session.streams.longest_run_s() < limit_s:
            self._supervisor.alive(self._summary(status))

    def _summary(self, status: Sequence[SourceStatus] | None = None) -> str:
        session = self._session
        status = session.status() if status is None else status
        frames = sum(item.frames for item in status)
        states = [
            f"{item.name} {item.state.name.lower()}" + (f" ({item.reason})" if item.away else "")
            for item in status
        ]
        states += [
            f"{item.name} {item.state}" for item in session.output_status() if item.state != "ok"
        ]
        device = session.recognizer.provider
        return f"{counted(frames, 'frame')} on {device}; {', '.join(states)}; {counted(session.lost, 'result')} lost"

    def _reload(self) -> None:
        """Take a changed configuration as a whole, or go on with the former one."""
        if self._reread is None:
            return
        self._supervisor.reloading(time.monotonic_ns() // 1000)
        try:
            config = self._reread(None)
            with ExitStack() as undo, naming_line(self._file):  # an error leaves the run as it was
                fresh = self._fresh_recognizer(config, undo)
                self._session.apply(config, fresh, undo)
        except Exception as error:  # noqa: BLE001 (whatever it is: a run that works goes on)
            _log.error("the configuration is not taken over: %s", told(error))
        except Interrupted:  # the run ends: the next one is to take it
            return
        else:
            _log.info("the configuration is taken over")
            self._note_environment()
        self._supervisor.ready(self._summary())

    def _note_environment(self) -> None:
        """Say that a running process keeps its environment, where the file of it was changed."""
        file = None if self._file is None else self._file.with_suffix(".env")
        with suppress(OSError):  # there is none
            if file is not None and file.stat().st_mtime > self._started_s:
                _log.warning(
                    "%s was changed: secrets of the environment count from the next start on, so restart; "
                    "those of a ${file:...} count now",
                    file,
                )

    def _fresh_recognizer(
        self, config: SessionConfig, undo: ExitStack
    ) -> tuple[Recognizer, str] | None:
        """Load the engine again where its settings changed, or another one serves by now."""
        session, former = self._session, self._session.config
        store = store_of(config, session.folder)
        serving = store.state.serving if store is not None else None
        same_engine = (serving.id if serving else "") == session.engine_id
        names = ("engine", "threshold", "thresholds")
        same_settings = all(getattr(config, n) == getattr(former, n) for n in names)
        if same_engine and same_settings:
            return None
        loaded = await_beating(
            lambda: load_serving(config, session.folder), self._beat, self._is_ending
        )
        undo.callback(loaded.recognizer.close)
        return loaded.recognizer, loaded.engine_id
