"""Runtimes that can execute a model, chosen by the model file's suffix."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cmlr_edge.errors import EngineError

if TYPE_CHECKING:
    from cmlr_edge.backends.base import Backend


def load_backend(path: Path, content: bytes, *, provider: str) -> Backend:
    """Open a model with the runtime that the suffix of `path` names.

    Args:
        path: The model file, for its suffix and for messages.
        content: Its bytes, already checked against the spec's hash.
        provider: The device to run on; see the runtime's module.
    """
    match path.suffix:
        case ".onnx":
            from cmlr_edge.backends.onnx_structure import check_structure
            from cmlr_edge.backends.onnxruntime import OnnxRuntimeBackend

            check_structure(content, path.name)
            return OnnxRuntimeBackend(path, content, provider=provider)
        case suffix:
            raise EngineError(
                f"cannot run {path.name}: expected a file ending in .onnx, got {suffix!r}"
            )
