"""The kernel's floors: sizes by hand, and no board beats its data sheet."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.kernel.__main__ import build_report, table
from benchmarks.kernel.roofline import Board, Case, blocks, floors_us, flop, least_bytes, warps_of

SMALL = Case("small", queries=17, tokens=5, dim=64, heads=2, batch=3)
STORED = Path(__file__).parents[2] / "benchmarks/results/kernel/kernel.json"


def test_work_and_bytes_are_those_of_the_formula() -> None:
    products = 17 * 5 * 64 + 17 * 5 * 64  # multiply-adds of q k^T, then of weights times values
    assert flop(SMALL) == 2 * products * 3
    numbers = 17 * 64 + 3 * (5 * 64 + 5 * 64) + 3 * 17 * 64  # queries once, sources, answers
    assert least_bytes(SMALL) == 2 * numbers
    assert blocks(SMALL) == 2 * 2 * 3


def test_a_floor_is_what_one_unit_does_at_its_best() -> None:
    board = Board("sm_87", sms=10, clock_mhz=1000, bandwidth_gb_s=100, mma_flop_per_sm_clock=2048)
    floors = floors_us(SMALL, board, {"mma": 20_000, "warp_instructions": 400_000, "warps": 99})
    assert floors["tensor_cores"] == pytest.approx(
        20_000 * 2 * 16 * 8 * 16 / (10 * 1e9 * 2048) * 1e6
    )
    assert floors["issue"] == pytest.approx(400_000 / (10 * 4 * 1e9) * 1e6)
    assert floors["memory"] == pytest.approx(least_bytes(SMALL) / 100e9 * 1e6)


def test_fewer_warps_than_schedulers_leave_some_idle() -> None:
    board = Board("sm_87", sms=1000, clock_mhz=1000, bandwidth_gb_s=1, mma_flop_per_sm_clock=1)
    floors = floors_us(SMALL, board, {"mma": 1, "warp_instructions": 48_000, "warps": 24})
    assert floors["issue"] == pytest.approx(48_000 / (24 * 1000))


def test_the_warps_of_a_block_are_in_the_kernels_name() -> None:
    assert [warps_of(f"attention_f16_kernel<64, {n}, 3, 1>") for n in (1, 2, 4)] == [1, 2, 4]


@pytest.mark.pages
def test_the_stored_report_is_what_the_counts_give() -> None:
    assert json.loads(STORED.read_text()) == json.loads(json.dumps(build_report()))
    assert STORED.with_suffix(".md").read_text() == table(build_report()) + "\n"
