"""Measurements: checked first, then timed or scored; JSON out, tables and pictures from the JSON."""

from __future__ import annotations
