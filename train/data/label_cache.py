"""Label matrices that take minutes to read, kept beside the data as a small .npz file."""

from __future__ import annotations

import io
import logging
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.model.files import clear_parts, write_atomically

_log = logging.getLogger(__name__)


def cached_labels(
    cache: Path, sources: Sequence[Path], read: Callable[[], NDArray[np.bool_]]
) -> NDArray[np.bool_]:
    """Return what `read` returns, from the cache where no source changed since it was written.

    A damaged cache is read anew, one that cannot be written costs only time; both are logged.

    Args:
        cache: The .npz file.
        sources: The files that `read` reads; name, size and modification time are compared.
        read: Makes the matrix (N, L).
    """
    stats = [(path.name, path.stat()) for path in sources]
    names = np.array([name for name, _ in stats])
    stamps = np.array([(stat.st_size, stat.st_mtime_ns) for _, stat in stats], np.int64)
    if (kept := _load(cache, names, stamps)) is not None:
        return kept
    labels = read()
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        names=names,
        stamps=stamps,
        packed=np.packbits(labels, axis=1),
        num_labels=np.array(labels.shape[1]),
    )
    try:
        clear_parts(cache)
        write_atomically(cache, buffer.getvalue())
    except OSError as error:
        _log.warning("%s cannot be written (%s): the labels are read again next time", cache, error)
    return labels


def _load(
    cache: Path, names: NDArray[np.str_], stamps: NDArray[np.int64]
) -> NDArray[np.bool_] | None:
    if not cache.is_file():
        return None
    try:
        with np.load(io.BytesIO(cache.read_bytes()), allow_pickle=False) as file:
            if not np.array_equal(file["names"], names):
                return None
            if not np.array_equal(file["stamps"], stamps):
                return None
            return np.unpackbits(file["packed"], axis=1, count=int(file["num_labels"])) > 0
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        _log.warning("%s is damaged (%s): reading the labels again", cache, error)
        return None
