"""A JPEG that brings along what was said of it, as JSON in its comments: neither is ever without the other."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

_MARK = b"cmlr_edge:"
_START, _COMMENT, _SCAN, _END = b"\xff\xd8", 0xFE, 0xDA, 0xD9
_PIECE = 60_000  # bytes of a comment, which holds 65,533 at most


def with_record(jpeg: bytes, record: Mapping[str, Any]) -> bytes:
    """The picture with a record in it, behind the segments that it begins with."""
    text = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()
    comments = b""
    for start in range(0, len(text), _PIECE):
        content = _MARK + text[start : start + _PIECE]
        comments += bytes((0xFF, _COMMENT)) + (len(content) + 2).to_bytes(2, "big") + content
    at = len(_START)
    while jpeg[at] == 0xFF and 0xE0 <= jpeg[at + 1] <= 0xEF:  # JFIF comes first
        at += 2 + int.from_bytes(jpeg[at + 2 : at + 4], "big")
    return jpeg[:at] + comments + jpeg[at:]


def record_in(jpeg: bytes) -> bytes:
    """The JSON that `with_record` put into a picture; b"" where there is none, or it is cut short."""
    found, at = [], len(_START)
    if not jpeg.startswith(_START):
        return b""
    while at + 4 <= len(jpeg) and jpeg[at] == 0xFF and jpeg[at + 1] not in {_SCAN, _END}:
        size = int.from_bytes(jpeg[at + 2 : at + 4], "big")
        content = jpeg[at + 4 : at + 2 + size]
        if jpeg[at + 1] == _COMMENT and content.startswith(_MARK):
            found.append(content.removeprefix(_MARK))
        at += 2 + max(size, 2)
    return b"".join(found)
