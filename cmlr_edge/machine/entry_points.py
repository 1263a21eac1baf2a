"""What installed packages bring: found by the name of an entry point, and not trusted to work."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

from cmlr_edge.errors import CmlrError
from cmlr_edge.redaction import redact

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint


@cache
def entry_points(group: str) -> dict[str, EntryPoint]:
    """Those of a group, by name."""
    from importlib import metadata  # takes its time

    return {point.name: point for point in reversed(metadata.entry_points(group=group))}


def call_theirs(
    point: EntryPoint, argument: object, what: str, needed: Sequence[str], error: type[CmlrError]
) -> Any:
    """Call what an entry point names, and check that the answer can be used.

    Args:
        point: Of somebody else's package.
        argument: Handed over.
        what: Is opened, for messages; without passwords.
        needed: Attributes that the answer must have.
        error: To raise.

    Raises:
        CmlrError: As the package raised it, or `error` for whatever else it did.
    """
    try:
        answer = point.load()(argument)
        missing = [name for name in needed if not hasattr(answer, name)]
    except CmlrError:
        raise
    except (Exception, SystemExit) as trouble:  # whatever somebody else's code does
        reason = " ".join(str(trouble).split()) or "without a reason"
        raise error(
            f"cannot open {what}: {point.value} failed: {type(trouble).__name__}: {redact(reason)}"
        ) from trouble
    if missing:
        raise error(
            f"cannot open {what}: what {point.value} returned cannot be used, for it has no "
            f"{', '.join(missing)}"
        )
    return answer
