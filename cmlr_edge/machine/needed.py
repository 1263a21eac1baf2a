"""Packages that only some of the work needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cmlr_edge.errors import DependencyError

NO_MEMORY = "there is not enough memory: free some, or raise the limit of this process"
NO_THREAD = (
    "there is not enough memory for a thread, or no more are allowed: free some, or raise the limit (ulimit -u, "
    "TasksMax, --pids-limit)"
)
_NOT_MAPPED = ("failed to map segment", "cannot allocate memory")  # by whoever loads libraries


@contextmanager
def needed(what: str, remedy: str) -> Iterator[None]:
    """Import packages in this block, to say what they are for and how they are had where one is missing.

    Raises:
        DependencyError: One cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        if any(words in str(error).lower() for words in _NOT_MAPPED):
            remedy = NO_MEMORY
        raise DependencyError(f"{what} ({error}): {remedy}") from error
