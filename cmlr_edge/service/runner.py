"""`cmlr-edge run`: sources, engine and sinks of a configuration, until a signal or the last source ends it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from cmlr_edge.capture import Source, open_source
from cmlr_edge.errors import CaptureError, CmlrError, EngineError
from cmlr_edge.pipeline import Streams, StreamsSettings
from cmlr_edge.pipeline.metrics import PrometheusMetrics
from cmlr_edge.pipeline.stream import Result, merge_stability
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import redact
from cmlr_edge.service.config import ServiceConfig, SourceSettings, load_config
from cmlr_edge.service.engines import load, load_serving, store_of
from cmlr_edge.service.notify import Supervisor
from cmlr_edge.service.outputs import Outputs, open_sinks
from cmlr_edge.service.store import EngineStore, StoredEngine
from cmlr_edge.service.update import ShadowRun, UpdateReport, reason_of, start_check
from cmlr_edge.sinks import EventSink, Sink

T = TypeVar("T")
_TICK_S = 0.25  # between looks at signals, offers and the state of the run
_log = logging.getLogger(__name__)


class Service:
    """One run of a configuration; everything but `request_*` belongs to one thread."""

    def __init__(self, config_path: Path, supervisor: Supervisor | None = None) -> None:
        """Read the configuration; nothing starts yet.

        Raises:
            SpecError: It cannot be used; the message names the line.
        """
        self._config_path = config_path
        self._folder = config_path.absolute().parent
        self._config = load_config(config_path)
        self._supervisor = supervisor or Supervisor()
        self._end_requested = self._reload_requested = False
        self._trial_ends_s: float | None = None

    def request_end(self) -> None:
        """Finish the frames that were taken, then return from `run`. A signal handler may call it."""
        self._end_requested = True

    def request_reload(self) -> None:
        """Read the configuration again. A signal handler may call it."""
        self._reload_requested = True

    def run(self) -> None:
        """Serve until the end is requested or every source is over.

        Raises:
            CmlrError: It cannot start, or the runtime failed.
        """
        config = self._config
        with ExitStack() as cleanup:
            self._store = store_of(config, self._folder)
            if self._store is not None:
                cleanup.enter_context(self._store.served())
                self._begin_trial(self._store.note_start().on_trial)
                self._store.clean()
            self._recognizer, self._engine_id = load_serving(config, self._folder)
            cleanup.callback(self._close_recognizer)
            self._outputs = Outputs(open_sinks(config.sinks, self._folder))
            cleanup.callback(self._outputs.finish)
            limits = StreamsSettings(config.limits.max_batch, config.limits.latency_budget_s)
            self._streams = cleanup.enter_context(Streams(self._recognizer, limits))
            self._start_metrics(cleanup)
            for settings in config.sources:
                self._add(settings, self._open(settings))
            self._pool = cleanup.enter_context(ThreadPoolExecutor(1))
            cleanup.callback(self._supervisor.stopping)
            self._streams.start()
            self._supervisor.ready(self._summary())
            self._serve()

    def _serve(self) -> None:
        try:
            while not self._end_requested and not self._streams.wait(_TICK_S):
                self._beat()
                if self._reload_requested:
                    self._reload_requested = False
                    self._reload()
                if self._store is not None:
                    self._end_trial(self._store)
                    self._look_for_offer(self._store)
        except EngineError as error:
            if self._store is not None and self._trial_ends_s is not None:
                _log.error("engine %s failed on trial: %s", self._engine_id, error)
                self._store.roll_back()
            raise
        for settings in self._config.sources:
            if (cause := self._streams.error(settings.name)) is not None:
                raise CaptureError(f"{settings.name} failed: {redact(str(cause))}") from cause

    def _is_ending(self) -> bool:
        return self._end_requested  # a signal handler sets it at any moment

    def _close_recognizer(self) -> None:
        self._recognizer.close()  # which may be another one by then

    def _beat(self) -> None:
        """Tell the supervisor that all is well, unless the model hangs."""
        if self._streams.longest_run_s() < self._config.limits.stuck_after_s:
            self._supervisor.alive(self._summary())

    def _summary(self) -> str:
        status = self._streams.status()
        frames = sum(item.frames for item in status)
        states = ", ".join(f"{item.name} {item.state.name.lower()}" for item in status)
        device, lost = self._recognizer.provider, self._outputs.lost
        return f"{frames} frames on {device}; {states}; {lost} results lost"

    def _await(self, job: Callable[[], T]) -> T:
        """Do something slow while the supervisor goes on being told that all is well."""
        future: Future[T] = self._pool.submit(job)
        while not wait([future], _TICK_S).done:
            self._beat()
        return future.result()

    # Trial and update ---------------------------------------------------------------------------

    def _begin_trial(self, on_trial: bool) -> None:
        trial_s = self._config.engine.update.trial_s
        self._trial_ends_s = time.monotonic() + trial_s if on_trial else None

    def _end_trial(self, store: EngineStore) -> None:
        if self._trial_ends_s is not None and time.monotonic() >= self._trial_ends_s:
            store.confirm()
            self._trial_ends_s = None
            _log.warning("engine %s has passed its trial", self._engine_id)

    def _look_for_offer(self, store: EngineStore) -> None:
        try:
            offer = store.take_offer()
        except EngineError as error:
            _log.warning("%s", error)
            return
        if offer is None:
            return
        try:
            report = self._judge(store, offer)
        except CmlrError as error:
            report = self._refusal(offer, str(error))
        if report is None:  # the service ends: the next one is to try
            store.offer(offer)
            return
        store.write_report(offer, report)
        verdict = "accepted" if report.accepted else "refused"
        # A warning also where it is good news: the journal should have it, and shows no less.
        _log.warning("engine %s %s: %s", offer.id, verdict, report.reason)
        store.clean()

    def _judge(self, store: EngineStore, offer: StoredEngine) -> UpdateReport | None:
        """Check the offer, and put it in service if it passes; None if there is no time left."""
        path, settings = store.checked_path(offer), self._config.engine.update
        reason = self._check_apart(path)
        if self._is_ending():
            return None
        if reason:
            return self._refusal(offer, reason)
        config = self._config
        candidate = self._await(lambda: load(path, config))
        try:
            if candidate.labels != self._recognizer.labels:
                return self._refusal(
                    offer, "its labels differ: stop the service, update, and start it again"
                )
            shadow = self._await(lambda: self._shadow(candidate))
            report = shadow.report(offer.id, self._engine_id, settings)
            if self._is_ending():
                return None
            if report.accepted:
                store.accept(offer)
                candidate = self._swap(candidate, offer.id)
                self._begin_trial(store.state.on_trial)
            return report
        finally:
            candidate.close()  # after a swap: the former one

    def _check_apart(self, path: Path) -> str:
        settings = self._config.engine
        limit_s = settings.update.check_timeout_s
        check = start_check(path, settings.provider, timeout_s=limit_s)
        while check.poll() is None and not self._end_requested:
            self._streams.wait(_TICK_S)
            self._beat()
        check.kill()  # if it still runs
        return reason_of(check)

    def _shadow(self, candidate: Recognizer) -> ShadowRun:
        """Let both engines judge live frames; runs beside the beats."""
        settings, run = self._config.engine.update, ShadowRun(candidate.labels)
        deadline_s = time.monotonic() + settings.shadow_timeout_s
        seen: dict[str, Result] = {}
        while (
            run.frames < settings.shadow_frames
            and time.monotonic() < deadline_s
            and not self._end_requested
        ):
            fresh = self._fresh_results(seen)
            for result in fresh:
                run.add(result.prediction, candidate(result.frame))
            if not fresh and self._streams.wait(_TICK_S / 10):
                break
        return run

    def _fresh_results(self, seen: dict[str, Result]) -> list[Result]:
        fresh = []
        for status in self._streams.status():
            result = self._streams.latest(status.name)
            if result is None or result is seen.get(status.name):
                continue
            seen[status.name] = result
            if not result.prediction.repeated:
                fresh.append(result)
        return fresh

    def _swap(self, recognizer: Recognizer, engine_id: str) -> Recognizer:
        """Let another recognizer go on; return the former one."""
        [former] = self._streams.swap(recognizer)
        self._recognizer, self._engine_id = recognizer, engine_id
        return former

    def _refusal(self, offer: StoredEngine, reason: str) -> UpdateReport:
        return UpdateReport(offer.id, self._engine_id, accepted=False, reason=reason)

    # Sources and reload -------------------------------------------------------------------------

    def _open(self, settings: SourceSettings) -> Source:
        return open_source(settings.uri, policy=settings.policy)

    def _add(self, settings: SourceSettings, source: Source) -> None:
        sinks: list[Sink] = [self._outputs]
        event_sinks: list[EventSink] = [self._outputs]
        if self._metrics is not None:
            counter = self._metrics.of_source(settings.name)
            sinks.append(counter)
            event_sinks.append(counter)
        self._streams.add(
            source,
            name=settings.name,
            sinks=sinks,
            event_sinks=event_sinks,
            stability=self._config.stability,
        )

    def _start_metrics(self, cleanup: ExitStack) -> None:
        self._metrics: PrometheusMetrics | None = None
        if self._config.metrics.port:
            self._metrics = PrometheusMetrics(self._streams.status)
            cleanup.callback(self._metrics.close)
            self._metrics.serve(self._config.metrics.port, host=self._config.metrics.host)

    def _reload(self) -> None:
        """Take a changed configuration as a whole, or go on with the former one."""
        self._supervisor.reloading(time.monotonic_ns() // 1000)
        try:
            self._apply(load_config(self._config_path))
        except CmlrError as error:
            _log.error("the configuration is not taken over: %s", error)
        self._supervisor.ready(self._summary())

    def _apply(self, config: ServiceConfig) -> None:
        former = self._config
        fixed = ("limits", "metrics")
        if any(getattr(config, name) != getattr(former, name) for name in fixed):
            _log.warning("changes of %s count from the next start on", " and ".join(fixed))
        with ExitStack() as undo:  # opens everything first: any error leaves the run as it was
            opened = {}
            for settings in set(config.sources) - set(former.sources):
                opened[settings.name] = undo.enter_context(self._open(settings))
            recognizer = self._reloaded_recognizer(config, undo)
            merge_stability(recognizer[0] if recognizer else self._recognizer, config.stability)
            if config.sinks != former.sinks:
                self._outputs.change(config.sinks, self._folder)
            undo.pop_all()
        self._config = config
        if recognizer is not None:
            self._swap(*recognizer).close()
        for gone in set(former.sources) - set(config.sources):
            self._streams.remove(gone.name)
        for settings in config.sources:
            if settings.name in opened:
                self._add(settings, opened[settings.name])
            else:
                self._streams.change_stability(settings.name, config.stability)

    def _reloaded_recognizer(
        self, config: ServiceConfig, undo: ExitStack
    ) -> tuple[Recognizer, str] | None:
        """Load the engine again where its settings changed, or another one serves by now."""
        former = self._config
        store = store_of(config, self._folder)
        serving = store.state.serving if store is not None else None
        same_engine = (serving.id if serving else "") == self._engine_id
        same_settings = (config.engine, config.thresholds) == (former.engine, former.thresholds)
        if same_engine and same_settings:
            return None
        recognizer, engine_id = self._await(lambda: load_serving(config, self._folder))
        undo.callback(recognizer.close)
        return recognizer, engine_id
