"""The one place that imports OpenCV, when it is first needed."""

from __future__ import annotations

from functools import cache
from types import ModuleType

from cmlr_edge.errors import DependencyError


@cache
def opencv() -> ModuleType:
    """Return the `cv2` module.

    Raises:
        DependencyError: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise DependencyError(
            f"OpenCV is needed and cannot be imported ({error}): "
            "pip install 'cmlr-edge[cpu]'; on a Jetson use JetPack's python3-opencv"
        ) from error
    return cv2
