"""Where results go: each output is one small class with `write` and `close`, behind one guard."""

from __future__ import annotations

from cmlr_edge.sinks.base import Result, Sink

__all__ = ["Result", "Sink"]
