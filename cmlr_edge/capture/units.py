"""The units that packets of H.264 and HEVC are made of, behind start codes (annex B of ITU-T H.264 and H.265)."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

_START = b"\0\0\1"
_MOST_BYTES = 256  # of a unit that are looked at
MOST_UNITS = 100  # of a packet, whatever it is made of


@dataclass(frozen=True)
class _Kinds:
    """Of a codec's units."""

    header_bytes: int
    shift: int  # of the kind within the first byte
    mask: int
    slices: AbstractSet[int]
    keys: AbstractSet[int]  # slices of pictures that need none before them
    settings: AbstractSet[int]  # what a decoder must know first
    leading: AbstractSet[int]  # stand before a picture's slices, and never behind them


_KINDS = {
    "h264": _Kinds(1, 0, 31, slices={1, 5}, keys={5}, settings={7, 8}, leading={6, 7, 8, 9}),
    "hevc": _Kinds(
        2,
        1,
        63,
        slices={*range(32)},
        keys={*range(16, 24)},
        settings={32, 33, 34},
        leading={32, 33, 34, 35, 39},
    ),
}
CODECS = frozenset(_KINDS)
# Slices of HEVC upon which no picture of their layer builds.
_FOR_HIGHER = frozenset(range(0, 16, 2))


@dataclass(frozen=True)
class Units:
    """What a packet is made of."""

    heads: tuple[bytes, ...] = ()  # how each begins
    begins: bool = False  # whether the first block of a picture is in it
    is_key: bool = False  # whether its picture needs none before it
    leads: bool = False  # whether it begins with what stands before a picture
    num_slices: int = 0


def read_units(codec: str, data: bytes) -> Units:
    """Look at a packet's bytes; none are known of other codecs."""
    if codec not in _KINDS:
        return Units()
    kinds, begins, is_key, num_slices = _KINDS[codec], False, False, 0
    heads: list[bytes] = []
    at = data.find(_START)
    while at >= 0 and len(heads) < MOST_UNITS:
        head = data[at + 3 : at + 3 + _MOST_BYTES].split(_START)[0]
        heads.append(head)
        kind = head[0] >> kinds.shift & kinds.mask if head else -1
        if kind in kinds.slices:  # the number of the first block is one bit
            num_slices += 1
            begins = begins or bool(head[kinds.header_bytes :] and head[kinds.header_bytes] & 128)
            is_key = is_key or kind in kinds.keys
        at = data.find(_START, at + 3)
    first = heads[0][0] >> kinds.shift & kinds.mask if heads and heads[0] else -1
    return Units(tuple(heads), begins, is_key, first in kinds.leading, num_slices)


def settings_in(codec: str, data: bytes) -> bytes:
    """The units of a packet that a decoder must know first, with their start codes; nothing of other codecs."""
    if codec not in _KINDS:
        return b""
    kinds = _KINDS[codec]
    units = filter(None, (unit.rstrip(b"\0") for unit in data.split(_START)))
    wanted = (unit for unit in units if unit[0] >> kinds.shift & kinds.mask in kinds.settings)
    return b"".join(b"\0" + _START + unit for unit in wanted)


class Leaned:
    """Knows of one stream's pictures whether others may build upon them."""

    def __init__(self, codec: str) -> None:
        """Stand before the first picture.

        Args:
            codec: h264, hevc, or another, of which nothing is known.
        """
        self._codec, self._highest = codec, 0  # layer in time

    def on(self, heads: Iterable[bytes]) -> bool | None:
        """Whether others may build upon the picture that is made of units; None where no slice tells."""
        if self._codec not in _KINDS:
            return True
        kinds = _KINDS[self._codec]
        slices = [
            head
            for head in heads
            if len(head) > kinds.header_bytes
            and head[0] >> kinds.shift & kinds.mask in kinds.slices
        ]
        if not slices:
            return None
        if self._codec == "h264":
            return any(head[0] & 0x60 for head in slices)
        self._highest = max(self._highest, slices[0][1] & 7)
        return any(
            head[0] >> 1 & 63 not in _FOR_HIGHER or head[1] & 7 < self._highest for head in slices
        )
