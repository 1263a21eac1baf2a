"""Frame to model input. Training, export, benchmarks and the Recognizer all call this function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlr_edge.frame import ColorOrder, Frame, as_color_image
from cmlr_edge.machine.opencv import opencv

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from cmlr_edge.model.spec import PreprocessSpec


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame and the model input made of it; see `Recognizer.prepare`."""

    frame: Frame
    pixels: NDArray[np.uint8]  # (*spec.size_hw, 3), RGB
    spec: PreprocessSpec
    preprocess_ms: float


def preprocess(
    image: Any,
    spec: PreprocessSpec,
    *,
    color: ColorOrder = "bgr",
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Resize one image to the model's size and order its channels as RGB.

    Normalisation is part of the exported graph, so the result stays uint8.

    Args:
        image: What `as_color_image` accepts.
        spec: The model's input format.
        color: Channel order of `image` where it is a three-channel array.
        out: Written to and returned, where given: uint8 (*spec.size_hw, 3), contiguous.

    Returns:
        uint8 (*spec.size_hw, 3), RGB, contiguous.

    Raises:
        FrameError: `image` is not an image.
    """
    pixels, order = as_color_image(image, color)
    height, width = spec.size_hw
    if out is None:
        out = np.empty((height, width, 3), np.uint8)
    if _suits_native(pixels, height, width) and (resize_area := _native_resize()):
        resize_area(pixels, out, swap_channels=order == "bgr")
        return out
    cv2 = opencv()
    # Resized first: the channel swap then touches the small image only.
    cv2.resize(pixels, (width, height), dst=out, interpolation=cv2.INTER_AREA)
    if order == "bgr":
        cv2.cvtColor(out, cv2.COLOR_BGR2RGB, dst=out)
    return out


@cache
def _native_resize() -> Callable[..., None] | None:
    """Our operator; None in a source tree that was not built, where OpenCV gives the same bytes."""
    try:
        from cmlr_edge._native import resize_area
    except ImportError:
        return None
    return resize_area


def _suits_native(pixels: NDArray[np.uint8], height: int, width: int) -> bool:
    """Whether our operator gives OpenCV's bytes, sooner.

    It shrinks only, and where both sides shrink by whole numbers OpenCV sums integers, which rounds
    otherwise and is as fast.
    """
    rows, columns, _ = pixels.shape
    whole = rows % height == 0 and columns % width == 0
    packed = pixels.strides[1:] == (3, 1)
    return rows >= height and columns >= width and not whole and packed
