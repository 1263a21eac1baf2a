"""One ONNX file in three runtimes that share no code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from cmlr_edge.backends.openvino import shared_core
from cmlr_edge.machine.no_telemetry import import_runtime

onnxruntime = import_runtime("onnxruntime")
Array = NDArray[np.float32]
RUNTIMES = ("onnxruntime", "reference", "openvino")  # in this order


def run_everywhere(model: onnx.ModelProto, inputs: Mapping[str, NDArray[Any]]) -> list[list[Array]]:
    """Outputs from ONNX Runtime, the ONNX reference evaluator, and OpenVINO."""
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    reference: Any = ReferenceEvaluator(model).run(None, dict(inputs))
    return [session.run(None, dict(inputs)), reference, _run_openvino(content, inputs)]


def _run_openvino(content: bytes, inputs: Mapping[str, NDArray[Any]]) -> list[Array]:
    core = shared_core()
    settings = {"INFERENCE_PRECISION_HINT": "f32"}  # else it takes bfloat16 where it can
    compiled = core.compile_model(core.read_model(content), "CPU", settings)
    results = compiled(dict(inputs))
    return [results[output].copy() for output in compiled.outputs]
