"""Help and what was typed wrong, in plain lines: Typer draws boxes, which cut words on a narrow terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import typer

from cmlr_edge.errors import CmlrError, OutputError
from cmlr_edge.redaction import redact

# Click's own class, whichever Click this Typer comes with.
_ClickError: Any = typer.BadParameter.__mro__[2]
_LONGEST_NAME = 200  # characters that a message repeats


class Commands(typer.core.TyperGroup):
    """Several commands; their help says of each what it does, to the end of the sentence."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """List them; Click would cut what is longer than a line."""
        texts = {
            name: item.get_short_help_str(sys.maxsize)
            for name in self.list_commands(ctx)
            if (item := self.get_command(ctx, name)) is not None and not item.hidden
        }
        with formatter.section("Commands"):
            formatter.write_dl([*texts.items()])


def run_app(app: typer.Typer, name: str) -> None:
    """Run a command line.

    Args:
        app: With all its commands.
        name: What is typed to start it, for messages.

    Raises:
        OutputError: A file that was named cannot be used.
        CmlrError: An unknown command or flag, a value that is none, an argument that is missing;
            and whatever the commands raise.
        SystemExit: With the exit code that a command gave.
    """
    app.rich_markup_mode = None  # boxes
    try:
        code = app(prog_name=name, standalone_mode=False)
    except _ClickError as error:
        message, context = redact(error.format_message()).rstrip("."), getattr(error, "ctx", None)
        if context is not None and message == redact(context.get_help()).rstrip("."):
            error.show()  # nothing was asked for
        elif message:
            command = context.command_path if context is not None else name
            raise CmlrError(
                f"{message}{_without_a_name(error)} (see `{command} --help`)"
            ) from error
        code = error.exit_code  # the help was printed
    except OSError as error:
        if error.filename is None:  # no matter of a name that was given
            raise
        name = str(error.filename)
        if len(name) > _LONGEST_NAME:
            name = f"{name[:_LONGEST_NAME]}... ({len(name)} characters)"
        raise OutputError(f"cannot use {name}: {error.strerror}") from error
    if code:
        sys.exit(code)


def _without_a_name(error: Any) -> str:
    """What to type for --engine, where a command takes its ENGINE as it is."""
    option = getattr(error, "option_name", None)
    context = getattr(error, "ctx", None)
    if option is None or context is None:
        return ""
    name = option.lstrip("-")
    arguments = [p.name for p in context.command.params if p.param_type_name == "argument"]
    return (
        f": give it without {option}, `{context.command_path} {name.upper()}`"
        if name in arguments
        else ""
    )


def run_command(command: Callable[..., None], name: str) -> None:
    """Likewise, for a program that is one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    run_app(app, name)
