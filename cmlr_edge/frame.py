"""Images as they come in: a captured frame with its times, and the accepted array layouts."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np

from cmlr_edge.errors import FrameError
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.packet_ring import PacketRing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from PIL.Image import Image as PilImage

ColorOrder: TypeAlias = Literal["bgr", "rgb"]
FrameStatus: TypeAlias = Literal["ok", "frozen", "stale", "damaged"]

_GRID_WH = (16, 12)  # cells of `mean_colors`: noise averages out in them, an object does not
_ROWS = 240  # looked at: all of them would cost more and tell little


@dataclass(frozen=True, eq=False)
class Frame:
    """One image from a source."""

    image_bgr: NDArray[np.uint8]  # (H, W, 3)
    index: int  # counts from 0 in its source
    # Position in the video, or since a live source was opened; None for stills.
    time_s: float | None
    captured_at: float  # seconds since the epoch, when the source delivered it
    capture_ms: float  # spent reading and decoding
    source: str  # the file, or the camera; without passwords
    # frozen: the source repeats a picture; stale: it waited too long; damaged: parts of it were missing
    # when it was decoded. None of these says what is there now.
    status: FrameStatus = "ok"
    # On time.monotonic(), when a live source sent it, as far as that is known.
    arrived_s: float | None = None
    # Seconds since the epoch, by the sender's clock, right or wrong; None: not given.
    sender_at: float | None = None
    stream_s: float | None = None  # on the clock of the stream, as the packets of `ring`
    ring: PacketRing | None = None  # what it was encoded in, where that is kept and may be seen

    def __repr__(self) -> str:
        """What it is, without its pixels."""
        height, width = self.image_bgr.shape[:2]
        when = "" if self.time_s is None else f" at {self.time_s:.3f} s"
        return f"<Frame {self.index} of {self.source}{when}: {width} x {height}, {self.status}>"


# What a Recognizer takes; a PIL image without importing Pillow. Arrays are uint8, but what cv2.imread returns is
# typed wider than that.
ImageLike: TypeAlias = "Frame | NDArray[Any] | PilImage"


def as_color_image(image: Any, color: ColorOrder) -> tuple[NDArray[np.uint8], ColorOrder]:
    """Accept what users hold: a NumPy array in `color` order, a grey array, or a PIL image.

    Args:
        image: uint8 (H, W, 3) in the order of `color`; uint8 (H, W) or (H, W, 1), grey; or a PIL
            image, read as its file would be: upright, without alpha, 16 bits as 8.
        color: Channel order of a three-channel array. PIL images are always RGB.

    Returns:
        uint8 (H, W, 3) and its channel order. A view where no conversion is needed.

    Raises:
        FrameError: Wrong type, dtype, number of channels, or an empty image.
    """
    if color not in ("bgr", "rgb"):  # no set: it may be anything
        raise FrameError(f'color is {color!r}: expected "bgr" (OpenCV) or "rgb"')
    # Without it, or while another thread imports it, nobody can have made a picture of it.
    kind = getattr(sys.modules.get("PIL.Image"), "Image", None)
    if kind is not None and isinstance(image, kind):
        from cmlr_edge.machine.pillow import rgb_pixels

        return rgb_pixels(image), "rgb"
    if not isinstance(image, np.ndarray):
        raise FrameError(
            f"expected a NumPy array, a PIL image or a Frame, got {type(image).__name__}: "
            "to read a file use cmlr_edge.open_source(path)"
        )
    image = np.asarray(image)  # a matrix or a masked array is its numbers
    if image.dtype != np.uint8:
        raise FrameError(
            f"expected uint8 pixels from 0 to 255, got {image.dtype}: "
            "scale and convert, for example (image * 255).round().astype('uint8')"
        )
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    if image.ndim != 3 or image.shape[2] != 3:
        raise FrameError(
            f"expected (H, W, 3) or grey (H, W), got shape {image.shape}: "
            "drop an alpha channel with image[..., :3]; pass batches to recognize_batch"
        )
    if image.size == 0:
        raise FrameError(f"the image is empty, its shape is {image.shape}")
    return image, color


def mean_colors(image_bgr: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What a picture (H, W, 3) looks like from afar, to be compared with others: (12, 16, 3), 0 to 255."""
    rows = image_bgr[:: max(1, len(image_bgr) // _ROWS)]
    cells = opencv().resize(rows, _GRID_WH, interpolation=opencv().INTER_AREA)
    return np.asarray(cells, np.float32)


def as_images(images: Any) -> Sequence[Any] | NDArray[np.uint8]:
    """Take several images as they are handed over.

    Raises:
        FrameError: They are one image, or none of what images are.
    """
    if isinstance(images, np.ndarray):
        if images.ndim != 4:
            raise FrameError(
                f"expected a sequence of images or an array (N, H, W, 3), got shape {images.shape}"
            )
        return np.asarray(images)
    try:
        return list(images)
    except TypeError as error:
        raise FrameError(
            f"expected several images, got {type(images).__name__}: pass a list"
        ) from error
