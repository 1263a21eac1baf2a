"""Turn a checkpoint into a model file for the SDK. Needs PyTorch and ONNX."""

from __future__ import annotations
