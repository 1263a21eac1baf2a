"""The stored comparison of precisions: it reaches its goals, and the page says what it says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.pages

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "precision.md"
BUILT = "int8, percentile 99.99"  # what export writes


@pytest.fixture(scope="module")
def record() -> dict[str, Any]:
    path = ROOT / "benchmarks" / "results" / "precision" / "results.json"
    stored: dict[str, Any] = json.loads(path.read_text())
    return stored


@pytest.fixture(scope="module")
def rows(record: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in record["rows"]}


def test_fp16_and_int8_reach_their_goals(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["fp16"]["flips_share"] <= 0.005
    assert rows[BUILT]["flips_share"] <= 0.02
    assert rows[BUILT]["mean_ap"] >= rows["fp32"]["mean_ap"] - 0.01


def test_int8_for_cpus_reaches_its_goals_in_onnx_runtime_and_the_page_says_so() -> None:
    path = ROOT / "benchmarks" / "results" / "precision" / "cpu.json"
    record = json.loads(path.read_text())
    rows, times = {row["name"]: row for row in record["rows"]}, record["time_of_fp32"]
    int8 = rows["int8, for CPUs"]
    assert int8["flips_share"] <= 0.01
    assert int8["mean_ap"] >= rows["fp32"]["mean_ap"] - 0.01
    assert not int8["silent"]
    assert times["onnxruntime"]["int8, for CPUs"] <= 0.7
    page = PAGE.read_text()
    for name, row in rows.items():
        share = f"{row['flips']} ({row['flips_share']:.2%})"
        taken = " | ".join(f"{times[runtime][name]:.2f}" for runtime in ("onnxruntime", "openvino"))
        line = f"| {name} | {row['megabytes']:.1f} | {row['mean_ap']:.3f} | {share} | {taken} |"
        assert line in page


def test_the_bundled_run_reached_them_too_and_the_page_says_how() -> None:
    path = ROOT / "benchmarks" / "results" / "precision" / "bundled.json"
    fp32, fp16, int8, _ = json.loads(path.read_text())["rows"]
    assert int8["flips_share"] <= 0.02
    assert int8["mean_ap"] >= fp32["mean_ap"] - 0.01
    half, integer = (f"{row['flips']} ({row['flips_share']:.2%})" for row in (fp16, int8))
    page = PAGE.read_text().replace("\n", " ")
    assert f"gave {half} for fp16 and {integer} for int8" in page
    assert f"fell from {fp32['mean_ap']:.3f} to {int8['mean_ap']:.3f}" in page


def test_runtimes_agree_on_the_float32_file(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["fp32"]["openvino_difference"] <= 1e-4


def test_every_number_of_the_page_is_in_the_record(
    record: dict[str, Any], rows: dict[str, dict[str, Any]]
) -> None:
    page = PAGE.read_text()
    for row in rows.values():
        assert (
            f"| {row['name']} | {row['megabytes']:.1f} | {row['mean_ap']:.3f} "
            f"| {row['flips']} ({row['flips_share']:.2%}) | {row['largest_difference']:.2f} "
            f"| {row['mean_difference']:.4f} | {row['openvino_difference']:.1g} |"
        ) in page
    for runtime, times in record.get("time_of_fp32", {}).items():
        numbers = " | ".join(f"{times[name]:.2f}" for name in ("fp16", BUILT, "int8, head too"))
        assert f"| {runtime} | {numbers} |" in page
    assert f"{record['calibration_pictures']} calibration pictures" in page


def test_ways_to_int8_were_compared_and_timed(
    record: dict[str, Any], rows: dict[str, dict[str, Any]]
) -> None:
    assert {BUILT, "int8, percentile 99.9", "int8, entropy", "int8, head too"} < set(rows)
    assert set(record["time_of_fp32"]) == {"onnxruntime", "openvino"}


def test_ten_thousand_damaged_files_did_no_harm() -> None:
    fuzz = json.loads((ROOT / "benchmarks" / "results" / "fuzz" / "results.json").read_text())
    assert fuzz["cases"] >= 10_000
    assert fuzz["wrong"] == []
    driverless = [found for name, found in fuzz["totals"].items() if "without" in name]
    assert driverless
    assert all(found.keys() <= {"SpecError", "EngineError"} for found in driverless)
    opened = {name: sum(found.values()) for name, found in fuzz["totals"].items()}
    assert sum(opened.values()) == fuzz["cases"]
    assert min(opened["ONNX files"], opened["engines, made-up GPU and TensorRT"]) > 2000
