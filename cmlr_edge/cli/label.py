"""`cmlr-edge label SOURCE`: the frames of a source, labelled, into files and to servers."""

from __future__ import annotations

import json
import signal
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, cast

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from rich.table import Table

from cmlr_edge.bundled import demo_engine
from cmlr_edge.capture import Policy, Source, open_source
from cmlr_edge.capture.live import LiveSource
from cmlr_edge.cli.console import stderr
from cmlr_edge.errors import CaptureError, OutputError
from cmlr_edge.model_spec import model_path, spec_path
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks import EventSink, Sink
from cmlr_edge.sinks.contact_sheet import ContactSheet
from cmlr_edge.sinks.csv_table import CsvTable
from cmlr_edge.sinks.isolation import IsolatedEventSink, IsolatedSink
from cmlr_edge.sinks.jsonl import EventLines, JsonLines
from cmlr_edge.sinks.mqtt import MqttEvents
from cmlr_edge.sinks.overlay import OverlayVideo
from cmlr_edge.sinks.webhook import Webhook
from cmlr_edge.stream import Result, recognize_stream
from cmlr_edge.summary import RunSummary


def label(
    source: Annotated[
        str,
        typer.Argument(
            help="Video, picture, folder of pictures, quoted glob, camera (0, csi://0), or stream "
            "(rtsp://, http://); test:// is a moving pattern."
        ),
    ],
    engine: Annotated[
        Path | None, typer.Option(help="Model that build_engine.py wrote. Default: the bundled.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="JSON lines, one object per frame.")] = None,
    events: Annotated[
        Path | None, typer.Option(help="JSON lines: when each label comes, stays and goes.")
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(help="Events to mqtt://user:password@host:1883/topic.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Events as HTTP POST to this URL.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Table of all scores, a row per frame.")] = None,
    rotate_mb: Annotated[
        float | None,
        typer.Option(min=0.001, help="Start new files at this size; the last five are kept."),
    ] = None,
    overlay: Annotated[Path | None, typer.Option(help="MP4 with the labels drawn in.")] = None,
    contact_sheet: Annotated[
        Path | None, typer.Option(help="PNG: frames with labels, and when each label was there.")
    ] = None,
    max_frames: Annotated[int | None, typer.Option(min=1, help="Stop after so many.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="One threshold for all labels instead of the model's own.")
    ] = None,
    policy: Annotated[
        str | None,
        typer.Option(help="every frame, or the newest. Default: every of a file, the newest live."),
    ] = None,
    provider: Annotated[
        str, typer.Option(help="cpu, cuda, openvino, openvino-bf16, or auto: the fastest.")
    ] = "cpu",
    as_json: Annotated[bool, typer.Option("--json", help="Summary as JSON.")] = False,
) -> None:
    """Label the frames of SOURCE: all of a file, the newest of a camera.

    \b
    cmlr-edge label street.mp4 --out street.jsonl --overlay street_labels.mp4
    cmlr-edge label "photos/*.jpg" --contact-sheet sheet.png
    cmlr-edge label 0 --max-frames 300
    cmlr-edge label rtsp://user:password@camera/stream --events events.jsonl
    """  # noqa: D301 (typer's mark for keeping lines)
    outputs = [path for path in (out, events, csv, overlay, contact_sheet) if path is not None]
    path = model_path(engine or demo_engine())
    _check_outputs(outputs, [Path(source), path, spec_path(path)])
    summary = RunSummary()
    with (
        Recognizer.from_engine(path, provider=provider, thresholds=threshold) as recognizer,
        open_source(source, policy=cast("Policy | None", policy)) as frames,
    ):
        _check_outputs(outputs, [Path(file) for file in frames.files])
        rotate_bytes = None if rotate_mb is None else round(rotate_mb * 1e6)
        sinks = _make_sinks(frames, out, overlay, contact_sheet, rotate_bytes)
        if csv is not None:
            sinks.append(CsvTable(csv, recognizer.labels, rotate_bytes=rotate_bytes))
        if isinstance(frames, LiveSource):
            sinks = [IsolatedSink(sink, type(sink).__name__) for sink in sinks]
        event_sinks = _make_event_sinks(frames, events, mqtt, webhook, rotate_bytes)
        results = recognize_stream(
            frames, recognizer, sinks=sinks, event_sinks=event_sinks, max_frames=max_frames
        )
        stopped_by = _run(frames, results, summary, max_frames, quiet=as_json)
        runtime = recognizer.runtime
    if as_json:
        record: dict[str, Any] = {"source": frames.name, "engine": str(path), "runtime": runtime}
        if isinstance(frames, LiveSource):
            record["capture"] = asdict(frames.stats)
        print(json.dumps(record | summary.to_record(), indent=2, allow_nan=False))  # noqa: T201
    else:
        _print_summary(summary, frames, runtime, outputs)
    lost = sum(
        sink.lost
        for sink in (*sinks, *event_sinks)
        if isinstance(sink, IsolatedSink | IsolatedEventSink)
    )
    if lost:
        stderr.print(f"{lost} results were lost by their outputs, see the warnings above")
    if stopped_by:
        stderr.print(f"interrupted after {summary.frames} frames; outputs hold what was done")
        raise typer.Exit(128 + stopped_by)
    if lost:
        raise typer.Exit(1)


def _check_outputs(outputs: list[Path], inputs: list[Path]) -> None:
    for path in outputs:
        if not path.absolute().parent.is_dir():
            raise OutputError(f"cannot write {path}: there is no folder {path.parent}; create it")
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        if path.resolve() in {item.resolve() for item in inputs}:
            raise OutputError(
                f"{path} belongs to the source or the model: choose another name for the output"
            )
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OutputError("two outputs have the same name: give each its own")


def _make_sinks(
    frames: Source,
    out: Path | None,
    overlay: Path | None,
    contact_sheet: Path | None,
    rotate_bytes: int | None,
) -> list[Sink]:
    sinks: list[Sink] = []
    if out is not None:
        sinks.append(JsonLines(out, rotate_bytes=rotate_bytes))
    if overlay is not None:
        sinks.append(OverlayVideo(overlay, frames.fps))
    if contact_sheet is not None:
        sinks.append(ContactSheet(contact_sheet))
    return sinks


def _make_event_sinks(
    frames: Source,
    events: Path | None,
    mqtt: str | None,
    webhook: str | None,
    rotate_bytes: int | None,
) -> list[EventSink]:
    if frames.fps is None and (events or mqtt or webhook):
        raise CaptureError(
            f"{frames.name} has no times, so there are no events: leave out --events, --mqtt and "
            "--webhook, or give a video, camera or stream"
        )
    sinks: list[EventSink] = []
    if events is not None:
        file: EventSink = EventLines(events, rotate_bytes=rotate_bytes)
        is_live = isinstance(frames, LiveSource)
        sinks.append(IsolatedEventSink(file, "EventLines") if is_live else file)
    if mqtt is not None:
        broker = MqttEvents(mqtt)
        sinks.append(IsolatedEventSink(broker, broker.name))
    if webhook is not None:
        receiver = Webhook(webhook)
        sinks.append(IsolatedEventSink(receiver, receiver.name))
    return sinks


def _run(
    frames: Source,
    results: Generator[Result, None, None],
    summary: RunSummary,
    max_frames: int | None,
    *,
    quiet: bool,
) -> int:
    """Run to the end, or to SIGINT or SIGTERM; return that signal's number or 0."""
    total = min((n for n in (frames.num_frames, max_frames) if n is not None), default=None)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not stderr.is_terminal
    with (
        _ended_by_signals(frames) as received,
        Progress(*columns, console=stderr, disable=hidden) as progress,
        closing(results),
    ):
        task = progress.add_task("labelling", total=total)
        for result in results:
            summary.add(result.frame, result.prediction)
            progress.advance(task)
            if received:
                break
    return received[0] if received else 0


@contextmanager
def _ended_by_signals(frames: Source) -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM instead of raising: an exception could break a lock or an output."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt  # asked twice: leave at once
        received.append(number)
        if isinstance(frames, LiveSource):
            frames.request_end()

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _print_summary(summary: RunSummary, frames: Source, runtime: str, outputs: list[Path]) -> None:
    console = Console()
    console.print(f"[bold]{escape(frames.name)}[/bold]", soft_wrap=True)
    pace = f"{summary.frames} frames at {summary.frames_per_second:.1f} per second"
    console.print(_presence_table(summary, stills=frames.fps is None, title=pace))
    latency = Table("stage", "median ms", "p95 ms", title=runtime)
    for stage, values in summary.latency_percentiles().items():
        latency.add_row(stage, f"{values['p50']:.2f}", f"{values['p95']:.2f}")
    console.print(latency)
    if summary.invalid_frames:
        console.print(
            f"{summary.invalid_frames} frames were invalid: frozen, stale, or no number from the model"
        )
    if isinstance(frames, LiveSource):
        stats = frames.stats
        console.print(
            f"{stats.received} frames received, {stats.dropped} dropped for newer ones, "
            f"{stats.reconnects} times connected again"
        )
    for path in outputs:
        console.print(f"wrote {escape(str(path))}", soft_wrap=True)


def _presence_table(summary: RunSummary, *, stills: bool, title: str) -> Table:
    when = ("first picture", "last picture") if stills else ("seconds", "first s", "last s")
    table = Table("label", title=title)
    for column in ("frames", "share", "mean score", "max", *when):
        table.add_column(column, justify="right")
    for name, seen in summary.ranked():
        share, mean = seen.frames / summary.frames, seen.score_sum / seen.frames
        numbers = [str(seen.frames), f"{share:.0%}", f"{mean:.2f}", f"{seen.max_score:.2f}"]
        times = [seen.first, seen.last] if stills else [seen.seconds or 0.0, seen.first, seen.last]
        table.add_row(escape(name), *numbers, *(f"{t:.{0 if stills else 1}f}" for t in times))
    return table
