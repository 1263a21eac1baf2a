"""Many pictures out of some: the same files under other names, which take no room on the disk."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from cmlr_edge.capture.images import IMAGE_SUFFIXES

_IN_A_FOLDER = 1000


def repeat_pictures(photos: Path, folder: Path, count: int) -> None:
    """Fill a folder with `count` pictures, in folders of a thousand; photos are used again and again."""
    sources = sorted(path for path in photos.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    first = folder / "first"
    first.mkdir(parents=True)
    copies = [Path(shutil.copy(path, first)) for path in sources[:count]]
    for number in range(len(copies), count):
        source = copies[number % len(copies)]
        place = folder / f"{number // _IN_A_FOLDER:05d}"
        place.mkdir(exist_ok=True)
        os.link(source, place / f"{number:07d}{source.suffix}")
