from __future__ import annotations

from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cmlr_edge import open_source
from cmlr_edge.capture.live import LiveSource
from cmlr_edge.errors import OutputError
from cmlr_edge.sinks.prometheus import PrometheusMetrics
from tests.sdk.test_lasting_sinks import event
from tests.sdk.test_sinks import frame, prediction


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_metrics_are_what_was_written_and_what_the_source_counts() -> None:
    with open_source("test://?fps=0&frames=30", policy="every") as source:
        assert isinstance(source, LiveSource)
        list(source)
        metrics = PrometheusMetrics(0, source=source)
        for i in range(3):
            metrics.write(frame(i), prediction())
        metrics.write_event(event(1))
        found = scrape(metrics.port)
        metrics.close()
    assert found["cmlr_frames_total", frozenset({("valid", "true")})] == 3
    assert found["cmlr_events_total", frozenset({("label", "dog"), ("kind", "start")})] == 1
    # 3 ms of inference for each of three frames, as `prediction` says.
    assert found["cmlr_stage_seconds_sum", frozenset({("stage", "inference")})] == pytest.approx(
        0.009
    )
    assert found["cmlr_source_received", frozenset()] == 30
    assert found["cmlr_source_ok", frozenset()] == 0


def test_a_port_in_use_is_one_error() -> None:
    first = PrometheusMetrics(0)
    with pytest.raises(OutputError, match=str(first.port)):
        PrometheusMetrics(first.port)
    first.close()
    first.close()
