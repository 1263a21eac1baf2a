"""What installed packages bring: found by the name of an entry point, and not trusted to work."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

from cmlr_edge.errors import CmlrError
from cmlr_edge.machine.waiting import answer_of
from cmlr_edge.redaction import told

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

T = TypeVar("T")
_OPENING_S = 20.0  # less than a supervisor waits for a sign of life


@cache
def entry_points(group: str) -> dict[str, EntryPoint]:
    """Those of a group, by name."""
    from importlib import metadata  # takes its time

    return {point.name: point for point in reversed(metadata.entry_points(group=group))}


def call_theirs(
    point: EntryPoint,
    argument: object,
    what: str,
    usable: Callable[[Any], T],
    error: type[CmlrError],
) -> T:
    """Call what an entry point names, in a thread that is left behind where it hangs.

    Args:
        point: Of somebody else's package.
        argument: Handed over.
        what: Is opened, for messages; without passwords.
        usable: Makes of the answer what is returned; raises ValueError for what cannot be used.
        error: To raise.

    Raises:
        CmlrError: As the package raised it, or `error` for whatever else it did.
    """
    failed = f"cannot open {what}: {point.value}"
    try:
        return answer_of(lambda: usable(point.load()(argument)), _OPENING_S)
    except CmlrError:
        raise
    except TimeoutError as trouble:
        raise error(f"{failed} {told(trouble)}") from trouble
    except Exception as trouble:
        raise error(f"{failed} failed: {type(trouble).__name__}: {told(trouble)}") from trouble


def having(*names: str) -> Callable[[Any], Any]:
    """For `call_theirs`: an answer that has these attributes."""

    def usable(answer: Any) -> Any:
        if missing := [name for name in names if not hasattr(answer, name)]:
            raise ValueError(f"what it returned cannot be used, for it has no {', '.join(missing)}")
        return answer

    return usable
