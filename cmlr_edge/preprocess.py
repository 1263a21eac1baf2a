"""Frame to model input. Training, export, benchmarks and the Recognizer all call this function."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlr_edge.backends.base import ResizingBackend
from cmlr_edge.errors import FrameError
from cmlr_edge.frame import ColorOrder, Frame, as_color_image
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.machine.pillow import resize_with_pillow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from cmlr_edge.backends.base import Backend, Inputs
    from cmlr_edge.model.spec import Interpolation, PreprocessSpec

_LONGEST_STRIP = 64  # times its shorter side


@dataclass(frozen=True, eq=False)
class Unresized:
    """An image that a runtime brings to the model's size itself; see `backends/base.py`."""

    pixels: NDArray[np.uint8]  # (H, W, 3)
    order: ColorOrder
    spec: PreprocessSpec

    def resize(self, out: NDArray[np.uint8], /) -> None:
        """Do it on the CPU after all: write RGB (*spec.size_hw, 3)."""
        preprocess(self.pixels, self.spec, color=self.order, out=out)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A frame and the model input made of it; see `Recognizer.prepare`."""

    frame: Frame
    input: NDArray[np.uint8] | Unresized  # see `Preparing`
    spec: PreprocessSpec
    preprocess_ms: float

    @property
    def pixels(self) -> NDArray[np.uint8]:
        """(*spec.size_hw, 3), RGB; made when asked for where the runtime would make them."""
        if isinstance(self.input, np.ndarray):
            return self.input
        return preprocess(self.input.pixels, self.spec, color=self.input.order)


class Preparing:
    """How images become a model's input: here, or on the GPU where its runtime can do that."""

    def __init__(self, backend: Backend, spec: PreprocessSpec) -> None:
        """Ask the runtime, if the model's input is what its kernel makes."""
        self._spec = spec
        self._device: ResizingBackend | None = None
        if (
            _is_usual(spec)
            and isinstance(backend, ResizingBackend)
            and backend.start_resizing(_probes(spec))
        ):
            self._device = backend

    def one(
        self, image: Any, color: ColorOrder, out: NDArray[np.uint8] | None = None
    ) -> NDArray[np.uint8] | Unresized:
        """Check an image and make the input of it, or leave that to the runtime; as `preprocess`.

        What would have to be copied for it, a grey or a PIL image, is resized here and now: of a long
        list, only one copy is held at a time.
        """
        if isinstance(image, Frame):
            image, color = image.image_bgr, "bgr"
        if self._on_device and isinstance(image, np.ndarray):
            pixels, order = as_color_image(image, color)
            if np.may_share_memory(pixels, image):
                return Unresized(pixels, order, self._spec)
        return preprocess(image, self._spec, color=color, out=out)

    def several(
        self,
        images: Sequence[Any] | NDArray[np.uint8],
        color: ColorOrder,
        buffer: NDArray[np.uint8],
    ) -> Inputs:
        """The same of many; what is done here is in `buffer` (N, *size_hw, 3)."""
        made = [self.one(image, color, out) for image, out in zip(images, buffer, strict=True)]
        return buffer if all(isinstance(item, np.ndarray) for item in made) else made

    def takes(self, item: Prepared) -> bool:
        """Whether it is this model's input, and not what another's runtime was to resize."""
        ready = isinstance(item.input, np.ndarray)
        return item.spec == self._spec and (ready or self._on_device)

    @property
    def _on_device(self) -> bool:
        return self._device is not None and self._device.resizes


def together(items: Sequence[NDArray[np.uint8] | Unresized]) -> Inputs:
    """One batch."""
    ready = [item for item in items if isinstance(item, np.ndarray)]
    return np.stack(ready) if len(ready) == len(items) else items


def _probes(spec: PreprocessSpec) -> list[Unresized]:
    """Noise to be made smaller, by no whole number, and larger: no two channels or rows are alike."""
    random, (height, width) = np.random.default_rng(0), spec.size_hw
    sizes = (height * 3 // 2 + 1, width * 5 // 3 + 1), (height // 2 + 1, width // 2 + 1)
    return [Unresized(random.integers(0, 256, (*size, 3), np.uint8), "bgr", spec) for size in sizes]


def _is_usual(spec: PreprocessSpec) -> bool:
    return spec.resize == "stretch" and spec.interpolation == "area"


def preprocess(
    image: Any,
    spec: PreprocessSpec,
    *,
    color: ColorOrder = "bgr",
    out: NDArray[np.uint8] | None = None,
) -> NDArray[np.uint8]:
    """Bring one image to the model's size, as its spec says, and order its channels as RGB.

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
    if (
        _is_usual(spec)
        and _suits_native(pixels, height, width)
        and (resize_area := _native_resize())
    ):
        resize_area(pixels, out, swap_channels=order == "bgr")
        return out
    if spec.resize == "letterbox":
        _letterbox(pixels, spec, out)
    elif spec.resize == "crop":
        _crop(pixels, spec, out)
    else:
        _resize(pixels, out, spec.interpolation)
    # Resized first: the channel swap then touches the small image only.
    if order == "bgr":
        opencv().cvtColor(out, opencv().COLOR_BGR2RGB, dst=out)
    return out


def _letterbox(pixels: NDArray[np.uint8], spec: PreprocessSpec, out: NDArray[np.uint8]) -> None:
    """The whole image in the middle, as large as it fits, with bars beside it."""
    (rows, columns), (height, width) = pixels.shape[:2], spec.size_hw
    scale = min(height / rows, width / columns)
    inner_h, inner_w = max(1, round(rows * scale)), max(1, round(columns * scale))
    top, left = _half(height - inner_h), _half(width - inner_w)
    out[:] = spec.fill
    inner = np.empty((inner_h, inner_w, 3), np.uint8)
    _resize(pixels, inner, spec.interpolation)
    out[top : top + inner_h, left : left + inner_w] = inner


def _half(room: int) -> int:
    return max(0, round(room / 2 - 0.1))  # of an odd number the smaller half, as Ultralytics has it


def _crop(pixels: NDArray[np.uint8], spec: PreprocessSpec, out: NDArray[np.uint8]) -> None:
    """The middle of the image, after its shorter side became `short_side` pixels long."""
    height, width = spec.size_hw
    pixels = _without_far_ends(pixels)
    rows, columns = pixels.shape[:2]
    if spec.short_side:
        short, scale = min(rows, columns), spec.short_side
    else:  # as small as both sides allow
        short, scale = (rows, height) if height * columns >= width * rows else (columns, width)
    large_h, large_w = max(height, scale * rows // short), max(width, scale * columns // short)
    large = np.empty((large_h, large_w, 3), np.uint8)
    _resize(pixels, large, spec.interpolation)
    top, left = round((large_h - height) / 2), round((large_w - width) / 2)  # as torchvision has it
    out[:] = large[top : top + height, left : left + width]


def room_for(number: int, size_hw: tuple[int, int]) -> NDArray[np.uint8]:
    """Where so many images (N, H, W, 3) are resized to.

    Raises:
        FrameError: There is no memory for them.
    """
    try:
        return np.empty((number, *size_hw, 3), np.uint8)
    except (MemoryError, ValueError) as error:  # ValueError: more than can be counted
        raise FrameError(f"there is no memory for {number} images at once: give fewer") from error


def _without_far_ends(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of a strip a pixel high and very long, what can be in its middle: else it would fill all memory."""
    most = _LONGEST_STRIP * min(pixels.shape[:2])
    if max(pixels.shape[:2]) <= most:
        return pixels
    start_h, start_w = (max(0, (side - most) // 2) for side in pixels.shape[:2])
    return pixels[start_h : start_h + most, start_w : start_w + most]


def _resize(pixels: NDArray[np.uint8], out: NDArray[np.uint8], how: Interpolation) -> None:
    """Resize to the size of `out`, whatever becomes of the aspect ratio."""
    height, width = out.shape[:2]
    library, _, name = how.rpartition("-")
    if library == "pillow":
        out[:] = resize_with_pillow(pixels, (width, height), name)
        return
    cv2 = opencv()
    filters = {
        "area": cv2.INTER_AREA,
        "nearest": cv2.INTER_NEAREST,
        "bilinear": cv2.INTER_LINEAR,
        "bicubic": cv2.INTER_CUBIC,
    }
    try:
        if pixels.strides[1:] != (3, 1) or pixels.strides[0] < 3 * pixels.shape[1]:
            # OpenCV copies such a view too, and crashes where there is no memory for it.
            pixels = np.ascontiguousarray(pixels)
    except MemoryError as error:
        raise FrameError(
            f"there is no memory to copy an image of shape {pixels.shape}: give a smaller one"
        ) from error
    cv2.resize(pixels, (width, height), dst=out, interpolation=filters[name])


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
