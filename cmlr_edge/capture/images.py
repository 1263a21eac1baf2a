"""Still pictures: one file, a folder, or a glob pattern."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.capture.base import ClosesItself
from cmlr_edge.errors import CaptureError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.opencv import opencv

IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read one picture; training and the SDK both read with this function.

    Grey pictures become three equal channels, an alpha channel is dropped, 16 bits become 8, and
    the EXIF orientation is applied.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        CaptureError: The file is missing, empty, or not a picture.
    """
    cv2 = opencv()
    try:
        encoded = np.fromfile(path, np.uint8)
    except OSError as error:
        raise CaptureError(f"cannot read {path}: {error.strerror}") from error
    image = None
    if encoded.size:
        try:
            image = cv2.imdecode(encoded, cv2.IMREAD_COLOR)
        except cv2.error:  # raised for sizes beyond OpenCV's limits
            image = None
    if image is None:
        raise CaptureError(
            f"{path} ({encoded.size} bytes) is not a picture that OpenCV can decode: expected "
            f"one of {', '.join(IMAGE_SUFFIXES)}, whole"
        )
    result: NDArray[np.uint8] = image
    return result


class ImageFiles(ClosesItself):
    """Pictures read one after another."""

    fps: float | None = None

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        """Take the files, in order, reading nothing yet."""
        self.name = name
        self.files = paths
        self.num_frames: int | None = len(paths)

    def __iter__(self) -> Iterator[Frame]:
        """Yield every picture; see `Source`."""
        for index, path in enumerate(self.files):
            start = time.perf_counter()
            image = read_image(path)
            capture_ms = (time.perf_counter() - start) * 1e3
            yield Frame(image, index, None, time.time(), capture_ms, str(path))

    def __enter__(self) -> ImageFiles:
        """Return itself."""
        return self


def list_folder(folder: Path) -> list[Path]:
    """List the pictures directly inside a folder, by name.

    Raises:
        CaptureError: There are none.
    """
    paths = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise CaptureError(
            f"{folder} holds no pictures: looked for files ending in {', '.join(IMAGE_SUFFIXES)}"
        )
    return paths
