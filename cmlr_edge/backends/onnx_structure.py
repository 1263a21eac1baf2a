"""A look into an ONNX file before any runtime does, without the `onnx` package.

An exported graph is a plain list of nodes. What it never has can hang a runtime, overflow its stack
or read other files: loops, branches, functions that call functions, and constants kept elsewhere.
"""

from __future__ import annotations

from cmlr_edge.errors import EngineError
from cmlr_edge.model.protobuf import fields

# Field numbers of onnx.proto: of messages to look into, by the message that they are in.
_FIELDS = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "function node", 11: "attribute"},
    "node": {5: "attribute"},
    "function node": {5: "attribute"},
    "attribute": {5: "tensor", 10: "tensor"},
    "tensor": {},
}
# Of what is refused.
_FOREIGN = {
    "model": {20: "training steps"},
    "graph": {15: "sparse constants"},
    "attribute": {
        6: "a branch or loop",
        11: "branches or loops",
        22: "a sparse constant",
        23: "sparse constants",
    },
    "tensor": {13: "a constant in another file"},
}
_NODE_INPUT, _NODE_DOMAIN, _FUNCTION_DOMAIN = 1, 7, 10
_STANDARD = (b"", b"ai.onnx")


def check_structure(content: bytes, name: str) -> None:
    """Refuse an ONNX file that is damaged or holds what export never writes.

    Args:
        content: The file.
        name: For messages.

    Raises:
        EngineError: What was found.
    """
    todo = [("model", memoryview(content))]
    has_graph = False
    try:
        while todo:
            kind, message = todo.pop()
            has_graph |= kind == "graph"
            domain, last_input = b"", b"none"
            for number, value, _ in fields(message):
                if what := _FOREIGN.get(kind, {}).get(number):
                    raise _foreign(name, what)
                if kind == "function node" and number == _NODE_DOMAIN and len(value):
                    raise _foreign(name, "a function that calls another")
                if kind == "function" and number == _FUNCTION_DOMAIN:
                    domain = bytes(value)
                if kind in {"node", "function node"} and number == _NODE_INPUT:
                    last_input = bytes(value)
                if below := _FIELDS[kind].get(number):
                    todo.append((below, value))
            if kind == "function" and domain in _STANDARD:
                raise _foreign(name, "a function in the place of a standard operator")
            if not last_input:  # ONNX Runtime 1.32 crashes on a float16 norm without its bias
                raise _foreign(name, "a node whose last input is missing")
    except ValueError as error:
        raise _damaged(name, str(error)) from error
    if not has_graph:
        raise _damaged(name, "there is no graph in it")


def _foreign(name: str, what: str) -> EngineError:
    return EngineError(
        f"{name} has {what}, which export never writes: it was not opened. Export the model again"
    )


def _damaged(name: str, why: str) -> EngineError:
    return EngineError(f"cannot load {name}, it is not an ONNX file: {why}. Export the model again")
