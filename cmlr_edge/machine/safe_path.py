"""`python -m cmlr_edge` runs no code from the current folder: a numpy.py lying there is not NumPy.

`python -m` puts that folder first in the import path; Python 3.11 has `-P` against it, 3.10 nothing.
Importing this module takes it out again, if that is how this package is started and not for others.
"""

from __future__ import annotations

import os
import sys


def _is_started_as_module() -> bool:
    """While `python -m NAME` looks for NAME, argv begins with "-m" and orig_argv tells the name."""
    if sys.argv[:1] != ["-m"]:
        return False
    name = sys.orig_argv[-len(sys.argv)].removeprefix("-m")
    return name.split(".")[0] == __name__.split(".")[0]


def _current_folder() -> str:
    """As Python wrote it into its path; "" where somebody deleted it."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return ""


if _is_started_as_module() and sys.path[:1] == [_current_folder()]:
    del sys.path[0]
