"""How large a picture may be: told by its header, before memory is spent on it."""

from __future__ import annotations

import struct

from cmlr_edge.errors import CaptureError

MAX_STREAM_PIXELS = 8192 * 4320  # of a video or camera; 8K is less
MAX_STREAM_BYTES = 2**25  # of an encoded picture of a camera
MAX_PICTURE_PIXELS = 2**27  # of a picture in a file: 134 million, 400 MB in memory
MAX_PICTURE_BYTES = 2**28  # of such a file

_JPEG_SIZES = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}  # markers of frame headers
_JPEG_BARE = {0x01, *range(0xD0, 0xD9)}  # markers without a length


def check_size(width: int, height: int, limit: int, what: str) -> None:
    """Refuse a picture that is too large.

    Args:
        width: In pixels.
        height: Likewise.
        limit: Pixels at most.
        what: Begins the message: "it sends pictures", "photo.jpg".

    Raises:
        CaptureError: It is.
    """
    if width * height > limit:
        raise CaptureError(
            f"{what} of {width} x {height} pixels, more than the {limit / 1e6:.0f} million that "
            "are read: make them smaller"
        )


def encoded_size(data: bytes | memoryview) -> tuple[int, int] | None:
    """Read width and height from the header of a JPEG, PNG, BMP, GIF, WebP or TIFF.

    Args:
        data: The encoded picture, or its beginning.

    Returns:
        Pixels, or None where it is none of them or the header is damaged.
    """
    head = bytes(data[:64])
    try:
        if head.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            width, height = struct.unpack_from(">II", head, 16)
            return width, height
        if head.startswith(b"BM"):
            width, height = struct.unpack_from("<ii", head, 18)
            return abs(width), abs(height)
        if head.startswith((b"GIF87a", b"GIF89a")):
            width, height = struct.unpack_from("<HH", head, 6)
            return width, height
        if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
            return _webp_size(head)
        if head.startswith((b"II*\0", b"MM\0*")):
            return _tiff_size(data)
    except (struct.error, IndexError):
        return None
    return None


def _jpeg_size(data: bytes | memoryview) -> tuple[int, int] | None:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            at += 1  # some writers pad between segments
            continue
        marker = data[at + 1]
        if marker in _JPEG_SIZES:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        if marker in _JPEG_BARE or marker == 0xFF:
            at += 1 if marker == 0xFF else 2
            continue
        if marker in {0xD9, 0xDA}:
            return None
        at += 2 + int(struct.unpack_from(">H", data, at + 2)[0])
    return None


def _webp_size(head: bytes) -> tuple[int, int] | None:
    kind = head[12:16]
    if len(head) < 30:
        return None
    if kind == b"VP8X":
        width, height = (int.from_bytes(head[at : at + 3], "little") + 1 for at in (24, 27))
        return width, height
    if kind == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", head, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _tiff_size(data: bytes | memoryview) -> tuple[int, int] | None:
    order = "<" if data[0] == 0x49 else ">"
    (at,) = struct.unpack_from(f"{order}I", data, 4)
    (count,) = struct.unpack_from(f"{order}H", data, at)
    sides = {}
    for entry in range(at + 2, at + 2 + 12 * min(count, 512), 12):
        tag, kind = struct.unpack_from(f"{order}HH", data, entry)
        if tag in {256, 257}:  # width, height
            sides[tag] = int(
                struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)[0]
            )
    return (sides[256], sides[257]) if len(sides) == 2 else None
