"""The command that exports, in the process of the tests: another imports PyTorch again."""

from __future__ import annotations

import contextlib
import io

import pytest

from cmlr_edge.cli.usage import run_command
from export.build_engine import main


def build_engine_says(*words: object) -> str:
    """What `export/build_engine.py` writes to stderr; whatever it raises is raised."""
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr("sys.argv", ["build_engine", *map(str, words)])
        run_command(main, "build_engine")
    return said.getvalue()
