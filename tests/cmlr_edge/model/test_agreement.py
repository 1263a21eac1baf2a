"""Two engines agree as a whole and for each label; the same counts wherever one may replace another."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge.engines.auto import _check_decisions
from cmlr_edge.errors import EngineError
from cmlr_edge.model.agreement import MIN_FRAMES, Agreement, threshold_objections
from cmlr_edge.prediction import Latency, Prediction, rank_labels
from cmlr_edge.service.settings import UpdateSettings
from cmlr_edge.service.update import ShadowRun, UpdateReport
from export.engine import compare
from export.verify import require_agreement
from tests.conftest import LABELS, make_spec

NAMES = ("person", "dog", *(f"label {i}" for i in range(78)))


def said(frames: int, **labels: int) -> NDArray[np.bool_]:
    """Decisions (frames, 80): each label is said on its first so many frames."""
    table = np.zeros((frames, len(NAMES)), bool)
    for name, count in labels.items():
        table[:count, NAMES.index(name)] = True
    return table


def test_decisions_are_counted_in_all_and_by_label() -> None:
    first, second = said(50, person=40, dog=4), said(50, person=37, dog=6)
    found = Agreement.of(NAMES, first, second)
    assert (found.frames, found.decisions, found.flips) == (50, 4000, 5)
    assert found.flips_by_label == {"person": 3, "dog": 2}
    halves = Agreement.of(NAMES, first[:20], second[:20]) + Agreement.of(
        NAMES, first[20:], second[20:]
    )
    for name in ("lost", "gained", "said"):
        np.testing.assert_array_equal(getattr(halves, name), getattr(found, name))


@pytest.mark.parametrize(
    ("first", "second", "sentence"),
    [
        ({"person": 37}, {}, "'person' falls silent on 37 of the 37 frames with it"),
        ({}, {"dog": 9}, "'dog' is said anew on 9 of the 9 frames with it"),
        ({"person": 40}, {"person": 19}, "'person' falls silent on 21 of the 40 frames with it"),
    ],
)
def test_a_label_that_changed_is_an_objection_where_the_whole_is_not(
    first: dict[str, int], second: dict[str, int], sentence: str
) -> None:
    found = Agreement.of(NAMES, said(50, **first), said(50, **second))
    assert not found.differs(0.05)
    assert found.objections(0.05) == [sentence]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"person": 1}, {}),
        ({}, {"dog": MIN_FRAMES - 1}),
        ({"person": 40, "dog": 5}, {"person": 38, "dog": 3}),
        ({"person": 40}, {"person": 20}),
    ],
    ids=["one frame", "few frames", "harmless", "half"],
)
def test_few_frames_and_small_differences_are_no_objection(
    first: dict[str, int], second: dict[str, int]
) -> None:
    assert not Agreement.of(NAMES, said(50, **first), said(50, **second)).objections(0.05)


def test_whoever_allows_all_to_differ_allows_each_label() -> None:
    assert not Agreement.of(NAMES, said(50, person=50), said(50)).objections(1.0)


def test_no_share_allows_no_flip_and_any_share_allows_one() -> None:
    found = Agreement.of(NAMES, said(1, person=1), said(1))
    assert found.differs(0.0)
    assert not found.differs(1e-6)


def test_no_frames_are_no_objection() -> None:
    assert not Agreement.of(NAMES, said(0), said(0)).objections(0.0)


def scores_of(person: list[float]) -> NDArray[np.float32]:
    table = np.full((len(person), len(NAMES)), 0.01, np.float32)
    table[:, 0] = person
    return table


def prediction_of(scores: NDArray[np.float32], person_threshold: float) -> Prediction:
    thresholds = np.array([person_threshold, *[0.5] * 79], np.float32)
    ranked = rank_labels(scores, NAMES, scores >= thresholds)
    return Prediction(scores, ranked, Latency(0, 0, 0, 0), 0.0)


def shadow(first: NDArray[np.float32], second: NDArray[np.float32], raised: float) -> UpdateReport:
    run = ShadowRun(NAMES)
    for before, now in zip(first, second, strict=True):
        run.add(prediction_of(before, 0.5), prediction_of(now, raised))
    return run.report("new", "old", UpdateSettings(shadow_frames=len(first)))


def test_an_update_that_never_says_person_any_more_is_refused_by_name() -> None:
    scores = scores_of([0.9] * 37 + [0.1] * 13)
    report = shadow(scores, scores, 0.99999)
    assert not report.accepted
    assert report.reason == "'person' falls silent on 37 of the 37 frames with it"
    assert (report.flips, report.decisions) == (37, 4000)
    assert report.flips_by_label == {"person": 37}


def test_an_update_with_harmless_differences_is_accepted() -> None:
    scores = scores_of([0.9] * 30 + [0.5] * 3 + [0.1] * 17)
    report = shadow(scores, scores - np.float32(1e-3), 0.5)
    assert report.accepted
    assert report.reason == "3 of 4000 decisions differ"


def silent(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same within the tolerance of float16, below 0.5 where it was just above."""
    return scores - np.float32(0.04) * (scores > 0.5)


def test_the_build_gate_and_auto_refuse_a_label_that_fell_silent_by_name() -> None:
    spec = replace(make_spec(b""), labels=NAMES, thresholds=(0.5,) * 80, files={})
    scores = scores_of([0.52] * 12 + [0.1] * 38)
    words = "'person' falls silent on 12 of the 12 frames with it"
    with pytest.raises(EngineError, match=words):
        compare(Path("model.engine"), silent(scores), scores, spec, "float16")
    with pytest.raises(EngineError, match=words):
        _check_decisions(silent(scores), scores, spec, "float32")
    harmless = scores_of([0.52] * 2 + [0.9] * 30 + [0.1] * 18)
    assert compare(Path("m"), silent(harmless), harmless, spec, "float16").decision_flips == 2
    _check_decisions(silent(harmless), harmless, spec, "float32")


def test_the_build_gate_sees_thresholds_that_were_fitted_again() -> None:
    scores = np.full((9, 3), 0.6, np.float32)
    found = Agreement.of(LABELS, scores >= 0.5, scores >= np.array([0.99999, 0.5, 0.5]))
    with pytest.raises(EngineError, match=r"model.onnx: 'red' falls silent on 9 of the 9 frames"):
        require_agreement(Path("model.onnx"), found, 0.4)


def test_a_label_that_can_hardly_be_said_any_more_is_an_objection_whatever_was_in_view() -> None:
    former = {"person": 0.5, "dog": 0.5, "rare": 0.9995}
    assert not threshold_objections(former, {"person": 0.9, "dog": 0.1, "rare": 0.99999})
    [silent] = threshold_objections(former, former | {"person": 0.99999})
    assert "person is 0.99999" in silent
    assert "hardly ever be said" in silent
    [loud] = threshold_objections(former, former | {"dog": 0.0})
    assert "dog" in loud
    assert "hardly ever be missing" in loud
    assert not threshold_objections(former, {"person": 0.5})  # other labels are another refusal
