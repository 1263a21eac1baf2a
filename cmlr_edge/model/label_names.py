"""What people give by label, and what to say of labels that a model does not know."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cmlr_edge.errors import SpecError
from cmlr_edge.wording import did_you_mean, listed

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LISTED = 10  # of the model's labels, where there are no more


class UnknownLabelError(SpecError):
    """A label is not one of the model's."""

    unknown: Sequence[str] = ()  # what was given


def require_known(given: Collection[str], known: Collection[str], what: str) -> None:
    """Refuse labels that are not the model's.

    Args:
        given: By the user.
        known: The model's.
        what: Names them, with its verb: "thresholds name".

    Raises:
        UnknownLabelError: It says which, and which label may have been meant.
    """
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return
    if asked := did_you_mean(unknown, known):
        hint = asked
    elif len(known) <= _LISTED:
        hint = f"known: {[*known]}"
    else:
        hint = f"the model knows {len(known)}, `cmlr-edge inspect` lists them"
    error = UnknownLabelError(f"{what} unknown labels {listed(unknown)}; {hint}")
    error.unknown = unknown
    raise error


def require_taught(label: str, taught: Sequence[str]) -> None:
    """Refuse a label that was not added to an engine: those of its export stay.

    Raises:
        SpecError: It says which were added.
    """
    if label not in taught:
        raise SpecError(
            f"{label!r} was not taught to this engine, {', '.join(taught) or 'no label'} was: only "
            "what was taught can be renamed or forgotten"
        )


def merged_thresholds(
    own: Mapping[str, float], override: Mapping[str, float] | float | None
) -> NDArray[np.float32]:
    """A threshold for every label, (L,): the model's own, and what is given instead.

    Args:
        own: By label, in the order of the scores.
        override: One value for all labels, or a value for some of them.

    Raises:
        SpecError: A label is not known, or a threshold is outside [0, 1].
    """
    merged = dict(own)
    given = override if isinstance(override, Mapping) else {}
    try:
        values = {str(name): float(value) for name, value in given.items()}
        whole = None if override is None or override is given else float(override)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise SpecError(
            f"thresholds should be a number or numbers by label, got {override!r:.80}"
        ) from None
    require_known(values, merged, "thresholds name")
    merged = merged | values if whole is None else dict.fromkeys(merged, whole)
    if not all(0 <= value <= 1 for value in merged.values()):
        raise SpecError(f"thresholds must lie in [0, 1], got {override!r:.80}")
    return np.fromiter(merged.values(), np.float32, len(merged))
