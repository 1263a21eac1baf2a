"""Whether the parts of a film's file follow each other without a hole, told by their own sizes while it is read.

Demuxers pass over what they do not understand, up to the next part that they do, and say nothing. Here the
same way is gone beside them: where a part does not begin where the one before it ends, something is lost.
"""

from __future__ import annotations

import os
import re
import sys
import zlib
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TypeAlias

from cmlr_edge.capture.endings import (
    HEAD_BYTES,
    SYNC,
    TS_PACKETS,
    after_box,
    after_element,
    after_page,
    after_riff,
    num_bytes,
)

Step: TypeAlias = Callable[[bytes, int], int | None]  # to the next part; None: there is none here

_LOOK_BYTES = 2**16  # of a file's beginning, or before a packet for the part that it is in
_LOST_BYTES = 2**24  # in which a part is looked for, behind a place where there is none
_HEADS_BYTES = 64  # of parts, before what they hold
_CHUNK = re.compile(rb"\d\d[A-Za-z]{2}|ix\d\d|JUNK|idx1", re.ASCII)  # of AVI
_LISTS = {b"movi", b"rec "}
_SEGMENT, _CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"  # of Matroska
_TRACKS = b"\x16\x54\xae\x6b"
_BLOCK, _BLOCK_GROUP, _BLOCK_IN_GROUP = b"\xa3", b"\xa0", b"\xa1"
_TAGS = {8, 9, 18}  # of FLV: sound, video, words
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_DATA = bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_PARITY = 0x82  # first byte of a packet
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


@dataclass(frozen=True)
class _Kind:
    step: Step
    mark: bytes = b""  # in parts that can be found; b"": where a packet is, is one
    before: int = 0  # bytes of a part before the mark, or the place of its packet
    num_bytes: int = HEAD_BYTES  # that a step looks at
    holds_one: bool = False  # packet a part, or several in one place
    start: int = 0
    outer: Step | None = None  # over the whole of what the file's beginning tells the size of
    tells_end: bool = True  # False: what follows the last part may be anything but such parts


class Structure:
    """Follows one film's file."""

    def __init__(self, film: Path | IO[bytes]) -> None:
        """Look at its beginning.

        Args:
            film: Where it lies. An opened file is not followed: one of a storage would be loaded twice.
        """
        self._file: IO[bytes] | None = None
        if isinstance(film, Path):
            self._file = film.open("rb")
        self._size, self._kind = 0, None
        if self._file is not None:
            self._kind = _kind_of(self._file.read(_LOOK_BYTES))
            self._size = self._file.seek(0, os.SEEK_END)
        self._at: int | None = self._kind.start if self._kind else None  # None: lost
        self._part = 0  # where the last one begins
        self._seen = 0  # place of the last packet

    def jump(self) -> None:
        """Note that the next packet is from anywhere in the file."""
        self._at, self._seen = None, 0

    def leads_to(self, place: int | None) -> bool:
        """Go on to the next packet; whether nothing between it and the one before is lost.

        Args:
            place: Of the packet in the file, as FFmpeg tells it.
        """
        if self._kind is None or self._file is None or place is None:
            return True
        if not self._seen <= place < self._size:
            return True
        self._seen = place
        was_lost = self._at is None
        if not was_lost and self._go(self._file, self._kind, place):
            is_inside = self._kind.holds_one and place - self._part > _HEADS_BYTES
            if not is_inside:
                return True
        self._at = self._found(self._file, self._kind, place)
        self._go(self._file, self._kind, place)
        return was_lost

    def ends(self) -> bool:
        """Whether nothing is lost between the last packet and the end."""
        kind, file = self._kind, self._file
        if kind is None or file is None or self._at is None:
            return True
        if self._go(file, kind, self._claimed_end(file, kind.outer) - 1):
            return True
        file.seek(self._part + _HEADS_BYTES)
        is_gone_on = bool(kind.mark) and kind.mark in file.read(_LOST_BYTES)
        return not kind.tells_end and not is_gone_on

    def close(self) -> None:
        """Release the file."""
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:
        """Films are dropped without being closed, too."""
        self.close()

    def _go(self, file: IO[bytes], kind: _Kind, place: int) -> bool:
        """Step beyond a place; False where the way is lost."""
        while self._at is not None and self._at <= place:
            file.seek(self._at)
            self._part, after = self._at, kind.step(file.read(kind.num_bytes), self._at)
            self._at = min(after, self._size) if after is not None and after > self._part else None
            if self._at == self._size <= place:
                break
        return self._at is not None

    def _claimed_end(self, file: IO[bytes], outer: Step | None) -> int:
        """Where the film ends; what follows was appended by somebody."""
        position = 0 if outer else self._size
        while outer and position < self._size:
            file.seek(position)
            after = outer(file.read(HEAD_BYTES), position)
            if after is None or after <= position:
                break
            position = after
        return min(position, self._size)

    def _found(self, file: IO[bytes], kind: _Kind, place: int) -> int | None:
        """The beginning of the part that a packet is in."""
        if not kind.mark:
            return max(0, place - kind.before)
        start = max(0, place - _LOOK_BYTES)
        file.seek(start)
        at = file.read(place - start + len(kind.mark)).rfind(kind.mark)
        return start + at - kind.before if at >= 0 else None


def _kind_of(head: bytes) -> _Kind | None:
    if head[4:8] in {b"ftyp", b"styp", b"moov"}:
        return _Kind(after_box, mark=b"moof", before=4, tells_end=False)
    if head[:4] == b"RIFF":
        return _Kind(_after_chunk, before=8, holds_one=True, outer=after_riff)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _Kind(
            _after_element_of(_tracks(head)), mark=_CLUSTER, holds_one=True, outer=_after_segment
        )
    if head[:3] == b"FLV":
        return _Kind(_after_tag, holds_one=True)
    if head[:4] == b"OggS":
        return _Kind(_after_whole_page, mark=b"OggS", num_bytes=2**16)
    if head[:16] == _ASF_HEADER:
        return _asf(head)
    for first in range(TS_PACKETS[-1][0]):  # a recording may begin anywhere
        for length, at in TS_PACKETS:
            marks = head[first + at : first + at + 8 * length : length]
            if first < length and marks == bytes([SYNC]) * 8:
                return _Kind(_after_ts(length, at), num_bytes=256 * length, start=first)
    return None


def _after_segment(head: bytes, position: int) -> int | None:
    """Of Matroska: behind all of it, or far behind where it does not tell how long it is."""
    after = after_element(head, position)
    is_endless = after is not None and head.startswith(_SEGMENT) and after - position <= 12
    return sys.maxsize if is_endless else after


def _after_chunk(head: bytes, position: int) -> int | None:
    """Of AVI, lists of packets gone into."""
    kind = head[:4]
    if kind == b"RIFF" or (kind == b"LIST" and head[8:12] in _LISTS):
        return position + 12
    if kind != b"LIST" and not _CHUNK.fullmatch(kind):
        return None
    length = int.from_bytes(head[4:8], "little")
    return position + 8 + length + length % 2


def _tracks(head: bytes) -> set[int]:
    """Numbers of the tracks of Matroska, and maybe others; none where the beginning does not tell."""
    _, _, tracks = head.partition(_CLUSTER)[0].partition(_TRACKS)
    return {found[0] & 127 for found in re.findall(rb"\xd7\x81([\x01-\x7e])", tracks, re.DOTALL)}


def _after_element_of(tracks: Collection[int]) -> Step:
    """Of Matroska, segments and clusters gone into; demuxers pass over blocks of a track that is unknown."""

    def step(head: bytes, position: int) -> int | None:
        at = 1 if head[:1] in {_BLOCK, _BLOCK_GROUP} else 0
        if at and head[:1] == _BLOCK_GROUP:
            at += num_bytes(head, at)
            at = at + 1 if head[at : at + 1] == _BLOCK_IN_GROUP else 0
        if at and tracks:
            at += num_bytes(head, at)
            length = num_bytes(head, at)
            number = int.from_bytes(head[at : at + length], "big") & ((1 << 7 * length) - 1)
            if number not in tracks:
                return None
        return after_element(head, position, into_all=True)

    return step


def _after_tag(head: bytes, position: int) -> int | None:
    """Of FLV."""
    if position == 0:
        return int.from_bytes(head[5:9], "big") + 4
    if len(head) < 11 or head[0] & 31 not in _TAGS or any(head[8:11]):
        return None
    return position + 11 + int.from_bytes(head[1:4], "big") + 4


def _after_whole_page(head: bytes, position: int) -> int | None:
    """Of Ogg, whose demuxer leaves out pages with a wrong sum."""
    after = after_page(head, position)
    if after is None:
        return None
    page = head[:22] + bytes(4) + head[26 : after - position]
    # CRC-32 is that of zlib with the bits of every byte in the other order, from another beginning.
    found = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    is_whole = head[22:26].translate(_REVERSED) == found.to_bytes(4, "big")
    return after if is_whole else None


def _after_ts(length: int, at: int) -> Step:
    """Of MPEG-TS: behind the last packet of those that begin as they should."""

    def step(head: bytes, position: int) -> int | None:
        marks = head[at::length]
        count = len(marks) - len(marks.lstrip(bytes([SYNC])))
        return position + min(count * length, len(head)) if count else None

    return step


def _asf(head: bytes) -> _Kind | None:
    """WMV and ASF: packets of one size, which their header tells."""
    about, data = head.find(_ASF_FILE), head.find(_ASF_DATA)
    if about < 0 or data < 0:
        return None
    length = int.from_bytes(head[about + 92 : about + 96], "little")
    size = int.from_bytes(head[data + 16 : data + 24], "little")
    count = int.from_bytes(head[data + 40 : data + 48], "little")
    first = data + 50
    end = first + count * length if count else data + size

    def step(packet: bytes, position: int) -> int | None:
        if position >= end > first:
            return position + len(packet)  # the index
        return position + length if packet[:1] == bytes([_ASF_PARITY]) else None

    return _Kind(step, start=first, tells_end=count > 0) if length else None
