"""Train the full model. Needs PyTorch and timm; never shipped with the SDK."""

from __future__ import annotations
