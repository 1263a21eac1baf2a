"""The golden self-test: a seeded input whose scores are stored with the engine.

It notices what a hash cannot: the wrong device, a broken driver, swapped colours, a missing
normalisation. It also serves as warm-up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from cmlr_edge.backends.base import require_scores
from cmlr_edge.errors import EngineError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from cmlr_edge.backends.base import Backend
    from cmlr_edge.model.spec import GoldenSample

# How far a score may be from the stored one on another machine, by the precision of the file.
GOLDEN_TOLERANCE = {"float32": 2e-3, "float16": 5e-2, "int8": 0.15}
_BLOCKS = 8
# What a provider of less precision than the file may differ by, as much as a file of float16.
_REDUCED_TOLERANCE = 5e-2


def golden_frames(seed: int, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Draw the input of a golden sample: coloured blocks, so that every layer has work to do.

    Args:
        seed: Of NumPy's `RandomState`, whose stream is frozen across NumPy versions.
        size_hw: The model's input size.

    Returns:
        uint8 (1, *size_hw, 3), RGB.
    """
    height, width = size_hw
    blocks = np.random.RandomState(seed).randint(0, 256, (_BLOCKS, _BLOCKS, 3))
    rows = np.arange(height) * _BLOCKS // height
    cols = np.arange(width) * _BLOCKS // width
    return np.ascontiguousarray(blocks.astype(np.uint8)[rows[:, None], cols][None])


def check_golden(
    backend: Backend,
    golden: GoldenSample,
    size_hw: tuple[int, int],
    *,
    provider: str | None = None,
) -> str:
    """Run the golden sample.

    Args:
        backend: To be checked.
        golden: What it should give.
        size_hw: The model's input size.
        provider: One that ends in -bf16 was asked for in less precision than the file's.

    Returns:
        How far the furthest score is from the stored one, in words.

    Raises:
        EngineError: Further than `golden.tolerance`, or than 0.05 in less precision; or of another shape.
    """
    scores = backend.infer(golden_frames(golden.seed, size_hw))
    require_scores(scores, 1, len(golden.scores), "the model")
    return require_golden(scores[0], golden, provider=provider)


def require_golden(
    scores: NDArray[np.float32], golden: GoldenSample, *, provider: str | None = None
) -> str:
    """Compare scores (L,) of the golden sample; otherwise as `check_golden`."""
    difference = float(np.abs(scores - np.asarray(golden.scores, np.float32)).max())
    reduced = _REDUCED_TOLERANCE if provider and provider.endswith("-bf16") else 0.0
    allowed = max(golden.tolerance, reduced)
    found = f"scores differ by {difference:.3g} from those stored at export, {allowed:.3g} allowed"
    if not difference <= allowed:  # a NaN fails too
        raise EngineError(
            f"{found}: golden self-test failed, this runtime computes something else; try another "
            "provider, or export the model again for this machine"
        )
    return found
