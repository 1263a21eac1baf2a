"""What archives cost, as computed and as the page tells it; what was measured of them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from benchmarks.archive.planning import Prices, plan_of

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks/results/archive"


def stored(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text())
    return record


def measured(decode_ms: float, recognise_ms: float, mbit_per_s: float) -> dict[str, Any]:
    stages = {"decode_picture": decode_ms, "prepare": 0.5, "recognise": recognise_ms}
    stages["decode_frame of a.mp4"] = decode_ms
    film = {"size": "640x360", "fps": 10.0, "mbit_per_s": mbit_per_s}
    return {"core_ms": stages, "picture_bytes": 100_000, "films": {"a.mp4": film}}


def test_hours_and_cost_follow_from_what_a_core_does() -> None:
    plan = plan_of(measured(2.0, 7.5, 1.0), Prices(0.1, 100.0, 16))
    pictures, every, second = plan["works"].values()
    assert (pictures["count"], pictures["terabytes"]) == (10_000_000, 1.0)
    assert pictures["core_hours"] == round(10_000_000 * 0.010 / 3600)
    assert pictures["hours_by_cores"]["2"] == pytest.approx(27.8 / 2, abs=0.05)
    assert (every["bottleneck"], second["bottleneck"]) == ("recognise", "decode")
    assert second["core_hours"] == round(864_000_000 * (2.0 + 8.0 / 10) / 3.6e6)
    assert second["cost"] == pytest.approx(second["core_hours"] * 0.1, abs=1)


def test_a_slow_network_is_named() -> None:
    [_, _, second] = plan_of(measured(0.1, 1.0, 80.0), Prices(0.1, 10.0, 16))["works"].values()
    assert second["bottleneck"] == "network"
    assert second["hours_by_cores"]["2"] == pytest.approx(86.4e6 * 10 / 10 / 3600, rel=0.01)


@pytest.mark.pages
def test_the_page_says_what_was_computed() -> None:
    page = (ROOT / "docs/archives.md").read_text()
    works = stored("plan")["works"]
    told = [work for name, work in works.items() if "one-by-one" not in name]
    assert len(told) == 5
    for work in told:
        hours = ", ".join(f"{work['hours_by_cores'][cores]:.1f}" for cores in ("2", "16", "128"))
        numbers = f"{work['core_hours']} | {work['cost']} | {hours} | {work['bottleneck']} |"
        assert f"{work['terabytes']} | {numbers}" in page
    assert plan_of(stored("rates"), Prices(**stored("plan")["assumed"]))["works"] == works


@pytest.mark.pages
def test_the_page_says_what_was_measured() -> None:
    page = " ".join((ROOT / "docs/archives.md").read_text().split())
    equal, kills, cluster = stored("equal"), stored("kills"), stored("cluster")
    assert f"{equal['decisions']} decisions; and its {equal['events_of_label']} events" in page
    assert equal["rows_that_differ"] == equal["rows_more"] == equal["events_that_differ"] == 0
    assert f"Of {kills['rows_and_events']} rows and events none was missing" in page
    for who in ("drivers", "workers"):
        assert kills[who]["kills"] == 20
        assert all(not (d["rows_missing"] or d["rows_more"]) for d in kills[who]["datasets"])
    assert f"in the middle of {cluster['pictures']} pictures" in page
    assert cluster["lost"]["rows"] == cluster["pictures"]
    assert cluster["lost"]["rows_missing"] == cluster["lost"]["rows_more"] == 0
    rates = [cluster[way]["pictures_per_s"] for way in ("calm", "local")]
    assert f"{rates[0]:.1f} pictures a second, and {rates[1]:.1f} without it" in page
    each = {name: median(values) for name, values in stored("marginal")["core_ms"].items()}
    assert f"{each['archive']:.1f} ms of a core" in page
    assert f"`recognizer(read_image(path))` {each['loop']:.1f} ms" in page
    plan = stored("plans")["runs"][-1]
    cost = f"{plan['write_core_s']:.0f} s of a core and {plan['file_mb']:.0f} MB"
    assert f"ten million pictures takes {cost}" in page


@pytest.mark.pages
def test_memory_does_not_grow_with_the_number_of_pictures() -> None:
    page = " ".join((ROOT / "docs/archives.md").read_text().split())
    few, many = stored("many")["runs"]
    assert (few["rows"], many["rows"]) == (few["pictures"], many["pictures"])
    assert many["pictures"] == 10 * few["pictures"]
    assert many["worker_peak_mib"] < 1.1 * few["worker_peak_mib"]
    assert many["driver_peak_mib"] < 1.3 * few["driver_peak_mib"]
    told = f"{many['driver_peak_mib']:.0f} MiB and each worker {many['worker_peak_mib']:.0f} MiB"
    assert told in page
