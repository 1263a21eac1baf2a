"""The same run, started by each of the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.conftest import free_port

FRONT_ENDS = ("label", "serve", "run")


def command_of(
    front_end: str, sources: Sequence[str], engine: Path, folder: Path, *more: str
) -> list[str]:
    """Arguments that start it; `sources` are NAME=URI, and `folder` takes a configuration."""
    command = [sys.executable, "-m", "cmlr_edge", front_end]
    if front_end == "run":
        config = folder / "device.toml"
        parts = [f'[engine]\npath = "{engine}"\n']
        parts += [
            '[[sources]]\nname = "{}"\nuri = "{}"\n'.format(*source.split("=", 1))
            for source in sources
        ]
        config.write_text("".join(parts))
        command.append(str(config))
    else:
        command += [*sources, "--engine", str(engine)]
    command += ["--port", str(free_port())] if front_end == "serve" else []
    return [*command, *more]
