"""Walks the fields of a protocol buffer, which every ONNX file is, without a package for it."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # kinds of fields


def fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield number, content and all bytes of every field; the content of a number is left empty.

    Raises:
        ValueError: It is cut short, or not a protocol buffer.
    """
    position = 0
    while position < len(message):
        start = position
        tag, position = _varint(message, position)
        number, kind = tag >> 3, tag & 7
        inside = end = position
        if kind == _VARINT:
            _, inside = _varint(message, position)
            end = inside
        elif kind == _BYTES:
            length, inside = _varint(message, position)
            end = inside + length
        elif kind in {_FIXED64, _FIXED32}:
            end = position + (8 if kind == _FIXED64 else 4)
        else:
            raise ValueError(f"field {number} is of unknown kind {kind}")
        if end > len(message) or number == 0:
            raise ValueError("it is cut short or changed")
        yield number, message[inside:end], message[start:end]
        position = end


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """A number of 7 bits a byte, and where it ends."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(message):
            raise ValueError("it is cut short")
        byte = message[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise ValueError("a number in it does not end")


def number_of(whole: memoryview) -> int:
    """The number that a field of `fields` holds, given all its bytes."""
    _, inside = _varint(whole, 0)
    return _varint(whole, inside)[0]


def write_bytes(number: int, content: bytes | memoryview) -> bytes:
    """A field that holds text, bytes or another message."""
    return _number(number << 3 | _BYTES) + _number(len(content)) + bytes(content)


def write_number(number: int, value: int) -> bytes:
    """A field that holds a number, at least 0."""
    return _number(number << 3 | _VARINT) + _number(value)


def _number(value: int) -> bytes:
    written = bytearray()
    while value > 0x7F:
        written.append(value & 0x7F | 0x80)
        value >>= 7
    written.append(value)
    return bytes(written)
