"""Damage that keeps a file readable as ONNX: what random bytes hardly ever do, and an attacker does."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import onnx
from onnx import TensorProto, helper

_ODD_INTEGERS = (-(2**63), -(2**31), -2, -1, 0, 1, 3, 255, 2**20, 2**31 - 1, 2**40, 2**63 - 1)
_ODD_FLOATS = (float("nan"), float("inf"), -float("inf"), 0.0, 1e38, -1.0)
_FOREIGN_FILES = ("../../../../etc/passwd", "/dev/zero", "/etc/hostname", "model.json", "", "\x00")
_DEEP = 2000

Change = Callable[[Random, onnx.ModelProto], None]


def change_dimension(random: Random, model: onnx.ModelProto) -> None:
    """A constant or an input says another size."""
    tensor = random.choice(model.graph.initializer)
    if tensor.dims and random.random() < 0.7:
        tensor.dims[random.randrange(len(tensor.dims))] = random.choice(_ODD_INTEGERS)
    elif random.random() < 0.5:
        tensor.dims.append(random.choice(_ODD_INTEGERS))
    else:
        dim = random.choice(model.graph.input[0].type.tensor_type.shape.dim)
        dim.dim_value = random.choice(_ODD_INTEGERS)


def change_type(random: Random, model: onnx.ModelProto) -> None:
    """A constant is said to be of another type."""
    random.choice(model.graph.initializer).data_type = random.choice([-1, *range(30), 1000])


def change_values(random: Random, model: onnx.ModelProto) -> None:
    """A constant holds other bytes, too few, or too many: shapes and axes are constants too."""
    tensor = random.choice(model.graph.initializer)
    size = random.choice([0, len(tensor.raw_data), len(tensor.raw_data) * 2, 1])
    tensor.raw_data = random.choice([random.randbytes(size), b"\xff" * size, b"\x7f" * size])


def change_attribute(random: Random, model: onnx.ModelProto) -> None:
    """An attribute of a node, also in the function's body, takes an odd value."""
    nodes = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    chosen = random.choice([node for node in nodes if node.attribute])
    attribute = random.choice(chosen.attribute)
    attribute.i = random.choice(_ODD_INTEGERS)
    attribute.f = random.choice(_ODD_FLOATS)
    if attribute.ints:
        attribute.ints[random.randrange(len(attribute.ints))] = random.choice(_ODD_INTEGERS)
        if random.random() < 0.3:
            attribute.ints.extend([random.choice(_ODD_INTEGERS)] * random.choice([1, 1000]))
    if random.random() < 0.1:
        attribute.type = random.randrange(15)


def rewire(random: Random, model: onnx.ModelProto) -> None:
    """A node reads another value: loops, other ranks, none."""
    nodes = [*model.graph.node, *(node for f in model.functions for node in f.node)]
    names = ["", "nowhere", *(name for node in nodes for name in (*node.input, *node.output))]
    node = random.choice([node for node in nodes if node.input])
    node.input[random.randrange(len(node.input))] = random.choice(names)
    if random.random() < 0.2:
        node.output[0] = random.choice(names)


def change_operator(random: Random, model: onnx.ModelProto) -> None:
    """A node becomes another one, or goes, or comes twice."""
    node = random.choice(model.graph.node)
    kind = random.randrange(3)
    if kind == 0:
        node.op_type = random.choice(
            ["Gather", "Loop", "If", "Scan", "Resize", "Tile", "Expand", "Slice", "Pad", "Conv",
             "MatMul", "Gemm", "CmlrAttention", "LSTM", "Einsum", "QLinearConv", "NonZero"]
        )  # fmt: skip
    elif kind == 1:
        model.graph.node.remove(node)
    else:
        model.graph.node.append(node)


def ask_for_memory(random: Random, model: onnx.ModelProto) -> None:
    """The scores come from a tensor larger than any memory."""
    size = random.choice([2**33, 2**40, 2**62])
    node = helper.make_node("ConstantOfShape", ["much"], ["ocean"])
    model.graph.initializer.append(helper.make_tensor("much", TensorProto.INT64, [2], [3, size]))
    model.graph.node.insert(0, node)
    last = model.graph.node[-1]
    last.input[random.randrange(len(last.input))] = "ocean"


def point_outside(random: Random, model: onnx.ModelProto) -> None:
    """A constant lies in another file."""
    tensor = random.choice(model.graph.initializer)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (
        ("location", random.choice(_FOREIGN_FILES)),
        ("offset", random.choice(["0", "-1", "9" * 30])),
        ("length", random.choice(["64", "-1", "9" * 30])),
    ):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value


def call_itself(random: Random, model: onnx.ModelProto) -> None:
    """The function's body calls the function."""
    function = random.choice(model.functions)
    outputs = [f"{name}.again" for name in function.output]
    node = helper.make_node(function.name, list(function.input), outputs, domain=function.domain)
    function.node.append(node)
    opset = function.opset_import.add()
    opset.domain, opset.version = function.domain, 1


def branch_deeply(random: Random, model: onnx.ModelProto) -> None:
    """A branch in a branch in a branch."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["frames"], ["o"])],
        "g",
        [],
        [helper.make_tensor_value_info("o", TensorProto.UINT8, None)],
    ).SerializeToString()
    condition = helper.make_tensor("yes", TensorProto.BOOL, [], [1])
    model.graph.initializer.append(condition)
    for _ in range(random.choice([20, 45, 90, _DEEP])):
        graph = onnx.GraphProto(name="g")
        node = graph.node.add(op_type="If", input=["yes"], output=["o"])
        for name in ("then_branch", "else_branch")[: random.choice([1, 1, 1, 2])]:
            attribute = node.attribute.add(name=name, type=onnx.AttributeProto.GRAPH)
            try:
                attribute.g.ParseFromString(inner)
            except Exception:  # noqa: BLE001 - deeper than this library reads
                break
        graph.output.add(name="o")
        if len(inner) > 2**20:
            break
        inner = graph.SerializeToString()
    outer = model.graph.node.add(op_type="If", input=["yes"], output=["unused"])
    outer.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH).g.name = "g"
    try:
        outer.attribute[0].g.ParseFromString(inner)
    except Exception:  # noqa: BLE001 - as above
        return


def loop_forever(random: Random, model: onnx.ModelProto) -> None:
    """A loop of more rounds than there is time for."""
    values = [helper.make_tensor_value_info(n, TensorProto.BOOL, []) for n in ("go", "on")]
    count = helper.make_tensor_value_info("i", TensorProto.INT64, [])
    node = helper.make_node("Identity", ["go"], ["on"])
    body = helper.make_graph([node], "body", [count, values[0]], [values[1]])
    rounds = random.choice([2**40, 2**62])
    model.graph.initializer.append(helper.make_tensor("rounds", TensorProto.INT64, [], [rounds]))
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [1]))
    loop = helper.make_node("Loop", ["rounds", "yes"], [], body=body)
    loop.output.append("")
    model.graph.node.insert(0, loop)


CHANGES: tuple[Change, ...] = (
    change_dimension,
    change_type,
    change_values,
    change_attribute,
    change_attribute,
    rewire,
    rewire,
    change_operator,
    ask_for_memory,
    point_outside,
    call_itself,
    branch_deeply,
    loop_forever,
)


def _mutation(change: Change) -> Callable[[Random, bytes, bytes], bytes]:
    def mutate(random: Random, content: bytes, other: bytes) -> bytes:
        del other
        model = onnx.load_model_from_string(content)
        for _ in range(random.choice([1, 1, 2])):
            change(random, model)
        result: bytes = model.SerializeToString()
        return result

    mutate.__name__ = change.__name__
    return mutate


OF_ONNX = tuple(_mutation(change) for change in CHANGES)
