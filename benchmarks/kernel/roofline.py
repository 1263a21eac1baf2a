"""Work, bytes and instructions of one launch, and the least time each of them takes on a board.

Work and bytes follow from the sizes. Instructions per `mma` were counted where the kernel ran on the
emulated GPU (`csrc/cuda/kernels.json`), and are taken over to other numbers of queries, heads and
images, which only repeat blocks. The bounds are hard floors: caches hold everything that is read twice,
no launch costs anything, and every scheduler that has a warp issues in every clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

HALF = 2  # bytes of a float16 number
_QUERIES_PER_BLOCK = 16
_SCHEDULERS = 4  # warp instructions that an SM issues in a clock at most
_MMA_FLOP = 4096  # of one warp-wide m16n8k16


@dataclass(frozen=True)
class Case:
    """One launch."""

    name: str
    queries: int
    tokens: int
    dim: int
    heads: int
    batch: int = 1
    constant_sources: bool = False  # keys and values are the same for every image


@dataclass(frozen=True)
class Board:
    """What a data sheet says, and what was measured beside it."""

    architecture: str
    sms: int
    clock_mhz: float
    bandwidth_gb_s: float
    mma_flop_per_sm_clock: int
    copied_gb_s: float | None = None  # read and written by a copy beyond the L2; None: not measured
    product_tflop_s: float | None = None  # of float16, 8192 cubed; None: not measured


CASES = (
    Case("decoder, Lite0 at 224, 80 labels", 80, 49, 256, 8),
    Case("decoder, 448, 80 labels", 80, 196, 256, 8),
    Case("decoder, 448, 80 labels, batch 8", 80, 196, 256, 8, batch=8),
    Case("decoder, 896, 80 labels", 80, 784, 256, 8),
    Case("decoder, 448, 600 labels, wide", 600, 196, 512, 8),
    Case("decoder, 896, 600 labels, wide", 600, 784, 512, 8),
    Case("label links, 80 labels", 80, 80, 256, 8),
)


def flop(case: Case) -> int:
    """Of the two products; the softmax between them is not counted."""
    return 4 * case.batch * case.queries * case.tokens * case.dim


def least_bytes(case: Case) -> int:
    """Everything read once and written once; queries are constant, one for the whole batch."""
    sources = 1 if case.constant_sources else case.batch
    rows = case.queries + 2 * sources * case.tokens + case.batch * case.queries
    return HALF * rows * case.dim


def blocks(case: Case) -> int:
    """Of the grid."""
    return -(-case.queries // _QUERIES_PER_BLOCK) * case.heads * case.batch


def counted_instructions(case: Case, executed: list[dict[str, Any]]) -> dict[str, Any]:
    """Warp instructions of the launch, from the counted launch with the same width and tokens.

    Args:
        case: The launch.
        executed: Of `kernels.json`, all with 80 queries and 2 heads.

    Raises:
        LookupError: None of them has this width and number of tokens.
    """
    width = case.dim // case.heads
    for row in executed:
        of_kernel = row["kernel"].startswith(f"attention_f16_kernel<{width},")
        if of_kernel and row["tokens"] == case.tokens:
            counted = Case("counted", 80, case.tokens, 2 * width, 2)
            times = blocks(case) / blocks(counted)
            instructions = round(row["warp_instructions"] * times)
            return {
                "kernel": row["kernel"],
                "warps": blocks(case) * warps_of(row["kernel"]),
                "warp_instructions": instructions,
                "mma": round(row["mma"] * times),
            }
    raise LookupError(f"no counted launch has width {width} and {case.tokens} tokens")


def warps_of(kernel: str) -> int:
    """Warps of a block, from a name such as `attention_f16_kernel<32, 4, 2, 2>`."""
    return int(kernel.partition("<")[2].split(",")[1])


def floors_us(case: Case, board: Board, instructions: dict[str, Any]) -> dict[str, float]:
    """Least microseconds for tensor cores, memory and issue slots, over the SMs that get a block."""
    rate = min(board.sms, blocks(case)) * board.clock_mhz
    schedulers = min(_SCHEDULERS * board.sms, instructions["warps"])
    return {
        "tensor_cores": instructions["mma"] * _MMA_FLOP / (rate * board.mma_flop_per_sm_clock),
        "memory": least_bytes(case) / (board.bandwidth_gb_s * 1e3),
        "issue": instructions["warp_instructions"] / (schedulers * board.clock_mhz),
    }
