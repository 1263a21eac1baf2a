"""`cmlr-edge run CONFIG`: a device's service."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Annotated

import typer

from cmlr_edge.service.notify import Supervisor
from cmlr_edge.service.runner import Service


def run(config: Annotated[Path, typer.Argument(help="TOML file; docs/service.md.")]) -> None:
    """Run the sources, engine and outputs of CONFIG until SIGTERM; SIGHUP reads it again.

    \b
    cmlr-edge run /etc/cmlr-edge/door.toml
    """  # noqa: D301
    service = Service(config, Supervisor.from_environment(os.environ))
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: service.request_end())
    signal.signal(signal.SIGHUP, lambda _number, _frame: service.request_reload())
    service.run()
