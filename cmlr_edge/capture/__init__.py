"""Where frames come from: `open_source` turns one argument into a source."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from cmlr_edge.capture.base import Source
from cmlr_edge.errors import CaptureError

__all__ = ["Source", "open_source"]

_FORMS = (
    "a video file, a picture, a folder of pictures, a quoted glob, or a camera (0, /dev/video0)"
)


def open_source(source: str | Path | int) -> Source:
    """Open a source of frames.

    Args:
        source: A video file, a picture, a folder of pictures, a glob pattern for pictures, or a
            camera: its index (0 or "0"), "/dev/video0" or "v4l2:///dev/video0".

    Raises:
        CaptureError: There is no such thing, or it holds no pictures.
    """
    from cmlr_edge.capture.images import IMAGE_SUFFIXES, ImageFiles, list_folder
    from cmlr_edge.capture.video import Camera, VideoFile

    text = str(source)
    if isinstance(source, int) or text.isdecimal():
        return Camera(int(text))
    device = text.removeprefix("v4l2://")
    if re.fullmatch(r"/dev/video\d+", device):
        return Camera(device)
    if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)", text):
        raise CaptureError(f"cannot open {scheme[0]}:// sources in this version: give {_FORMS}")
    path = Path(text)
    if path.is_dir():
        return ImageFiles(text, list_folder(path))
    if path.is_file():
        if path.suffix.lower() in IMAGE_SUFFIXES:
            return ImageFiles(text, [path])
        return VideoFile(path)
    if glob.has_magic(text):
        return ImageFiles(text, _match_pattern(text))
    raise CaptureError(f"there is no {text}: give {_FORMS}")


def _match_pattern(pattern: str) -> list[Path]:
    from cmlr_edge.capture.images import IMAGE_SUFFIXES

    matches = sorted(Path(match) for match in glob.glob(pattern, recursive=True))
    pictures = [path for path in matches if path.suffix.lower() in IMAGE_SUFFIXES]
    if not pictures:
        raise CaptureError(
            f"{pattern} matches {len(matches)} paths and no picture: looked for files ending in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return pictures
