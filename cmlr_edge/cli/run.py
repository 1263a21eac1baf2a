"""`cmlr-edge run CONFIG`: a device's service."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from cmlr_edge.cli.console import print_away
from cmlr_edge.cli.flags import Flags
from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.cli.signals import noted_signals
from cmlr_edge.errors import CaptureError
from cmlr_edge.redaction import told
from cmlr_edge.service.notify import Supervisor
from cmlr_edge.session.runner import Runner
from cmlr_edge.session.session import Session


@takes_flags
def run(
    config: Annotated[Path, typer.Argument(help="TOML file; docs/service.md.")],
    sources: Annotated[
        list[str] | None, typer.Argument(metavar="SOURCE", help="More of them, as for `label`.")
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Run the sources, engine and outputs of CONFIG until SIGTERM; SIGHUP reads it again.

    \b
    cmlr-edge run /etc/cmlr-edge/door.toml
    """  # noqa: D301
    fill = partial(replace(flags, config=config).to_config, sources or [], append=True)
    settings, folder = fill()
    supervisor = Supervisor.from_environment(os.environ)
    with noted_signals(ends_well=True, reloads=True) as interruption:
        session = Session(settings, folder=folder, file=config)
        with session:
            runner = Runner(
                session, reread=lambda file: fill(file=file)[0], file=config, supervisor=supervisor
            )
            interruption.calls(runner.request_end, runner.request_reload)
            runner.run()
    print_away(session)
    for status in session.status():
        if (cause := session.streams.error(status.name)) is not None and not interruption.number:
            raise CaptureError(f"{status.name} failed: {told(cause)}") from cause
