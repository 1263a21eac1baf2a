"""`cmlr-edge bench`: what it measures, when it compares, and when it refuses to."""

from __future__ import annotations

import copy
import json
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cmlr_edge.cli.app import app
from cmlr_edge.diagnosis.bench import BenchSettings, find_regressions, run_bench
from cmlr_edge.errors import DataError
from cmlr_edge.machine.tegrastats import BoardMonitor, parse_tegrastats

QUICK = BenchSettings(
    warm_up_ms=1, duration_s=0.05, iterations=20, percentiles=(75,), batches=(1, 2), streams=(2,)
)
# Of a Jetson Orin NX, as JetPack 6 prints it.
TEGRASTATS = (
    "11-23-2026 10:00:01 RAM 3055/15389MB (lfb 8x4MB) SWAP 0/7694MB (cached 0MB) "
    "CPU [12%@1984,3%@1113,off,0%@729] EMC_FREQ 0%@3199 GR3D_FREQ 99%@[918] VIC_FREQ 729 "
    "cpu@55.8C soc2@52.9C gpu@54.1C tj@55.8C VDD_IN 12893mW/11021mW VDD_CPU_GPU_CV 4650mW/3804mW"
)


@pytest.fixture(scope="module")
def record(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from tests.conftest import make_spec, mean_color_model, write_engine

    content = mean_color_model()
    path = write_engine(tmp_path_factory.mktemp("engine"), content, make_spec(content))
    return run_bench(path, None, provider="cpu", settings=QUICK)


def test_how_long_it_takes_at_least_is_known_before() -> None:
    settings = BenchSettings(
        warm_up_ms=500, duration_s=10, iterations=1, batches=(1, 2), streams=(3,)
    )
    assert settings.least_s == pytest.approx(0.5 + 10 + 3 * 1)


def test_every_stage_is_there_unclipped(record: dict[str, Any]) -> None:
    assert record["iterations"] >= 20
    for values in record["latency_ms"].values():
        ordered = [values[name] for name in ("p50", "p75", "p90", "p95", "p99", "p99.9", "max")]
        assert ordered == sorted(ordered)
    stages = [record["latency_ms"][s]["mean"] for s in ("preprocess", "inference", "postprocess")]
    assert sum(stages) <= record["latency_ms"]["capture_to_label"]["mean"]
    assert set(record["throughput"]["by_batch"]) == {"1", "2"}
    assert record["throughput"]["by_streams"]["2"] > 0
    assert record["load_to_first_label_s"] >= record["load_s"] > 0
    assert record["memory_mb"]["peak"] >= record["memory_mb"]["steady"] > 0
    json.dumps(record, allow_nan=False)


def test_a_source_is_read_again_until_the_time_is_up(engine: Path, clip: Path) -> None:
    settings = BenchSettings(1, 0.0, 30, (), (), ())
    record = run_bench(engine, str(clip), provider="cpu", settings=settings)
    assert record["iterations"] == 30  # the clip has 20 frames
    assert record["latency_ms"]["capture"]["p50"] > 0


def slower(record: dict[str, Any], factor: float) -> dict[str, Any]:
    changed = copy.deepcopy(record)
    for values in changed["latency_ms"].values():
        values.update({name: value * factor for name, value in values.items()})
    changed["throughput"]["frames_per_second"] /= factor
    return changed


def test_a_regression_is_what_is_slower_by_more_than_allowed(record: dict[str, Any]) -> None:
    assert find_regressions(slower(record, 1.04), record, 0.05) == []
    found = find_regressions(slower(record, 1.1), record, 0.05)
    assert [line.partition(" is ")[2] for line in found] == ["+10.0%"] * 3
    assert find_regressions(slower(record, 0.5), record, 0.0) == []


@pytest.mark.parametrize(
    ("key", "value"), [("sha256", "0" * 64), ("provider", "openvino"), ("valid", False)]
)
def test_runs_of_other_models_or_throttled_ones_are_not_compared(
    record: dict[str, Any], key: str, value: object
) -> None:
    with pytest.raises(DataError, match="cannot be compared"):
        find_regressions(record | {key: value}, record, 0.05)
    machine = record | {"machine": record["machine"] | {"cores": 96}}
    with pytest.raises(DataError, match="cores is 96 now"):
        find_regressions(machine, record, 0.05)


def test_the_command_writes_json_and_exits_with_1_on_a_regression(
    engine: Path, tmp_path: Path
) -> None:
    quick = ["--duration", "0.05", "--warmUp", "1", "--batches", "1", "--streams", ""]
    first, fast = tmp_path / "first.json", tmp_path / "fast.json"
    result = CliRunner().invoke(app, ["bench", str(engine), "--json", str(first), *quick])
    assert result.stderr.startswith("model.onnx works here; timing it takes 0 s at least\n")
    assert result.exit_code == 0, result.output
    fast.write_text(json.dumps(slower(json.loads(first.read_text()), 1e-3)))
    arguments = ["bench", str(engine), *quick, "--compare"]
    assert CliRunner().invoke(app, [*arguments, str(fast)]).exit_code == 1
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps(slower(json.loads(first.read_text()), 1e3)))
    result = CliRunner().invoke(app, [*arguments, str(slow)])
    assert result.exit_code == 0
    assert f"not slower than {slow} by more than 5%" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--max-regression", "much"], "percentage"),
        (["--percentile", "101"], "--percentile"),
        (["--batches", "one"], "--batches"),
        (["--compare", "nowhere.json"], "cannot be read"),
        (["--json", "nowhere/now.json"], "no folder"),
    ],
)
def test_wrong_options_are_named(engine: Path, arguments: list[str], word: str) -> None:
    result = CliRunner().invoke(app, ["bench", str(engine), *arguments])
    assert word in str(result.exception)


def test_readings_of_a_jetson_are_understood() -> None:
    assert parse_tegrastats(TEGRASTATS) == {
        "cpu_mhz": 1984,
        "gpu_load_percent": 99,
        "gpu_mhz": 918,
        "cpu_celsius": 55.8,
        "soc2_celsius": 52.9,
        "gpu_celsius": 54.1,
        "tj_celsius": 55.8,
        "vdd_in_mw": 12893,
        "vdd_cpu_gpu_cv_mw": 4650,
    }


def tool(folder: Path, lines: list[str]) -> str:
    """A tegrastats that prints these lines and waits to be ended."""
    path = folder / "tegrastats"
    text = "\n".join(lines)
    path.write_text(f"#!/bin/sh\ncat <<'END'\n{text}\nEND\nexec sleep 60\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


@pytest.mark.parametrize(("clock", "throttled"), [(1984, False), (1113, True)])
def test_a_run_in_which_the_clock_fell_is_invalid(
    tmp_path: Path, clock: int, throttled: bool
) -> None:
    lines = [TEGRASTATS, TEGRASTATS.replace("1984", str(clock))]
    with BoardMonitor(command=tool(tmp_path, lines), sys_root=tmp_path) as board:
        board.wait_for(2)
    assert board.throttled is throttled
    report = board.report()
    assert report is not None
    assert report["cpu_mhz"]["min"] == clock
    np.testing.assert_allclose(report["vdd_in_mw"]["mean"], 12893)


def test_a_limited_current_makes_a_run_invalid(tmp_path: Path) -> None:
    counter = tmp_path / "class/hwmon/hwmon3/oc1_event_cnt"
    counter.parent.mkdir(parents=True)
    counter.write_text("4\n")
    with BoardMonitor(command="no-such-tool", sys_root=tmp_path) as board:
        counter.write_text("5\n")
    assert board.throttled
    assert board.report() is None
