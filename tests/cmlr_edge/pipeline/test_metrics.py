from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cmlr_edge import Recognizer, Streams, open_source
from cmlr_edge.errors import OutputError
from cmlr_edge.pipeline.metrics import PrometheusMetrics
from tests.cmlr_edge.sinks.results import of_events, result
from tests.cmlr_edge.sinks.samples import event, frame, prediction


def parse(text: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def labels(**values: str) -> frozenset[tuple[str, str]]:
    return frozenset(values.items())


def test_metrics_are_what_was_written_for_each_source() -> None:
    metrics = PrometheusMetrics()
    door, yard = metrics.of_source("door"), metrics.of_source("yard")
    for i in range(3):
        door.write(result(replace(frame(i), arrived_s=time.monotonic() - 2), prediction()))
    yard.write(result(frame(0), prediction()))
    yard.write(of_events(event(1)))
    port = metrics.serve(0)
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        found = parse(answer.read().decode())
    metrics.close()
    assert found["cmlr_frames_total", labels(source="door", valid="true")] == 3
    assert found["cmlr_frames_total", labels(source="yard", valid="true")] == 1
    assert found["cmlr_events_total", labels(source="yard", label="dog", kind="start")] == 1
    # 3 ms of inference for each of three frames, as `prediction` says.
    spent = found["cmlr_stage_seconds_sum", labels(source="door", stage="inference")]
    assert spent == pytest.approx(0.009)
    waited = found["cmlr_capture_to_label_seconds_sum", labels(source="door")]
    assert waited == pytest.approx(6, abs=2)
    assert ("cmlr_capture_to_label_seconds_sum", labels(source="yard")) not in found  # a file


def test_metrics_tell_what_each_source_of_a_run_counts(engine: Path) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        streams = Streams(recognizer)
        metrics = PrometheusMetrics(streams.status)
        for name, frames in (("door", 30), ("yard", 20)):
            source = open_source(f"test://?fps=0&frames={frames}", policy="every")
            streams.add(source, name=name, sinks=[metrics.of_source(name)])
        assert sum(1 for _ in streams.results()) == 50
        found = parse(metrics.render().decode())
    for name, frames in (("door", 30), ("yard", 20)):
        assert found["cmlr_frames_total", labels(source=name, valid="true")] == frames
        assert found["cmlr_source_received_total", labels(source=name)] == frames
        assert found["cmlr_source_lost_total", labels(source=name)] == 0
        assert found["cmlr_source_ok", labels(source=name)] == 0  # it has ended


def test_a_port_in_use_is_one_error() -> None:
    first, second = PrometheusMetrics(), PrometheusMetrics()
    port = first.serve(0)
    with pytest.raises(OutputError, match=str(port)):
        second.serve(port)
    second.close()
    first.close()
    first.close()
