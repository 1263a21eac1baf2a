"""The model that travels with the package, for trying things out; see its MODEL_CARD.md."""

from __future__ import annotations

from pathlib import Path


def demo_engine() -> Path:
    """Path of the bundled model: 80 everyday labels, ONNX, its spec and model card beside it."""
    return Path(__file__).with_name("model.onnx")
