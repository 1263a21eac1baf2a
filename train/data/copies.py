"""Pictures that are there several times, byte for byte, under whatever names."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import defaultdict
from collections.abc import Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.files import read_file

_END = 4096  # bytes; two pictures of a camera begin alike, and end as their content does


def first_of_equal(paths: Sequence[Path]) -> NDArray[np.int_]:
    """(N,): for each file the first one with the same bytes, which is itself where it has no copy.

    Only files as long as another one are opened, and only those that end alike are read. One that
    cannot be read is equal to none: whoever needs it says so.
    """
    first = np.arange(len(paths))
    alike = [list(range(len(paths)))]
    with ThreadPoolExecutor() as threads:
        for look in (_size, _end, _whole):
            numbers = [i for group in alike for i in group]
            found = dict(zip(numbers, threads.map(look, [paths[i] for i in numbers]), strict=True))
            apart: dict[Hashable, list[int]] = defaultdict(list)
            for place, group in enumerate(alike):
                for i in group:
                    apart[(place, found[i]) if found[i] is not None else i].append(i)
            alike = [group for group in apart.values() if len(group) > 1]
    for group in alike:
        first[group] = group[0]
    return first


def _size(path: Path) -> int | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_size if stat.S_ISREG(found.st_mode) else None  # a pipe may never end


def _end(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _END))
            return file.read()
    except OSError:
        return None


def _whole(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(read_file(path)).digest()
    except OSError:
        return None
