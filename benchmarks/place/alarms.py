"""Alarms: how many come falsely a day, and how soon a place that changes is found, block by block.

A stream shows one held-out scene after the other, each for a while. Blocks are of ten minutes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.context_bias.features import load_tokens
from benchmarks.context_bias.methods import BASE
from benchmarks.intervals import mean_with_interval
from benchmarks.place.shifted import shares_of
from benchmarks.place.worlds import reference_of
from benchmarks.size import Size
from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.place.drift import DriftTest, count_alarms, statistics_over_time
from cmlr_edge.place.histogram import distance
from train.data import read_dataset
from train.data.context_scenes import read_truth
from train.fitting.frozen import TokenSet

BLOCK_S, DAY = 600.0, 144
RATES = (0.3, 0.1, 0.03, 0.01)  # false alarms a day that are asked for
DEFAULT_RATE = 0.03
STAYS = (0.2, 1.0, 2.0, 6.0, 36.0)  # blocks for which a scene is shown
SIZES = (0.1, 0.2, 0.3, 0.5, 0.8)  # share of scenes that are of one context, besides training's mix
HOURS = (6, 24, 72)
RUNS, STREAMS, _RUN_DAYS = 40, 100, 16
_HALVES = 4  # ways to halve the training scenes


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
    training: TrainedSurroundings,
    contexts: NDArray[np.float64],
    stay: float,
    seed: int,
    runs: int = RUNS,
) -> dict[str, float]:
    """Alarms a day, by the rate that is asked for, of scenes drawn evenly."""
    rng, blocks = np.random.default_rng(seed), _RUN_DAYS * DAY
    paths = []
    for _ in range(runs):
        scenes = rng.integers(len(contexts), size=round(blocks / min(stay, 1)))
        paths.append(statistics_over_time(stream(contexts, scenes, stay, blocks), training))
    days = runs * _RUN_DAYS
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
    streams: int = STREAMS,
) -> dict[str, dict[str, float]]:
    """Share of streams found within hours, by rate: a day as in training, then the shift; a scene a block."""
    rng, found = np.random.default_rng(seed), []
    for _ in range(streams):
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


def run_alarms(seed: int, work: Path, size: Size) -> dict[str, Any]:
    """False alarms by stay, detection by size, and places that training did not see, of one world.

    Half of the training scenes make the reference, as training does, and the other half is the place that is
    like it: they share their background photographs. Those of the part "iid" are others.
    """
    folder = work / f"world-{seed}"
    truth, parts = read_truth(folder), load_tokens(folder, work / "tokens", BASE)
    images = read_dataset(folder).split("train").images
    of_scenes = np.array([truth.contexts[str(i.path.relative_to(folder))][0] for i in images])
    halves = range(size.of(_HALVES))
    found = [_of_half(parts, of_scenes, seed, number, size) for number in halves]
    return {name: _mean([one[name] for one in found]) for name in found[0]}


def _of_half(
    parts: dict[str, TokenSet], truth: NDArray[np.int_], seed: int, number: int, size: Size
) -> dict[str, Any]:
    train = parts["train"]
    order = np.random.default_rng([seed, number]).permutation(len(train.tokens))
    reference, place = np.array_split(order, 2)
    half = TokenSet(train.tokens[reference], train.targets[reference], train.finer_channels)
    training, contexts_of = reference_of(half, len(place), number)
    like = contexts_of(TokenSet(train.tokens[place], train.targets[place], train.finer_channels))
    other, of_place = contexts_of(parts["iid"]), truth[place]
    runs, streams = size.of(RUNS), size.of(STREAMS, 2)
    return {
        "false_alarms": {
            f"{stay:g}": false_alarms(training, like, stay, number, runs) for stay in STAYS
        },
        "detection": {
            f"{share:g}": detection(training, like, of_place, share, number, streams)
            for share in (0.0, *SIZES)
        },
        "other_photographs": {
            "distance": distance(other.mean(axis=0), training.mean),
            "distance_of_like": distance(like.mean(axis=0), training.mean),
            **_told(training, other, number, streams),
        },
    }


def _told(
    training: TrainedSurroundings, contexts: NDArray[np.float64], seed: int, streams: int
) -> dict[str, float]:
    """Share of streams that are told within hours from the start on, at the default rate."""
    rng, threshold = np.random.default_rng(seed), thresholds_of(training)[DEFAULT_RATE]
    paths = [
        statistics_over_time(contexts[rng.integers(len(contexts), size=3 * DAY)], training)
        for _ in range(streams)
    ]
    above = np.array(paths) > threshold
    return {f"{hours}": float(above[:, : hours * 6].any(axis=1).mean()) for hours in HOURS}


def _mean(values: list[Any]) -> Any:
    if isinstance(values[0], dict):
        return {key: _mean([one[key] for one in values]) for key in values[0]}
    return float(np.mean(values))


def summarize(worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over worlds, with 95 % intervals."""

    def over(value: Any) -> Any:
        if isinstance(value[0], dict):
            return {key: over([one[key] for one in value]) for key in value[0]}
        return mean_with_interval(value)

    found: dict[str, Any] = over(worlds)
    return found
