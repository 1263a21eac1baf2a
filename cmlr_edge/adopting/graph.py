"""Puts a foreign model behind our input, uint8 frames, and before our output, probabilities."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from cmlr_edge.adopting.foreign import Foreign
from cmlr_edge.adopting.recipe import Activation, Recipe
from cmlr_edge.errors import EngineError
from cmlr_edge.model.spec import INPUT_NAME, OUTPUT_NAME

if TYPE_CHECKING:
    import onnx

_PREFIX = "adopted/"
_LUMA = (0.299, 0.587, 0.114)  # of grey, as Pillow and OpenCV have it
_BATCH = "batch"
_FLOAT = 1
_OLDEST_OPSET = 7


def wrap(
    foreign: Foreign,
    recipe: Recipe,
    output: str,
    num_labels: int,
    activation: Activation,
    *,
    any_batch: bool,
) -> onnx.ModelProto:
    """Return a model of our signature around a copy of the foreign one.

    Args:
        foreign: Stays as it is.
        recipe: All settings of its input.
        output: With the scores.
        num_labels: How many there are.
        activation: To put behind it.
        any_batch: Let it take any number of frames; whether that works has to be tried.

    Raises:
        EngineError: Its operators are too old.
    """
    import onnx
    from onnx import compose, helper

    body = onnx.ModelProto()
    body.CopyFrom(foreign.model)
    opset = {item.domain: item.version for item in body.opset_import}.get("", 0)
    if opset < _OLDEST_OPSET:
        raise EngineError(
            f"{foreign.path.name} has operators of version {opset}: expected at least "
            f"{_OLDEST_OPSET}; export it again, or convert it with onnx.version_converter"
        )
    if any_batch:
        _free_batch(body, foreign.input_dims[0] or 1)
    body = compose.add_prefix(body, _PREFIX)
    graph = body.graph
    before, constants = _input_nodes(foreign, recipe, graph.input[0].name)
    after, more = _output_nodes(f"{_PREFIX}{output}", num_labels, activation)
    nodes = [*before, *graph.node, *after]
    del graph.node[:], graph.input[:], graph.output[:], graph.value_info[:]
    graph.node.extend(nodes)
    graph.initializer.extend([*constants, *more])
    batch: Any = _BATCH if any_batch else 1
    graph.input.append(
        helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.UINT8, [batch, *recipe.size, 3])
    )
    graph.output.append(helper.make_tensor_value_info(OUTPUT_NAME, _FLOAT, [batch, num_labels]))
    body.doc_string = ""
    return body


def _free_batch(model: onnx.ModelProto, number: int) -> None:
    """Let what was exported for so many pictures take any: its shapes say the number for the batch."""
    from onnx import numpy_helper

    shapes = {t.name: t for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
            shapes[node.output[0]] = node.attribute[0].t
    for node in model.graph.node:
        if node.op_type != "Reshape" or len(node.input) != 2 or node.input[1] not in shapes:
            continue
        tensor = shapes[node.input[1]]
        values = numpy_helper.to_array(tensor).copy()
        if values.size >= 2 and values[0] == number:
            values[0] = 0 if -1 in values else -1  # as many as come, or what is left
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for item in (*model.graph.input, *model.graph.output):
        if item.type.tensor_type.shape.dim:
            item.type.tensor_type.shape.dim[0].dim_param = _BATCH


def _input_nodes(foreign: Foreign, recipe: Recipe, name: str) -> tuple[list[Any], list[Any]]:
    """From frames, uint8 (N, H, W, 3) RGB, to what the model takes under `name`."""
    from onnx import helper, numpy_helper

    # Everything is done as the pixels lie; the transpose at the end is what runtimes drop.
    nodes, constants, at = [], [], "our/pixels"
    nodes.append(helper.make_node("Cast", [INPUT_NAME], [at], to=_FLOAT))

    def apply(operation: str, value: Any, **settings: Any) -> None:
        nonlocal at
        inputs, number = [at], len(nodes)
        if value is not None:
            constants.append(numpy_helper.from_array(value, f"our/constant{number}"))
            inputs.append(constants[-1].name)
        at = f"our/input{number}"
        nodes.append(helper.make_node(operation, inputs, [at], **settings))

    assert recipe.layout is not None
    channels = foreign.num_channels(recipe.layout)
    if channels == 1:
        apply("MatMul", np.array(_LUMA, np.float32).reshape(3, 1))
    elif recipe.color == "bgr":
        apply("Gather", np.array([2, 1, 0], np.int64), axis=3)
    mean, std = (np.array(v)[:channels] for v in recipe.scale)
    scales = not np.allclose(std * 255, 1, rtol=1e-12)
    if foreign.type_name == "uint8" and (mean.any() or scales):
        raise EngineError(
            f"{foreign.path.name} takes uint8, pixels as they are: say --preprocess 0..255"
        )
    # Constants of a row of pixels: ONNX Runtime repeats three numbers far more slowly than a row.
    row = (recipe.size[1], 1)
    if mean.any():
        apply("Sub", np.tile((mean * 255).astype(np.float32), row))
    if scales:
        apply("Mul", np.tile((1 / (std * 255)).astype(np.float32), row))
    if recipe.layout == "nchw" and len(foreign.input_dims) == 4:
        apply("Transpose", None, perm=[0, 3, 1, 2])
    if len(foreign.input_dims) == 2:
        apply("Reshape", np.array([-1, int(np.prod(recipe.size)) * 3], np.int64))
    nodes.append(helper.make_node("Cast", [at], [name], to=foreign.input_type))
    return nodes, constants


def _output_nodes(
    name: str, num_labels: int, activation: Activation
) -> tuple[list[Any], list[Any]]:
    """From the model's scores, of any shape and float type, to probabilities (N, L)."""
    from onnx import helper, numpy_helper

    shape = numpy_helper.from_array(np.array([-1, num_labels], np.int64), "our/shape")
    nodes = [
        helper.make_node("Cast", [name], ["our/wide"], to=_FLOAT),
        helper.make_node(
            "Reshape",
            ["our/wide", "our/shape"],
            [OUTPUT_NAME if activation == "none" else "our/raw"],
        ),
    ]
    if activation == "softmax":
        nodes.append(helper.make_node("Softmax", ["our/raw"], [OUTPUT_NAME], axis=1))
    if activation == "sigmoid":
        nodes.append(helper.make_node("Sigmoid", ["our/raw"], [OUTPUT_NAME]))
    return nodes, [shape]
