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
_QUERY = re.compile(r"(\S*)\?([^\s#]+)(#\S+)?")
_PLACE = re.compile(r"((?:[^/?#]*://)?[^/?#]*)/?(.*)", re.DOTALL)
_KEY_AND_VALUE = re.compile(rf"({_SECRET_KEY}\s*=\s*)(\"[^\"]*\"|'[^']*'|[^&\s]+)", re.IGNORECASE)


def redact(text: str) -> str:
    """Replace user, password and every value of a query by `***`; rather hide too much than too little.

    The patterns of `test://` stay: their values are no secrets, and tell sources apart.

    Args:
        text: A URI, a GStreamer pipeline, or a message that quotes one.
    """
    text = _AFTER_SCHEME.sub(r"\1***@", text)
    text = _WITHOUT_SCHEME.sub("***@", text)
    text = _QUERY.sub(_without_values, text)
    return _KEY_AND_VALUE.sub(r"\1***", text)


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
