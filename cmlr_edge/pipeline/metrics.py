"""Counts and latencies for Prometheus, of every source of a run."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, fields
from typing import Any

from cmlr_edge.capture.live import SourceState
from cmlr_edge.errors import OutputError
from cmlr_edge.machine.addresses import is_loopback
from cmlr_edge.machine.needed import needed
from cmlr_edge.pipeline.status import SourceStatus
from cmlr_edge.prediction import Latency
from cmlr_edge.sinks.base import OutputStatus, Result, Takes

_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_COUNTED = {
    "repeated": "Frames that repeat earlier scores, for the scene had not changed.",
    "unusable": "Frames that were no images.",
    "lost": "Results and events that outputs did not take.",
    "damaged": "Packets of the source that could not be read or decoded.",
}
_PLACE = {
    "blocks": "Blocks of time that were counted of a place.",
    "distance": "Of a place's surroundings from training's: 0 the same, 1 nothing in common.",
    "statistic": "Of the test whether a place is like training; 1 is usual.",
    "threshold": "Of that test: an alarm begins above it.",
    "unlike": "1 while a place is unlike what training saw.",
}
_CAPTURED = {
    "received": "Frames that a live source gave.",
    "dropped": "Frames replaced by newer ones before anybody took them.",
    "frozen": "Frames that repeat a picture for too long.",
    "stale": "Frames that waited too long.",
    "reconnects": "Attempts to connect a live source again.",
}


class PrometheusMetrics:
    """Keeps the metrics of one run in a registry of its own; `serve` or `render` tells them."""

    def __init__(
        self,
        status: Callable[[], Iterable[SourceStatus]] = tuple,
        outputs: Callable[[], Iterable[OutputStatus]] = tuple,
    ) -> None:
        """Start at nothing.

        Args:
            status: Asked at every scrape, such as `Streams.status`.
            outputs: Likewise, such as `Session.output_status`.

        Raises:
            DependencyError: prometheus-client is not installed.
        """
        self._client = client = _prometheus()
        self._registry = registry = client.CollectorRegistry()
        self._frames = client.Counter(
            "cmlr_frames", "Frames with a result.", ["source", "valid"], registry=registry
        )
        self._events = client.Counter(
            "cmlr_events",
            "Events, by label and kind.",
            ["source", "label", "kind"],
            registry=registry,
        )
        self._seconds = client.Histogram(
            "cmlr_stage_seconds",
            "Time spent on a frame, by stage.",
            ["source", "stage"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._whole = client.Histogram(
            "cmlr_capture_to_label_seconds",
            "From a live frame's arrival to its result, waiting included.",
            ["source"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        registry.register(_StatusCollector(client, status, outputs))
        self._server: Any = None
        self._thread: Any = None

    def of_source(self, name: str) -> SourceMetrics:
        """Return the sink that counts one source."""
        return SourceMetrics(name, self._frames, self._events, self._seconds, self._whole)

    def render(self) -> bytes:
        """Return the text that Prometheus reads, for a server of one's own."""
        text: bytes = self._client.generate_latest(self._registry)
        return text

    def serve(self, port: int, *, host: str = "127.0.0.1") -> int:
        """Answer at `http://HOST:PORT/metrics` until `close`; return the port.

        Args:
            port: 0 for any free one.
            host: Address to bind; of this machine alone, for nobody is asked for a token.

        Raises:
            OutputError: The port cannot be listened at, or others could read there.
        """
        if not is_loopback(host):
            raise OutputError(
                f"metrics at {host} could be read by everybody: bind 127.0.0.1, or hand `render` "
                "to a server that asks who reads"
            )
        try:
            self._server, self._thread = self._client.start_http_server(port, host, self._registry)
        except (OSError, OverflowError) as error:
            raise OutputError(f"cannot serve metrics at {host}:{port}: {error}") from error
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop the server. Calling it twice is harmless."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()


class SourceMetrics:
    """Counts one source's results; see `Sink`."""

    takes: Takes = "both"
    pictures = False
    inline = True

    def __init__(self, source: str, frames: Any, events: Any, seconds: Any, whole: Any) -> None:
        """Take the metrics to count in; see `PrometheusMetrics.of_source`."""
        self._source = source
        self._frames, self._events, self._seconds = frames, events, seconds
        self._whole = whole

    def write(self, result: Result) -> None:
        """Count one result; see `Sink`."""
        for event in result.events:
            self._events.labels(self._source, event.label, event.kind).inc()
        if result.ending:
            return
        frame, prediction = result.frame, result.prediction
        self._frames.labels(self._source, str(prediction.valid).lower()).inc()
        if prediction.repeated:
            return
        for field in fields(Latency):
            milliseconds = getattr(prediction.latency_ms, field.name)
            self._seconds.labels(self._source, field.name).observe(milliseconds / 1e3)
        if frame.arrived_s is not None:
            self._whole.labels(self._source).observe(time.monotonic() - frame.arrived_s)

    def close(self) -> None:
        """Nothing to finish; see `Sink`."""


class _StatusCollector:
    """Asks the run at every scrape."""

    def __init__(
        self,
        client: Any,
        status: Callable[[], Iterable[SourceStatus]],
        outputs: Callable[[], Iterable[OutputStatus]],
    ) -> None:
        self._core, self._status, self._outputs = client.core, status, outputs

    def collect(self) -> Iterator[Any]:
        up = self._core.GaugeMetricFamily(
            "cmlr_source_ok", "1 while frames come.", labels=["source"]
        )
        counters = {
            name: self._core.CounterMetricFamily(f"cmlr_source_{name}", text, labels=["source"])
            for name, text in (_COUNTED | _CAPTURED).items()
        }
        for status in self._status():
            up.add_metric([status.name], float(status.state is SourceState.OK))
            counts = {name: getattr(status, name) for name in _COUNTED}
            counts |= {} if status.capture is None else asdict(status.capture)
            for name, count in counts.items():
                if name in counters:
                    counters[name].add_metric([status.name], count)
        yield up
        yield from counters.values()
        yield from self._collect_places()
        yield from self._collect_outputs()

    def _collect_places(self) -> Iterator[Any]:
        gauges = {
            name: self._core.GaugeMetricFamily(f"cmlr_place_{name}", text, labels=["source"])
            for name, text in _PLACE.items()
        }
        for status in self._status():
            for name, gauge in gauges.items() if status.place is not None else ():
                gauge.add_metric([status.name], float(getattr(status.place, name)))
        yield from gauges.values()

    def _collect_outputs(self) -> Iterator[Any]:
        working = self._core.GaugeMetricFamily(
            "cmlr_output_ok", "1 while it takes what it is given.", labels=["output"]
        )
        lost = self._core.CounterMetricFamily(
            "cmlr_output_lost", "Results and events that it did not take.", labels=["output"]
        )
        for status in self._outputs():
            working.add_metric([status.name], float(status.state == "ok"))
            lost.add_metric([status.name], status.lost)
        yield from (working, lost)

    def describe(self) -> list[Any]:
        """Ask nobody while registering."""
        return []


def _prometheus() -> Any:
    with needed("metrics need prometheus-client", "pip install 'cmlr-edge[prometheus]'"):
        import prometheus_client.core  # it also gives `prometheus_client`
    return prometheus_client
