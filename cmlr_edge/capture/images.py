"""Still pictures: one file, a folder, or a glob pattern."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.capture.base import ClosesItself
from cmlr_edge.capture.bounds import MAX_PICTURE_BYTES, MAX_PICTURE_PIXELS, check_size
from cmlr_edge.errors import CaptureError, FrameError
from cmlr_edge.frame import Frame
from cmlr_edge.machine.opencv import opencv
from cmlr_edge.machine.pillow import HEIC_REMEDY, TooManyPixelsError, open_picture, rgb_pixels
from cmlr_edge.redaction import printable
from cmlr_edge.wording import counted

IMAGE_SUFFIXES = (
    ".avif", ".bmp", ".jfif", ".jpe", ".jpeg", ".jpg", ".pgm", ".png", ".pnm", ".ppm", ".tif",
    ".tiff", ".webp",
)  # fmt: skip
# Pictures that are not read, and that FFmpeg opens as a film, by whatever it takes for its frames.
NO_FILMS = (".heic", ".heif", ".hif")
_log = logging.getLogger(__name__)


def read_image(path: Path) -> NDArray[np.uint8]:
    """Read one picture; training and the SDK both read with this function.

    Grey pictures become three equal channels, an alpha channel is dropped, 16 bits become 8, and
    the EXIF orientation is applied, as for a PIL image that a Recognizer is given.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        CaptureError: The file is missing, no regular file, too large, or not a whole picture.
    """
    name = printable(path)
    try:
        # Without waiting: opening a pipe would wait for a writer for ever.
        with open(path, "rb", opener=_open_at_once) as file:
            return decode_picture(file, _check_file(file, name), name)
    except CaptureError:
        raise
    except OSError as error:
        kind = "missing" if isinstance(error, FileNotFoundError) else "unreadable"
        raise _refusal(kind, f"cannot read {name}: {error.strerror}") from error


def decode_picture(file: IO[bytes], num_bytes: int, name: str) -> NDArray[np.uint8]:
    """Decode one picture from a file or from bytes in memory; see `read_image`.

    Args:
        file: At its beginning; it can seek.
        num_bytes: That it holds.
        name: For messages.

    Returns:
        uint8 (H, W, 3), BGR.

    Raises:
        CaptureError: It is too large, or not a whole picture; its `kind` says which.
    """
    kind = "too large"
    try:
        check_bytes(num_bytes, name)
        kind = "no picture"
        image = open_picture(file)
        width, height = image.size
        kind = "too large"
        check_size(width, height, MAX_PICTURE_PIXELS, f"{name} is a picture")
        if getattr(image, "is_animated", False):
            _log.warning("%s holds several pictures: the first one is read", name)
        kind = "damaged"
        pixels = rgb_pixels(image)
    except FrameError as error:
        raise _refusal(
            "too large" if isinstance(error, TooManyPixelsError) else kind,
            f"{name} ({num_bytes} bytes) is not a picture that can be read: {error}; expected a "
            f"whole file, one of {' '.join(IMAGE_SUFFIXES)}",
        ) from error
    except CaptureError as error:
        error.kind = kind
        raise
    cv2 = opencv()
    bgr: NDArray[np.uint8] = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR)
    return bgr


def check_bytes(num_bytes: int, name: str) -> None:
    """Refuse a file that no picture is as large as, before it is read.

    Raises:
        CaptureError: It is.
    """
    if num_bytes > MAX_PICTURE_BYTES:
        raise _refusal(
            "too large",
            f"{name} has {num_bytes} bytes: expected a picture of at most {MAX_PICTURE_BYTES}",
        )


def _refusal(kind: str, message: str) -> CaptureError:
    error = CaptureError(message)
    error.kind = kind
    return error


def _check_file(file: IO[bytes], name: str) -> int:
    """How many bytes it holds; refuse what is no file."""
    about = os.fstat(file.fileno())
    if not stat.S_ISREG(about.st_mode):
        raise _refusal("unreadable", f"{name} is no regular file: expected a picture")
    return about.st_size


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


class ImageFiles(ClosesItself):
    """Pictures read one after another; those of several that cannot be read are counted and left out."""

    fps: float | None = None

    def __init__(self, name: str, paths: Sequence[Path]) -> None:
        """Take the files, in order, reading nothing yet."""
        self.name = printable(name)
        self.files = paths
        self.num_frames: int | None = len(paths)
        self.damaged = 0  # pictures so far that could not be read

    def __iter__(self) -> Iterator[Frame]:
        """Yield every picture; see `Source`. One alone that cannot be read is an error, as are all."""
        for index, path in enumerate(self.files):
            start = time.perf_counter()
            try:
                image = read_image(path)
            except CaptureError as error:
                self.damaged += 1
                if self.damaged == len(self.files):
                    raise
                _log.warning("left out: %s", error)
                continue
            capture_ms = (time.perf_counter() - start) * 1e3
            yield Frame(image, index, None, time.time(), capture_ms, printable(path))


def list_folder(folder: Path, below: str = "") -> list[Path]:
    """List the pictures directly inside a folder, by name; says in the log what is left out.

    Raises:
        CaptureError: There are none.
    """
    return choose_pictures(sorted(folder.iterdir()), printable(folder), below)


def choose_pictures(paths: Iterable[Path], where: str, below: str = "") -> list[Path]:
    """Keep what is a file and named like a picture; say in the log how much is left out, and what.

    Args:
        paths: Files and anything else.
        where: They are from, for people.
        below: What to say where there are folders; empty where what they hold is among `paths`.

    Raises:
        CaptureError: Nothing is kept.
    """
    pictures, others = [], Counter[str]()
    for path in paths:
        kind = _kind(path)
        if kind == "":
            pictures.append(path)
        elif kind != "folder" or below:
            others[kind] += 1
    left_out = ", ".join(f"{count} {kind}" for kind, count in others.most_common(5))
    remedy = f"; HEIC of a phone: {HEIC_REMEDY}" if others.keys() & {*NO_FILMS} else ""
    remedy += below if "folder" in others else ""
    if not pictures:
        raise CaptureError(
            f"{where} holds no pictures"
            + (f", but {left_out}" if left_out else "")
            + f": looked for files ending in {' '.join(IMAGE_SUFFIXES)}{remedy}"
        )
    if left_out:
        _log.warning(
            "%s: %s; left out: %s%s", where, counted(len(pictures), "picture"), left_out, remedy
        )
    return pictures


def _kind(path: Path) -> str:
    """Why a path is no picture; "" if it is one."""
    if path.name.startswith("."):
        return "hidden"
    try:
        path.stat()
    except PermissionError:  # a link into a folder that may not be entered
        return "out of reach: Permission denied"
    except OSError:  # told below
        pass
    if path.is_dir():
        return "folder"
    if path.suffix.lower() not in IMAGE_SUFFIXES:
        return printable(path.suffix.lower()) or "without a suffix"
    if not path.exists():
        return "links to nothing"
    return "" if path.is_file() else "pipes or devices"
