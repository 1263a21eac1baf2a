"""Pictures of H.264 that never came: their decoder passes over a gap, and shows what builds upon it as whole.

Each slice holds frame_num, which steps by one behind each picture that others build upon (ITU-T H.264,
7.4.3). So a longer step says that one was lost on the way to whoever sends the stream, where the times
and lengths of what does come are in order. Not noticed is what leaves the numbers in step: a counter of
four bits stands one further again behind 16 lost pictures, or behind a lost key picture of some lengths of groups.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

_OWN_WAY = 25  # signs of a loss, with at most as many pictures between
SLICE, KEY_SLICE, _SEQUENCE, _PICTURE = 1, 5, 7, 8  # kinds of units
_WITH_CHROMA = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135, 144}  # profiles


@dataclass(frozen=True)
class _Numbering:
    """Of a sequence's pictures."""

    bits: int
    has_planes: bool  # a slice says first which colour it is of
    may_skip: bool
    has_fields: bool


class Trust:
    """Believes signs of losses, unless they are a camera's own way: it must not stay blind."""

    def __init__(self) -> None:
        """Believe them."""
        self._often = 0  # two for each, less the pictures since

    def believes(self, sign: bool) -> bool:
        """Take the next picture, with a sign or without; whether it is to be believed."""
        self._often = min(self._often + 2, 2 * _OWN_WAY + 8) if sign else max(0, self._often - 1)
        return sign and self.is_on

    @property
    def is_on(self) -> bool:
        """Whether a sign would be believed."""
        return self._often <= 2 * _OWN_WAY


class FrameNumbers:
    """Follows the numbers of one stream."""

    def __init__(self, beginning: Iterable[bytes] = ()) -> None:
        """Take the units that were told before the first packet."""
        self._sequences: dict[int, _Numbering] = {}
        self._sequence_of: dict[int, int] = {}  # by the number of a picture's settings
        self._last: int | None = None  # of a picture that others build upon
        self._trust = Trust()
        self.is_sure = False  # whether the last picture would have missed those before it
        self.misses(beginning)

    def misses(self, units: Iterable[bytes]) -> bool:
        """Whether pictures are missing before the one that is made of units, or begins with them."""
        for unit in filter(None, units):
            kind = unit[0] & 31
            try:
                if kind in {SLICE, KEY_SLICE}:
                    return self._step(unit, is_key=kind == KEY_SLICE)
                self._note(kind, Bits(unit[1:]))
            except ValueError:  # cut or damaged: the decoder says so
                if kind in {SLICE, KEY_SLICE}:
                    self._last, self.is_sure = None, False
        return False

    def _note(self, kind: int, bits: Bits) -> None:
        if kind == _SEQUENCE:
            number, numbering = _sequence(bits)
            self._sequences[number % 32] = numbering
        elif kind == _PICTURE:
            number = bits.number()
            self._sequence_of[number % 256] = bits.number()

    def _step(self, unit: bytes, *, is_key: bool) -> bool:
        bits = Bits(unit[1:])
        first_block = bits.number()
        bits.number()
        numbering = self._sequences.get(self._sequence_of.get(bits.number(), -1))
        last, self._last, self.is_sure = self._last, None, False
        if numbering is None or numbering.may_skip:
            return False
        bits.read(2 * numbering.has_planes)
        number, size = bits.read(numbering.bits), 1 << numbering.bits
        # Nothing builds upon a picture with these bits 0: the next one has its number again.
        self._last = number if unit[0] & 0x60 else (number - 1) % size
        if is_key or last is None:
            return False
        step = (number - last) % size
        # Twice the same number is that of two fields; else the counter has gone once around.
        is_gap = step > 1 or (step == 0 and first_block == 0 and not numbering.has_fields)
        is_missed = self._trust.believes(is_gap)
        self.is_sure = self._trust.is_on
        return is_missed


class Bits:
    """Numbers of a unit, from its beginning on; a ValueError says that there are none."""

    def __init__(self, data: bytes) -> None:
        """Take what is behind the head of a unit."""
        # The 3 keeps numbers from looking like a start code.
        clean = data.replace(b"\0\0\3", b"\0\0")
        self._text = f"{int.from_bytes(clean, 'big'):0{8 * len(clean)}b}" if clean else ""
        self._at = 0

    def read(self, count: int) -> int:
        """The next bits; 0 of none."""
        self._at += count
        if self._at > len(self._text):
            raise ValueError("the unit is over")
        return int(self._text[self._at - count : self._at] or "0", 2)

    def number(self) -> int:
        """The next number of any length; of those with a sign its rank."""
        zeros = self._text.find("1", self._at) - self._at
        if not 0 <= zeros < 32:
            raise ValueError("no number")
        self._at += zeros
        return self.read(zeros + 1) - 1


def _sequence(bits: Bits) -> tuple[int, _Numbering]:
    profile = bits.read(8)
    bits.read(16)
    number, has_planes = bits.number(), False
    if profile in _WITH_CHROMA:
        chroma = bits.number()
        has_planes = chroma == 3 and bits.read(1) == 1
        bits.number(), bits.number(), bits.read(1)  # depths, and whether it is lossless
        if bits.read(1):
            _pass_scaling(bits, 12 if chroma == 3 else 8)
    frame_bits = bits.number() + 4
    if frame_bits > 16:
        raise ValueError("no number of bits")
    kind = bits.number()
    if kind == 0:
        bits.number()
    elif kind == 1:
        bits.read(1), bits.number(), bits.number()
        for _ in range(min(bits.number(), 255)):
            bits.number()
    bits.number()  # pictures that are kept
    may_skip = bits.read(1) == 1
    bits.number(), bits.number()
    return number, _Numbering(frame_bits, has_planes, may_skip, has_fields=bits.read(1) == 0)


def _pass_scaling(bits: Bits, lists: int) -> None:
    for index in range(lists):
        if not bits.read(1):
            continue
        last = following = 8
        for _ in range(16 if index < 6 else 64):
            if following:
                rank = bits.number()
                following = (last + (rank + 1 >> 1) * (1 if rank & 1 else -1)) % 256
            last = following or last
