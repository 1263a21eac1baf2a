"""Folders of pictures as the model sees them."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.capture.images import list_folder, read_image
from cmlr_edge.errors import CaptureError
from cmlr_edge.model.spec import PreprocessSpec
from cmlr_edge.preprocess import preprocess

_MOST_BYTES = 2**30  # of a folder's pictures, as the model sees them
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pictures:
    """Model inputs by their SHA-256: the same picture under two names is one."""

    frames: dict[str, NDArray[np.uint8]]  # (H, W, 3), RGB
    names: dict[str, str]  # of a file each
    repeated: int  # files that were the same picture as another
    damaged: int  # files that could not be read

    @classmethod
    def read(cls, folders: Iterable[Path], spec: PreprocessSpec) -> Pictures:
        """Read all pictures that lie directly in folders; a damaged one is told and left out.

        Raises:
            CaptureError: A folder is none or holds no pictures, or there are too many.
        """
        paths: list[Path] = []
        for folder in folders:
            if not folder.is_dir():
                raise CaptureError(f"no folder {folder}: expected one with pictures in it")
            paths += list_folder(folder)
        return cls.of(paths, spec)

    @classmethod
    def of(cls, paths: Iterable[Path], spec: PreprocessSpec) -> Pictures:
        """Read these pictures; as `read`."""
        frames: dict[str, NDArray[np.uint8]] = {}
        names, repeated, damaged = {}, 0, 0
        most = max(1, _MOST_BYTES // (3 * spec.size_hw[0] * spec.size_hw[1]))
        for path in paths:
            try:
                frame = preprocess(read_image(path), spec)
            except CaptureError as error:
                _log.warning("left out: %s", error)
                damaged += 1
                continue
            digest = hashlib.sha256(frame.tobytes()).hexdigest()
            repeated += digest in frames
            frames[digest], names[digest] = frame, path.name
            if len(frames) > most:
                raise CaptureError(
                    f"{path.parent} holds more than {most} pictures: choose among them"
                )
        return cls(frames, names, repeated, damaged)

    def __len__(self) -> int:
        """How many there are."""
        return len(self.frames)
