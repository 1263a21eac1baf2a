"""A foreign ONNX file: read whole, looked at before any runtime, and what it says of itself."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cmlr_edge.adopting.recipe import SCALES, Layout, Recipe
from cmlr_edge.backends.base import RuntimeErrors
from cmlr_edge.backends.onnx_structure import check_structure
from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.machine.needed import needed
from cmlr_edge.model.files import read_file

if TYPE_CHECKING:
    import onnx

_MAX_BYTES = 2**31 - 1  # of a protocol buffer
_FLOATS = {1: "float32", 10: "float16", 11: "float64"}  # of onnx.TensorProto
_UINT8 = 2
_MOST_OPERATIONS = 1_000_000  # of a model whose functions are written out
_FIRST_OPERATIONS = 6  # that may scale the pixels
_SCALING = {"Transpose", "Cast", "Mul", "Div", "Sub", "Add", "Identity"}


@dataclass(frozen=True)
class Foreign:
    """A classifier as it came; `model` is a copy that may be changed."""

    path: Path
    content: bytes  # whole, without functions or other files
    source_sha256: str
    model: onnx.ModelProto
    input_name: str
    input_type: int  # of onnx.TensorProto
    input_dims: tuple[int | None, ...]  # None: any
    outputs: dict[str, int]  # rank by name; -1: unknown
    metadata: dict[str, str]

    @property
    def type_name(self) -> str:
        """Of the input."""
        return "uint8" if self.input_type == _UINT8 else _FLOATS[self.input_type]

    @property
    def dtype(self) -> np.dtype[Any]:
        """NumPy's type of the input."""
        return np.dtype(self.type_name)

    def told(self) -> Recipe:
        """What the file itself says of its input."""
        return Recipe(layout=self._layout(), size_hw=self._size())

    def _layout(self) -> Layout | None:
        if len(self.input_dims) != 4:
            return "nhwc"  # rows of pixels one behind the other
        _, first, _, last = self.input_dims
        nchw, nhwc = first in {1, 3}, last in {1, 3}
        return None if nchw == nhwc else "nchw" if nchw else "nhwc"

    def _size(self) -> tuple[int, int] | None:
        if len(self.input_dims) == 4 and (layout := self._layout()):
            height, width = self.input_dims[2:] if layout == "nchw" else self.input_dims[1:3]
            if height and width:
                return height, width
        digits = "".join(c if c.isdecimal() else " " for c in self.metadata.get("imgsz", ""))
        sides = [int(part) for part in digits.split() if len(part) <= 5]
        return (sides[0], sides[-1]) if sides else None

    def num_channels(self, layout: Layout) -> int:
        """3, or 1 for grey.

        Raises:
            EngineError: Another number.
        """
        if len(self.input_dims) != 4:
            return 3
        channels = self.input_dims[1 if layout == "nchw" else 3]
        if channels not in {None, 1, 3}:
            raise EngineError(
                f"{self.path.name} takes {channels} channels ({layout}): a picture has 3, or 1 of grey"
            )
        return channels or 3

    def scales_itself(self) -> bool:
        """Whether its first operations divide pixels by 255, as Keras models often do."""
        values = {t.name: t for t in self.model.graph.initializer}
        for node in self.model.graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                values[node.output[0]] = node.attribute[0].t
        at = self.input_name
        for _ in range(_FIRST_OPERATIONS):
            readers = [node for node in self.model.graph.node if at in node.input]
            if len(readers) != 1 or readers[0].op_type not in _SCALING:
                return False
            node = readers[0]
            others = [values[name] for name in node.input if name in values]
            if node.op_type in {"Mul", "Div"} and others and _is_of_bytes(others[0], node.op_type):
                return True
            at = node.output[0]
        return False


def _is_of_bytes(tensor: onnx.TensorProto, operation: str) -> bool:
    from onnx import numpy_helper

    factor = numpy_helper.to_array(tensor).astype(np.float64).ravel()
    if not 1 <= factor.size <= 3 or not factor.all():
        return False
    divisor = factor if operation == "Div" else 1 / factor
    return bool(((divisor > 50) & (divisor < 300)).all())  # 127.5 and 255 over a std below 1


def read_foreign(path: Path) -> Foreign:
    """Read a classifier.

    Args:
        path: An ONNX file; constants in other files lie beside it.

    Raises:
        DependencyError: The package onnx is not installed.
        EngineError: It cannot be read, holds what no classifier needs, or is none.
    """
    onnx = _import_onnx()
    try:
        content = read_file(path)
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}") from error
    with RuntimeErrors(
        f"{path} cannot be read as ONNX"
    ):  # whatever a parser of damaged files raises
        model = onnx.load_model_from_string(content)
        _take_in_constants(model, path)
        if model.functions:
            _refuse_growth(model, path.name)
            model = onnx.inliner.inline_local_functions(model)
        _drop_what_says_nothing(model)
        whole: bytes = model.SerializeToString()
    check_structure(whole, path.name)
    from cmlr_edge.model.files import sha256_of

    return _described(path, whole, sha256_of(content), model)


def _described(path: Path, whole: bytes, sha256: str, model: onnx.ModelProto) -> Foreign:
    inputs = [*model.graph.input]
    if len(inputs) != 1:
        raise EngineError(
            f"{path.name} takes {[i.name for i in inputs]}: expected one input, a batch of pictures"
        )
    tensor = inputs[0].type.tensor_type
    # Some tools write -1 where they mean any.
    dims = tuple(d.dim_value if d.dim_value > 0 else None for d in tensor.shape.dim)
    if tensor.elem_type not in {*_FLOATS, _UINT8} or len(dims) not in {2, 4}:
        raise EngineError(
            f"{path.name} takes {inputs[0].name!r} of type {tensor.elem_type} and shape {dims}: "
            "expected pictures, float or uint8, (N, 3, H, W), (N, H, W, 3) or (N, H * W * 3)"
        )
    outputs = {
        item.name: len(item.type.tensor_type.shape.dim)
        if item.type.tensor_type.HasField("shape")
        else -1
        for item in model.graph.output
        if item.type.tensor_type.elem_type in _FLOATS
    }
    metadata = {item.key: item.value for item in model.metadata_props}
    return Foreign(
        path, whole, sha256, model, inputs[0].name, tensor.elem_type, dims, outputs, metadata
    )


def _import_onnx() -> Any:
    with needed(
        "to adopt a model the package onnx is needed and cannot be imported",
        "pip install 'cmlr-edge[adopt]'",
    ):
        import onnx
        import onnx.inliner
    return onnx


def _take_in_constants(model: onnx.ModelProto, path: Path) -> None:
    """Load constants that lie in files beside the model, and nowhere else."""
    from onnx import external_data_helper

    total = 0
    for tensor in external_data_helper._get_all_tensors(model):
        if not external_data_helper.uses_external_data(tensor):
            continue
        about = {item.key: item.value for item in tensor.external_data}
        place = path.parent / about.get("location", "")
        if (
            place.parent != path.parent
            or place.name in {"", ".", ".."}
            or place.is_symlink()
            or not place.is_file()
        ):
            raise EngineError(
                f"{path.name} wants constants from {repr(about.get('location', ''))[:80]}: expected "
                "a file beside it; copy both together"
            )
        total += int(about.get("length", 0)) or os.path.getsize(place)  # noqa: PTH202
        if total > _MAX_BYTES:
            raise EngineError(
                f"{path.name} has more than 2 GiB of constants: too many for one file"
            )
        external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]


def _refuse_growth(model: onnx.ModelProto, name: str) -> None:
    """Refuse functions that call each other until a few lines are billions of operations."""
    bodies = {(function.domain, function.name): function.node for function in model.functions}
    sizes: dict[tuple[str, str], int] = {}

    def size(nodes: Iterable[onnx.NodeProto], within: tuple[tuple[str, str], ...]) -> int:
        return sum(size_of((node.domain, node.op_type), within) for node in nodes)

    def size_of(key: tuple[str, str], within: tuple[tuple[str, str], ...]) -> int:
        if key not in bodies or key in within:  # a circle is refused by whoever inlines it
            return 1
        if key not in sizes:
            sizes[key] = size(bodies[key], (*within, key))
        return sizes[key]

    if (number := size(model.graph.node, ())) > _MOST_OPERATIONS:
        raise EngineError(f"{name} calls functions that are {number:.1e} operations: not opened")


def _drop_what_says_nothing(model: onnx.ModelProto) -> None:
    """Constants among inputs, optional inputs that are given and empty, the long name of ONNX's own domain."""
    for item in (*model.opset_import, *model.graph.node):
        if item.domain == "ai.onnx":
            item.domain = ""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [item for item in model.graph.input if item.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(model.ir_version, 4)  # before, constants had to be inputs
    for node in model.graph.node:
        while node.input and not node.input[-1]:
            del node.input[-1]


def choose_output(foreign: Foreign, wanted: str | None) -> str:
    """The output that holds the scores.

    Raises:
        SpecError: There is none, or it is not clear which.
    """
    names = [*foreign.outputs]
    if wanted is not None:
        if wanted not in names:
            raise SpecError(f"--output {wanted}: {foreign.path.name} gives {names}")
        return wanted
    if len(names) == 1:
        return names[0]
    likely = [name for name in names if foreign.outputs[name] == 2]
    if len(likely) == 1:
        return likely[0]
    raise SpecError(
        f"{foreign.path.name} gives {names or 'no numbers'}: say with --output which holds a score "
        "per class"
    )


def assumed(foreign: Foreign) -> Recipe:
    """What is taken where neither the file nor anybody says anything."""
    if "ultralytics" in foreign.metadata.get("author", "").casefold():
        return SCALES["0..1"].over(
            Recipe(color="rgb", layout="nchw", resize="crop", interpolation="pillow-bilinear")
        )
    if foreign.input_type == _UINT8 or foreign.scales_itself():
        scale = "0..255"
    else:
        scale = "-1..1" if foreign.told().layout == "nhwc" else "imagenet"
    usual = Recipe(color="rgb", layout="nchw", resize="stretch", interpolation="area")
    return SCALES[scale].over(usual)
