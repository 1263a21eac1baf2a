"""`cmlr-edge collected FOLDER`: what a run kept to be labelled, and where it goes from there."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.collected.exports import EXPORTS, export
from cmlr_edge.collected.frames import Kept, chosen, read_kept
from cmlr_edge.collected.sheet import draw_kept
from cmlr_edge.errors import SpecError
from cmlr_edge.machine.clocks import local_time
from cmlr_edge.redaction import printable
from cmlr_edge.wording import counted

_MOST_ROWS = 20  # that are printed


def collected(
    folder: Annotated[Path, typer.Argument(help="That of --collect.")],
    kind: Annotated[
        list[str] | None,
        typer.Option(
            help="Only frames kept for it: surroundings, links, context, flicker, near, random; may be "
            "given again."
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option(help="Only frames about it; may be given again.")
    ] = None,
    source: Annotated[
        list[str] | None, typer.Option(help="Only frames of it; may be given again.")
    ] = None,
    most: Annotated[
        int | None,
        typer.Option(min=1, help="Only so many: the most worthy, then drawn ones. Default: all."),
    ] = None,
    sheet: Annotated[Path | None, typer.Option(help="PNG to draw twelve frames in.")] = None,
    to: Annotated[
        str, typer.Option(help=f"Export for a tool: {', '.join(EXPORTS)}; needs --out.")
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Folder of the export; it is made.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="All records, for programs.")] = False,
) -> None:
    """List the frames that a run kept to be labelled, draw them on a sheet, export them.

    \b
    cmlr-edge label street.mp4 --engine models/first --explain --collect to_label
    cmlr-edge collected to_label --sheet sheet.png
    cmlr-edge collected to_label --most 200 --to label-studio --out street_tasks
    """  # noqa: D301
    if to and to not in EXPORTS:
        raise SpecError(f"--to is {to!r}: expected one of {', '.join(EXPORTS)}")
    if bool(to) != (out is not None):
        raise SpecError("--to and --out need each other: which tool, and which folder")
    everything = read_kept(folder)
    frames = chosen(everything, kinds=kind or (), labels=label or (), sources=source or ())[:most]
    if as_json:
        print(json.dumps([_to_record(kept) for kept in frames], indent=1))  # noqa: T201
    else:
        _print(frames, len(everything), listed=sheet is None and out is None)
    console = Console(stderr=as_json)
    if sheet is not None:
        drawn = draw_kept(frames, sheet)
        text = f"{drawn} of them drawn in {printable(sheet)}"
        console.print(escape(text), highlight=False, soft_wrap=True)
    if out is not None:
        export(frames, to, out)
        text = f"{counted(len(frames), 'frame')} exported to {printable(out)} for {to}"
        console.print(escape(text), highlight=False, soft_wrap=True)


def _to_record(kept: Kept) -> dict[str, object]:
    return {"file": str(kept.path), **vars(kept.record), "doubts": [*map(vars, kept.record.doubts)]}


def _print(frames: Sequence[Kept], there: int, *, listed: bool) -> None:
    console = stdout()
    by_source: dict[str, list[Kept]] = {}
    for kept in frames[: _MOST_ROWS if listed else 0]:
        by_source.setdefault(kept.record.source, []).append(kept)
    for source, shown in by_source.items():
        console.print(f"[bold]{escape(printable(source))}[/bold]", soft_wrap=True)  # to be copied
        console.print(_rows(shown))
    if listed and len(frames) > _MOST_ROWS:
        console.print(f"and {len(frames) - _MOST_ROWS} more, in --json")
    kinds = Counter(kept.record.kind for kept in frames)
    told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())
    text = f"{len(frames)} of {counted(there, 'frame')}: {told}"
    console.print(escape(text), highlight=False, soft_wrap=True)
    unexplained = sum(not kept.record.explained for kept in frames)
    if unexplained:
        console.print(
            f"{unexplained} were chosen by uncertainty and flicker alone, for the run explained nothing",
            highlight=False,
            soft_wrap=True,
        )


def _rows(frames: Sequence[Kept]) -> Table:
    found = table("kept for", "worth", "said", "when")
    for kept in frames:
        record = kept.record
        said = ", ".join(f"{name} {score:.2f}" for name, score in [*record.said.items()][:3])
        about = f"{record.kind} {record.label}".strip()
        cells = (about, f"{record.worth:.2f}", said, _when(kept))
        found.add_row(*(escape(printable(cell)) for cell in cells))
    return found


def _when(kept: Kept) -> str:
    if kept.record.time_s is not None:
        return f"{kept.record.time_s:.1f} s"
    return local_time(kept.record.captured_at, "%m-%d %H:%M")
