"""Pieces of pictures that a network brings twice: a picture that is decoded again is no longer right."""

from __future__ import annotations

STARTS = (b"\0\0\1", b"\0\0\0\1")  # of a unit of H.264 and HEVC
_VARIED = 16  # different bytes, with which no part of a picture is like the next one by chance


class Doubles:
    """Knows the last piece of a stream, as RTP brings them: a unit, or a part of a long one."""

    def __init__(self) -> None:
        """Stand before the first piece."""
        self._pts: int | None = None
        self._content = b""
        self._was_double = self._unit_is_double = False

    def has(self, pts: int | None, content: bytes) -> bool:
        """Whether a piece is the one before once more."""
        starts = content.startswith(STARTS)
        is_double = pts == self._pts and content == self._content
        if not starts:
            # Parts of one unit may be alike, as those of a black picture: these go in pairs, and only
            # where its first part came twice.
            is_sure = is_double and len({*content}) > _VARIED
            in_pairs = self._unit_is_double and not self._was_double
            is_double = is_double and (is_sure or in_pairs)
        else:
            self._unit_is_double = is_double
        self._pts, self._content, self._was_double = pts, content, is_double
        return is_double
