"""The whole contract between the Recognizer and a runtime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, TypeAlias, runtime_checkable

from cmlr_edge.errors import EngineError
from cmlr_edge.redaction import one_line

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


class UnresizedImage(Protocol):
    """An image as it came, and how the CPU brings it to the model's size."""

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(H, W, 3), rows maybe apart from each other."""
        ...

    @property
    def order(self) -> str:
        """Of its channels: "bgr" or "rgb"."""
        ...

    def resize(self, out: NDArray[np.uint8], /) -> None:
        """Write what `preprocess` makes of it, (*size_hw, 3), RGB."""
        ...


# What a `ResizingBackend` runs on: ready pixels (N, H, W, 3); or a list of images of any size, in which
# some may be ready, each (H, W, 3).
Inputs: TypeAlias = "NDArray[np.uint8] | Sequence[NDArray[np.uint8] | UnresizedImage]"


@runtime_checkable
class ResizingBackend(Backend, Protocol):
    """A runtime that can bring images to the model's size where it runs the model."""

    def start_resizing(self, probes: Sequence[UnresizedImage], /) -> bool:
        """Do so from here on if that works, and gives each probe the CPU's pixels to a grey level.

        Until then, and where it does not, images are resized on the CPU. The log says once why.
        """
        ...

    @property
    def resizes(self) -> bool:
        """Whether it does so: it ends for good at the first image for which it fails."""
        ...

    def infer(self, frames: Inputs, /) -> NDArray[np.float32]:
        """Run the model, on images that are not resized too."""
        ...

    def explain(self, frames: Inputs, /) -> dict[str, NDArray[np.float32]]:
        """Likewise, with all outputs."""
        ...


class RuntimeErrors:
    """A block in which whatever a runtime raises becomes an EngineError of one line; one of ours stays."""

    def __init__(self, what: str, remedy: str = "") -> None:
        """Say what failed, and what to do."""
        self._what, self._remedy = what, remedy

    def __enter__(self) -> None:
        """Nothing to begin."""

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Raise an EngineError in place of another."""
        if isinstance(error, Exception) and not isinstance(error, EngineError):
            raise EngineError(f"{self._what}: {one_line(error)}{self._remedy}") from error


def no_explanation(name: str) -> EngineError:
    """What is wrong with an engine that was exported without explanations."""
    return EngineError(
        f"{name} cannot say why: it was exported without `--explain`; export it again with "
        "export/build_engine.py --explain"
    )


def require_scores(
    scores: NDArray[np.float32], number: int, num_labels: int, name: str
) -> NDArray[np.float32]:
    """Return scores (N, L) of so many frames and labels: a graph may declare one shape and give another.

    Raises:
        EngineError: They have another shape.
    """
    if scores.shape != (number, num_labels):
        raise EngineError(
            f"{name} gave scores of shape {scores.shape} for {number} frames, expected "
            f"{(number, num_labels)}: export the model again, with a batch of any size"
        )
    return scores
