"""`cmlr-edge label SOURCE...`: the frames of sources, labelled, into files and to servers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer
from rich.progress import Progress

from cmlr_edge.cli.console import print_start, stderr
from cmlr_edge.cli.flags import Flags
from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.cli.progress import is_seen, progress_bars
from cmlr_edge.cli.report import SourceReport, print_json, print_problems, print_tables
from cmlr_edge.cli.signals import Interruption, noted_signals
from cmlr_edge.pipeline import lane
from cmlr_edge.pipeline.summary import RunSummary
from cmlr_edge.session.runner import Runner
from cmlr_edge.session.session import Session
from cmlr_edge.sinks.base import Result
from cmlr_edge.wording import counted


class _Summaries:
    """Sums up every source, and moves the progress bar; an inline sink."""

    inline = True
    pictures = False

    def __init__(self) -> None:
        self.by_source: defaultdict[str, RunSummary] = defaultdict(RunSummary)
        self.progress = Progress(disable=True)

    def shown(self, total: int | None, *, quiet: bool) -> Progress:
        """The bar, to be entered; lines for a film where nobody looks, and nothing for a camera."""
        seen = is_seen(stderr) or total is not None
        self.progress = progress_bars(stderr, visible=seen and not quiet)
        self.progress.add_task("labelling", total=total)
        return self.progress

    def write(self, result: Result) -> None:
        self.by_source[result.source].add(result.frame, result.prediction)
        for task in self.progress.task_ids:
            self.progress.advance(task)

    def close(self) -> None:
        """Nothing to finish."""


@takes_flags
def label(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SOURCE",
            help="Video, picture, folder of pictures, quoted glob, camera (0, csi://0), or stream "
            "(rtsp://, http://); test:// is a moving pattern. Several are read side by side; "
            "door=rtsp://... gives one a name.",
        ),
    ] = None,
    *,
    flags: Flags,
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON.")] = False,
) -> None:
    """Label the frames of each SOURCE: all of a file, the newest of a camera.

    \b
    cmlr-edge label street.mp4 --out street.jsonl --overlay street_labels.mp4
    cmlr-edge label "photos/*.jpg" --contact-sheet sheet.png
    cmlr-edge label 0 --max-frames 300
    cmlr-edge label rtsp://user:password@door/1 rtsp://yard/1 --events events.jsonl

    \b
    Exit codes
    0    all is done
    1    some results were lost, some sources failed, or parts of a file are damaged; the rest is done
    2    an error, or every source failed
    130  ended by SIGINT: open events are ended, outputs finished
    129  likewise by SIGHUP, without --config, as where a terminal is closed
    143  likewise by SIGTERM; a second signal ends the process at once
    """  # noqa: D301 (typer's mark for keeping lines)
    fill = partial(flags.to_config, sources or [], append=False)
    config, folder = fill()
    summaries = _Summaries()
    with (
        _said_once(alone=len(config.sources) == 1),
        noted_signals(ends_well=False, reloads=flags.config is not None) as interruption,
    ):
        session = Session(config, folder=folder, watchers=[summaries], file=flags.config)
        with session:
            if not as_json and (session.live or session.page_url):
                print_start(session)
            runner = Runner(session, reread=lambda file: fill(file=file)[0], file=flags.config)
            interruption.calls(runner.request_end, runner.request_reload)
            with summaries.shown(session.num_frames(), quiet=as_json):
                runner.run()
            device, runtime = session.recognizer.provider, session.recognizer.runtime
    _raise_single_error(session, interruption)
    reports = [
        SourceReport(status, summaries.by_source[status.name], session.has_times(status.name))
        for status in session.status()
    ]
    if as_json:
        print_json(reports, session, device, runtime)
    else:
        print_tables(reports, runtime, session)
    print_problems(reports, session)
    _exit(reports, session.lost, interruption.number)


@contextmanager
def _said_once(*, alone: bool) -> Iterator[None]:
    """The end of an only source is the command's error: its lane's log does not say it too."""
    log = logging.getLogger(lane.__name__)
    before = log.level
    log.setLevel(logging.ERROR if alone else before)
    try:
        yield
    finally:
        log.setLevel(before)


def _raise_single_error(session: Session, interruption: Interruption) -> None:
    """What ended the only source is the error of the command."""
    statuses = session.status()
    if len(statuses) == 1 and not interruption.number:
        error = session.streams.error(statuses[0].name)
        if error is not None:
            raise error


def _exit(reports: Sequence[SourceReport], lost: int, signal_number: int) -> None:
    if signal_number:
        frames = sum(report.status.frames for report in reports)
        stderr.print(f"interrupted after {counted(frames, 'frame')}; outputs hold what was done")
        raise typer.Exit(128 + signal_number)
    failed = [report.failed for report in reports]
    if any(failed) or lost or any(report.damaged for report in reports):
        raise typer.Exit(2 if all(failed) else 1)
