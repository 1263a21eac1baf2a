"""Turn a checkpoint into a model file for the SDK. Needs PyTorch and ONNX."""

from __future__ import annotations

import cmlr_edge.machine.no_telemetry  # noqa: F401 (before any package that would report)
