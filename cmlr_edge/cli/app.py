"""The command line: `cmlr-edge label SOURCE` and the other commands; a module per command."""

from __future__ import annotations

from typing import Annotated

import typer

from cmlr_edge import __version__
from cmlr_edge.cli.adopt import adopt
from cmlr_edge.cli.archive import archive
from cmlr_edge.cli.bench import bench
from cmlr_edge.cli.collected import collected
from cmlr_edge.cli.doctor import doctor
from cmlr_edge.cli.fit_events import fit_events
from cmlr_edge.cli.hub import hub
from cmlr_edge.cli.inspect import inspect
from cmlr_edge.cli.label import label
from cmlr_edge.cli.place import place
from cmlr_edge.cli.run import run
from cmlr_edge.cli.serve import serve
from cmlr_edge.cli.service import service
from cmlr_edge.cli.sign import sign
from cmlr_edge.cli.teach import teach
from cmlr_edge.cli.usage import Commands
from cmlr_edge.cli.verify import verify

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Label pictures, videos and cameras with a multi-label recognizer.",
)
app.command()(label)
app.command()(serve)
app.command()(inspect)
app.command()(adopt)
app.command()(bench)
app.command()(run)
app.add_typer(service, name="service")
app.add_typer(archive, name="archive")
app.add_typer(hub, name="hub")
app.command()(place)
app.command()(verify)
app.command()(sign)
app.command()(doctor)
app.command()(teach)
app.command()(collected)
app.command("fit-events")(fit_events)


@app.callback(invoke_without_command=True)
def _options(
    show_version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if show_version:
        print(__version__)  # noqa: T201
        raise typer.Exit
