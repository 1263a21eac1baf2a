"""Keeps passwords, and what a terminal would obey, out of names, logs, events and errors."""

from __future__ import annotations

import re
from pathlib import Path

_LONGEST = 1000  # of a text, in characters; what a hostile server says may be longer
_SECRET_KEY = r"[\w-]*(?:pass|pwd|pw|user|login|token|key|auth|secret|sig|credential)[\w-]*"
# Greedy up to the last @: a password may hold any character, an @ and a / among them.
_AFTER_SCHEME = re.compile(r"(://).*@", re.DOTALL)
# What `_AFTER_SCHEME` has left is no user with a password: the scheme stays readable.
_WITHOUT_SCHEME = re.compile(
    r"(?<![\w/])[^\s:@]*:(?!//\*\*\*@)[^\s@]*@\S*@|(?<![\w/])[^\s:@]*:(?!//\*\*\*@)[^\s@]*@"
)
_QUERY = re.compile(r"(\S*)\?([^\s#]+)(#\S+)?")
_PLACE = re.compile(r"((?:[^/?#]*://)?[^/?#]*)/?(.*)", re.DOTALL)
_KEY_AND_VALUE = re.compile(rf"({_SECRET_KEY}\s*=\s*)(\"[^\"]*\"|'[^']*'|[^&\s]+)", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace user, password and every value of a query by `***`; rather hide too much than too little.

    What is longer than 1000 characters is cut.

    The patterns of `test://` stay: their values are no secrets, and tell sources apart.

    Args:
        text: A URI, a GStreamer pipeline, or a message that quotes one.
    """
    if len(text) > _LONGEST:  # the time that the patterns take grows with its square
        text = text[:_LONGEST] + ("@..." if "@" in text[_LONGEST:] else " ...")
    text = _AFTER_SCHEME.sub(r"\1***@", text)
    text = _WITHOUT_SCHEME.sub("***@", text)
    text = _QUERY.sub(_without_values, text)
    return _KEY_AND_VALUE.sub(r"\1***", text)


def printable(text: str | Path) -> str:
    """Write out what is no character to print: control characters, and bytes of a name that is no UTF-8.

    Args:
        text: A name of a file, a label, a message; Linux lets a name be any bytes.
    """
    return "".join(c if c.isprintable() else _written_out(c) for c in str(text))


def one_line(message: object) -> str:
    """What a message says, on one line that a terminal only shows."""
    return printable(" ".join(str(message).split()))


def _written_out(character: str) -> str:
    number = ord(character)
    if 0xDC80 <= number <= 0xDCFF:  # how Python carries a byte that it cannot decode
        number -= 0xDC00
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def redact_place(url: str) -> str:
    """Likewise, and without the path, which is the secret of many a webhook."""
    place, path = _PLACE.fullmatch(redact(url)).groups()  # type: ignore[union-attr]
    return f"{place}/***" if path else place


def _without_values(found: re.Match[str]) -> str:
    place, query, fragment = found.groups()
    if "test://" in place or ("://" not in place and "=" not in query):
        return found[0]
    parts = [f"{key}=***" if sign else "***" for key, sign, _ in _split(query)]
    return f"{place}?{'&'.join(parts)}{'#***' if fragment else ''}"


def _split(query: str) -> list[tuple[str, str, str]]:
    return [part.partition("=") for part in re.split("[&;]", query)]
