"""Words for people that depend on a number, or on names that are alike."""

from __future__ import annotations

from collections.abc import Collection, Sequence

_ASKED = 10  # names that a message repeats
_LONGEST = 100  # characters of one


def listed(names: Sequence[str]) -> str:
    """Names that somebody gave, as Python writes a list: of many the first, of a long one its beginning."""
    cut = [name if len(name) <= _LONGEST else f"{name[:_LONGEST]}..." for name in names]
    return f"[{few_of([*map(repr, cut)], _ASKED)}]"


def did_you_mean(given: Collection[str], known: Collection[str]) -> str:
    """Ask whether known names alike were meant; empty where none is."""
    from difflib import get_close_matches
    from itertools import islice

    # All of another model's labels would be compared with all of this one's: 20 s for a thousand.
    few = islice(given, _ASKED)
    meant = [match for name in few for match in get_close_matches(name, known, n=1)]
    return f"did you mean {' and '.join(dict.fromkeys(meant))}?" if meant else ""


def counted(number: int, noun: str, plural: str = "") -> str:
    """The number with its noun, such as "1 row" or "2 rows".

    Args:
        number: How many there are.
        noun: Of one.
        plural: Of several, where it is not the noun and an s.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def few_of(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
