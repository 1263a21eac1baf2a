"""Adds labels to an ONNX file without the `onnx` package, and takes them away again.

The nodes and constants of the file stay as they are, byte for byte; what is appended reads the tokens that
the graph computes anyway. Alone the node that gave the scores gives them under another name, and the
shape of the output is wider. Both are undone by `without_rows`, so that the file proves what it was made of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cmlr_edge.backends.onnx_writing import (
    ADDED,
    CONSTANT,
    FLOAT,
    NODE,
    write_constant,
    write_node,
)
from cmlr_edge.errors import EngineError
from cmlr_edge.model.protobuf import fields, number_of, write_bytes, write_number
from cmlr_edge.model.spec import OUTPUT_NAME

if TYPE_CHECKING:
    from numpy.typing import NDArray

TOKENS = "tokens"  # what export calls what the backbone gives the head, (N, T, D)
_OURS = ADDED.encode()
_SCORES, _FORMER = OUTPUT_NAME.encode(), b"added/former_scores"
_HEAD = b"head."  # begins the names of the head's constants in files of an export without TOKENS
_PARTS = ("evidence", "attention", "mean", "bias")
_POOLED = (b"ReduceMean", b"ReduceMax")
_MIN_OPSET = 18
# Numbers of fields in onnx.proto.
_GRAPH, _OPSET = 7, 8
_INPUT, _OUTPUT, _VALUE = 11, 12, 13
_FLOAT16 = 10
_Field = tuple[int, memoryview, memoryview]


@dataclass(frozen=True)
class Tokens:
    """What a graph knows of a picture before it says which labels are there.

    One more reader of a value can change how a runtime computes what reads it already, in the last bit: so
    there may be several places to read from, and whoever adds labels compares scores.
    """

    name: str
    number: int  # T
    width: int  # D
    narrow: bool  # float16
    turned: bool  # (N, D, T), before the graph transposes it; else (N, T, D)

    def of(self, flat: NDArray[np.float32]) -> NDArray[np.float32]:
        """Tokens (N, T, D) from what the file of `features_of` returns."""
        shape = (self.width, self.number) if self.turned else (self.number, self.width)
        found: NDArray[np.float32] = flat.reshape(-1, *shape)
        return found.transpose(0, 2, 1) if self.turned else found


@dataclass(frozen=True)
class Row:
    """How one further label is read off tokens, everything float32.

    With tokens x_t: logit = sum_t softmax_t(x_t . attention) (x_t . evidence) + mean_t x_t . mean + bias.
    """

    evidence: NDArray[np.float32]  # (D,)
    attention: NDArray[np.float32]  # (D,)
    mean: NDArray[np.float32]  # (D,)
    bias: float


@dataclass(frozen=True)
class _Node:
    op: bytes
    name: bytes
    inputs: tuple[bytes, ...]
    outputs: tuple[bytes, ...]


def find_tokens(content: bytes, name: str) -> list[Tokens]:
    """Look up what a further label can be read off, the place that is least in the way first.

    Args:
        content: An ONNX file.
        name: Of the file, for messages.

    Raises:
        EngineError: It is no file of ours, or was exported so that its tokens cannot be told.
    """
    with _reading(name):
        graph = _Graph.of(content)
        found = graph.tokens()
    if isinstance(found, str):
        raise EngineError(f"{name} cannot be taught: {found}. Export the model again")
    return found


def features_of(content: bytes, tokens: Tokens, name: str) -> bytes:
    """The file with its tokens, (N, T * D) as float32, in the place of the scores.

    Raises:
        EngineError: As `find_tokens`.
    """
    with _reading(name):
        graph = _Graph.of(content)
        nodes = [
            write_node("Cast", [tokens.name], ["added/wide"], to=FLOAT),
            write_node("Reshape", ["added/wide", "added/flat"], [OUTPUT_NAME]),
        ]
        constants = [write_constant("added/flat", np.array([0, -1], np.int64))]
        return graph.rebuilt([*nodes, *constants], tokens.number * tokens.width)


def with_rows(
    content: bytes, rows: Sequence[Row], num_labels: int, name: str, tokens: Tokens
) -> bytes:
    """Append labels to a file that has none appended.

    Each has nodes of its own, so that no label's score depends on which others there are.

    Args:
        content: An ONNX file.
        rows: Of the further labels; without any the file stays as it is.
        num_labels: That the file has.
        name: Of the file, for messages.
        tokens: One of `find_tokens`.

    Raises:
        EngineError: It is no ONNX file of ours, or could not be had back from what was written.
    """
    with _reading(name):
        added = content
        if rows:
            parts = _row_parts(tokens, rows)
            added = _Graph.of(content).rebuilt(parts, num_labels + len(rows))
        back = without_rows(added, num_labels, name)
    if back != content:
        raise EngineError(f"{name} is written as none of ours is: export the model again")
    return added


def without_rows(content: bytes, num_labels: int, name: str) -> bytes:
    """Take away what `with_rows` appended; `num_labels` are left.

    Raises:
        EngineError: It is no ONNX file.
    """
    with _reading(name):
        return _Graph.of(content).rebuilt([], num_labels, back=True)


def rows_of(content: bytes, count: int, name: str) -> list[Row]:
    """Read back what `with_rows` appended.

    Raises:
        EngineError: So many labels were not appended to it.
    """
    with _reading(name):
        found = dict(_Graph.of(content).constants())
        rows = []
        for i in range(count):
            parts = (np.frombuffer(found[_key(i, part)], "<f4") for part in _PARTS)
            evidence, attention, mean, bias = parts
            rows.append(Row(evidence, attention, mean, float(bias[0])))
        return rows


@contextmanager
def _reading(name: str) -> Iterator[None]:
    """Turn what a damaged file raises into an error of ours."""
    try:
        yield
    except (ValueError, KeyError, IndexError) as error:
        raise EngineError(
            f"{name} is not an ONNX file of ours: {error}. Export the model again"
        ) from error


@dataclass(frozen=True)
class _Graph:
    """A model taken apart into its graph and the rest."""

    model: list[_Field]
    parts: list[_Field]  # of the graph

    @classmethod
    def of(cls, content: bytes) -> _Graph:
        model = [*fields(memoryview(content))]
        graphs = [value for number, value, _ in model if number == _GRAPH]
        if len(graphs) != 1:
            raise ValueError(f"{len(graphs)} graphs are in it")
        return cls(model, [*fields(graphs[0])])

    def nodes(self) -> Iterator[_Node]:
        for number, value, _ in self.parts:
            if number == NODE:
                yield _read_node(value)

    def constants(self) -> Iterator[tuple[str, bytes]]:
        """Name and content of what was appended."""
        for number, value, _ in self.parts:
            if number == CONSTANT and (name := _name(number, value)).startswith(_OURS):
                raw = next((bytes(v) for n, v, _ in fields(value) if n == 9), b"")
                yield name.decode(), raw

    def values(self) -> Iterator[tuple[bytes, int, list[int]]]:
        """Name, type and sizes of what the file says; 0 for a size that varies."""
        for number, value, _ in self.parts:
            if number in {_INPUT, _OUTPUT, _VALUE}:
                yield _read_value(value)

    def tokens(self) -> list[Tokens] | str:
        """Find them, or say why not."""
        nodes = [*self.nodes()]
        if any(node.name.startswith(_OURS) for node in nodes):
            return "labels were added to it already"
        if sum(_SCORES in node.outputs for node in nodes) != 1 or any(
            _SCORES in node.inputs for node in nodes
        ):
            return f"{OUTPUT_NAME!r} does not come last in it"
        if max(self._opsets(), default=0) < _MIN_OPSET:
            return f"it is written for operators older than those of ONNX opset {_MIN_OPSET}"
        known = {name: (kind, sizes) for name, kind, sizes in self.values()}
        name = TOKENS.encode()
        if not any(name in node.outputs for node in nodes):
            name = _first_of_head(nodes)
        kind, sizes = known.get(name, (0, []))
        if kind not in {FLOAT, _FLOAT16} or len(sizes) != 3 or min(sizes[1:]) < 1:
            return "it does not say which of its values are the tokens of a picture"
        shape = sizes[1], sizes[2], kind == _FLOAT16
        maker = next((node for node in nodes if name in node.outputs), None)
        turned = maker is not None and maker.op == b"Transpose" and len(maker.inputs) == 1
        before = [Tokens(maker.inputs[0].decode(), *shape, turned=True)] if maker and turned else []
        return [*before, Tokens(name.decode(), *shape, turned=False)]

    def _opsets(self) -> Iterator[int]:
        for number, value, _ in self.model:
            if number == _OPSET:
                inner = [*fields(value)]
                if not any(n == 1 and len(v) for n, v, _ in inner):
                    yield from (number_of(whole) for n, _, whole in inner if n == 2)

    def rebuilt(self, added: Sequence[bytes], num_scores: int, *, back: bool = False) -> bytes:
        """Write the model, its scores renamed and followed by what is added; or undo that."""
        old, new = (_FORMER, _SCORES) if back else (_SCORES, _FORMER)
        parts: list[bytes | memoryview] = []
        for number, value, whole in self.parts:
            if number in {NODE, CONSTANT} and back and _name(number, value).startswith(_OURS):
                continue
            if number == NODE:
                parts.append(_renamed(value, whole, old, new))
            elif number == _OUTPUT and _read_value(value)[0] == _SCORES:
                parts.append(write_bytes(_OUTPUT, _resized(value, num_scores)))
            else:
                parts.append(whole)
        graph = write_bytes(_GRAPH, b"".join([*parts, *added]))
        return b"".join(graph if number == _GRAPH else whole for number, _, whole in self.model)


def _first_of_head(nodes: Sequence[_Node]) -> bytes:
    """What the first node of the head reads, before it was pooled."""
    made_by = {output: node for node in nodes for output in node.outputs}
    first = next(
        (n for n in nodes if n.op != b"Cast" and any(x.startswith(_HEAD) for x in n.inputs)), None
    )
    if first is None:
        return b""
    name = first.inputs[0]
    pooled = made_by.get(name)
    return pooled.inputs[0] if pooled is not None and pooled.op in _POOLED else name


def _read_node(message: memoryview) -> _Node:
    texts: dict[int, list[bytes]] = {1: [], 2: [], 3: [], 4: []}
    for number, value, _ in fields(message):
        if number in texts:
            texts[number].append(bytes(value))
    inputs, outputs, name, op = (tuple(texts[i]) for i in (1, 2, 3, 4))
    return _Node(b"".join(op), b"".join(name), inputs, outputs)


def _name(kind: int, message: memoryview) -> bytes:
    wanted = 3 if kind == NODE else 8
    return next((bytes(value) for number, value, _ in fields(message) if number == wanted), b"")


def _read_value(message: memoryview) -> tuple[bytes, int, list[int]]:
    name, kind, sizes = b"", 0, []
    for number, value, _ in fields(message):
        name = bytes(value) if number == 1 else name
        for inner, tensor, _ in fields(value) if number == 2 else ():
            for what, found, whole in fields(tensor) if inner == 1 else ():
                if what == 1:
                    kind = number_of(whole)
                if what == 2:
                    sizes = [_size(dimension) for n, dimension, _ in fields(found) if n == 1]
    return name, kind, sizes


def _size(dimension: memoryview) -> int:
    return next((number_of(whole) for number, _, whole in fields(dimension) if number == 1), 0)


def _renamed(node: memoryview, whole: memoryview, old: bytes, new: bytes) -> bytes | memoryview:
    parts = [*fields(node)]
    if not any(number == 2 and value == old for number, value, _ in parts):
        return whole
    written = (
        write_bytes(2, new) if number == 2 and value == old else part
        for number, value, part in parts
    )
    return write_bytes(NODE, b"".join(written))


def _resized(output: memoryview, last: int) -> bytes:
    """The description of the scores with another number of them."""

    def dimensions(shape: memoryview) -> bytes:
        sizes = [part for _, part, _ in fields(shape)]
        return b"".join(write_bytes(1, size) for size in sizes[:-1]) + write_bytes(
            1, write_number(1, last)
        )

    def tensor(message: memoryview) -> bytes:
        return _mapped(message, 2, dimensions)

    return _mapped(output, 2, lambda kind: _mapped(kind, 1, tensor))


def _mapped(message: memoryview, wanted: int, change: Callable[[memoryview], bytes]) -> bytes:
    return b"".join(
        write_bytes(number, change(value)) if number == wanted else whole
        for number, value, whole in fields(message)
    )


def _row_parts(tokens: Tokens, rows: Sequence[Row]) -> list[bytes]:
    wide, over, axis = "added/wide", "added/over_tokens", 2 if tokens.turned else 1
    parts = [
        write_node("Cast", [tokens.name], [wide], to=FLOAT),
        write_node("ReduceMean", [wide, over], ["added/pooled"], keepdims=0),
        write_constant(over, np.array([axis], np.int64)),
        write_constant("added/over_shares", np.array([1, 2], np.int64)),
        write_constant("added/column", np.array([-1, 1], np.int64)),
    ]
    logits = []
    for i, row in enumerate(rows):
        side = (1, -1) if tokens.turned else (-1, 1)
        looks = [np.reshape(part, side) for part in (row.evidence, row.attention)]
        values = [*looks, np.reshape(row.mean, (-1, 1)), np.array([row.bias])]
        for part, array in zip(_PARTS, values, strict=True):
            parts.append(write_constant(_key(i, part), array.astype(np.float32)))
        parts += _nodes_of(i, wide, axis, turned=tokens.turned)
        logits.append(_key(i, "logit"))
    return [
        *parts,
        write_node("Concat", logits, ["added/logits"], axis=1),
        write_node("Sigmoid", ["added/logits"], ["added/scores"]),
        write_node("Concat", [_FORMER.decode(), "added/scores"], [OUTPUT_NAME], axis=1),
    ]


def _nodes_of(i: int, wide: str, axis: int, *, turned: bool) -> list[bytes]:
    def at(part: str) -> str:
        return _key(i, part)

    def product(part: str) -> list[str]:
        return [at(part), wide] if turned else [wide, at(part)]

    return [
        write_node("MatMul", product("evidence"), [at("says")]),
        write_node("MatMul", product("attention"), [at("looks")]),
        write_node("Softmax", [at("looks")], [at("shares")], axis=axis),
        write_node("Mul", [at("says"), at("shares")], [at("votes")]),
        # Of (N, 1, T) or (N, T, 1), so that one number is left for each picture.
        write_node("ReduceSum", [at("votes"), "added/over_shares"], [at("total")], keepdims=0),
        write_node("Reshape", [at("total"), "added/column"], [at("found")]),
        write_node("MatMul", ["added/pooled", at("mean")], [at("around")]),
        write_node("Add", [at("found"), at("around")], [at("sum")]),
        write_node("Add", [at("sum"), at("bias")], [at("logit")]),
    ]


def _key(i: int, part: str) -> str:
    return f"added/{i}/{part}"
