"""What Prometheus asks for, read from the run at the moment it asks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from cmlr_edge.capture.live import SourceState, SourceStats
from cmlr_edge.server.state import LiveState
from cmlr_edge.streams import SourceStatus


class LiveMetrics(Collector):
    """Every source's state, counts and latencies, and the events by label."""

    def __init__(self, live: LiveState) -> None:
        """Look at `live` whenever asked."""
        self._live = live
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def text(self) -> bytes:
        """Return the exposition format."""
        return generate_latest(self._registry)

    def describe(self) -> list[Metric]:
        """Tell the registry nothing, so that it does not ask before there is anything to say."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics; see prometheus_client."""
        statuses = [source.status for source in self._live.state().sources]
        yield from _counts(statuses)
        yield from _capture(statuses)
        latency = GaugeMetricFamily(
            "cmlr_latency_seconds",
            "Time of the newest frames, by stage; capture_to_label is the whole way.",
            labels=["source", "stage", "quantile"],
        )
        for status in statuses:
            for stage, values in status.latency_ms.items():
                for rank, value in values.items():
                    quantile = f"{int(rank[1:]) / 100:g}"
                    latency.add_metric([status.name, stage, quantile], value / 1e3)
        yield latency
        events = CounterMetricFamily(
            "cmlr_events", "Events, by label and kind.", labels=["source", "label", "kind"]
        )
        for key, count in self._live.visits.counts().items():
            events.add_metric(key, count)
        yield events


def _counts(statuses: list[SourceStatus]) -> Iterator[Metric]:
    ok = GaugeMetricFamily("cmlr_source_ok", "1 while frames come.", labels=["source"])
    pace = GaugeMetricFamily("cmlr_frames_per_second", "Newest pace.", labels=["source"])
    frames = CounterMetricFamily("cmlr_frames", "Results, by validity.", labels=["source", "valid"])
    lost = CounterMetricFamily(
        "cmlr_results_lost", "Results and events that outputs did not take.", labels=["source"]
    )
    for status in statuses:
        ok.add_metric([status.name], float(status.state is SourceState.OK))
        pace.add_metric([status.name], status.frames_per_second)
        frames.add_metric([status.name, "true"], status.frames - status.invalid)
        frames.add_metric([status.name, "false"], status.invalid)
        lost.add_metric([status.name], status.lost)
    yield from (ok, pace, frames, lost)


def _capture(statuses: list[SourceStatus]) -> Iterator[Metric]:
    for field in fields(SourceStats):
        family = CounterMetricFamily(
            f"cmlr_source_{field.name}", f"Count of {field.name} so far.", labels=["source"]
        )
        for status in statuses:
            if status.capture is not None:
                family.add_metric([status.name], getattr(status.capture, field.name))
        yield family
