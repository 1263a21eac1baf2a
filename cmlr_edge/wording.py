"""Words for people that depend on a number."""

from __future__ import annotations

from collections.abc import Sequence


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
