"""Takes the body of an operator out of an ONNX file, without the onnx package.

Where a node of our operator has a body, TensorRT before 10.7 takes that and not our plugin.
"""

from __future__ import annotations

from cmlr_edge.errors import EngineError
from cmlr_edge.model.protobuf import fields

_FUNCTIONS, _NAME = 25, 1  # numbers of fields: in ModelProto, in FunctionProto


def without_function(content: bytes, name: str) -> bytes:
    """Return the file without the function `name`; its nodes then need a plugin.

    Raises:
        EngineError: It is not a protocol buffer.
    """

    def is_wanted(number: int, value: memoryview) -> bool:
        return number == _FUNCTIONS and any(
            (inner, bytes(text)) == (_NAME, name.encode()) for inner, text, _ in fields(value)
        )

    try:
        return b"".join(
            whole
            for number, value, whole in fields(memoryview(content))
            if not is_wanted(number, value)
        )
    except ValueError as error:
        raise EngineError(f"not an ONNX file: {error}. Export the model again") from error
