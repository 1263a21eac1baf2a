"""Runtimes that can execute a model, chosen by the model file's suffix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cmlr_edge.errors import EngineError

if TYPE_CHECKING:
    from cmlr_edge.backends.base import Backend
    from cmlr_edge.model_spec import EngineBuild


def load_backend(
    path: Path, content: bytes, *, provider: str | None = None, engine: EngineBuild | None = None
) -> Backend:
    """Open a model with the runtime that the suffix of `path` names.

    Args:
        path: The model file, for its suffix and for messages.
        content: Its bytes, already checked against the spec's hash.
        provider: The device to run on; see the runtime's module. None: "cpu", and for an engine the
            GPU that it was built for.
        engine: Of an `.engine` file: what its spec says, already checked by preflight.
    """
    match path.suffix:
        case ".onnx":
            from cmlr_edge.backends.onnx_structure import check_structure
            from cmlr_edge.backends.onnxruntime import OnnxRuntimeBackend

            check_structure(content, path.name)
            return OnnxRuntimeBackend(path, content, provider=provider or "cpu")
        case ".engine" if engine is not None:
            if provider not in {None, "cuda"}:
                raise EngineError(f"{path.name} is machine code for a GPU: it has no {provider!r}")
            from cmlr_edge.backends.tensorrt import TensorRtBackend

            return TensorRtBackend(path, content, engine)
        case suffix:
            raise EngineError(
                f"cannot run {path.name}: expected a file ending in .onnx or .engine, got {suffix!r}"
            )
