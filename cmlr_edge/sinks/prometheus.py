"""Counts and latencies for Prometheus, served at `http://HOST:PORT/metrics`."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from cmlr_edge.capture.live import LiveSource, SourceState
from cmlr_edge.errors import DependencyError, OutputError
from cmlr_edge.events import Event
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Latency, Prediction

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class PrometheusMetrics:
    """Keeps metrics of one source in a registry of its own; see `Sink` and `EventSink`."""

    def __init__(
        self, port: int, *, host: str = "127.0.0.1", source: LiveSource | None = None
    ) -> None:
        """Start the server.

        Args:
            port: To listen at; 0 for any free one, see `port`.
            host: Address to bind; loopback unless told otherwise.
            source: Its state and counts are told, too.

        Raises:
            OutputError: The port cannot be listened at.
            DependencyError: prometheus-client is not installed.
        """
        client = _prometheus()
        registry = client.CollectorRegistry()
        self._frames = client.Counter(
            "cmlr_frames", "Frames recognised, by validity.", ["valid"], registry=registry
        )
        self._events = client.Counter(
            "cmlr_events", "Events, by label and kind.", ["label", "kind"], registry=registry
        )
        self._seconds = client.Histogram(
            "cmlr_stage_seconds",
            "Time spent on a frame, by stage.",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        if source is not None:
            self._tell_source(client, registry, source)
        try:
            self._server, self._thread = client.start_http_server(port, host, registry)
        except (OSError, OverflowError) as error:
            raise OutputError(f"cannot serve metrics at {host}:{port}: {error}") from error
        self.port = int(self._server.server_port)

    @staticmethod
    def _tell_source(client: Any, registry: Any, source: LiveSource) -> None:
        up = client.Gauge("cmlr_source_ok", "1 while frames come.", registry=registry)
        up.set_function(lambda: float(source.state is SourceState.OK))
        for field in fields(source.stats):
            gauge = client.Gauge(
                f"cmlr_source_{field.name}", f"Count of {field.name} so far.", registry=registry
            )
            gauge.set_function(lambda name=field.name: float(getattr(source.stats, name)))

    def write(self, _frame: Frame, prediction: Prediction) -> None:
        """Count one result; see `Sink`."""
        self._frames.labels(str(prediction.valid).lower()).inc()
        for field in fields(Latency):
            milliseconds = getattr(prediction.latency_ms, field.name)
            self._seconds.labels(field.name).observe(milliseconds / 1e3)

    def write_event(self, event: Event) -> None:
        """Count one event; see `EventSink`."""
        self._events.labels(event.label, event.kind).inc()

    def close(self) -> None:
        """Stop the server. Calling it twice is harmless."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _prometheus() -> Any:
    try:
        import prometheus_client
    except ImportError as error:
        raise DependencyError(
            f"metrics need prometheus-client ({error}): pip install 'cmlr-edge[prometheus]'"
        ) from error
    return prometheus_client
