"""Keeps passwords, and what a terminal would obey, out of names, logs, events and errors."""

from __future__ import annotations

import re
from pathlib import Path

_SECRET_KEY = r"[\w-]*(?:pass|pwd|pw|user|login|token|key|auth|secret|sig|credential)[\w-]*"
# Greedy up to the last @: a password may hold any character, an @ and a / among them.
_AFTER_SCHEME = re.compile(r"(://).*@", re.DOTALL)
# What `_AFTER_SCHEME` has left is no user with a password: the scheme stays readable.
_WITHOUT_SCHEME = re.compile(
    r"(?<![\w/])[^\s:@]*:(?!//\*\*\*@)[^\s@]*@\S*@|(?<![\w/])[^\s:@]*:(?!//\*\*\*@)[^\s@]*@"
)
_KEY_AND_VALUE = re.compile(rf"({_SECRET_KEY}\s*=\s*)(\"[^\"]*\"|'[^']*'|[^&\s]+)", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace user, password and tokens by `***`; rather hide too much than too little.

    Args:
        text: A URI, a GStreamer pipeline, or a message that quotes one.
    """
    text = _AFTER_SCHEME.sub(r"\1***@", text)
    text = _WITHOUT_SCHEME.sub("***@", text)
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
