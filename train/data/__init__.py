"""Labelled pictures from the layouts people have; `read_dataset` tells them apart."""

from __future__ import annotations

from train.data.base import ContextBias, LabeledImage, LabeledImages
from train.data.layouts import LAYOUTS, Layout, layout_of, read_dataset

__all__ = [
    "LAYOUTS",
    "ContextBias",
    "LabeledImage",
    "LabeledImages",
    "Layout",
    "layout_of",
    "read_dataset",
]
