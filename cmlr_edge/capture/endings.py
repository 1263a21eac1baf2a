"""Whether a video file ends before the end that its own structure names: read from sizes alone, nothing is decoded.

Decoders pass over a last packet that is cut off, or show half a picture. What has no such sizes, as a
bare stream of H.264, may be cut without a trace.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import IO

# What is not among these was appended by somebody.
_BOXES = frozenset(
    b"ftyp styp moov mdat moof mfra sidx ssix free skip wide pnot uuid meta udta emsg prft".split()
)
_SEGMENT, _CLUSTER = "18538067", "1f43b675"  # of Matroska: may have no size
_ELEMENTS = frozenset(  # around a segment, in it, and in a cluster
    f"1a45dfa3 {_SEGMENT} ec bf 114d9b74 1549a966 1654ae6b {_CLUSTER} 1c53bb6b 1941a469 1043a770 1254c367 "
    "e7 a3 a0 a7 ab af 5854".split()
)
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_FILE = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_ASF_BYTES = 2**16  # of a header, in which its description of the file comes early
SYNC = 0x47  # first byte of a packet of MPEG-TS
TS_PACKETS = ((188, 0), (192, 4), (204, 0))  # bytes, and where in them it stands
_PACK = b"\0\0\1\xba"  # of MPEG-PS
_TAIL_BYTES = 2**17  # of a file, in which its last page or pack begins
HEAD_BYTES = 27 + 255  # of a part, at most
_GIF_BYTES = 2**26  # of a GIF; larger ones are not looked into
_MOST_STEPS = 2**20  # of one file: far more than whole ones take


def is_cut(film: Path | IO[bytes]) -> bool:
    """Whether a film lacks its end; False also where its kind does not tell.

    Args:
        film: Where it lies; or an opened file that can seek, left where it was.
    """
    if isinstance(film, Path):
        with film.open("rb") as file:
            return _lacks_end(file)
    place = film.tell()
    try:
        return _lacks_end(film)
    finally:
        film.seek(place)


def _lacks_end(file: IO[bytes]) -> bool:
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    head = file.read(1024)
    if head[4:8] in _BOXES:
        return _walk(file, size, after_box)
    if head[:4] == b"RIFF":
        return _walk(file, size, after_riff)
    if head[:4] == b"\x1a\x45\xdf\xa3":
        return _walk(file, size, after_element)
    if head[:16] == _ASF_HEADER:
        return _is_cut_asf(head + file.read(_ASF_BYTES), size)
    if head[:3] == b"GIF":
        file.seek(0)
        return size <= _GIF_BYTES and _is_cut_gif(file.read(_GIF_BYTES))
    start = max(0, size - _TAIL_BYTES)
    file.seek(start)
    tail = file.read()
    for mark, step in ((b"OggS", after_page), (_PACK, _after_start_code)):
        if head.startswith(mark) and (at := tail.rfind(mark)) >= 0:
            return _walk(file, size, step, start + at)
    return any(
        all(head[at : at + 1] == bytes([SYNC]) for at in range(first, 3 * length, length))
        and size % length != 0
        for length, first in TS_PACKETS
    )


def _walk(
    file: IO[bytes], size: int, step: Callable[[bytes, int], int | None], position: int = 0
) -> bool:
    """Go from one part to the next by their sizes; whether the last one goes beyond the end."""
    for _ in range(_MOST_STEPS):
        file.seek(position)
        after = step(file.read(HEAD_BYTES), position)
        if after is None or after == size:
            return False
        if after > size:
            return True
        position = after
    return False


def after_box(head: bytes, position: int) -> int | None:
    """Of MP4 and MOV: where the next box begins, if that can be told."""
    if head[4:8] not in _BOXES:
        return None
    length = int.from_bytes(head[:4], "big")
    if length == 1:  # too long for 32 bits
        length = int.from_bytes(head[8:16], "big")
    return position + length if length >= 8 else None


def after_riff(head: bytes, position: int) -> int | None:
    """Of AVI, which may be several such parts."""
    length = int.from_bytes(head[4:8], "little")
    if head[:4] != b"RIFF" or length in {0, 2**32 - 1}:
        return None
    return position + 8 + length


def after_element(head: bytes, position: int, *, into_all: bool = False) -> int | None:
    """Of Matroska and WebM; a segment or cluster without a size is gone into, or all of them."""
    id_bytes = num_bytes(head, 0)
    size_bytes = num_bytes(head, id_bytes)
    name = head[:id_bytes].hex()
    if name not in _ELEMENTS or not size_bytes:
        return None
    after = id_bytes + size_bytes
    free_bits = 7 * size_bytes
    length = int.from_bytes(head[id_bytes:after], "big") & ((1 << free_bits) - 1)
    has_size = length != (1 << free_bits) - 1
    if name in {_SEGMENT, _CLUSTER} and (into_all or not has_size):
        return position + after
    if not has_size:
        return None
    return position + after + length


def num_bytes(head: bytes, at: int) -> int:
    """Of a number whose first byte tells how long it is; 0 if it is none."""
    return 9 - head[at].bit_length() if at < len(head) and head[at] else 0


def after_page(head: bytes, position: int) -> int | None:
    """Of Ogg."""
    if head[:4] != b"OggS" or len(head) < 27:
        return None
    num_parts = head[26]
    return position + 27 + num_parts + sum(head[27 : 27 + num_parts])


def _after_start_code(head: bytes, position: int) -> int | None:
    """Of MPEG-PS: a pack's header, or a packet."""
    if head[:3] != b"\0\0\1" or len(head) < 14:
        return None
    if head[:4] == _PACK:
        return position + (14 + (head[13] & 7) if head[4] >> 6 == 1 else 12)
    return position + 6 + int.from_bytes(head[4:6], "big") if head[3] > 0xBA else None


def _is_cut_gif(content: bytes) -> bool:
    at = 13 + _gif_colors(content[10:11])
    while (kind := content[at : at + 1]) in {b",", b"!"}:  # a picture, or what belongs to one
        if kind == b",":
            at += 11 + _gif_colors(content[at + 9 : at + 10])
        else:
            at += 2
        while length := sum(content[at : at + 1]):
            at += 1 + length
        at += 1
    return at >= len(content)  # in whole ones a mark follows


def _gif_colors(flags: bytes) -> int:
    """Bytes of the table of colours that is announced."""
    return 3 * 2 ** ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _is_cut_asf(head: bytes, size: int) -> bool:
    """WMV and ASF name the size of the whole file, unless they were sent while they were made."""
    at = head.find(_ASF_FILE)
    if at < 0:
        return False
    named, flags = head[at + 40 : at + 48], head[at + 88 : at + 92]
    is_live = int.from_bytes(flags, "little") & 1
    return not is_live and int.from_bytes(named, "little") > size
