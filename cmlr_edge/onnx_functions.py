"""Takes the body of an operator out of an ONNX file, without the onnx package.

Where a node of our operator has a body, TensorRT before 10.7 takes that and not our plugin.
"""

from __future__ import annotations

from collections.abc import Iterator

from cmlr_edge.errors import EngineError

_FUNCTIONS, _NAME = 25, 1  # numbers of fields: in ModelProto, in FunctionProto
_FIXED_BYTES = {1: 8, 5: 4}  # by wire type; 0 is a varint, 2 has its length in front


def without_function(content: bytes, name: str) -> bytes:
    """Return the file without the function `name`; its nodes then need a plugin.

    Raises:
        EngineError: It is not a protocol buffer.
    """

    def is_wanted(number: int, value: bytes) -> bool:
        return number == _FUNCTIONS and (_NAME, name.encode()) in [
            (inner, text) for inner, text, _ in _fields(value)
        ]

    return b"".join(
        whole for number, value, whole in _fields(content) if not is_wanted(number, value)
    )


def _fields(content: bytes) -> Iterator[tuple[int, bytes, bytes]]:
    """Number, value and all bytes of every field of a message."""
    position = 0
    while position < len(content):
        start = position
        tag, position = _varint(content, position)
        wire_type, inside = tag & 7, position
        if wire_type == 0:
            _, position = _varint(content, position)
        elif wire_type == 2:
            size, inside = _varint(content, position)
            position = inside + size
        elif wire_type in _FIXED_BYTES:
            position += _FIXED_BYTES[wire_type]
        else:
            raise EngineError("not an ONNX file: export the model again")
        if position > len(content):
            raise EngineError("the ONNX file ends early: copy it again")
        yield tag >> 3, content[inside:position], content[start:position]


def _varint(content: bytes, position: int) -> tuple[int, int]:
    """A number, seven bits a byte, and the position behind it."""
    value = 0
    for shift in range(0, 70, 7):
        if position >= len(content):
            raise EngineError("the ONNX file ends early: copy it again")
        byte = content[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
    raise EngineError("not an ONNX file: export the model again")
