"""Train the full model. Needs PyTorch and timm; never shipped with the SDK."""

from __future__ import annotations

import cmlr_edge.machine.no_telemetry  # noqa: F401 (before any package that would report)
