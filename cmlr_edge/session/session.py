"""One run: everything that a `SessionConfig` names, built, put together, changed and closed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from cmlr_edge.capture import Source, open_source
from cmlr_edge.capture.live import LiveSettings, LiveSource
from cmlr_edge.errors import CaptureError, DependencyError
from cmlr_edge.model.files import model_path, spec_path
from cmlr_edge.pipeline import SourceStatus, Streams, StreamsSettings
from cmlr_edge.pipeline.metrics import PrometheusMetrics
from cmlr_edge.pipeline.outlet import merge_stability
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import redact
from cmlr_edge.service.store import EngineStore
from cmlr_edge.session.config import SessionConfig, SourceSettings
from cmlr_edge.session.engines import load_serving, store_of
from cmlr_edge.sinks.base import Sink
from cmlr_edge.sinks.guarded import GuardedSink, Outputs, OutputStatus
from cmlr_edge.sinks.opening import SinkSettings, check_files, open_sink

if TYPE_CHECKING:
    from cmlr_edge.page.state import LiveState

_FIXED = ("limits", "metrics", "page")  # what a reload leaves as it is
_log = logging.getLogger(__name__)


class Session:
    """Sources, engine, outputs, page and metrics of one run; use it in a `with` block.

    Example:
        >>> with Session(load_config(path), folder=path.parent) as session:
        ...     session.streams.start()
        ...     session.streams.wait()
    """

    def __init__(
        self, config: SessionConfig, *, folder: Path | None = None, watchers: Sequence[Sink] = ()
    ) -> None:
        """Plan a run; nothing is opened yet.

        Args:
            config: What is wanted.
            folder: What relative paths in it start from; the current one by default.
            watchers: Take the results of all sources besides the outputs, inline and trusted.
        """
        self.config, self.folder = config, folder or Path()
        self._watchers = [GuardedSink(sink) for sink in watchers]
        self._shared: list[tuple[SinkSettings, GuardedSink]] = []
        self._own: list[GuardedSink] = []  # of single sources
        self.has_times: list[bool] = []  # of each source: pictures have none
        self.live = False  # whether a source goes on for ever
        self.page_url = ""
        self.recognizer: Recognizer
        self.engine_id: str  # in the store; "" without one
        self.streams: Streams
        self.outputs: Outputs
        self.store: EngineStore | None = None
        self.on_trial = False  # whether the engine has yet to prove itself in service
        self._page: LiveState | None = None
        self._metrics: PrometheusMetrics | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> Session:
        """Open everything; `streams.start` begins.

        Raises:
            CmlrError: Something cannot be opened; nothing stays open then.
        """
        with ExitStack() as cleanup:
            self._open(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close; what hangs is left behind."""
        self._cleanup.close()

    @property
    def lost(self) -> int:
        """Results and events that outputs did not take."""
        return self.outputs.lost + sum(guard.lost for guard in self._own)

    def status(self) -> tuple[SourceStatus, ...]:
        """How each source is doing."""
        return self.streams.status()

    def output_status(self) -> tuple[OutputStatus, ...]:
        """How each output is doing."""
        guards = (*self.outputs.guards, *self._own)
        return tuple(guard.status() for guard in guards if guard not in self._watchers)

    def num_frames(self) -> int | None:
        """How many frames are to come, where every source announces them."""
        each = [
            min((n for n in (source.num_frames, item.max_frames) if n is not None), default=None)
            for item, source in zip(self.config.sources, self._sources, strict=True)
        ]
        return None if None in each else sum(n for n in each if n is not None)

    def files(self) -> list[Path]:
        """Every file that outputs write, renamed older ones aside."""
        count = len(self.config.sources)
        files = [
            sink.file(self.folder, index, count)
            for sink in self.config.sinks
            for index in range(count if sink.per_source else 1)
        ]
        return [file for file in files if file is not None]

    def engine_path(self) -> Path:
        """The model file, or the store that it comes from."""
        engine = self.config.engine
        return self.folder / engine.store if engine.store else model_path(self.folder / engine.path)

    def request_end(self) -> None:
        """Let no more frames be taken. A signal handler may call it."""
        self.streams.request_end()

    def swap(self, recognizer: Recognizer, engine_id: str) -> Recognizer:
        """Let another recognizer go on between two batches; return the former one, to be closed."""
        [former] = self.streams.swap(recognizer)
        self.recognizer, self.engine_id = recognizer, engine_id
        if self._page is not None:
            self._page.use(recognizer)
        return former

    def apply(
        self, config: SessionConfig, fresh: tuple[Recognizer, str] | None, undo: ExitStack
    ) -> None:
        """Take a changed configuration over as a whole, or not at all.

        Args:
            config: The new one.
            fresh: The engine it needs and its id, where that is another one.
            undo: Closes `fresh` if anything fails.

        Raises:
            CmlrError: Something cannot be opened; the run goes on as it was.
        """
        former = self.config
        if any(getattr(config, name) != getattr(former, name) for name in _FIXED):
            _log.warning("changes of %s count from the next start on", ", ".join(_FIXED))
        added = [item for item in config.sources if item not in former.sources]
        opened = [undo.enter_context(_open_source(item)) for item in added]
        merge_stability(fresh[0] if fresh else self.recognizer, config.stability)
        shared = self._open_shared(config)
        undo.pop_all()
        self.config = config
        self.outputs.change([*shared, *self._watchers])
        if fresh is not None:
            self.swap(*fresh).close()
        for gone in set(former.sources) - set(config.sources):
            if self._page is not None:
                self._page.forget(gone.name)
            self.streams.remove(gone.name)
        for settings, source in zip(added, opened, strict=True):
            self._add(settings, source, settings.name)
        for settings in set(config.sources) & set(former.sources):
            self.streams.change_stability(settings.name, config.stability)

    def _open(self, cleanup: ExitStack) -> None:
        config = self.config
        if config.page.port is not None:
            _check_exposure(config.page.host, config.page.token)
        self._check_files([])
        self.store = store_of(config, self.folder)
        if self.store is not None:
            cleanup.enter_context(self.store.served())
            self.on_trial = self.store.note_start().on_trial
            self.store.clean()
        self.recognizer, self.engine_id = load_serving(config, self.folder)
        cleanup.callback(self._close_recognizer)
        sources = [cleanup.enter_context(_open_source(item)) for item in config.sources]
        self._check_files([Path(file) for source in sources for file in source.files])
        self._check_times(sources)
        self._sources = sources
        self.has_times = [source.fps is not None for source in sources]
        self.live = any(isinstance(source, LiveSource) for source in sources)
        self.outputs = Outputs([*self._open_shared(config), *self._watchers])
        cleanup.callback(self.outputs.close)
        limits = config.limits
        settings = StreamsSettings(
            limits.max_batch, limits.latency_budget_s, drain_s=limits.drain_s
        )
        self.streams = cleanup.enter_context(Streams(self.recognizer, settings))
        self._open_metrics(cleanup)
        self._open_page()
        for each in zip(config.sources, sources, _names(config, sources), strict=True):
            self._add(*each)
        self._serve_page(cleanup)

    def _close_recognizer(self) -> None:
        self.recognizer.close()  # which may be another one by then

    def _check_files(self, inputs: Sequence[Path]) -> None:
        config = self.config
        if config.engine.path:
            model = model_path(self.folder / config.engine.path)
            inputs = [*inputs, model, spec_path(model)]
        inputs = [*inputs, *(Path(item.uri) for item in config.sources if item.uri)]
        check_files(self.files(), inputs)

    def _check_times(self, sources: Sequence[Source]) -> None:
        if not any(sink.needs_times for sink in self.config.sinks):
            return
        for source in sources:
            if source.fps is None:
                raise CaptureError(
                    f"{source.name} has no times, so there are no events: leave out events, mqtt and "
                    "webhook, or give a video, camera or stream"
                )

    def _open_shared(self, config: SessionConfig) -> list[GuardedSink]:
        """Open the outputs that all sources share; those that do not change go on."""
        wanted = [settings for settings in config.sinks if not settings.per_source]
        with ExitStack() as undo:
            fresh = []
            for settings in wanted:
                kept = [guard for known, guard in self._shared if known == settings]
                guard = kept[0] if kept else self._open_shared_one(settings, config)
                if not kept:
                    undo.callback(guard.close)
                fresh.append((settings, guard))
            undo.pop_all()
        self._shared = fresh
        return [guard for _, guard in fresh]

    def _open_shared_one(self, settings: SinkSettings, config: SessionConfig) -> GuardedSink:
        same_file = [g for known, g in self._shared if known.path and known.path == settings.path]
        return open_sink(
            settings,
            folder=self.folder,
            labels=self.recognizer.labels,
            name_source=len(config.sources) > 1 or any(item.name for item in config.sources),
            after=same_file[0] if same_file else None,
        )

    def _open_own(self, settings: SourceSettings, source: Source) -> list[GuardedSink]:
        """Open the outputs of one source alone."""
        sources = self.config.sources
        return [
            open_sink(
                sink,
                folder=self.folder,
                labels=self.recognizer.labels,
                name_source=False,
                fps=source.fps,
                index=sources.index(settings),
                count=len(sources),
            )
            for sink in self.config.sinks
            if sink.per_source
        ]

    def _add(self, settings: SourceSettings, source: Source, name: str) -> None:
        own = self._open_own(settings, source)
        self._own += own
        if self._metrics is not None:
            own = [*own, GuardedSink(self._metrics.of_source(redact(name)))]
        if self._page is not None:
            self._page.watch(name)
        self.streams.add(
            source,
            name=name,
            sinks=own,
            outputs=self.outputs,
            stability=self.config.stability,
            skip_unchanged_s=settings.skip_unchanged_s,
            max_frames=settings.max_frames,
        )

    def _open_metrics(self, cleanup: ExitStack) -> None:
        config = self.config
        if not config.metrics.port and config.page.port is None:
            return
        self._metrics = PrometheusMetrics(self.streams.status, self.output_status)
        cleanup.callback(self._metrics.close)
        if config.metrics.port:
            self._metrics.serve(config.metrics.port, host=config.metrics.host)

    def _open_page(self) -> None:
        if self.config.page.port is None:
            return
        from cmlr_edge.page.state import LiveState

        assert self._metrics is not None
        self._page = LiveState(
            self.streams, self.recognizer, metrics=self._metrics, outputs=self.output_status
        )
        visits = GuardedSink(self._page.visits)
        self._watchers.append(visits)
        self.outputs.change([*self.outputs.guards, visits])

    def _serve_page(self, cleanup: ExitStack) -> None:
        page = self.config.page
        if self._page is None or page.port is None:
            return
        from cmlr_edge.page.running import LiveServer

        server = LiveServer(self._page, host=page.host, port=page.port, token=page.token)
        self.page_url = cleanup.enter_context(server).url


def _check_exposure(host: str, token: str | None) -> None:
    try:
        import cmlr_edge.page.app
        from cmlr_edge.page.gate import check_exposure
    except ImportError as error:
        raise DependencyError(
            f"the live page needs more packages ({error}): pip install 'cmlr-edge[serve]'"
        ) from error
    del cmlr_edge
    check_exposure(host, token)


def _open_source(settings: SourceSettings) -> Source:
    live = LiveSettings(frozen_after_s=settings.frozen_after_s or None)
    return open_source(settings.uri, policy=settings.policy, live=live, loop=settings.loop)


def _names(config: SessionConfig, sources: Sequence[Source]) -> list[str]:
    """Their names, numbered where one is given more than once."""
    names = [item.name or source.name for item, source in zip(config.sources, sources, strict=True)]
    counts = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name} #{n + 1}" if n else name for name, n in zip(names, counts, strict=True)]
