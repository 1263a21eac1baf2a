"""Where frames come from: `open_source` turns one argument into a source."""

from __future__ import annotations

import glob
import re
from pathlib import Path

from cmlr_edge.capture.base import Source
from cmlr_edge.errors import CaptureError

__all__ = ["Source", "open_source"]

_MAX_CAMERA = 255  # Linux numbers its video devices up to here
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
        # OpenCV ends the process on an index that does not fit its own arithmetic.
        if not 0 <= int(text) <= _MAX_CAMERA:
            raise CaptureError(f"camera {text}: expected an index from 0 to {_MAX_CAMERA}")
        return Camera(int(text))
    if not text:
        raise CaptureError(f"the source is empty: give {_FORMS}")
    device = text.removeprefix("v4l2://")
    if re.fullmatch(r"/dev/video\d+", device):
        return Camera(device)
    if scheme := re.match(r"[A-Za-z][A-Za-z0-9+.-]*(?=://)", text):
        raise CaptureError(f"cannot open {scheme[0]}:// sources in this version: give {_FORMS}")
    path = Path(text)
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
        pictures = list_folder(path) if is_folder else []
    except CaptureError:
        raise
    except OSError as error:  # a name too long, a folder that may not be read
        raise CaptureError(f"cannot open {text[:200]}: {error.strerror}") from error
    if is_folder:
        return ImageFiles(text, pictures)
    if is_file:
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
