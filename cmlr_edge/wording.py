"""Words for people that depend on a number."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """The number with its noun, such as "1 row" or "2 rows".

    Args:
        number: How many there are.
        noun: Of one.
        plural: Of several, where it is not the noun and an s.
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
