"""`cmlr-edge serve SOURCE...`: the live page in a browser."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from cmlr_edge.cli.console import print_away, print_start
from cmlr_edge.cli.flags import Flags
from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.cli.signals import noted_signals
from cmlr_edge.session.runner import Runner
from cmlr_edge.session.session import Session

_PORT = 8000


@takes_flags
def serve(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="As for `label`, several at once; door=rtsp://... gives one a name.",
        ),
    ] = None,
    *,
    flags: Flags,
) -> None:
    """Show cameras, streams and files with their labels on a live page.

    Exit code 0: ended by SIGINT or SIGTERM. 2: it could not start, or the model failed.

    \b
    cmlr-edge serve 0
    cmlr-edge serve door=rtsp://user:password@10.0.0.7/1 yard=rtsp://user:password@10.0.0.8/1
    cmlr-edge serve 0 --host 0.0.0.0 --token $(openssl rand -hex 16)
    """  # noqa: D301
    fill = partial(flags.to_config, sources or [], append=False, policy="newest", port=_PORT)
    config, folder = fill()
    with (
        noted_signals(ends_well=True, reloads=flags.config is not None) as interruption,
        Session(config, folder=folder, file=flags.config) as session,
    ):
        print_start(session)
        runner = Runner(
            session, reread=lambda file: fill(file=file)[0], file=flags.config, until_over=False
        )
        interruption.calls(runner.request_end, runner.request_reload)
        runner.run()
    print_away(session)
