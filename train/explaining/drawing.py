"""What figures have in common whose words are users' own: labels, and names of folders."""

from __future__ import annotations

import functools
import io
import logging
import warnings
from pathlib import Path
from typing import Any

from cmlr_edge.model.files import write_atomically

_LONGEST = 40  # letters of a name; more leave no room for what is drawn
_log = logging.getLogger(__name__)


def pyplot() -> Any:
    """Matplotlib's, that draws into files and takes no name for a formula."""
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["text.parse_math"] = False
    from matplotlib import pyplot as plt

    return plt


def shown(name: str) -> str:
    """A name as a figure has room for it."""
    text = name if len(name) <= _LONGEST else f"{name[: _LONGEST - 3]}..."
    return f" {text}" if text.startswith("_") else text  # a legend leaves these out


def save(plt: Any, figure: Any, path: Path) -> None:
    """Write a figure whole, in the format that the name's end tells, and close it."""
    content = io.BytesIO()
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        figure.savefig(content, dpi=120, format=path.suffix[1:])
    plt.close(figure)
    if any(str(warning.message).startswith("Glyph") for warning in found):
        _tell_of_boxes()
    write_atomically(path, content.getvalue())


@functools.cache
def _tell_of_boxes() -> None:
    _log.warning("the figures' font lacks letters of some names: boxes stand for them")
