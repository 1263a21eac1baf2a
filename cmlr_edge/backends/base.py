"""The whole contract between the Recognizer and a runtime."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

from cmlr_edge.errors import EngineError

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


@runtime_checkable
class ExplainingBackend(Backend, Protocol):
    """A runtime that can also compute an engine's further outputs."""

    @property
    def explains(self) -> bool:
        """Whether the engine has further outputs."""
        ...

    def explain(self, frames: NDArray[np.uint8], /) -> dict[str, NDArray[np.float32]]:
        """Run the model with every output it has; see `cmlr_edge.model.explanation`.

        Args:
            frames: As for `infer`.

        Returns:
            Arrays of N rows by output name, the scores among them.

        Raises:
            EngineError: It has no output beside its scores, or the runtime failed.
        """
        ...


def no_explanation(name: str) -> EngineError:
    """What is wrong with an engine that was exported without explanations."""
    return EngineError(
        f"{name} cannot say why: it was exported without; export it again with "
        "export/build_engine.py --explain"
    )
