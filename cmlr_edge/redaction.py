"""Keeps passwords out of names, logs, events and errors."""

from __future__ import annotations

import re

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
