"""The stages, in the order in which they are run, and how long each may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """One process."""

    number: int
    part: str  # A: the kernels and the SDK's CUDA; B: training, and TensorRT's engines
    name: str
    function: str  # module of benchmarks.gpu, and what to call in it
    limit_s: int
    needs: tuple[str, ...] = ()  # Python modules; one that is missing skips the stage
    alone: bool = True  # nothing else runs: it measures time, memory or counters, or is built first


_CUDA = ("cuda.bindings",)
_TRAINING = ("torch", "timm", "typer", "cv2")
STAGES = (
    Stage(0, "A", "machine and clocks", "machine:look", 20),
    Stage(1, "A", "build", "build:build", 150),
    Stage(2, "A", "ceilings", "machine:ceilings", 30, _CUDA),
    Stage(3, "A", "attention against float64", "attention:check", 120, _CUDA, alone=False),
    Stage(4, "A", "tensors beyond 2^31 elements", "attention:check_far", 120, _CUDA, alone=False),
    Stage(5, "A", "plugin without TensorRT", "plugin:check", 120, _CUDA, alone=False),
    Stage(6, "A", "frame kernel", "frames:check", 60, (*_CUDA, "cv2")),
    Stage(7, "A", "compute-sanitizer", "tools:sanitize", 150, _CUDA, alone=False),
    Stage(8, "A", "counters", "tools:count", 70, _CUDA),
    Stage(9, "A", "times", "times:measure", 90, _CUDA),
    Stage(10, "A", "streams, graphs and memory", "replays:check", 40, _CUDA),
    Stage(11, "B", "training", "training:fit", 150, _TRAINING, alone=False),
    Stage(12, "B", "step throughput", "training:steps", 80, ("torch", "timm")),
    Stage(13, "B", "data loading", "training:loading", 100, _TRAINING),
    Stage(14, "B", "torch.compile", "training:compiled", 80, ("torch", "timm")),
    Stage(15, "B", "export", "training:export", 60, ("torch", "timm", "onnx", "onnxruntime")),
    Stage(16, "B", "TensorRT engines", "engine:check", 300, ("tensorrt", "onnx")),
)
