"""Has a place left what training saw? A test with a stated number of false alarms a day.

What is tested: that the source's blocks of time are drawn, one by one, from the surroundings of the
training pictures. Within a block nothing is assumed: all its frames may be the same picture. Blocks that are
like their neighbours count for less, by their autocorrelation. For each window of the newest blocks the
squared distance of their mean from training's, in deviations of one training picture and times the number
of looks, is taken, and the largest counts. How large it becomes by chance is drawn from training's own surroundings, as long runs
of blocks with windows that overlap as they do in service, so that looking again and again is part of it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.explanation import TrainedSurroundings
from cmlr_edge.place.histogram import MOST_BLOCKS, WINDOWS

LEAST_BLOCKS = WINDOWS[1]  # before, nobody knows how alike neighbours are
_LAGS, _SMALL = 24, 0.15  # of the autocorrelation: blocks, and what is not told from chance
END_SHARE = 0.5  # of the threshold: below, an alarm is over
_DAY_S = 86_400.0
_RUN = 16 * MOST_BLOCKS  # blocks of a run that is drawn; each begins without any
_MOST_RUNS, _MOST_NUMBERS = 128, 20_000_000
_KNOWN = 30  # alarms in all runs from which on their number is taken as it is
_STEPS, _HALVINGS = 40, 12  # in the search for a threshold


class DriftTest:
    """Says of a source's blocks whether the place is unlike what training saw."""

    def __init__(
        self, training: TrainedSurroundings, *, block_s: float, false_alarms_a_day: float
    ) -> None:
        """Draw what chance does; takes about a second, and is the same each time.

        Args:
            training: What blocks are held against.
            block_s: Seconds of a block.
            false_alarms_a_day: On the average, of a place that is like training.
        """
        self._training = training
        self.threshold = _threshold(training, false_alarms_a_day * block_s / _DAY_S)

    def measure(self, blocks: NDArray[np.float64]) -> tuple[float, float]:
        """How unlike training the newest blocks are.

        Args:
            blocks: Means (B, K), the newest last.

        Returns:
            The statistic as if blocks were independent, 0 where there are too few, and how many of them are
            worth one look: it is to be divided by that. 1 is usual then.
        """
        if len(blocks) < LEAST_BLOCKS:
            return 0.0, 1.0
        found, looks = _over_time(blocks[-MOST_BLOCKS:], self._training)
        return float(found[-1]), float(looks[-1])


@lru_cache(maxsize=8)  # one for all sources of a run
def _threshold(training: TrainedSurroundings, alarms_a_block: float) -> float:
    paths = _by_chance(training)
    wanted = alarms_a_block * paths.size
    if wanted >= _KNOWN:
        return _level(paths, wanted)
    # Far out the tail of a sum of squares is exponential: go on along it where nothing was drawn.
    near, far = _level(paths, 8 * _KNOWN), _level(paths, _KNOWN)
    return far + (far - near) / float(np.log(8)) * float(np.log(_KNOWN / wanted))


def _level(paths: NDArray[np.float64], wanted: float) -> float:
    """The threshold above which there are never more alarms, in all paths (R, T) together."""
    high, low = float(paths.max()), float(np.median(paths))
    levels = np.linspace(high, low, _STEPS)
    # Not by halving alone: far down there are few alarms again, for none ends any more.
    counts = [count_alarms(paths, at) for at in levels]
    first = next((i for i, count in enumerate(counts) if count > wanted), None)
    if first is None:  # so often none can begin: as often as can be
        return float(levels[int(np.argmax(counts))])
    high, low = float(levels[first - 1]), float(levels[first])
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if count_alarms(paths, middle) > wanted else (low, middle)
    return high


def count_alarms(paths: NDArray[np.float64], threshold: float) -> int:
    """How often an alarm begins in statistics (R, T) over time: above the threshold, until below its half."""
    marks = (paths > threshold).astype(np.int8) - (paths < END_SHARE * threshold)
    marks = np.pad(
        marks, ((0, 0), (1, 0)), constant_values=-1
    ).ravel()  # none at the start of a run
    marks = marks[marks != 0]
    return int(((marks[1:] == 1) & (marks[:-1] == -1)).sum())


def statistics_over_time(
    blocks: NDArray[np.float64], training: TrainedSurroundings
) -> NDArray[np.float64]:
    """The statistic after each block of a run (T, K): (T,); see `DriftTest.measure`."""
    found, looks = _over_time(blocks, training)
    found[: LEAST_BLOCKS - 1] = 0
    return found / looks


def _over_time(
    blocks: NDArray[np.float64], training: TrainedSurroundings
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    centred = (blocks - training.mean) / training.deviation
    summed = np.cumsum(centred, axis=0)
    counts = np.arange(1, len(blocks) + 1)
    found = np.zeros(len(blocks))
    for width in WINDOWS:  # before so many blocks are there, all of them
        within = summed.copy()
        within[width:] -= summed[:-width]
        found = np.maximum(found, np.square(within).sum(axis=1) / np.minimum(counts, width))
    return found / blocks.shape[1], _blocks_a_look(centred, summed)


def _blocks_a_look(
    centred: NDArray[np.float64], summed: NDArray[np.float64]
) -> NDArray[np.float64]:
    """How many of the newest blocks are worth one independent look, by their autocorrelation, (T,).

    1 + 2 (rho_1 + rho_2 + ...), over those lags before which none is small.
    """
    number = len(centred)
    counts = np.minimum(np.arange(1, number + 1), MOST_BLOCKS)
    within = summed.copy()
    within[MOST_BLOCKS:] -= summed[:-MOST_BLOCKS]
    mean_squared = np.square(within).sum(axis=1) / np.square(counts)

    def covariance(lag: int) -> NDArray[np.float64]:
        products = np.zeros(number)
        products[lag:] = np.einsum("tk,tk->t", centred[lag:], centred[: number - lag])
        rolling = np.cumsum(products)
        # Of a window's first blocks the partners lie before it.
        older = np.cumsum(products)[lag : lag + max(0, number - MOST_BLOCKS)]
        rolling[MOST_BLOCKS:] -= older
        pairs = np.maximum(counts - lag, 0)
        covariance: NDArray[np.float64] = (rolling - pairs * mean_squared) / counts
        return covariance

    variance = np.maximum(covariance(0), 1e-12)
    looks, goes_on = np.ones(number), np.ones(number, bool)
    for lag in range(1, min(_LAGS, number - 1) + 1):
        correlation = covariance(lag) / variance
        goes_on &= correlation > _SMALL
        looks += 2 * correlation * goes_on
    return looks


def _by_chance(training: TrainedSurroundings) -> NDArray[np.float64]:
    """Statistics over time of runs (R, T) whose blocks are drawn from training's surroundings."""
    contexts, prior = np.array(training.contexts), np.array(training.prior)
    prior = prior / prior.sum()
    deviation = np.sqrt(np.array(training.spread))
    runs = int(np.clip(_MOST_NUMBERS // (_RUN * len(deviation)), 2, _MOST_RUNS))
    paths = []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        drawn = contexts[rng.choice(len(prior), _RUN, p=prior)]
        drawn = drawn + rng.standard_normal(drawn.shape) * deviation
        if training.pictures:  # whose mean is that of a draw, too
            error = rng.standard_normal(len(prior)) * np.sqrt(prior / training.pictures)
            error = (error - prior * error.sum()) @ contexts
            noise = rng.standard_normal(len(deviation)) * deviation
            drawn = drawn + error + noise / np.sqrt(training.pictures)
        paths.append(statistics_over_time(drawn, training))
    return np.array(paths)
