"""What to say of labels that a model does not know."""

from __future__ import annotations

from collections.abc import Collection

from cmlr_edge.errors import SpecError

_LISTED = 10  # of the model's labels, where there are no more


def require_known(given: Collection[str], known: Collection[str], what: str) -> None:
    """Refuse labels that are not the model's.

    Args:
        given: By the user.
        known: The model's.
        what: Names them, with its verb: "thresholds name".

    Raises:
        SpecError: It says which, and which label may have been meant.
    """
    unknown = sorted(set(given) - set(known))
    if not unknown:
        return
    from difflib import get_close_matches

    meant = [match for name in unknown for match in get_close_matches(name, known, n=1)]
    if meant:
        hint = f"did you mean {' and '.join(dict.fromkeys(meant))}?"
    elif len(known) <= _LISTED:
        hint = f"known: {[*known]}"
    else:
        hint = f"the model knows {len(known)}, `cmlr-edge inspect` lists them"
    raise SpecError(f"{what} unknown labels {unknown}; {hint}")
