"""A run, whatever started it: one configuration, and one session that builds everything from it."""

from __future__ import annotations

from cmlr_edge.session.config import SessionConfig, load_config
from cmlr_edge.session.session import Session

__all__ = ["Session", "SessionConfig", "load_config"]
