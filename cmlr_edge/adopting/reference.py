"""What a foreign model says when it is used as its makers do: the model as it came, NumPy before it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlr_edge.adopting.foreign import Foreign
from cmlr_edge.adopting.recipe import Activation, Recipe
from cmlr_edge.backends.onnxruntime import ForeignModel
from cmlr_edge.errors import EngineError, SpecError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LUMA = np.array((0.299, 0.587, 0.114), np.float32)
_SUM_TOLERANCE = 1e-3
_ACTIVATIONS = {"Softmax", "Sigmoid"}  # that end a model
_MOST_VALUES = 2**28  # that go in at once, 1 GiB of float32; a picture of 8192 x 8192 has fewer


@dataclass(frozen=True, eq=False)
class Reference:
    """The foreign model in ONNX Runtime."""

    foreign: Foreign
    runtime: ForeignModel
    output: str

    @classmethod
    def of(cls, foreign: Foreign, output: str) -> Reference:
        """Load it; raises as `ForeignModel`."""
        return cls(foreign, ForeignModel(foreign.path, foreign.content), output)

    def raw(self, frames: NDArray[np.uint8], recipe: Recipe) -> NDArray[np.float32]:
        """Scores (N, L) as the model gives them, for frames (N, H, W, 3), RGB, of its size.

        Raises:
            EngineError: It fails, or does not give one row for each.
        """
        step = self.foreign.input_dims[0] or 1  # a batch that it was exported for
        if step * frames[0].size > _MOST_VALUES:
            raise EngineError(
                f"{self.foreign.path.name} takes {step} pictures of {recipe.size} at a time, more than "
                f"{_MOST_VALUES} values: export it for one"
            )
        rows = []
        for i in range(len(frames)):
            prepared = _prepared(frames[i : i + 1], self.foreign, recipe)
            repeated = np.repeat(prepared, step, axis=0)
            found = self.runtime.run(self.foreign.input_name, repeated, self.output)
            if found.ndim == 0 or found.size % step or not found.size:
                raise EngineError(
                    f"{self.foreign.path.name} gives {found.shape} for {step} pictures: expected a "
                    "score per class for each"
                )
            rows.append(found.astype(np.float32).reshape(step, -1)[0])
        return np.stack(rows)


def _prepared(frames: NDArray[np.uint8], foreign: Foreign, recipe: Recipe) -> NDArray[Any]:
    assert recipe.layout is not None
    pixels = frames.astype(np.float32) / 255
    if foreign.num_channels(recipe.layout) == 1:
        pixels = (pixels @ _LUMA)[..., None]
    elif recipe.color == "bgr":
        pixels = pixels[..., ::-1]
    channels = pixels.shape[3]
    mean, std = (np.array(v, np.float32)[:channels] for v in recipe.scale)
    scaled = (pixels - mean) / std
    if foreign.type_name == "uint8":
        scaled = scaled.round()
    if len(foreign.input_dims) == 2:
        scaled = scaled.reshape(len(frames), -1)
    elif recipe.layout == "nchw":
        scaled = scaled.transpose(0, 3, 1, 2)
    return np.ascontiguousarray(scaled.astype(foreign.dtype))


def activated(raw: NDArray[np.float32], activation: Activation) -> NDArray[np.float32]:
    """Probabilities (N, L) from what a model gives."""
    if activation == "none":
        return raw
    wide: NDArray[np.float64] = raw.astype(np.float64)
    if activation == "sigmoid":
        wide = 1 / (1 + np.exp(-np.clip(wide, -80, 80)))
    else:
        wide = np.exp(wide - wide.max(axis=1, keepdims=True))
        wide /= wide.sum(axis=1, keepdims=True)
    return wide.astype(np.float32)


def are_probabilities(raw: NDArray[np.float32]) -> bool:
    """Whether every value lies in [0, 1]."""
    return bool((raw >= 0).all() and (raw <= 1 + 1e-6).all())


def are_shares(scores: NDArray[np.float32]) -> bool:
    """Whether each row of probabilities sums to one: of several labels only one can be likely."""
    sums = scores.sum(axis=1)
    return scores.shape[1] > 1 and bool(np.abs(sums - 1).max() < _SUM_TOLERANCE)


def guess_activation(
    foreign: Foreign, output: str, raw: NDArray[np.float32]
) -> tuple[Activation, bool]:
    """What is to be put behind the model, and whether that is a guess.

    Its last operation tells, or what it gives: rows that sum to one are softmax's. Anything else in [0, 1]
    is taken for probabilities of labels by themselves, and anything outside for logits of a softmax; of a
    sigmoid where there is one label, whose share of itself is always 1.
    """
    if not are_probabilities(raw):
        return ("softmax" if raw.shape[1] > 1 else "sigmoid"), True
    return "none", ending(foreign, output) not in _ACTIVATIONS and not are_shares(raw)


def ending(foreign: Foreign, output: str) -> str:
    """The operation that gives an output, "" where none does."""
    makers = [node for node in foreign.model.graph.node if output in node.output]
    return str(makers[0].op_type) if makers else ""


def require_activation(
    foreign: Foreign, output: str, activation: Activation | None, labels: int
) -> None:
    """Refuse what would make other numbers of a model's scores, or one number of all of them.

    Raises:
        SpecError: The model ends in an activation already, or a softmax has one label.
    """
    name, last = foreign.path.name, ending(foreign, output)
    if activation in {"softmax", "sigmoid"} and last in _ACTIVATIONS:
        raise SpecError(
            f"{name} ends in a {last} already: leave --activation {activation} out, or say none"
        )
    if activation == "softmax" and labels == 1:
        raise SpecError(
            f"{name} has one label, whose softmax is always 1: say --activation sigmoid"
        )
