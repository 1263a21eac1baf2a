"""Keeps passwords, and what a terminal would obey, out of names, logs, events and errors."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

_MOST = 4096  # characters of a message; what a hostile peer says may have no end
_SECRET_WORD = re.compile(
    "pass|pwd|pw|user|login|token|key|auth|secret|sig|credential", re.IGNORECASE
)
# Greedy up to the last @: a password may hold any character, an @ and a / among them.
_AFTER_SCHEME = re.compile(r"(://).*@", re.DOTALL)
# What `_AFTER_SCHEME` has left is no user with a password: the scheme stays readable.
_WITHOUT_SCHEME = re.compile(
    r"(?<![\w/])[^\s:@]*:(?!//\*\*\*@)[^\s@]*@\S*@|(?<![\w/])[^\s:@]*:(?!//\*\*\*@)[^\s@]*@"
)
_PLACE = re.compile(r"((?:[^/?#]*://)?[^/?#]*)/?(.*)", re.DOTALL)
_KEY_AND_VALUE = re.compile(r"(?<![\w-])([\w-]+)(\s*=\s*)(\"[^\"]*\"|'[^']*'|[^&\s]+)")


def redact(text: str) -> str:
    """Replace user, password and every value of a query by `***`; rather hide too much than too little.

    The patterns of `test://` stay: their values are no secrets, and tell sources apart.

    Args:
        text: A URI, a GStreamer pipeline, or a message that quotes one.
    """
    if len(text) > _MOST:  # cut between words, so that no half of an address stays
        text = (text[: _MOST - 4].rpartition(" ")[0] or "***") + " ..."
    text = _AFTER_SCHEME.sub(r"\1***@", text)
    text = _WITHOUT_SCHEME.sub("***@", text)
    text = "".join(map(_without_values, re.split(r"(\s+)", text)))
    return _KEY_AND_VALUE.sub(_without_secret, text)


def printable(text: str | Path) -> str:
    """Write out what is no character to print: control characters, and bytes of a name that is no UTF-8.

    Args:
        text: A name of a file, a label, a message; Linux lets a name be any bytes.
    """
    return "".join(c if c.isprintable() else _written_out(c) for c in str(text))


def safe_name(name: str) -> str:
    """Letters, digits, _ and - alone, for files and topics; names that would become alike stay apart."""
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_")
    if safe == name:
        return safe
    number = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:6]
    return f"{safe[:80]}_{number}"


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


def _without_secret(found: re.Match[str]) -> str:
    return f"{found[1]}{found[2]}***" if _SECRET_WORD.search(found[1]) else found[0]


def _without_values(word: str) -> str:
    """Hide what stands behind the ? of an address, or of a part of one."""
    place, mark, rest = word.partition("?")
    if "test://" in place or not mark or ("://" not in place and "=" not in rest):
        return word
    query, sharp, _ = rest.partition("#")
    split = [part.partition("=") for part in re.split("[&;]", query)]
    parts = [f"{key}=***" if sign else "***" for key, sign, _ in split]
    return f"{place}?{'&'.join(parts)}{'#***' if sharp else ''}"
