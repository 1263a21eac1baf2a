"""That old scores are as they were: both engines side by side, every score compared by its bits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends import load_backend
from cmlr_edge.errors import EngineError

_BATCH = 8
_SINGLE = 4  # frames that are looked at one by one too, as a camera's are


def digest_of(frame: NDArray[np.uint8]) -> str:
    """16 digits for a model input (H, W, 3)."""
    return hashlib.sha256(frame.tobytes()).hexdigest()[:16]


def count_bit_equal(
    path: Path,
    old: tuple[bytes, Sequence[int]],
    new: tuple[bytes, Sequence[int]],
    frames: Sequence[NDArray[np.uint8]],
    provider: str,
    report: Callable[[int], None] = lambda _done: None,
) -> int:
    """Run two engines on the same frames; return on how many every chosen score has the same bits.

    Args:
        path: Of the engine, for messages.
        old: ONNX file, and which of its scores.
        new: Likewise; as many scores.
        frames: uint8 (H, W, 3) each.
        provider: That runs both.
        report: Told how many frames were compared since.
    """
    with ExitStack() as stack:
        first, second = (
            stack.enter_context(closing(load_backend(path, content, provider=provider)))
            for content, _ in (old, new)
        )
        equal = 0
        for start in range(0, len(frames), _BATCH):
            batch = np.stack(frames[start : start + _BATCH])
            same = _same(first.infer(batch), old[1], second.infer(batch), new[1])
            for i in range(len(batch) if start < _SINGLE else 0):
                one = batch[i : i + 1]
                same[i] &= _same(first.infer(one), old[1], second.infer(one), new[1])[0]
            equal += int(same.sum())
            report(len(batch))
    return equal


def require_bit_equal(equal: dict[str, int], frames: int) -> None:
    """Refuse an engine that moves an old score.

    Raises:
        EngineError: It says in which provider, and on how many frames.
    """
    moved = [
        f"{frames - n} of {frames} frames in {name}" for name, n in equal.items() if n != frames
    ]
    if moved:
        raise EngineError(
            f"old scores moved on {', '.join(moved)}: it was not written; --provider names those "
            "that the engine will run in"
        )


def _same(
    old: NDArray[np.float32], of_old: Sequence[int], new: NDArray[np.float32], of_new: Sequence[int]
) -> NDArray[np.bool_]:
    """By frame; as bits, so that not even the sign of a zero may differ."""
    bits = (
        np.ascontiguousarray(scores[:, list(chosen)], np.float32).view(np.uint32)
        for scores, chosen in ((old, of_old), (new, of_new))
    )
    first, second = bits
    result: NDArray[np.bool_] = (first == second).all(axis=1)
    return result
