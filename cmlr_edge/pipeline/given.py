"""Which sources were given to a run: two that read one would share its frames by chance."""

from __future__ import annotations

import threading
import weakref

from cmlr_edge.capture.base import Source
from cmlr_edge.errors import CaptureError

_lock = threading.Lock()
_claimed: dict[int, weakref.ref[Source]] = {}  # by id: a source may be neither hashed nor compared


def claim(source: Source, name: str) -> None:
    """Take a source for one run, for as long as it lives: at the end of the run it is closed.

    Raises:
        CaptureError: A run has it, or had it.
    """
    number = id(source)
    with _lock:
        known = _claimed.get(number)
        if known is not None and known() is source:
            raise CaptureError(
                f"{name} was given to a run already, which closes it: open it once more"
            )
        try:
            _claimed[number] = weakref.ref(source, lambda _: _claimed.pop(number, None))
        except TypeError:  # a class with slots that leave no room for it
            return


def release(source: Source) -> None:
    """Let another run have it, where this one did not take it."""
    with _lock:
        _claimed.pop(id(source), None)
