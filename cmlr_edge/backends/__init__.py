"""Runtimes that can execute a model, chosen by the model file's suffix and the provider's name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from cmlr_edge.errors import EngineError

if TYPE_CHECKING:
    from cmlr_edge.backends.base import Backend
    from cmlr_edge.model.spec import EngineBuild

OPENVINO, OPENVINO_BF16 = "openvino", "openvino-bf16"
CUDA, CUDA_GRAPH = "cuda", "cuda-graph"  # of an engine: launch by launch, or replayed as one


def load_backend(
    path: Path, content: bytes, *, provider: str | None = None, engine: EngineBuild | None = None
) -> Backend:
    """Open a model with the runtime that the suffix of `path` and the provider name.

    Args:
        path: The model file, for its suffix and for messages.
        content: Its bytes, already checked against the spec's hash.
        provider: Of an `.onnx` file: "openvino" computes in float32 and "openvino-bf16" in bfloat16,
            both on the CPU; any other is a device of ONNX Runtime, see its module. None: "cpu" (what is the
            fastest, `engines/auto.py` finds out), and for an engine the GPU that it was built for, "cuda";
            "cuda-graph" replays its launches as one where that can be done.
        engine: Of an `.engine` file: what its spec says, already checked by preflight.
    """
    match path.suffix, provider:
        case ".onnx", "openvino" | "openvino-bf16":
            from cmlr_edge.backends.openvino import OpenVinoBackend, Precision

            precision: Precision = "bf16" if provider == OPENVINO_BF16 else "f32"
            plain, whole = _without_explanation(path, content)
            return OpenVinoBackend(path, plain, precision=precision, whole=whole)
        case ".onnx", _:
            from cmlr_edge.backends.onnxruntime import OnnxRuntimeBackend

            plain, whole = _without_explanation(path, content)
            return OnnxRuntimeBackend(path, plain, provider=provider or "cpu", whole=whole)
        case ".engine", _ if engine is not None:
            if provider not in {None, CUDA, CUDA_GRAPH}:
                raise EngineError(
                    f"{path.name} is machine code for a GPU: it has no {provider!r}, but {CUDA!r} "
                    f"and {CUDA_GRAPH!r}"
                )
            from cmlr_edge.backends.tensorrt import TensorRtBackend

            return TensorRtBackend(path, content, engine, cuda_graph=provider == CUDA_GRAPH)
        case suffix, _:
            raise EngineError(
                f"cannot run {path.name}: expected a file ending in .onnx or .engine, got {suffix!r}"
            )


def _without_explanation(path: Path, content: bytes) -> tuple[bytes, bytes | None]:
    """What computes scores alone; and the whole file where it can do more."""
    from cmlr_edge.backends.onnx_outputs import with_outputs
    from cmlr_edge.backends.onnx_structure import check_structure
    from cmlr_edge.model.spec import OUTPUT_NAME

    check_structure(content, path.name)
    plain = with_outputs(content, {OUTPUT_NAME})
    return plain, None if len(plain) == len(content) else content


def find_providers() -> list[str]:
    """Every provider that the installed runtimes offer for ONNX files, ONNX Runtime's CPU first."""
    from cmlr_edge.backends.onnxruntime import available_providers
    from cmlr_edge.backends.openvino import supported_precisions
    from cmlr_edge.errors import DependencyError

    names = {"f32": OPENVINO, "bf16": OPENVINO_BF16}
    found = []
    with suppress(DependencyError):
        found += available_providers()
    with suppress(DependencyError):
        found += [names[precision] for precision in supported_precisions()]
    return found
