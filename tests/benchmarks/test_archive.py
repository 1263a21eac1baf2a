"""What archives cost, as computed and as the page tells it; what was measured of them."""

from __future__ import annotations

import json
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import pytest

from benchmarks.archive import sleepers
from benchmarks.archive.planning import Prices, plan_of, plan_table
from benchmarks.archive.scale import scale_table
from benchmarks.archive.stragglers import Loss, Outcome, Worker, simulate

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


def test_units_go_to_whoever_is_free_and_a_slow_worker_holds_up_the_end() -> None:
    assert simulate([1.0] * 4, [Worker(0), Worker(1)]) == Outcome(2.0, 0.0)
    assert simulate([1.0] * 4, [Worker(0), Worker(1, slowness=3)]).seconds == 3.0
    assert simulate([1.0] * 4, [Worker(0), Worker(1)], pause_s=0.25).seconds == 2.5
    assert simulate([1.0] * 4, [Worker(0), Worker(1, free_s=10)]).seconds == 4.0


def test_what_a_lost_node_held_is_done_again_once_that_is_noticed() -> None:
    def lost(back_s: float | None) -> Outcome:
        return simulate([10.0] * 4, [Worker(0), Worker(1)], losses=[Loss(1, 5.0, 1.0, back_s)])

    assert lost(None) == Outcome(40.0, 5.0)
    assert lost(2.0) == Outcome(27.0, 5.0)
    with pytest.raises(ValueError, match="none comes back"):
        simulate([10.0], [Worker(0)], losses=[Loss(0, 5.0, 1.0, None)])


def test_a_simulated_run_is_never_faster_than_an_even_share() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        units = rng.uniform(1, 5, 40).tolist()
        slow = [Worker(i // 2, float(rng.uniform(1, 3))) for i in range(6)]
        losses = [Loss(1, float(rng.uniform(0, 30)), 2.0, 5.0)]
        share_s = sum(units) / sum(1 / worker.slowness for worker in slow)
        found = simulate(units, slow, losses=losses)
        assert share_s <= found.seconds < sum(units) * 3 + 30
        assert not any(worker.unit is not None for worker in slow)


def test_what_sleepers_wrote_down_is_told_beside_the_simulation() -> None:
    lines: list[dict[str, Any]] = []
    for node, pid in (("127.0.0.1", 1), ("127.0.0.2", 2)):
        lines.append({"what": "came", "unit": -1, "s": 100.0, "node": node, "pid": pid})
    for unit in range(sleepers.UNITS):
        lines.append(
            {"what": "begun", "unit": unit, "s": 100.0 + unit, "node": "127.0.0.1", "pid": 1}
        )
        lines.append(
            {"what": "ended", "unit": unit, "s": 101.0 + unit, "node": "127.0.0.1", "pid": 1}
        )
    lines.append({"what": "lost", "s": 100.5})
    lines.append({"what": "begun", "unit": 1, "s": 103.5, "node": "127.0.0.1", "pid": 1})
    told = sleepers.judged(lines, 1.0)
    assert told["loss_noticed_after_s"] == 3.0
    assert told["seconds"] == told["simulated_s"] == sleepers.UNITS


@pytest.mark.pages
def test_the_page_says_what_was_computed_and_simulated() -> None:
    page = (ROOT / "docs/scale.md").read_text()
    text = " ".join(page.split())
    plan, scale, rates = stored("plan"), stored("scale"), stored("rates")["core_ms"]
    assert plan_of(stored("rates"), Prices(**plan["assumed"]))["works"] == plan["works"]
    assert f"<!-- plan -->\n{plan_table(plan)}\n<!-- end -->" in page
    assert f"<!-- scale -->\n{scale_table(scale)}\n<!-- end -->" in page
    decode, recognise = rates["decode_picture"], rates["recognise"]
    prepare = rates["prepare"]
    assert (
        f"{decode:.1f} ms to decode, {prepare:.1f} ms to make small, and {recognise:.1f} ms" in text
    )
    every, small = (
        scale["works"][
            next(name for name in scale["works"] if f"every frame; --part-mb {mb}" in name)
        ]
        for mb in (64, 8)
    )
    assert f"hold {every['unit_core_s'] / 60:.0f} minutes of work" in text
    assert f"to {16 * every['unit_core_s'] / 3600:.0f} hours of their work" in text
    longest = [work["by_cores"]["1024"]["both"]["longest"] for work in (every, small)]
    assert f"from {longest[0]:.1f} down to {longest[1]:.1f} hours" in text


@pytest.mark.pages
def test_ray_takes_what_the_simulation_says() -> None:
    page, record = (ROOT / "docs/scale.md").read_text(), stored("sleepers")
    assert f"<!-- sleepers -->\n{sleepers.sleepers_table(record)}\n<!-- end -->" in page
    noticed_s = record["runs"]["lost"]["loss_noticed_after_s"]
    assert f"noticed the loss after {noticed_s:.0f} s here" in " ".join(page.split())
    for run in record["runs"].values():
        assert run["units_done"] == record["units"] == sleepers.UNITS
        assert run["simulated_s"] == pytest.approx(run["seconds"], rel=0.1)


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
    assert f"`recognizer(read_image(path))` takes {each['loop']:.1f} ms" in page
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
