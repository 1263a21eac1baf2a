"""What `cmlr-edge label` says at the end."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cmlr_edge.capture.live import SourceState
from cmlr_edge.cli.console import print_away, stderr
from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.pipeline import SourceStatus
from cmlr_edge.pipeline.summary import RunSummary
from cmlr_edge.redaction import printable
from cmlr_edge.session.session import Session
from cmlr_edge.wording import counted


@dataclass(frozen=True)
class SourceReport:
    """How one source ended and what it showed."""

    status: SourceStatus
    summary: RunSummary
    has_times: bool

    @property
    def failed(self) -> bool:
        """Whether it ended before its time."""
        return self.status.state is SourceState.FAILED

    @property
    def damaged(self) -> bool:
        """Whether parts of a file are missing; a live source loses packets as networks do."""
        status = self.status
        return status.is_cut or (status.capture is None and status.damaged > 0)

    def to_record(self) -> dict[str, Any]:
        """Build a JSON-ready object."""
        status = self.status
        record: dict[str, Any] = {
            "source": status.name,
            "state": status.state.value,
            "reason": status.reason,
            "lost": status.lost,
            "damaged_packets": status.damaged,
        }
        if status.capture is not None:
            record["capture"] = asdict(status.capture)
        return record | self.summary.to_record()


def print_json(
    reports: Sequence[SourceReport], session: Session, provider: str, runtime: str
) -> None:
    """Print one object: of the source, or with a list of several."""
    run: dict[str, Any] = {"engine": str(session.engine_path()), "provider": provider}
    run |= {"runtime": runtime, "results_lost": session.lost}
    run["outputs"] = [asdict(status) for status in session.output_status()]
    records = [report.to_record() for report in reports]
    record = records[0] | run if len(records) == 1 else run | {"sources": records}
    print(json.dumps(record, indent=2, allow_nan=False))  # noqa: T201


def print_tables(reports: Sequence[SourceReport], runtime: str, session: Session) -> None:
    """Print a table of labels and one of latencies per source, and where outputs are."""
    console = stdout()
    for report in reports:
        _print_source(console, report, runtime, _nearest(report, session))
    lost = {output.name for output in session.output_status() if output.lost}
    for path in session.files():
        if str(path) in lost and not path.is_file():  # a pipe is there, whoever reads it or not
            continue  # `print_problems` says what was lost
        said = "wrote" if path.exists() else "there was nothing to write to"
        console.print(f"{said} {escape(printable(path))}", soft_wrap=True)
    for folder in session.folders():
        count = sum(len(files) for _, _, files in os.walk(folder))
        said = f"{counted(count, 'file')} in {printable(folder)}"
        console.print(escape(said), soft_wrap=True)


def print_problems(reports: Sequence[SourceReport], session: Session) -> None:
    """Say on stderr what is missing from the outputs."""
    for status in (report.status for report in reports if report.failed):
        stderr.print(f"{escape(status.name)} failed: {escape(status.reason)}", soft_wrap=True)
    print_away(session)
    for output in session.output_status():
        if output.lost or output.state != "ok":
            why = f": {output.reason}" if output.reason else ""
            state = "works again" if output.state == "ok" else f"is {output.state}"
            text = f"{output.name} {state}, {counted(output.lost, 'result or event', 'results or events')} lost{why}"
            stderr.print(escape(text), soft_wrap=True)
    if session.lost:
        stderr.print(
            f"outputs failed to take results or events {counted(session.lost, 'time')}, see above"
        )


def _nearest(report: SourceReport, session: Session) -> str:
    """Which label came nearest to its threshold, for a run that found none; empty if nothing was scored."""
    highest, settings = report.summary.highest, session.names().get(report.status.name)
    recognizer = session.recognizer
    if highest is None or settings is None or len(highest) != len(recognizer.labels):
        return ""
    thresholds = recognizer.thresholds | dict(settings.thresholds)
    scores = dict(zip(recognizer.labels, highest.tolist(), strict=True))
    asked = [x for x in settings.labels or recognizer.labels if math.isfinite(scores[x])]
    if not asked:
        return ""
    label = max(asked, key=lambda name: scores[name] - thresholds[name])
    return f": {printable(label)} came nearest, {scores[label]:.3f} of {thresholds[label]:.3f}"


def _print_source(console: Console, report: SourceReport, runtime: str, nearest: str) -> None:
    status, summary = report.status, report.summary
    console.print(f"[bold]{escape(status.name)}[/bold]", soft_wrap=True)
    stills = not report.has_times
    pace = counted(summary.frames, "picture" if stills else "frame")
    if summary.frames > 1:  # one has no rate
        pace += f" at {summary.frames_per_second:.1f} per second"
    if summary.ranked():
        console.print(_presence_table(summary, stills=stills, title=pace))
    else:
        none = f"; no label reached its threshold{nearest}" if summary.frames else ""
        console.print(escape(pace + none), soft_wrap=True)
    if percentiles := summary.latency_percentiles():
        console.print(escape(runtime), soft_wrap=True)
        latency = table("stage", "median ms", "p95 ms")
        for stage, values in percentiles.items():
            latency.add_row(stage, f"{values['p50']:.2f}", f"{values['p95']:.2f}")
        console.print(latency)
    if status.runs_per_frame > 1:
        console.print(f"the model runs {status.runs_per_frame} times a frame, for the tiles")
    if summary.repeated_frames:
        console.print(
            f"{counted(summary.repeated_frames, 'frame')} with the scores before, for nothing had changed"
        )
    if summary.invalid_frames:
        console.print(
            f"{counted(summary.invalid_frames, 'invalid frame')}: frozen, stale, damaged, or no number from "
            "the model"
        )
    if status.damaged:
        console.print(
            f"damaged packets or pictures of the source, left out or invalid: {status.damaged}"
        )
    if (stats := status.capture) is not None:
        console.print(
            f"{counted(stats.received, 'frame')} received, {stats.dropped} dropped for newer ones, "
            f"{counted(stats.reconnects, 'attempt')} to connect again"
        )


def _presence_table(summary: RunSummary, *, stills: bool, title: str) -> Table:
    words, when = (("highest in",), ()) if stills else ((), ("seconds", "first s", "last s"))
    counts = "pictures" if stills else "frames"
    presence = table("label", *words, right=(counts, "share", "mean", "max", *when), title=title)
    for name, seen in summary.ranked():
        share, mean = seen.frames / summary.frames, seen.score_sum / seen.frames
        best = [escape(printable(Path(seen.best_picture or "").name))] if stills else []
        numbers = [str(seen.frames), f"{share:.0%}", f"{mean:.2f}", f"{seen.max_score:.2f}"]
        times = [] if stills else [seen.seconds or 0.0, seen.first, seen.last]
        presence.add_row(escape(name), *best, *numbers, *(f"{time:.1f}" for time in times))
    return presence
