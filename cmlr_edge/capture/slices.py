"""Slices of pictures that never came: a decoder fills their place with what was there before, untold.

Noticed is a first slice that is missing, and, of H.264, another one where a camera cuts its pictures at the
same places; of the very first picture by the next one, which builds upon it. Where it cuts them by bytes, or
sends one slice for each, nothing tells.
"""

from __future__ import annotations

from collections.abc import Iterable

from cmlr_edge.capture.frame_numbers import KEY_SLICE, SLICE, Bits

_ENOUGH = 8  # pictures in a row that are cut alike
_HABIT = 5  # pictures that lack the same: so it is a camera that cuts some otherwise, and must not stay blind
_FORGIVEN = 300  # pictures, behind which one of these no longer counts
_FIRST = (0,)  # block that a slice begins with


class Slices:
    """Follows how the pictures of one stream are cut."""

    def __init__(self, codec: str) -> None:
        """Stand before the first picture.

        Args:
            codec: h264 or hevc.
        """
        self._is_hevc = codec == "hevc"
        # Of key pictures and others; how often.
        self._cut: dict[bool, tuple[tuple[int, ...], int]] = {}
        self._lacking: dict[tuple[int, ...], int] = {}  # how often, by the slices that did come
        self._count = 0

    def lack(self, units: Iterable[bytes]) -> bool:
        """Whether a slice is missing of the picture that is made of units."""
        try:
            starts, is_key = self._starts(units)
        except ValueError:  # cut or damaged: the decoder says so
            return False
        if not starts:
            return False
        self._count += 1
        if self._count % _FORGIVEN == 0:
            self._lacking = {cut: often - 1 for cut, often in self._lacking.items() if often > 1}
        usual, often = self._cut.get(is_key, ((), 0))
        if starts == usual:
            self._cut[is_key] = usual, often + 1
            return False
        others, how_often = self._cut.get(not is_key, ((), 0))
        if self._count == 2 and others and not usual and {*others} < {*starts}:
            self._cut = {is_key: (starts, 1)}
            return True
        is_known = max(often, how_often * (others == usual)) >= _ENOUGH
        if starts[:1] == _FIRST and not (is_known and {*starts} < {*usual}):
            self._cut[is_key] = starts, 1
            return False
        self._lacking[starts] = self._lacking.get(starts, 0) + 1
        return self._lacking[starts] <= _HABIT

    def _starts(self, units: Iterable[bytes]) -> tuple[tuple[int, ...], bool]:
        """The block that each slice begins with, of HEVC 0 or 1; and whether it is a key picture."""
        starts, is_key = [], False
        for unit in filter(None, units):
            if self._is_hevc:
                if (kind := unit[0] >> 1 & 63) < 32:
                    starts.append(1 - Bits(unit[2:]).read(1))
                    is_key = is_key or kind >= 16
            elif (kind := unit[0] & 31) in {SLICE, KEY_SLICE}:
                starts.append(Bits(unit[1:]).number())
                is_key = is_key or kind == KEY_SLICE
        return tuple(starts[:1] if self._is_hevc else starts), is_key
