"""Alarms: how many come falsely a day, and how soon a place that changes is found, block by block.

A stream shows one held-out scene after the other, each for a while. Blocks are of ten minutes. Nothing of the
held-out scenes went into training or into the threshold.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.intervals import t_interval
from benchmarks.place.shifted import shares_of
from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.place.drift import DriftTest, count_alarms, statistics_over_time

BLOCK_S, DAY = 600.0, 144
RATES = (0.3, 0.1, 0.03, 0.01)  # false alarms a day that are asked for
DEFAULT_RATE = 0.03
STAYS = (0.2, 1.0, 2.0, 6.0, 36.0)  # blocks for which a scene is shown
SIZES = (0.1, 0.2, 0.3, 0.5, 0.8)  # share of scenes that are of one context, besides training's mix
HOURS = (6, 24, 72)
_RUNS, _RUN_DAYS, _STREAMS = 60, 16, 200


def stream(
    contexts: NDArray[np.float64], scenes: NDArray[np.int_], stay: float, blocks: int
) -> NDArray[np.float64]:
    """Blocks (T, K) of scenes that are shown one after the other, each for `stay` blocks."""
    if stay >= 1:
        return contexts[np.repeat(scenes, int(stay))[:blocks]]
    each = round(1 / stay)
    mean: NDArray[np.float64] = (
        contexts[scenes[: blocks * each]].reshape(blocks, each, -1).mean(axis=1)
    )
    return mean


def thresholds_of(training: TrainedSurroundings) -> dict[float, float]:
    """The test's thresholds by the rate that is asked for."""
    return {
        rate: DriftTest(training, block_s=BLOCK_S, false_alarms_a_day=rate).threshold
        for rate in RATES
    }


def false_alarms(
    training: TrainedSurroundings, contexts: NDArray[np.float64], stay: float, seed: int
) -> dict[str, float]:
    """Alarms a day, by the rate that is asked for, of scenes drawn evenly."""
    rng, blocks = np.random.default_rng(seed), _RUN_DAYS * DAY
    paths = []
    for _ in range(_RUNS):
        scenes = rng.integers(len(contexts), size=round(blocks / min(stay, 1)))
        paths.append(statistics_over_time(stream(contexts, scenes, stay, blocks), training))
    days = _RUNS * _RUN_DAYS
    return {
        f"{rate:g}": count_alarms(np.array(paths), threshold) / days
        for rate, threshold in thresholds_of(training).items()
    }


def detection(
    training: TrainedSurroundings,
    contexts: NDArray[np.float64],
    truth: NDArray[np.int_],
    size: float,
    seed: int,
) -> dict[str, dict[str, float]]:
    """Share of streams found within hours, by rate: a day as in training, then the shift; a scene a block."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(_STREAMS):
        shares = size * shares_of("one context is most", int(truth.max()) + 1, rng)
        # "most" is 0.8 of one context: here all of the shifted part is.
        only = np.flatnonzero(truth == int(shares.argmax()))
        before = rng.integers(len(contexts), size=DAY)
        mixed = rng.integers(len(contexts), size=3 * DAY)
        is_shifted = rng.random(3 * DAY) < size
        mixed = np.where(is_shifted, rng.choice(only, 3 * DAY), mixed)
        path = statistics_over_time(contexts[np.concatenate([before, mixed])], training)
        found.append(path[DAY:])
    after = np.array(found)  # (streams, blocks since the shift)
    return {
        f"{rate:g}": {
            f"{hours}": float((after[:, : hours * 6] > threshold).any(axis=1).mean())
            for hours in HOURS
        }
        for rate, threshold in thresholds_of(training).items()
    }


def run_alarms(
    training: TrainedSurroundings,
    contexts: NDArray[np.float32],
    truth: NDArray[np.int_],
    seed: int,
) -> dict[str, Any]:
    """False alarms by stay, and detection by size, of one world."""
    wide = contexts.astype(np.float64)
    return {
        "false_alarms": {f"{stay:g}": false_alarms(training, wide, stay, seed) for stay in STAYS},
        "detection": {
            f"{size:g}": detection(training, wide, truth, size, seed) for size in (0.0, *SIZES)
        },
    }


def summarize(worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over worlds, with 95 % intervals."""

    def over(value: Any) -> Any:
        if isinstance(value[0], dict):
            return {key: over([one[key] for one in value]) for key in value[0]}
        return {"mean": float(np.mean(value)), "interval": [*t_interval(np.array(value))]}

    found: dict[str, Any] = over(worlds)
    return found
