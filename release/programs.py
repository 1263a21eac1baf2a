"""Runs a program and returns what it prints."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence


def output_of(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str:
    """Return the standard output.

    Raises:
        SystemExit: The program failed; its last words are in the message.
    """
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{run.stdout[-4000:]}\n{run.stderr[-4000:]}")
    return run.stdout
