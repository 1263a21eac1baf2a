"""What looks at a session from outside: its metrics and its live page."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from cmlr_edge.machine.addresses import is_loopback
from cmlr_edge.machine.needed import needed
from cmlr_edge.pipeline import Streams
from cmlr_edge.pipeline.metrics import PrometheusMetrics
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.redaction import redact
from cmlr_edge.session.config import SessionConfig
from cmlr_edge.session.secrets import put_in
from cmlr_edge.sinks.base import OutputStatus
from cmlr_edge.sinks.guarded import GuardedSink

if TYPE_CHECKING:
    from cmlr_edge.page.state import LiveState


class Watching:
    """Metrics and page of one session, as far as its configuration wants them."""

    def __init__(self, config: SessionConfig, folder: Path) -> None:
        """Check who could look; nothing is opened yet.

        Args:
            config: Of the session.
            folder: What relative paths of secrets start from.

        Raises:
            OutputError: Cameras would be open to everybody.
            DependencyError: A package is missing.
        """
        self._config = config
        self._token = config.page.token and put_in(config.page.token, folder)
        if config.page.port is not None:
            _check_exposure(config.page.host, self._token)
        if config.metrics.port and not is_loopback(config.metrics.host):
            _check_exposure(config.metrics.host, self._token, "[metrics] host")
        self._metrics: PrometheusMetrics | None = None
        self.page: LiveState | None = None
        self.visits: GuardedSink | None = None  # what the page needs of all results

    def open(
        self,
        streams: Streams,
        recognizer: Recognizer,
        outputs: Callable[[], tuple[OutputStatus, ...]],
        cleanup: ExitStack,
    ) -> None:
        """Prepare both; metrics are told from now on, the page from `serve` on."""
        config = self._config
        if not config.metrics.port and config.page.port is None:
            return
        self._metrics = PrometheusMetrics(streams.status, outputs)
        cleanup.callback(self._metrics.close)
        if config.metrics.port:
            self._serve_metrics(self._metrics, cleanup)
        if config.page.port is not None:
            from cmlr_edge.page.state import LiveState

            self.page = LiveState(
                streams,
                recognizer,
                metrics=self._metrics,
                outputs=outputs,
                explain=config.explanation,
            )
            self.visits = GuardedSink(self.page.visits)

    def serve(self, cleanup: ExitStack) -> str:
        """Let the page be visited; return its address, "" where there is none."""
        page = self._config.page
        if self.page is None or page.port is None:
            return ""
        from cmlr_edge.page.running import LiveServer

        server = LiveServer(self.page, host=page.host, port=page.port, token=self._token)
        return cleanup.enter_context(server).url

    def begin(self, name: str) -> list[GuardedSink]:
        """Take a source; return what its results are counted by."""
        if self.page is not None:
            self.page.watch(name)
        return [] if self._metrics is None else [GuardedSink(self._metrics.of_source(redact(name)))]

    def end(self, name: str) -> None:
        """Show a source no longer."""
        if self.page is not None:
            self.page.forget(name)

    def use(self, recognizer: Recognizer) -> None:
        """Tell of another model."""
        if self.page is not None:
            self.page.use(recognizer)

    def _serve_metrics(self, metrics: PrometheusMetrics, cleanup: ExitStack) -> None:
        wanted = self._config.metrics
        if is_loopback(wanted.host):
            metrics.serve(wanted.port, host=wanted.host)
            return
        from cmlr_edge.page.running import MetricsServer

        server = MetricsServer(
            metrics.render, host=wanted.host, port=wanted.port, token=self._token
        )
        cleanup.enter_context(server)


def _check_exposure(host: str, token: str | None, setting: str = "--host") -> None:
    with needed("the live page needs more packages", "pip install 'cmlr-edge[serve]'"):
        import cmlr_edge.page.app
        from cmlr_edge.page.gate import check_exposure
    del cmlr_edge
    check_exposure(host, token, setting=setting)
