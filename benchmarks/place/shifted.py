"""Calibration and decisions under other shares of contexts, before and after averaging over the place.

Scenes of a held-out part are drawn again so that their true contexts have other shares; what depends on a
context, and how, stays. Half of them, without labels, are what the device sees; the other half is judged.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.intervals import mean_with_interval
from benchmarks.place.worlds import World, sigmoid
from benchmarks.size import Size
from cmlr_edge.place.histogram import PlaceHistogram
from cmlr_edge.place.prior import averaged_logits

BINS, DRAWS, SCENES, SEEN = 15, 8, 800, 288
SHIFTS = ("as in training", "one context is most", "half of the contexts", "a slope")
OWN, AVERAGED, PLACE = "own context", "averaged, training", "averaged, the place"
WHOLE, LABELS = "averaged, the place alone", "own context, EM over labels"
READOUTS = (OWN, AVERAGED, PLACE, WHOLE, LABELS)


def shares_of(shift: str, contexts: int, rng: np.random.Generator) -> NDArray[np.float64]:
    """The place's share of each context; which ones are the frequent ones is drawn."""
    order = rng.permutation(contexts)
    shares = np.ones(contexts)
    if shift == "one context is most":
        shares = np.full(contexts, 0.2 / (contexts - 1))
        shares[order[0]] = 0.8
    elif shift == "half of the contexts":
        shares[order[contexts // 2 :]] = 0.0
    elif shift == "a slope":
        shares[order] = 2.0 ** -np.arange(contexts)
    normal: NDArray[np.float64] = shares / shares.sum()
    return normal


def draw(
    truth: NDArray[np.int_],
    rows: NDArray[np.int_],
    shares: NDArray[np.float64],
    number: int,
    seed: int,
) -> NDArray[np.int_]:
    """Rows, drawn so that contexts have these shares."""
    counts = np.bincount(truth[rows], minlength=len(shares))
    weight = (shares / np.maximum(counts, 1))[truth[rows]]
    drawn: NDArray[np.int_] = np.random.default_rng(seed).choice(
        rows, number, p=weight / weight.sum()
    )
    return drawn


def run_shifts(world: World, seed: int, size: Size) -> dict[str, Any]:
    """Expected calibration error and F1 by shift and read-out, means over draws of a world."""
    contexts, half = int(world.truth.max()) + 1, len(world.truth) // 2
    found: dict[str, Any] = {}
    for shift in SHIFTS:
        draws = []
        for number in range(size.of(DRAWS)):
            rng = np.random.default_rng([seed, number])
            shares = shares_of(shift, contexts, rng)
            seen = draw(world.truth, np.arange(half), shares, size.of(SEEN, 8), number)
            judged = draw(
                world.truth, np.arange(half, 2 * half), shares, size.of(SCENES, 8), number
            )
            draws.append(_judge(world, seen, judged))
        found[shift] = {
            readout: {
                measure: float(np.mean([one[readout][measure] for one in draws]))
                for measure in draws[0][readout]
            }
            for readout in READOUTS
        }
    return found


def _judge(
    world: World, seen: NDArray[np.int_], judged: NDArray[np.int_]
) -> dict[str, dict[str, float]]:
    histogram = PlaceHistogram(world.training)
    for row in seen:
        histogram.add(world.contexts[row])
        histogram.end_block()
    trained, effect = np.array(world.training.prior), world.effect[judged]
    whole = histogram.shares / histogram.shares.sum()
    scores = {
        OWN: sigmoid(world.own[judged]),
        AVERAGED: sigmoid(averaged_logits(effect, world.training, trained)),
        PLACE: sigmoid(averaged_logits(effect, world.training, histogram.prior)),
        WHOLE: sigmoid(averaged_logits(effect, world.training, whole)),
        LABELS: label_shift(sigmoid(world.own[seen]), sigmoid(world.own[judged]), world.prevalence),
    }
    targets, found = world.targets[judged], {}
    for name, probabilities in scores.items():
        own = name in {OWN, LABELS}
        thresholds = world.thresholds["own context" if own else "averaged"]
        found[name] = {
            "ece": calibration_error(probabilities, targets),
            "f1": f1(probabilities >= thresholds, targets),
            "brier": float(np.square(probabilities - targets).mean()),
        }
    return found


def calibration_error(probabilities: NDArray[np.float64], targets: NDArray[np.float32]) -> float:
    """Expected calibration error of all decisions together, in 15 bins of one width."""
    at = np.minimum((probabilities * BINS).astype(int), BINS - 1).ravel()
    said = np.bincount(at, probabilities.ravel(), BINS)
    there = np.bincount(at, targets.ravel(), BINS)
    return float(np.abs(said - there).sum() / at.size)


def f1(said: NDArray[np.bool_], targets: NDArray[np.float32]) -> float:
    """F1 of all decisions together."""
    right = float((said * targets).sum())
    return 2 * right / max(1.0, float(said.sum() + targets.sum()))


def label_shift(
    seen: NDArray[np.float64],
    judged: NDArray[np.float64],
    prevalence: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Scores after expectation maximisation over how frequent each label is here; see Saerens et al., 2002.

    It assumes that a label looks here as it did in training, and that scores were calibrated there.

    Args:
        seen: Scores (N, L) without labels.
        judged: Scores (M, L) to be changed.
        prevalence: (L,), in training.
    """
    trained = np.clip(prevalence, 1e-3, 1 - 1e-3)
    here = trained
    for _ in range(100):
        here = np.clip(_moved(seen, here, trained).mean(axis=0), 1e-3, 1 - 1e-3)
    return _moved(judged, here, trained)


def _moved(
    scores: NDArray[np.float64], here: NDArray[np.float64], trained: NDArray[np.float64]
) -> NDArray[np.float64]:
    present, absent = scores * here / trained, (1 - scores) * (1 - here) / (1 - trained)
    return present / (present + absent)


def summarize(worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over worlds, and what each read-out gains on the averaging over training, with 95 % intervals."""
    summary: dict[str, Any] = {}
    for shift in SHIFTS:
        summary[shift] = {}
        for readout in READOUTS:
            row: dict[str, Any] = {}
            for measure in ("ece", "f1", "brier"):
                values = np.array([world[shift][readout][measure] for world in worlds])
                row[measure] = mean_with_interval(values)
                for base in (OWN, AVERAGED):
                    before = np.array([world[shift][base][measure] for world in worlds])
                    row[f"{measure} less {base}"] = mean_with_interval(values - before)
            summary[shift][readout] = row
    return summary
