"""Small classifiers with the names and operations of other tools, and how those tools read a picture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

LABELS = tuple(f"class {i}" for i in range(10))
_SIZES_WH = ((640, 480), (333, 500), (227, 224), (100, 90), (1280, 720))
Prepare = Callable[[Image.Image], NDArray[Any]]


@dataclass(frozen=True)
class Case:
    """A model as it came."""

    name: str
    preprocess: str  # for `cmlr-edge adopt`
    write: Callable[[Path], None]
    prepare: Prepare  # a picture as the model's own makers prepare it, with the batch
    output: str
    activation: str = ""  # for `cmlr-edge adopt`; "": as the file tells


def small(
    path: Path,
    input_: tuple[str, list[Any]],
    output: str,
    *,
    nhwc: bool = False,
    rescaled: bool = False,
    last: str = "Softmax",
    opset: int = 13,
    seed: int = 0,
) -> onnx.ModelProto:
    """A convolution, a pooling and a dense layer, with the names and operations of a tool."""
    rng = np.random.default_rng(seed)
    name, shape = input_
    constants = {
        "kernel": rng.normal(0, 0.2, (8, 3, 5, 5)).astype(np.float32),
        "dense": rng.normal(0, 2, (8, len(LABELS))).astype(np.float32),
        "bias": rng.normal(0, 0.5, len(LABELS)).astype(np.float32),
    }
    nodes, at = [], name
    if rescaled:
        constants["scale"] = np.array(1 / 255, np.float32)
        nodes.append(helper.make_node("Mul", [at, "scale"], ["rescaled"]))
        at = "rescaled"
    if nhwc:
        nodes.append(helper.make_node("Transpose", [at], ["moved"], perm=[0, 3, 1, 2]))
        at = "moved"
    nodes += [
        helper.make_node("Conv", [at, "kernel"], ["seen"], strides=[4, 4]),
        helper.make_node("Relu", ["seen"], ["kept"]),
        helper.make_node("GlobalAveragePool", ["kept"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "dense", "bias"], [f"{output}_" if last else output]),
    ]
    if last:
        settings = {"axis": 1} if last == "Softmax" else {}
        nodes.append(helper.make_node(last, [f"{output}_"], [output], **settings))  # type: ignore[arg-type]
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, [shape[0], len(LABELS)])],
        [numpy_helper.from_array(value, key) for key, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, path)
    return model


def ultralytics() -> Case:
    """Names, shapes, metadata and picture reading of an exported YOLO classifier."""
    from torchvision import transforms

    read = transforms.Compose(
        [transforms.Resize(224), transforms.CenterCrop(224), transforms.ToTensor()]
    )

    def write(path: Path) -> None:
        model = small(path, ("images", [1, 3, 224, 224]), "output0")
        about = {
            "author": "Ultralytics",
            "task": "classify",
            "imgsz": "[224, 224]",
            "names": repr(dict(enumerate(LABELS))),
        }
        for key, value in about.items():
            entry = model.metadata_props.add()
            entry.key, entry.value = key, value
        onnx.save(model, path)

    return Case("Ultralytics classifier", "", write, lambda p: read(p)[None].numpy(), "output0")


def keras() -> Case:
    """A Keras model with its rescaling inside; Keras loads pictures with the nearest pixels."""

    def write(path: Path) -> None:
        small(path, ("input_1", ["unk__1", 160, 160, 3]), "predictions", nhwc=True, rescaled=True)

    def prepare(picture: Image.Image) -> NDArray[Any]:
        read = picture.resize((160, 160), Image.Resampling.NEAREST)
        return np.asarray(read, np.float32)[None]

    return Case("Keras NHWC, rescaling inside", "pillow-nearest", write, prepare, "predictions")


def caffe() -> Case:
    """Blue first, 0 to 255 less a mean, and OpenCV's resize; logits come out."""

    def write(path: Path) -> None:
        small(path, ("data", [1, 3, 227, 227]), "fc8", last="", opset=9)
        model = onnx.load(path)
        kernel = model.graph.initializer[0]
        kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) / 128, "kernel"))
        onnx.save(model, path)

    def prepare(picture: Image.Image) -> NDArray[Any]:
        bgr = cv2.cvtColor(np.asarray(picture), cv2.COLOR_RGB2BGR)
        read = cv2.resize(bgr, (227, 227), interpolation=cv2.INTER_LINEAR).astype(np.float32)
        less = read - np.array([103.939, 116.779, 123.68], np.float32)
        return np.ascontiguousarray(less.transpose(2, 0, 1)[None])

    return Case("Caffe, BGR, logits", "caffe,bilinear", write, prepare, "fc8", "softmax")


def letterboxed() -> Case:
    """Several labels by sigmoid, on pictures with grey bars."""

    def write(path: Path) -> None:
        small(path, ("x", ["N", 3, "H", "W"]), "probabilities", last="Sigmoid", opset=17)

    def prepare(picture: Image.Image) -> NDArray[Any]:
        image, scale = np.asarray(picture), 192 / max(picture.size)
        width, height = (round(side * scale) for side in picture.size)
        inner = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
        top, left = round((192 - height) / 2 - 0.1), round((192 - width) / 2 - 0.1)
        whole = np.full((192, 192, 3), 114, np.uint8)
        whole[top : top + height, left : left + width] = inner
        return whole.transpose(2, 0, 1)[None].astype(np.float32) / 255

    words = "0..1,letterbox,fill=114,bilinear,size=192"
    return Case("multi-label, any size, letterbox", words, write, prepare, "probabilities")


def sklearn() -> Case:
    """Rows of pixels, as skl2onnx writes a logistic regression: a class number, and probabilities."""
    side = 16

    def write(path: Path) -> None:
        rng = np.random.default_rng(3)
        weights = rng.normal(0, 0.1, (len(LABELS), side * side * 3))
        linear = helper.make_node(
            "LinearClassifier",
            ["X"],
            ["label", "probability_tensor"],
            domain="ai.onnx.ml",
            coefficients=weights.ravel().tolist(),
            intercepts=[0.0] * len(LABELS),
            classlabels_ints=[*range(len(LABELS))],
            multi_class=1,
            post_transform="SOFTMAX",
        )
        norm = helper.make_node(
            "Normalizer", ["probability_tensor"], ["probabilities"], domain="ai.onnx.ml", norm="L1"
        )
        graph = helper.make_graph(
            [linear, norm],
            "logistic",
            [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, side * side * 3])],
            [
                helper.make_tensor_value_info("label", TensorProto.INT64, [None]),
                helper.make_tensor_value_info(
                    "probabilities", TensorProto.FLOAT, [None, len(LABELS)]
                ),
            ],
        )
        opsets = [helper.make_opsetid("", 15), helper.make_opsetid("ai.onnx.ml", 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)

    def prepare(picture: Image.Image) -> NDArray[Any]:
        read = picture.resize((side, side), Image.Resampling.BICUBIC)
        return np.asarray(read, np.float32).reshape(1, -1) / 255

    words = f"0..1,pillow-bicubic,size={side}"
    return Case("scikit-learn, rows of pixels", words, write, prepare, "probabilities")


def halves() -> Case:
    """Everything in float16, input and output too; ONNX Runtime widens it again on a CPU."""

    def write(path: Path) -> None:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        model = small(path, ("x", [1, 3, 128, 128]), "y", opset=17)
        onnx.save(convert_float_to_float16(model, keep_io_types=False), path)

    def prepare(picture: Image.Image) -> NDArray[Any]:
        read = picture.resize((128, 128), Image.Resampling.BICUBIC)
        pixels = np.asarray(read, np.float32).transpose(2, 0, 1)[None] / 255
        return ((pixels - 0.5) / 0.5).astype(np.float16)

    return Case("float16 throughout", "-1..1,pillow-bicubic", write, prepare, "y")


def small_cases() -> list[Case]:
    """All of them."""
    return [ultralytics(), keras(), caffe(), letterboxed(), sklearn(), halves()]


def draw() -> list[Image.Image]:
    """Pictures of several sizes with soft and sharp edges."""
    rng, found = np.random.default_rng(5), []
    for width, height in _SIZES_WH:
        soft = Image.fromarray(rng.integers(0, 256, (7, 9, 3), np.uint8)).resize((width, height))
        pixels = np.array(soft)
        pixels[height // 4 : height // 2, width // 3 : width // 2] = rng.integers(0, 256, 3)
        found.append(Image.fromarray(pixels))
    return found
