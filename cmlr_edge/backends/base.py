"""The whole contract between the Recognizer and a runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class Backend(Protocol):
    """Runs one loaded model. Not thread-safe: give each thread its own."""

    @property
    def description(self) -> str:
        """The runtime and the device that really run the model, for people."""
        ...

    @property
    def provider(self) -> str:
        """The device that really runs the model, as `--provider` names it; read back, not assumed."""
        ...

    @property
    def num_labels(self) -> int:
        """Columns of the scores it returns."""
        ...

    def infer(self, frames: NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Run the model.

        Args:
            frames: (N, H, W, 3), RGB, as `preprocess` makes them, contiguous.

        Returns:
            Scores, (N, L). The caller owns the array.

        Raises:
            EngineError: The runtime failed; its own words are in the message.
        """
        ...

    def close(self) -> None:
        """Free the runtime's memory. Calling it twice is harmless."""
        ...
