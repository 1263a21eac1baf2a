"""The alerts and the dashboard of `monitoring/` ask for what is there, in a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import pytest

from tests.conftest import free_port

FOLDER = Path(__file__).parents[3] / "monitoring"
METRIC = re.compile(r"\bcmlr_(?!edge\b)\w+")


def dashboard_queries() -> list[str]:
    panels = json.loads((FOLDER / "grafana.json").read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def await_value(action: Callable[[], Any], limit_s: float = 60) -> Any:
    deadline_s = time.monotonic() + limit_s
    while True:
        try:
            if value := action():
                return value
        except (URLError, ConnectionError):
            pass
        assert time.monotonic() < deadline_s
        time.sleep(0.2)


def ask(port: int, path: str) -> Any:
    with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
        return json.loads(answer.read())["data"]


@pytest.fixture
def metrics(engine: Path, tmp_path: Path) -> Iterator[int]:
    """Where a run with one camera that works and one that is away tells its metrics."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "cmlr_edge",
        "label",
        "door=test://?fps=20",
        "yard=/dev/video199",
    ]
    command += ["--engine", str(engine), "--threshold", "0.2", "--metrics-port", str(port)]
    command += ["--events", str(tmp_path / "e.jsonl")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            await_value(lambda: urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5).read())
            yield port
        finally:
            process.kill()


@pytest.fixture
def prometheus(metrics: int, tmp_path: Path) -> Iterator[int]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not installed, so ALERTS ARE NOT TESTED: apt install prometheus")
    port = free_port()
    rules = (FOLDER / "alerts.yml").read_text()
    quick = tmp_path / "alerts.yml"  # nobody waits two minutes for a test
    quick.write_text(re.sub(r"for: \dm", "for: 1s", rules))
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 500ms, evaluation_interval: 500ms}\n"
        f"rule_files: [{quick}]\n"
        "scrape_configs:\n"
        f'  - {{job_name: cmlr_edge, static_configs: [{{targets: ["127.0.0.1:{metrics}"]}}]}}\n'
    )
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    command += [f"--web.listen-address=127.0.0.1:{port}"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield port
        finally:
            process.terminate()


def test_every_metric_that_is_asked_for_exists(metrics: int) -> None:
    told = urlopen(f"http://127.0.0.1:{metrics}/metrics", timeout=10).read().decode()
    names = set(METRIC.findall((FOLDER / "alerts.yml").read_text()))
    names |= {name for query in dashboard_queries() for name in METRIC.findall(query)}
    assert len(names) > 10
    for name in names:
        base = re.sub(r"_(total|bucket|sum|count)$", "", name)
        assert re.search(rf"^# TYPE {base}(_total)? ", told, re.MULTILINE), name


@pytest.mark.slow
def test_a_real_prometheus_takes_the_rules_and_tells_of_the_camera_that_is_away(
    prometheus: int,
) -> None:
    def firing() -> list[str]:
        alerts = ask(prometheus, "/api/v1/alerts")["alerts"]
        away = [alert for alert in alerts if alert["labels"]["alertname"] == "CameraAway"]
        return [alert["labels"]["source"] for alert in away if alert["state"] == "firing"]

    assert await_value(firing) == ["yard"]
    [group] = ask(prometheus, "/api/v1/rules")["groups"]
    assert {rule["health"] for rule in group["rules"]} == {"ok"}
    assert len(group["rules"]) == 7
    for query in dashboard_queries():
        plain = query.replace("$instance", ".*").replace("$source", ".*")
        assert ask(prometheus, f"/api/v1/query?query={quote(plain)}")["resultType"] == "vector"
