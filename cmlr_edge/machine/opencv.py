"""The one place that imports OpenCV, when it is first needed."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING

from cmlr_edge.errors import OutputError
from cmlr_edge.machine.needed import needed

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@cache
def opencv() -> ModuleType:
    """Return the `cv2` module.

    Raises:
        DependencyError: OpenCV is not installed.
    """
    remedy = "pip install 'cmlr-edge[cpu]'; on a Jetson use JetPack's python3-opencv"
    with needed("OpenCV is needed and cannot be imported", remedy):
        import cv2
    return cv2


def jpeg_of(image_bgr: NDArray[np.uint8], quality: int, source: str) -> bytes:
    """Encode a picture (H, W, 3) of a source.

    Raises:
        OutputError: OpenCV cannot: a side is longer than JPEG knows.
    """
    cv2 = opencv()
    done, encoded = cv2.imencode(".jpg", image_bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise OutputError(f"{source}: OpenCV cannot make a JPEG of {image_bgr.shape}")
    return bytes(encoded)
