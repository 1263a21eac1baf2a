"""The drift test: false alarms as promised, however frames repeat; shifts are found; few blocks say nothing."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from cmlr_edge.place.drift import LEAST_BLOCKS, DriftTest, count_alarms, statistics_over_time
from cmlr_edge.place.histogram import MOST_BLOCKS
from tests.placed_engine import TRAINING

DAY = 144  # blocks of ten minutes


def drawn(seed: int, days: int, prior: tuple[float, ...] = TRAINING.prior) -> NDArray[np.float64]:
    """Blocks (T, 3) of a place that is one picture after the other, each for a block."""
    rng = np.random.default_rng(seed)
    chosen = np.array(TRAINING.contexts)[rng.choice(3, days * DAY, p=prior)]
    blocks: NDArray[np.float64] = chosen + rng.normal(0, np.sqrt(0.003), chosen.shape)
    return blocks


def statistic(test: DriftTest, blocks: NDArray[np.float64]) -> float:
    found, looks = test.measure(blocks)
    return found / looks


@pytest.mark.parametrize("a_day", [0.2, 0.03])
def test_a_place_like_training_gives_as_few_alarms_as_was_asked_for(a_day: float) -> None:
    threshold = DriftTest(TRAINING, block_s=600, false_alarms_a_day=a_day).threshold
    days = 40
    paths = [statistics_over_time(drawn(1000 + run, days), TRAINING) for run in range(50)]
    alarms = count_alarms(np.array(paths), threshold)
    expected = a_day * days * 50
    assert abs(alarms - expected) < 4 * np.sqrt(expected)


def test_rates_beyond_what_was_drawn_go_on_along_the_tail() -> None:
    thresholds = [
        DriftTest(TRAINING, block_s=block_s, false_alarms_a_day=0.001).threshold
        for block_s in (600, 60, 6)
    ]
    assert thresholds == sorted(thresholds)
    assert thresholds[0] < thresholds[2] < 3 * thresholds[0]


def test_another_mix_of_surroundings_is_found_within_hours() -> None:
    test = DriftTest(TRAINING, block_s=600, false_alarms_a_day=0.03)
    blocks = drawn(7, 1, (0.0, 0.1, 0.9))
    after = [n for n in range(1, DAY + 1) if statistic(test, blocks[:n]) > test.threshold]
    assert LEAST_BLOCKS <= after[0] < 60


@pytest.mark.parametrize("stay", [2, 6])
def test_scenes_that_stay_for_many_blocks_give_no_more_alarms(stay: int) -> None:
    threshold = DriftTest(TRAINING, block_s=600, false_alarms_a_day=0.2).threshold
    days = 40
    paths = [
        statistics_over_time(
            np.repeat(drawn(run, days)[: days * DAY // stay], stay, axis=0), TRAINING
        )
        for run in range(25)
    ]
    assert count_alarms(np.array(paths), threshold) <= 0.25 * days * 25


def test_too_few_blocks_say_nothing() -> None:
    test = DriftTest(TRAINING, block_s=600, false_alarms_a_day=0.03)
    far = np.tile([0.0, 0.0, 1.0], (LEAST_BLOCKS, 1))
    assert statistic(test, far[:-1]) == 0
    assert statistic(test, far[:0]) == 0
    assert statistic(test, far) > test.threshold


def test_the_statistic_over_time_is_that_of_each_moment() -> None:
    test = DriftTest(TRAINING, block_s=600, false_alarms_a_day=0.03)
    blocks = drawn(3, 2)
    whole = statistics_over_time(blocks, TRAINING)
    for end in (5, 36, 40, 144):
        assert statistic(test, blocks[:end]) == pytest.approx(whole[end - 1])
    for end in (145, 150, 288):  # in service only so many are kept
        newest = blocks[end - MOST_BLOCKS : end]
        assert statistic(test, newest) == pytest.approx(whole[end - 1])
