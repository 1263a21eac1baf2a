"""`cmlr-edge archive INPUT... --out DATASET`, and `archive show DATASET`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from cmlr_edge.archive.dataset import Counts
from cmlr_edge.archive.plan import Cutting, PlanSize, Unit
from cmlr_edge.archive.run import Archive, ArchiveSettings, Summary
from cmlr_edge.cli import options
from cmlr_edge.cli.console import stderr
from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.cli.progress import progress_bars
from cmlr_edge.cli.signals import Interruption, noted_signals
from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.cli.usage import Commands
from cmlr_edge.errors import SpecError
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.redaction import printable
from cmlr_edge.why import Explain
from cmlr_edge.wording import counted

_MOST_LABELS = 15  # that are printed


class _LabelUnlessNamed(Commands):
    """`archive photos --out labels` means `archive label photos --out labels`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the name of the command there that is meant."""
        if args and args[0] not in {*self.commands, "--help"} and not _is_command(args):
            args = ["label", *args]
        return super().parse_args(ctx, args)


def _is_command(args: Sequence[str]) -> bool:
    """Whether a word names no input, but a command that there may not be."""
    has_out = any(word.startswith("--out") for word in args)
    return args[0].isidentifier() and not has_out and not Path(args[0]).exists()


archive = typer.Typer(
    cls=_LabelUnlessNamed,
    no_args_is_help=True,
    help="Label pictures and recordings of any number, once each, into a Parquet dataset. "
    "`archive INPUT... --out DATASET` is short for `archive label INPUT... --out DATASET`.",
)


@dataclass(frozen=True)
class Flags:
    """How an archive is labelled."""

    engine: options.Engine = None
    provider: options.Provider = None
    threshold: options.Threshold = None
    max_fps: Annotated[
        float | None, typer.Option(min=1e-3, help="Look at no more frames a second of a film.")
    ] = None
    explain: Annotated[
        bool, typer.Option("--explain", help="Say in each row why its labels are said.")
    ] = False
    explain_margin: options.ExplainMargin = None
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes, or actors. Default: one per core.")
    ] = None
    ray: Annotated[
        str, typer.Option(help="Address of a Ray cluster: auto, HOST:6379. Default: this machine.")
    ] = ""
    chunk: Annotated[int, typer.Option(min=1, help="Pictures in one unit of work.")] = 1000
    part_mb: Annotated[float, typer.Option(help="Megabytes of a film in one unit.")] = 64.0

    def settings(self, inputs: Sequence[str], out: str) -> ArchiveSettings:
        """Of the run."""
        if self.explain_margin is not None and not self.explain:
            raise SpecError(
                "--explain-margin is given, and nothing is explained: give --explain too"
            )
        return ArchiveSettings(
            tuple(inputs),
            out,
            self.engine or demo_engine(),
            self.provider,
            self.threshold,
            Cutting(self.chunk, self.part_mb),
            self.max_fps,
            Explain(self.explain_margin or 0.0) if self.explain else None,
            self.workers,
            self.ray,
        )


@archive.command("label")
@takes_flags
def label_archive(
    inputs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="INPUT",
            help="Picture, film, .tar, .parquet with pictures, folder with all below it, quoted "
            "pattern, or address (s3://, gs://, hf://). Left out: go on with those of the dataset.",
        ),
    ] = None,
    *,
    out: Annotated[str, typer.Option(help="The dataset: a folder, or an address.")],
    flags: Flags,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON.")] = False,
) -> None:
    """Label each INPUT once; killed and started again it goes on.

    \b
    cmlr-edge archive photos --out labels
    cmlr-edge archive "recordings/*.mp4" s3://bucket/photos --out s3://bucket/labels
    cmlr-edge archive show labels --where "has('person')"

    \b
    Exit codes
    0    every picture and frame has a row; those that cannot be read say why
    1    some units could not be done, for a storage did not answer: start it again
    2    an error
    130  ended by SIGINT, 143 by SIGTERM, 129 by SIGHUP: start it again to go on
    """  # noqa: D301 (typer's mark for keeping lines)
    settings = flags.settings(inputs or [], out)
    run = Archive(settings)
    if dry_run:
        _print_plan(run, settings, as_json=as_json)
        return
    with noted_signals(ends_well=False) as interruption, run:
        summary = _run(run, interruption, quiet=as_json)
    if as_json:
        print(json.dumps(summary.to_record(), indent=2, allow_nan=False))  # noqa: T201
    else:
        _print_summary(summary)
    _exit(summary, interruption.number)


def _run(run: Archive, interruption: Interruption, *, quiet: bool) -> Summary:
    whole, left = run.left()
    columns = (
        TextColumn("labelling"),
        BarColumn(),
        TaskProgressColumn(),
        DownloadColumn(),
        TextColumn("{task.fields[told]}"),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bar = progress_bars(stderr, *columns, visible=not quiet)
    rows = Counts()
    interruption.calls(run.request_end)
    with bar:
        task = bar.add_task(
            "bytes labelled", total=max(1, whole.size), completed=whole.size - left.size, told=""
        )

        def told(unit: Unit, counts: Counts) -> None:
            rows.add(counts)
            bar.advance(task, unit.size if counts.bytes else 0)
            failures = sum(rows.failures.values())
            bar.update(task, told=f"{counted(rows.rows, 'row')}, {counted(failures, 'failure')}")

        return run.run(told)


def _exit(summary: Summary, interruption: int) -> None:
    """Say what is left; the exit code."""
    for reason in sorted({*summary.undone})[:5]:
        stderr.print(escape(f"not done: {printable(reason)}"), soft_wrap=True, highlight=False)
    if interruption or summary.units_left:
        begin = "interrupted; " if interruption else ""
        stderr.print(f"{begin}{counted(summary.units_left, 'unit')} left: start it again to go on")
        raise typer.Exit(128 + interruption if interruption else 1)


def _print_plan(run: Archive, settings: ArchiveSettings, *, as_json: bool) -> None:
    if not settings.inputs:
        raise SpecError("--dry-run says what inputs hold: give some")
    size = run.plan_size()
    if as_json:
        print(json.dumps(vars(size), indent=2))  # noqa: T201
        return
    print(_told(size))  # noqa: T201


def _told(size: PlanSize) -> str:
    parts = [
        (size.pictures, "picture"),
        (size.films, "film"),
        (size.holders, "tar or Parquet file"),
    ]
    found = ", ".join(counted(count, what) for count, what in parts if count) or "nothing"
    return f"{found}: {size.size / 1e6:.1f} MB in {counted(size.units, 'unit')} of work"


def _print_summary(summary: Summary) -> None:
    console, record = stdout(), summary.to_record()
    run: dict[str, Any] = record["run"]
    rate = f", {run['rows_per_second']:.1f} a second" if run["rows"] else ""
    console.print(
        f"{counted(summary.total.rows, 'row')} with scores, {sum(summary.total.failures.values())} without, "
        f"{counted(summary.total.events, 'event')}; {run['rows']} with scores in this run, in "
        f"{run['seconds']:.1f} s{rate}",
        highlight=False,
    )
    if record["labels"]:
        labels = table("label", right=("rows",))
        for name, count in [*record["labels"].items()][:_MOST_LABELS]:
            labels.add_row(escape(printable(name)), str(count))
        console.print(labels)
    if record["failures"]:
        failures = table("failure", right=("rows",))
        for kind, count in sorted(record["failures"].items(), key=lambda item: -item[1]):
            failures.add_row(kind, str(count))
        console.print(failures)
    console.print(escape(f"with the provider {summary.provider}"), highlight=False)


@archive.command("show")
def show(
    dataset: Annotated[str, typer.Argument(help="A folder or an address.")],
    *,
    where: Annotated[
        str,
        typer.Option(
            help="SQL over the columns; has('dog') and score('dog') look a label up. Default: all rows."
        ),
    ] = "true",
    out: Annotated[Path, typer.Option(help="PNG to write.")] = Path("archive.png"),
) -> None:
    """Draw pictures and frames of DATASET that a condition chooses, evenly spaced, on one sheet.

    \b
    cmlr-edge archive show labels --where "has('dog') and score('person') < 0.2" --out dogs.png
    """  # noqa: D301 (typer's mark for keeping lines)
    from cmlr_edge.archive.show import draw_sheet

    found, drawn = draw_sheet(dataset, where, out)
    print(f"{counted(found, 'row')}, {drawn} of them drawn in {printable(out)}")  # noqa: T201
