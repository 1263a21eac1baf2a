"""Later commands take the pictures that a run held out, where the data has no split `val`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from cmlr_edge.errors import DataError
from cmlr_edge.model.thresholds import LabelExpectation, expect
from train.cli.explain import explain
from train.cli.refit import _hints, refit
from train.data.base import LabeledImages

HELD_OUT = ("3.png", "5.png")


class Asked(Exception):
    """The command went on to its work."""


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "run"
    shutil.copytree(tiny_run, copy)
    (copy / "held_out.json").write_text(json.dumps(HELD_OUT))
    return copy


@pytest.fixture
def photos(tiny_data: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "photos"
    shutil.copytree(tiny_data, copy)
    labels = copy / "labels.json"
    labels.write_text(labels.read_text().replace('"val"', '"train"'))
    return copy


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    names: list[str] = []

    def work(*given: object, **_options: object) -> None:
        (part,) = (one for one in given if isinstance(one, LabeledImages))
        names.extend(image.path.name for image in part.images)
        raise Asked

    monkeypatch.setattr("train.explaining.explain.explain", work)
    monkeypatch.setattr("train.judging.refit.refit_thresholds", work)
    return names


def test_explain_looks_at_what_the_run_held_out(
    run: Path, photos: Path, tmp_path: Path, seen: list[str]
) -> None:
    with pytest.raises(Asked):
        explain(run, photos, "red", tmp_path / "why")
    assert seen == [*HELD_OUT]
    (photos / HELD_OUT[0]).write_bytes(b"cut off")
    with pytest.raises(Asked):
        explain(run, photos, "red", tmp_path / "why", skip_damaged=True)
    assert seen[2:] == [HELD_OUT[1]]


def test_labels_that_are_never_named_get_a_remedy_that_was_not_taken() -> None:
    silent = {
        "cup": LabelExpectation(0.9, None, None, 0.0, 3, 0),
        "dog": LabelExpectation(0.5, 0.8, 0.4, 0.5, 9, 5),
        "cat": LabelExpectation(0.5, None, None, None, 0, 0),  # on no picture: nothing is known
    }
    (hint,) = _hints(silent, "f1", 5.0)
    assert "pictures: cup; try --shrinkage 0" in hint
    assert "precision" not in hint
    assert _hints(silent, "precision=0.9", 0) == [
        "never named on these pictures: cup; try a lower precision, or more pictures of them"
    ]
    del silent["cup"]
    assert _hints(silent, "f1", 5.0) == []


def test_a_label_that_is_named_wrongly_alone_is_not_called_never_named() -> None:
    # There and taken for another, nowhere and taken for there, and there and never named.
    scores = np.array([[0.9, 0.1, 0.1], [0.9, 0.9, 0.1], [0.1, 0.1, 0.1]], np.float32)
    there = np.array([[0, 0, 1], [0, 0, 1], [1, 0, 1]], np.float32)
    found = expect(scores, there, np.full(3, 0.5, np.float32))
    assert [item.named for item in found] == [2, 1, 0]
    hints = _hints(dict(zip(("chair", "cat", "bowl"), found, strict=True)), "cost=4", 0)
    silent, wrong = hints
    assert silent == "never named on these pictures: bowl; try more pictures of them"
    assert wrong.startswith("named, and never rightly: chair (2 pictures), cat (1 picture); try ")
    assert wrong.endswith("; try --rule precision=0.5, or more pictures of them")


def test_thresholds_are_fitted_on_what_the_run_held_out(
    run: Path, photos: Path, tmp_path: Path, seen: list[str]
) -> None:
    with pytest.raises(DataError, match=r"no split val: .* --checkpoint RUN"):
        refit(photos, tmp_path / "engine")
    with pytest.raises(Asked):
        refit(photos, tmp_path / "engine", run)
    assert seen == [*HELD_OUT]
