"""Measurements: checked first, then timed or scored; JSON out, tables and pictures from the JSON."""

from __future__ import annotations

import cmlr_edge.machine.no_telemetry  # noqa: F401 (before any package that would report)
