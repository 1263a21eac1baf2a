"""Contracts on events: what recordings prove, what they do not, and what it would take."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from cmlr_edge.cli.app import app
from cmlr_edge.cli.fit_events import _record
from cmlr_edge.errors import DataError
from cmlr_edge.events import contract as of_contracts
from cmlr_edge.events.contract import (
    Contract,
    Wish,
    divide,
    false_a_day_at_most,
    fit_contract,
    found_at_least,
    hours_needed,
    tell_needed,
    visits_needed,
)
from cmlr_edge.events.recordings import Recording, Visit, read_recordings
from cmlr_edge.events.replay import Counts, count_events, find_events
from cmlr_edge.events.tracker import EventTracker
from cmlr_edge.model.shares import poisson_up_to, rate_at_most, share_at_least, share_between
from cmlr_edge.model.stability import LabelStability
from cmlr_edge.session.config import load_config
from tests.cmlr_edge.events.synthetic import recording, write_recordings

PLAIN = LabelStability(0.5, 0.5, smoothing_s=0, min_duration_s=0, min_gap_s=0)


def tiny(scores: list[float], *visits: tuple[float, float]) -> Recording:
    times = np.arange(len(scores), dtype=float)
    found = tuple(Visit(*visit) for visit in visits)
    return Recording("a.csv", times, np.array(scores, np.float32), found)


def counts(found: int, visits: int, false_events: int, hours: float) -> Counts:
    of_found, of_false, none = (np.array([[n]]) for n in (found, false_events, 0))
    return Counts(of_found, np.array([visits]), of_false, none, none, np.array([hours]))


def test_events_are_those_of_the_tracker_itself() -> None:
    item = recording(3)
    settings = [PLAIN, replace(PLAIN, enter=0.7, smoothing_s=1, min_duration_s=2, min_gap_s=3)]
    for setting, events in zip(settings, find_events(item, settings), strict=True):
        tracker, told = EventTracker({"x": setting}), []
        for time_s, score in zip(item.times_s, item.scores, strict=True):
            told += tracker.add(np.array([score]), float(time_s))
        ends = [event for event in (*told, *tracker.finish()) if event.kind == "end"]
        assert events == [(event.start_s, event.end_s) for event in ends]


def test_found_false_and_repeated_events_are_told_apart() -> None:
    #         visit 1: found, twice    nothing there     visit 2: missed
    scores = [0.1, 0.9, 0.1, 0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1]
    found = count_events(tiny(scores, (0.5, 3.5), (8.0, 9.0)), [PLAIN])
    assert (found.found.tolist(), found.visits) == ([1], 2)
    assert (found.false_events.tolist(), found.repeats.tolist()) == ([1], [1])


def test_an_event_that_runs_on_into_other_visits_is_not_chosen_where_one_for_each_is_as_good() -> (
    None
):
    # Someone is mostly there, and an empty view scores 0.11: of settings that leave below that, one event
    # goes on for ever, which is not false, for more than half of it lies in visits.
    there = [(50.0 * n, 50.0 * n + 30) for n in range(20)]
    seconds = np.arange(1000)
    scores = np.where(seconds % 50 <= 30, 0.6 + 0.3 * (seconds % 2), 0.11).astype(np.float32)
    scores[40::50] = 0.13
    item = tiny(scores.tolist(), *there)
    endless = count_events(item, [replace(PLAIN, enter=0.13, leave=0.065)])
    assert (endless.found.tolist(), endless.merged.tolist()) == ([20], [19])
    contract = fit_contract("x", [item] * 6, Wish(10_000, 0.6))
    assert contract.proven
    assert (int(contract.proof.found[0]), int(contract.proof.merged[0])) == (80, 0)


def test_an_event_that_does_not_end_is_false_and_finds_nothing() -> None:
    always = tiny([0.9] * 20, (2.0, 4.0), (10.0, 13.0))
    found = count_events(always, [PLAIN])
    assert (found.found.tolist(), found.false_events.tolist()) == ([0], [1])


def test_frames_that_say_nothing_bring_no_event_and_an_outage_counts_little() -> None:
    item = tiny([float("nan")] * 5 + [0.9])
    assert count_events(item, [PLAIN]).false_events.tolist() == [1]
    gap = Recording("a", np.array([0.0, 1.0, 5000.0]), np.zeros(3, np.float32), ())
    assert gap.hours == pytest.approx(3 / 3600)
    frozen = np.r_[np.zeros(10), np.full(5000, np.nan), np.zeros(10)].astype(np.float32)
    assert tiny(frozen.tolist()).hours == pytest.approx(20 / 3600)


def test_bounds_are_exact() -> None:
    assert rate_at_most(0, 1, miss=0.05) == pytest.approx(-np.log(0.05))
    assert share_at_least(35, 35, miss=0.025) == pytest.approx(0.025 ** (1 / 35))
    low, high = share_between(9, 10)
    assert low == pytest.approx(0.5550, abs=1e-4)
    assert high == pytest.approx(0.9975, abs=1e-4)
    assert share_between(0, 5)[0] == 0
    assert share_between(5, 5)[1] == 1
    assert rate_at_most(3, 0, miss=0.05) == np.inf


def test_good_scores_prove_a_contract_and_the_settings_are_used_as_written() -> None:
    recordings = [recording(seed, frames=300) for seed in range(40)]
    contract = fit_contract("car", recordings, Wish(100.0, 0.7))
    assert contract.proven
    assert contract.needed == ""
    _, held_out = divide(recordings, 0)
    again = Counts.joined([count_events(r, [contract.settings]) for r in held_out])
    assert again.found.tolist() == contract.proof.found.tolist()
    assert found_at_least(contract.proof) >= 0.7
    assert false_a_day_at_most(contract.proof) <= 100


def test_recordings_that_differ_count_for_less() -> None:
    def joined(false_events: list[int], found: list[int]) -> Counts:
        parts = zip(found, false_events, strict=True)
        return Counts.joined([counts(f, 10, n, 24.0) for f, n in parts])

    alike, apart = joined([2, 2, 2, 2], [8, 8, 8, 8]), joined([0, 0, 0, 8], [10, 10, 10, 2])
    assert false_a_day_at_most(alike) == pytest.approx(rate_at_most(8, 4, miss=0.025))
    assert found_at_least(alike) == pytest.approx(share_at_least(32, 40, miss=0.025))
    assert false_a_day_at_most(apart) > 1.5 * false_a_day_at_most(alike)
    assert found_at_least(apart) < 0.8 * found_at_least(alike)


def test_few_recordings_are_told_what_it_would_take() -> None:
    contract = fit_contract(
        "car", [recording(seed, frames=300) for seed in range(4)], Wish(20.0, 0.9)
    )
    assert not contract.proven
    assert "it takes at least" in contract.needed
    assert "and 54 visits" in contract.needed
    assert "times the 4 recordings" in contract.needed
    assert visits_needed(1.0, Wish(1, 0.9)) == 36  # 0.9**35 is still above 1 in 40
    assert hours_needed(0.0, Wish(1, 0.9)) == pytest.approx(24 * -np.log(0.025))


def test_what_lies_just_below_a_wish_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    days, wish = hours_needed(0.9, Wish(1.0, 0.9)) / 24, 1.0
    allowed = of_contracts._most_false(days, wish)
    assert rate_at_most(allowed, days, miss=0.025) <= wish
    assert wish < rate_at_most(allowed + 1, days, miss=0.025)
    assert poisson_up_to(allowed, 0.9 * days) >= 0.8
    assert of_contracts._most_false(0.0, wish) == of_contracts._most_false(3.0, wish) == -1
    monkeypatch.setattr(of_contracts, "_MOST_CASES", 60)
    for near in (counts(36, 36, 97, 2400.0), counts(901, 1000, 0, 2400.0)):
        assert "too near to the wish: more than 60" in tell_needed(near, Wish(1.0, 0.9), 4)


def test_no_hours_bound_no_rate_and_json_says_null() -> None:
    proof = counts(1, 1, 0, 0.0)
    record = _record(Contract("car", PLAIN, proof, proof, False, "", proof))
    assert record["held_out"]["false_a_day_at_most"] is None


def test_hopeless_wishes_are_told_so() -> None:
    said = tell_needed(counts(5, 20, 30, 24.0), Wish(1.0, 0.9), 4)
    assert "no number of recordings proves it" in said
    assert "30 false events a day are more than 1" in said
    assert "25% of the visits found are less than 90%" in said


def test_scores_without_any_information_prove_nothing() -> None:
    blind = [recording(seed, strength=0.0, frames=300) for seed in range(12)]
    assert not fit_contract("car", blind, Wish(24.0, 0.9)).proven


def test_no_recording_is_chosen_on_and_held_out() -> None:
    recordings = [recording(seed, visits=seed % 3) for seed in range(13)]
    chosen, held_out = divide(recordings, 1)
    assert {r.name for r in chosen} & {r.name for r in held_out} == set()
    assert len(chosen) + len(held_out) == 13
    assert any(r.visits for r in chosen)
    assert any(r.visits for r in held_out)
    with pytest.raises(DataError, match="cannot be divided"):
        fit_contract("car", recordings[1:2], Wish(1, 0.5))


@pytest.mark.parametrize(
    ("rate", "found"), [(0, 0.9), (-1, 0.9), (1, 0), (1, 1), (float("nan"), 0.5)]
)
def test_wishes_that_cannot_be(rate: float, found: float) -> None:
    with pytest.raises(DataError, match="expected more than 0"):
        Wish(rate, found)


@pytest.mark.parametrize("kind", ["csv", "json"])
def test_recordings_are_read_as_label_writes_them(tmp_path: Path, kind: str) -> None:
    wanted = [recording(0), recording(1, visits=0)]
    folder = write_recordings(tmp_path / "r", wanted)
    if kind == "json":
        rows = [
            {"file": r.name, "label": "car", "begin": v.begin_s, "end": v.end_s}
            for r in wanted for v in r.visits
        ] + [{"file": "1.csv"}]  # fmt: skip
        (folder / "visits.csv").unlink()
        (folder / "visits.json").write_text(json.dumps(rows))
    found = read_recordings(folder)["car"]
    for expected, actual in zip(wanted, found, strict=True):
        assert actual.name == expected.name
        np.testing.assert_allclose(actual.scores, expected.scores, atol=1e-5)
        assert [v.begin_s for v in actual.visits] == [v.begin_s for v in expected.visits]


def spoil(folder: Path, visits: str | None = None, table: str | None = None) -> None:
    if visits is not None:
        (folder / "visits.csv").write_text(visits)
    if table is not None:
        (folder / "0.csv").write_text(table)


HEAD = "file,label,begin,end\n"


@pytest.mark.parametrize(
    ("visits", "table", "why"),
    [
        ("", None, "should begin with the line"),
        ("nothing\n", None, "should begin with the line"),
        (HEAD, None, "marks no visit"),
        (HEAD + "0.csv,car,5,2\n", None, "csv:2: expected begin and end"),
        (HEAD + "0.csv,car,x,2\n", None, "csv:2: expected begin and end"),
        (HEAD + "0.csv,car,1,nan\n", None, "csv:2: expected begin and end"),
        (HEAD + "0.csv,car,1,5\n0.csv,car,4,8\n", None, "overlap"),
        (HEAD + "0.csv,car,1,5\n0.csv,car,9e5,9e5\n", None, "at 900000 s lies outside"),
        (HEAD + "0.csv,car,1,5\n0.csv,,6,8\n", None, "csv:3 has times and no label"),
        (HEAD + "../0.csv,car,1,5\n", None, "is no table of scores"),
        (HEAD + "door.mp4,car,1,5\n", None, "cmlr-edge label RECORDING --csv"),
        (HEAD + "1.csv,car,1,5\n", None, "cannot be read"),
        (HEAD + "0.csv,bird,1,5\n", None, "has no column 'bird'"),
        (None, "", "has no column 'time_s'"),
        (None, "time_s,car\n", "two rows or more"),
        (None, "time_s,car\n1,0.5\n0,0.5\n", "never falls"),
        (None, "time_s,car\n,0.5\n,0.5\n", "never falls"),
        (None, "time_s,car\n0,0.5\n1,x\n", "csv:3: expected numbers"),
        (None, "time_s,car\n0,0.5\n1\n", "csv:3: expected numbers"),
        (None, "time_s,car\n0,0.5\n1,7\n", "outside 0 to 1"),
        (None, "time_s,car\n0,\udcff\n", "cannot be read"),
        (None, f"time_s,car\n0,{'9' * 200_000}\n", "csv:2 cannot be read as a table"),
        (HEAD + "x" * 200_000, None, "csv:2 cannot be read as a table"),
    ],
)
def test_what_is_written_wrong_is_one_line(
    tmp_path: Path, visits: str | None, table: str | None, why: str
) -> None:
    folder = write_recordings(tmp_path / "r", [recording(0)])
    if table is not None and "\udcff" in table:
        (folder / "0.csv").write_bytes(table.encode(errors="surrogateescape"))
    else:
        spoil(folder, visits, table)
    with pytest.raises(DataError, match=why) as caught:
        read_recordings(folder)
    assert "\n" not in str(caught.value)


def test_a_recording_that_is_given_twice_counts_for_nothing_more(tmp_path: Path) -> None:
    folder = write_recordings(tmp_path / "r", [recording(0), recording(1)])
    (folder / "2.csv").write_bytes((folder / "0.csv").read_bytes())
    with (folder / "visits.csv").open("a") as file:
        file.write("2.csv,,,\n")
    with pytest.raises(DataError, match=r"2.csv holds what 0.csv holds"):
        read_recordings(folder)


@pytest.mark.parametrize("row", ['"file": "0.csv", "label": 0', '"file": 3, "label": "car"'])
def test_a_number_in_the_place_of_a_name_is_no_visit_that_is_forgotten(
    tmp_path: Path, row: str
) -> None:
    folder = write_recordings(tmp_path / "r", [recording(0)])
    (folder / "visits.csv").unlink()
    (folder / "visits.json").write_text(f'[{{{row}, "begin": 1, "end": 2}}]')
    with pytest.raises(DataError, match=r"visit 1: expected file and label as text"):
        read_recordings(folder)


def test_every_label_has_a_plot_of_its_own(tmp_path: Path) -> None:
    many = [recording(seed, frames=300) for seed in range(4)]
    folder = write_recordings(tmp_path / "r", many, "street car")
    for item in many:
        path = folder / item.name
        first, *rest = path.read_text().splitlines()
        rows = (f"{line},{line.rpartition(',')[2]}" for line in rest)
        path.write_text("\n".join([f"{first},street_car", *rows]))
    visits = (folder / "visits.csv").read_text()
    lines = [line for line in visits.splitlines()[1:] if "street car" in line]
    more = "".join(line.replace("street car", "street_car") + "\n" for line in lines)
    (folder / "visits.csv").write_text(visits + more)
    wish = ("--at-most", "9/hour", "--at-least", "0.995", "--plot", str(tmp_path / "plots"))
    CliRunner().invoke(app, ["fit-events", str(folder), *wish])
    assert sorted(path.name for path in (tmp_path / "plots").iterdir()) == [
        "street_car.svg",
        "street_car_.svg",
    ]


def test_a_folder_without_visits_and_json_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds neither"):
        read_recordings(tmp_path)
    for text in ("{", "{}", "[1]", "[" * 100_000):
        (tmp_path / "visits.json").write_text(text)
        with pytest.raises(DataError):
            read_recordings(tmp_path)


def test_recordings_too_few_to_divide_end_as_documented_and_spoil_no_other_label(
    tmp_path: Path,
) -> None:
    many = [recording(seed, frames=300) for seed in range(24)]
    folder = write_recordings(tmp_path / "r", many)
    for item in many:  # a cat is in one of them
        path = folder / item.name
        first, *rest = path.read_text().splitlines()
        path.write_text("\n".join([f"{first},cat", *(f"{line},0.1" for line in rest)]))
    with (folder / "visits.csv").open("a") as file:
        file.write(f"{many[0].name},cat,1,2\n")

    def run(*more: object) -> Any:
        wish = ("--at-most", "9/hour", "--at-least", "0.6")
        return CliRunner().invoke(app, ["fit-events", str(folder), *wish, *map(str, more)])

    alone = run("--label", "cat")
    assert (alone.exit_code, "at least 2 with a visit" in alone.stderr) == (3, True)
    both = run("--json", "--out", tmp_path / "events.toml")
    assert both.exit_code == 3
    told = {item["label"]: item for item in json.loads(both.stdout)}
    assert (told["car"]["proven"], told["cat"]["proven"]) == (True, False)
    assert "24 recordings" in told["cat"]["needed"]
    assert '[stability.labels."car"]' in (tmp_path / "events.toml").read_text()


def test_the_command_writes_settings_that_a_run_takes(tmp_path: Path) -> None:
    folder = write_recordings(
        tmp_path / "r", [recording(seed, frames=300) for seed in range(24)], "street car"
    )
    out, plots = tmp_path / "events.toml", tmp_path / "plots"

    def run(*more: object) -> Any:
        return CliRunner().invoke(app, ["fit-events", str(folder), *map(str, more)])

    done = run("--at-most", "9/hour", "--at-least", "0.6", "--out", out, "--plot", plots, "--json")
    assert done.exit_code == 0, done.output
    [record] = json.loads(done.stdout)
    assert record["proven"]
    assert record["held_out"]["found_at_least"] >= 0.6
    assert (plots / "street_car.svg").read_text().startswith("<svg")
    site = tmp_path / "site.toml"
    site.write_text(
        'sources = [{uri = "test://", name = "x"}]\n[engine]\npath = "model.onnx"\n'
        + out.read_text()
    )
    assert load_config(site).stability.labels["street car"].enter == record["settings"]["enter"]
    out.unlink()
    done = run("--at-most", "1/day", "--at-least", "0.99", "--out", out)
    assert done.exit_code == 3
    assert "NOT PROVEN" in done.output
    assert "is not written" in done.stderr
    assert not out.exists()
    for wrong in ("1", "x/day", "0/day", "1/year", "-1/day", "nan/day"):
        assert run("--at-most", wrong, "--at-least", "0.9").exit_code not in {0, 3}
    assert run("--at-most", "1/day", "--at-least", "0.9", "--label", "bird").exit_code not in {0, 3}


@pytest.mark.filterwarnings("ignore")
def test_sed_scores_eval_counts_the_same() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            from sed_scores_eval import intersection_based
            from sed_scores_eval.base_modules.scores import create_score_dataframe
        except ImportError as error:
            pytest.skip(f"THE COUNTS HAVE NO ORACLE: pip install sed-scores-eval ({error})")
    scores, truth = {}, {}
    recordings = [recording(seed, frames=400) for seed in range(6)]
    for item in recordings:
        edges = np.append(item.times_s, item.times_s[-1] + 1)
        scores[item.name] = create_score_dataframe(item.scores[:, None], edges, ["car"])
        truth[item.name] = [(v.begin_s, v.end_s, "car") for v in item.visits]
    stats, _ = intersection_based.accumulated_intermediate_statistics(
        scores=scores, ground_truth=truth, dtc_threshold=0.5, gtc_threshold=1e-3
    )
    for threshold in (0.3, 0.5, 0.8):
        setting = replace(PLAIN, enter=threshold, leave=threshold)
        own = [count_events(item, [setting]) for item in recordings]
        where = int(np.searchsorted(stats["car"][0], threshold))
        assert sum(int(c.found[0]) for c in own) == int(stats["car"][1]["tps"][where])
        assert sum(int(c.false_events[0]) for c in own) == int(stats["car"][1]["fps"][where])
