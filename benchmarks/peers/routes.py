"""A route: one way from a BGR frame to the indices of the labels at or above their threshold.

The peers do what their documentation shows: resize and colours by OpenCV, normalisation by NumPy, the
network as `torch.onnx.export` writes it. The floor is the backbone alone, its input ready.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.settings import open_variant
from cmlr_edge import Recognizer
from cmlr_edge.backends.openvino import supported_precisions
from cmlr_edge.machine.facts import usable_cores
from cmlr_edge.machine.no_telemetry import import_runtime
from cmlr_edge.model.spec import ModelSpec

Frame = NDArray[np.uint8]
Scores = NDArray[np.float32]
Route = Callable[[Frame], tuple[Scores, list[int]]]  # scores (L,), indices of the labels reached

PEERS = ("torch-eager", "torch-compile", "ncnn", "ort-f32", "openvino-f32", "openvino-bf16")
OURS: dict[str, tuple[str, str | None]] = {  # folder of the model, and provider
    "ours-default": ("", None),
    "ours-ort-f32": ("", "cpu"),
    "ours-ort-int8": ("int8", "cpu"),
    "ours-openvino-f32": ("", "openvino"),
    "ours-openvino-bf16": ("", "openvino-bf16"),
    "ours-openvino-int8": ("int8", "openvino"),
    "ours-openvino-int8-bf16": ("int8", "openvino-bf16"),
}
FLOORS = ("bare-ort-f32", "bare-openvino-f32", "bare-openvino-bf16")


def route_names() -> list[str]:
    """Every route that this machine can run."""
    names = [*PEERS, *OURS, *FLOORS]
    if not all(importlib.util.find_spec(package) for package in ("ncnn", "pnnx")):
        names.remove("ncnn")
    if "bf16" in supported_precisions():
        return names
    return [name for name in names if "bf16" not in name]


def open_route(name: str, folder: Path) -> Route:
    """Load what a route needs from the files that `prepare` wrote."""
    spec = ModelSpec.load(folder / "model.json")
    if name in OURS:
        inside, provider = OURS[name]
        return _ours(folder / inside, provider)
    if name in FLOORS:
        infer = _session(name.removeprefix("bare-"), folder / "bare.onnx", static=True)
        return _ready(infer, spec)
    if ": " in name:
        return _ready(open_variant(name, folder / "model.onnx"), spec)
    if name.startswith("torch"):
        return _torch(folder, spec, compiled=name == "torch-compile")
    infer = _ncnn(folder) if name == "ncnn" else _session(name, folder / "plain.onnx")
    return _plain(infer, spec)


def _ours(folder: Path, provider: str | None) -> Route:
    recognizer = Recognizer.from_engine(folder, provider=provider)
    indices = {label: i for i, label in enumerate(recognizer.labels)}

    def run(frame: Frame) -> tuple[Scores, list[int]]:
        prediction = recognizer(frame)
        return prediction.scores, [indices[item.label] for item in prediction.labels]

    return run


def _ready(infer: Callable[[NDArray[Any]], Scores], spec: ModelSpec) -> Route:
    """A network with its input ready, whatever the frame."""
    pixels = np.zeros((1, *spec.preprocess.size_hw, 3), np.uint8)

    def run(_frame: Frame) -> tuple[Scores, list[int]]:
        return infer(pixels)[0], []

    return run


def _plain(infer: Callable[[NDArray[Any]], Scores], spec: ModelSpec) -> Route:
    thresholds = np.asarray(spec.thresholds, np.float32)

    def run(frame: Frame) -> tuple[Scores, list[int]]:
        scores = infer(normalised(frame, spec))[0]
        return scores, np.flatnonzero(scores >= thresholds).tolist()

    return run


def normalised(frame: Frame, spec: ModelSpec) -> NDArray[np.float32]:
    """A frame as a plain network takes it: float32 (1, 3, H, W)."""
    size = spec.preprocess.size_hw[::-1]
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    pixels = cv2.cvtColor(small, cv2.COLOR_BGR2RGB).astype(np.float32)
    pixels -= 255 * np.asarray(spec.preprocess.mean, np.float32)
    pixels /= 255 * np.asarray(spec.preprocess.std, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None])


def _session(engine: str, path: Path, *, static: bool = False) -> Callable[[NDArray[Any]], Scores]:
    """A network in an engine, with all cores and otherwise as the engine comes."""
    if engine == "ort-f32":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        name = session.get_inputs()[0].name
        return lambda pixels: session.run(None, {name: pixels})[0]
    openvino = import_runtime("openvino")

    core = openvino.Core()
    model = core.read_model(path)
    if static:
        model.reshape([1, *list(model.input(0).partial_shape)[1:]])
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_PRECISION_HINT": engine.removeprefix("openvino-"),
        "INFERENCE_NUM_THREADS": usable_cores(),
    }
    compiled = core.compile_model(model, "CPU", settings)
    return lambda pixels: compiled(pixels)[0]


def _ncnn(folder: Path) -> Callable[[NDArray[Any]], Scores]:
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = usable_cores()
    net.load_param(str(folder / "plain.ncnn.param"))
    net.load_model(str(folder / "plain.ncnn.bin"))

    def infer(pixels: NDArray[Any]) -> Scores:
        extractor = net.create_extractor()
        extractor.input("in0", ncnn.Mat(pixels[0]))
        _, scores = extractor.extract("out0")
        return np.array(scores)[None]

    return infer


def _torch(folder: Path, spec: ModelSpec, *, compiled: bool) -> Route:
    import torch

    from benchmarks.peers.models import NETWORKS, PlainModel, make_model

    torch.set_num_threads(usable_cores())
    network = NETWORKS[folder.name.rpartition("-")[0]]
    model: Any = PlainModel(make_model(network, len(spec.labels))).eval()
    if compiled:
        model = torch.compile(model)

    def infer(pixels: NDArray[Any]) -> Scores:
        with torch.inference_mode():
            scores: Scores = model(torch.from_numpy(pixels)).numpy()
        return scores

    return _plain(infer, spec)
