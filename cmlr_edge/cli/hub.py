"""`cmlr-edge hub push` and `pull`: share engines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmlr_edge.cli.usage import Commands
from cmlr_edge.model import hub as models
from cmlr_edge.model.files import model_path

hub = typer.Typer(cls=Commands, no_args_is_help=True, help="Share engines on the Hugging Face Hub.")
Repository = Annotated[str, typer.Argument(help="owner/name on the hub.")]
Revision = Annotated[str, typer.Option(help="Branch; for pull also a tag or a commit.")]


@hub.command()
def push(
    engine: Annotated[Path, typer.Argument(help="Model file, or its folder.")],
    repository: Repository,
    public: Annotated[bool, typer.Option("--public", help="A new repository is for all.")] = False,
    revision: Revision = "main",
) -> None:
    """Send an engine with spec, signature and card: README.md beside it, or one made from the spec.

    \b
    cmlr-edge hub push models/first owner/first
    """  # noqa: D301
    print(models.push(model_path(engine), repository, private=not public, revision=revision))  # noqa: T201


@hub.command()
def pull(
    repository: Repository,
    out: Annotated[Path, typer.Option(help="Folder to put it into.")],
    revision: Revision = "main",
) -> None:
    """Fetch an engine, and check that it is whole. What it is worth is for you to judge: SECURITY.md.

    \b
    cmlr-edge hub pull owner/first --out models/first
    """  # noqa: D301
    path = models.pull(repository, out, revision=revision)
    print(f"wrote {path} and its spec; next: cmlr-edge verify {path}")  # noqa: T201
