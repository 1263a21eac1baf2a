"""Models that cannot be adopted: one line each, which says why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from benchmarks.adoption.small import LABELS, keras, small
from cmlr_edge.adopting.adopt import Adoption, Wishes
from cmlr_edge.adopting.recipe import parse_recipe
from cmlr_edge.errors import EngineError, SpecError

WISHES = Wishes(labels=LABELS)


def _without_labels(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    return path, Wishes()


def _too_few_labels(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    return path, Wishes(labels=LABELS[1:])


def _any_size(path: Path) -> tuple[Path, Wishes]:
    small(path, ("x", ["N", 3, "H", "W"]), "y")
    return path, WISHES


def _another_size(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    return path, Wishes(parse_recipe("size=100x50"), LABELS)


def _no_onnx(path: Path) -> tuple[Path, Wishes]:
    path.write_bytes(b"\x89PNG\r\n\x1a\n" * 40)
    return path, WISHES


def _missing(path: Path) -> tuple[Path, Wishes]:
    return path, WISHES


def _five_channels(path: Path) -> tuple[Path, Wishes]:
    small(path, ("x", ["N", 5, 32, 32]), "y")
    return path, WISHES


def _constants_elsewhere(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    model = onnx.load(path)
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = tensor.EXTERNAL
    for key, value in {"location": "../../../../etc/passwd", "length": "800"}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    path.write_bytes(model.SerializeToString())
    return path, WISHES


def _loop(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    model = onnx.load(path)
    body = helper.make_graph([], "body", [], [])
    model.graph.node.append(helper.make_node("Loop", [], ["never"], body=body))
    path.write_bytes(model.SerializeToString())
    return path, WISHES


def _two_inputs(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    model = onnx.load(path)
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    path.write_bytes(model.SerializeToString())
    return path, WISHES


def _a_million_at_a_time(path: Path) -> tuple[Path, Wishes]:
    small(path, ("x", [10**9, 3, 32, 32]), "y")
    return path, WISHES


def _operators_to_come(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    model = onnx.load(path)
    model.opset_import[0].version = 999
    path.write_bytes(model.SerializeToString())
    return path, WISHES


def _functions_without_end(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    model = onnx.load(path)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for i in range(40):  # each calls the next one twice
        calls = [helper.make_node(f"F{i + 1}", [a], [b], domain="own") for a, b in ("xy", "yz")]
        model.functions.append(helper.make_function("own", f"F{i}", ["x"], ["z"], calls, opsets))
    model.opset_import.append(opsets[1])
    model.graph.node.insert(
        0, helper.make_node("F0", [model.graph.input[0].name], ["never"], domain="own")
    )
    path.write_bytes(model.SerializeToString())
    return path, WISHES


def _over_the_batch(path: Path) -> tuple[Path, Wishes]:
    model = small(path, ("x", ["n", 3, 64, 64]), "y")
    [last] = [node for node in model.graph.node if node.op_type == "Softmax"]
    del last.attribute[:]
    last.attribute.append(helper.make_attribute("axis", 0))
    onnx.save(model, path)
    return path, WISHES


def _weights_of_nan(path: Path) -> tuple[Path, Wishes]:
    keras().write(path)
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.float32:
            tensor.CopyFrom(onnx.numpy_helper.from_array(values * np.nan, tensor.name))
    path.write_bytes(model.SerializeToString())
    return path, WISHES


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_functions_without_end, r"calls functions that are 1\.1e\+12 operations"),
        (_weights_of_nan, "scores that are no numbers"),
        (_over_the_batch, "same scores for 4 different pictures, 1 of the first label"),
        (_a_million_at_a_time, "takes 1000000000 pictures of .* at a time"),
        (_operators_to_come, r"^ONNX Runtime cannot load [^\n]*$"),
        (_without_labels, "gives 10 scores and no names: give --labels"),
        (_too_few_labels, "10 scores for 9 labels; its first class may be the background"),
        (_any_size, "any size: say --preprocess size=224"),
        (_another_size, "takes pictures of 160x160, not of 100x50"),
        (_no_onnx, "cannot be read as ONNX"),
        (_missing, "cannot be read: No such file"),
        (_five_channels, r"say --preprocess nchw or nhwc"),
        (_constants_elsewhere, "expected a file beside it"),
        (_loop, "branch or loop"),
        (_two_inputs, "expected one input"),
    ],
)
def test_what_cannot_be_adopted_is_one_line_that_says_why(
    make: Callable[[Path], tuple[Path, Wishes]], message: str, tmp_path: Path
) -> None:
    path, wishes = make(tmp_path / "model.onnx")
    with pytest.raises((SpecError, EngineError), match=message) as raised:
        Adoption(path, wishes)
    assert "\n" not in str(raised.value)
