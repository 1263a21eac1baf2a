"""Replacing the engine of a running session: an offer is checked apart, tried on live frames, and on trial."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import replace
from typing import TypeVar

from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.machine.waiting import Interrupted, interrupted_when, while_waiting
from cmlr_edge.model.agreement import threshold_objections
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.service.store import EngineStore, StoredEngine
from cmlr_edge.service.update import ShadowRun, UpdateReport, reason_of, start_check
from cmlr_edge.session.engines import load, roll_back
from cmlr_edge.session.session import Session
from cmlr_edge.sinks.base import Result

T = TypeVar("T")
TICK_S = 0.25  # between looks at signals, offers and the state of the run
_log = logging.getLogger(__name__)


class EngineUpdates:
    """Looks after the engine of one session; everything belongs to one thread."""

    def __init__(
        self,
        session: Session,
        store: EngineStore,
        *,
        on_trial: bool,
        beat: Callable[[], None],
        is_ending: Callable[[], bool],
    ) -> None:
        """Begin.

        Args:
            session: Opened.
            store: Its engines.
            on_trial: Whether the one that serves has yet to prove itself.
            beat: Called several times a second while something takes long.
            is_ending: Whether to give up.
        """
        self._session, self._store = session, store
        self._beat, self._is_ending = beat, is_ending
        self._trial_ends_s: float | None = None
        self._trouble = ""
        self._begin_trial(on_trial)

    def tend(self) -> None:
        """End a trial that is over, and look for an offer; to be called all the time.

        A store that cannot be read or written is told once, and ends no run.
        """
        trouble = ""
        try:
            self._end_trial()
            self._look_for_offer()
        except (OSError, EngineError) as error:
            trouble = str(error)
            if trouble != self._trouble:
                _log.warning("the engine store cannot be used, and the engine stays: %s", trouble)
        self._trouble = trouble

    def note_failure(self, error: EngineError) -> None:
        """Take the former engine back where this one fails on trial."""
        if self._trial_ends_s is not None and self._session.engine_id == self._tried:
            roll_back(self._tried, f"failed on trial: {error}", self._store)

    def _begin_trial(self, on_trial: bool) -> None:
        trial_s = self._session.config.engine.update.trial_s
        self._trial_ends_s = time.monotonic() + trial_s if on_trial else None
        self._tried = self._session.engine_id

    def _end_trial(self) -> None:
        if self._trial_ends_s is not None and time.monotonic() >= self._trial_ends_s:
            if self._store.state.on_trial:  # nobody rolled it back by hand
                self._store.confirm()
                _log.info("engine %s has passed its trial", self._session.engine_id)
            self._trial_ends_s = None

    def _look_for_offer(self) -> None:
        if (offer := self._store.take_offer()) is None:
            return
        try:
            report = self._judge(offer)
        except (CmlrError, OSError) as error:
            report = self._refusal(offer, str(error))
        if report is None:  # the run ends: the next one is to try
            self._store.offer(offer, again=True)
            return
        self._store.write_report(offer, report)
        level, verdict = (
            (logging.INFO, "accepted") if report.accepted else (logging.WARNING, "refused")
        )
        _log.log(level, "engine %s %s: %s", offer.id, verdict, report.reason)
        self._store.clean()

    def _judge(self, offer: StoredEngine) -> UpdateReport | None:
        """Check the offer, and put it in service if it passes; None if there is no time left."""
        session, pair = self._session, self._store.checked(offer)
        reason = self._check_apart(pair)
        if self._is_ending():
            return None
        if reason:
            return self._refusal(offer, reason)
        try:
            candidate = self._await(lambda: load(pair, session.in_force, session.folder))
        except Interrupted:
            return None
        try:
            if candidate.labels != session.recognizer.labels:
                return self._refusal(
                    offer, "its labels differ: stop the service, update, and start it again"
                )
            shadow = self._await(lambda: self._shadow(candidate))
            report = shadow.report(offer.id, session.engine_id, session.config.engine.update)
            if self._is_ending():
                return None
            former = session.recognizer.thresholds
            if objections := threshold_objections(former, candidate.thresholds):
                reasons = [*objections] if report.accepted else [report.reason]
                report = replace(report, accepted=False, reason="; ".join(reasons))
            if report.accepted:
                self._store.accept(offer)
                candidate = session.swap(candidate, offer.id)
                self._begin_trial(self._store.state.on_trial)
            return report
        finally:
            candidate.close()  # after a swap: the former one

    def _await(self, job: Callable[[], T]) -> T:
        return await_beating(job, self._beat, self._is_ending)

    def _check_apart(self, pair: ModelPair) -> str:
        engine = self._session.config.engine
        check = start_check(
            pair.path,
            engine.provider,
            timeout_s=engine.update.check_timeout_s,
            identity=pair.identity,
            public_key=engine.public_key(self._session.folder),
        )
        while check.poll() is None and not self._is_ending():
            self._session.streams.wait(TICK_S)
            self._beat()
        check.kill()  # if it still runs
        return reason_of(check)

    def _shadow(self, candidate: Recognizer) -> ShadowRun:
        """Let both engines judge live frames; runs beside the beats."""
        settings, run = self._session.config.engine.update, ShadowRun(candidate.labels)
        deadline_s = time.monotonic() + settings.shadow_timeout_s
        seen: dict[str, Result] = {}
        while (
            run.frames < settings.shadow_frames
            and time.monotonic() < deadline_s
            and not self._is_ending()
        ):
            fresh = self._fresh_results(seen)
            for result in fresh:
                tried = self._session.streams.look(result.source, candidate, result.frame)
                run.add(result.prediction, tried)
            if not fresh and self._session.streams.wait(TICK_S / 10):
                break
        return run

    def _fresh_results(self, seen: dict[str, Result]) -> list[Result]:
        fresh, streams = [], self._session.streams
        for status in streams.status():
            result = streams.latest(status.name)
            if result is None or result is seen.get(status.name):
                continue
            seen[status.name] = result
            if not result.prediction.repeated:
                fresh.append(result)
        return fresh

    def _refusal(self, offer: StoredEngine, reason: str) -> UpdateReport:
        return UpdateReport(offer.id, self._session.engine_id, accepted=False, reason=reason)


def await_beating(
    job: Callable[[], T], beat: Callable[[], None], is_ending: Callable[[], bool]
) -> T:
    """Do something slow in a thread while `beat` goes on being called.

    Raises:
        Interrupted: It waits for something, and `is_ending`; whatever else it raised comes as it was.
    """
    with ThreadPoolExecutor(1) as pool, while_waiting(interrupted_when(is_ending)):
        future: Future[T] = pool.submit(copy_context().run, job)
        while not wait([future], TICK_S).done:
            beat()
        return future.result()
