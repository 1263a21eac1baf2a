"""A search trains, goes on where it ended, and says what was best."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from cmlr_edge.errors import DataError
from tests.tiny_training import TINY, write_dataset
from train.cli.app import app
from train.data import read_dataset
from train.fitting import searching
from train.fitting.searching import SPACE, SearchPlan, search

pytest.importorskip("optuna", reason="SEARCH IS NOT TESTED: Optuna is not installed")
pytestmark = pytest.mark.slow

SETTINGS = [*TINY, "model.intervention=none", "epochs=1"]


def test_a_search_goes_on_where_it_ended_and_names_the_best(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = read_dataset(write_dataset(tmp_path / "data"))
    out = tmp_path / "search"
    caplog.set_level(logging.INFO)
    settings = [*SETTINGS, "model.inference_context=auto"]
    first = search(data, out, SearchPlan("none", {}, settings, trials=1, seed=0))
    found = search(data, out, SearchPlan("none", {}, settings, trials=3, seed=0))
    assert "with --set lr=0." in caplog.text  # as options, for a command of one's own
    assert "thresholds by" not in caplog.text  # of what nobody exports
    assert "deployed is" not in caplog.text
    assert found["trials"][0] == first["trials"][0]
    assert [trial["trial"] for trial in found["trials"]] == [0, 1, 2]
    assert len({trial["settings"]["lr"] for trial in found["trials"]}) == 3  # none is tried again
    assert found["best"]["val_map"] == max(trial["val_map"] for trial in found["trials"])
    assert json.loads((out / "search.json").read_text()) == found
    for trial in found["trials"]:
        assert set(trial["settings"]) == set(SPACE)
        config = json.loads((out / f"trial-{trial['trial']}" / "config.json").read_text())
        assert config["lr"] == trial["settings"]["lr"]
        assert (out / f"trial-{trial['trial']}" / "report.json").is_file()


def test_a_search_over_nothing_is_refused(tmp_path: Path) -> None:
    data = read_dataset(write_dataset(tmp_path / "data"))
    fixed = [f"{key}={values[1]}" for key, values in SPACE.items()]
    with pytest.raises(DataError, match="nothing is left to search"):
        search(data, tmp_path / "s", SearchPlan("none", {}, fixed, trials=1, seed=0))


def test_the_command_of_the_best_has_what_was_asked_for_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best = {"trial": 0, "val_map": 0.5, "settings": {"lr": 0.002}}
    found = {"best": best, "trials": [best]}
    monkeypatch.setattr(searching, "search", lambda *_: found)
    place = ("--data", str(write_dataset(tmp_path / "data")), "--out", str(tmp_path / "s"))
    kept = ("--set", "model.image_width=64", "--image-size", "64", "--epochs", "3", "--seed", "7")
    app(["search", *place, *kept], standalone_mode=False)
    said = capsys.readouterr().out.split("next: ")[1]
    assert (
        "--set model.image_width=64 --image-size 64 --epochs 3 --seed 7 --set lr=0.002 --out DIR"
        in said
    )


def test_a_line_that_a_killed_search_was_writing_is_dropped(tmp_path: Path) -> None:
    from train.fitting.searching import _mend_record

    (tmp_path / "study.log").write_bytes(b'{"op_code": 0}\n{"op_co')
    _mend_record(tmp_path / "study.log")
    assert (tmp_path / "study.log").read_bytes() == b'{"op_code": 0}\n'
    (tmp_path / "study.log").write_bytes(b'{"op_code": 0}\nx\n{}\n')
    with pytest.raises(DataError, match=r"study.log:2 is no line of a search"):
        _mend_record(tmp_path / "study.log")
    _mend_record(tmp_path / "none.log")
