"""`cmlr-edge label SOURCE...`: the frames of sources, labelled, into files and to servers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

from cmlr_edge.capture import Policy, Source, open_source
from cmlr_edge.capture.live import LiveSettings, LiveSource
from cmlr_edge.cli import options
from cmlr_edge.cli.console import print_device, stderr
from cmlr_edge.cli.outputs import OutputOptions, Outputs, check_files
from cmlr_edge.cli.report import SourceReport, print_json, print_problems, print_tables
from cmlr_edge.cli.signals import Interruption, noted_signals
from cmlr_edge.errors import SpecError
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.files import model_path, spec_path
from cmlr_edge.model.stability import StabilityChange, StabilityRules
from cmlr_edge.pipeline import Streams
from cmlr_edge.pipeline.summary import RunSummary
from cmlr_edge.recognizer import Recognizer


def label(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Video, picture, folder of pictures, quoted glob, camera (0, csi://0), or stream "
            "(rtsp://, http://); test:// is a moving pattern. Several are read side by side.",
        ),
    ],
    engine: options.Engine = None,
    out: Annotated[Path | None, typer.Option(help="JSON lines, one object per frame.")] = None,
    events: options.Events = None,
    mqtt: options.Mqtt = None,
    webhook: options.Webhook = None,
    csv: Annotated[Path | None, typer.Option(help="Table of all scores, a row per frame.")] = None,
    rotate_mb: options.RotateMb = None,
    overlay: Annotated[
        Path | None,
        typer.Option(help="MP4 with the labels drawn in; NAME-1.mp4 and so on of several sources."),
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            help="PNG: frames with labels, and when each label was there; likewise per source."
        ),
    ] = None,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Prometheus metrics at 127.0.0.1, while it runs."),
    ] = None,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many, of each source.")
    ] = None,
    threshold: options.Threshold = None,
    stability: options.Stability = None,
    skip_unchanged: options.SkipUnchanged = None,
    frozen_after: Annotated[
        float,
        typer.Option(
            min=0, help="Seconds until a live picture that stays the same is invalid; 0: never."
        ),
    ] = 10.0,
    policy: Annotated[
        str | None,
        typer.Option(help="every frame, or the newest. Default: every of a file, the newest live."),
    ] = None,
    provider: options.Provider = None,
    rebuild: options.Rebuild = False,
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
    1    some results were lost, or some sources failed; the rest is done
    2    an error, or every source failed
    130  ended by SIGINT: open events are ended, outputs finished
    143  likewise by SIGTERM; a second signal ends the process at once
    """  # noqa: D301 (typer's mark for keeping lines)
    wanted = OutputOptions(
        out, events, csv, overlay, contact_sheet, mqtt, webhook, metrics_port, rotate_mb
    )
    path = model_path(engine or demo_engine())
    check_files(wanted.files(len(sources)), [*map(Path, sources), path, spec_path(path)])
    rules = read_rules(stability or [])
    live = LiveSettings(frozen_after_s=frozen_after or None)
    with noted_signals() as interruption, ExitStack() as stack:
        recognizer = stack.enter_context(
            Recognizer.from_engine(path, provider=provider, rebuild=rebuild, thresholds=threshold)
        )
        opened = [
            stack.enter_context(open_source(uri, policy=cast("Policy | None", policy), live=live))
            for uri in sources
        ]
        check_files(wanted.files(len(opened)), [Path(f) for item in opened for f in item.files])
        streams = Streams(recognizer)
        outputs = stack.enter_context(closing(Outputs(wanted, opened, recognizer.labels, streams)))
        stack.enter_context(streams)  # ends before the outputs do
        _add_sources(streams, opened, outputs, rules, skip_unchanged, max_frames)
        if not as_json and any(isinstance(source, LiveSource) for source in opened):
            print_device(recognizer)
        summaries = _run(streams, interruption, _expected(opened, max_frames), quiet=as_json)
        device, runtime = recognizer.provider, recognizer.runtime
    _raise_single_error(streams, interruption)
    reports = [
        SourceReport(status, summaries[status.name], source.fps is not None)
        for status, source in zip(streams.status(), opened, strict=True)
    ]
    lost = outputs.lost + sum(report.status.lost for report in reports)
    if as_json:
        print_json(reports, path, device, runtime, lost)
    else:
        print_tables(reports, runtime, wanted.files(len(opened)))
    print_problems(reports, lost)
    _exit(reports, lost, interruption.number)


def _add_sources(
    streams: Streams,
    sources: Sequence[Source],
    outputs: Outputs,
    rules: StabilityRules,
    skip_unchanged_s: float | None,
    max_frames: int | None,
) -> None:
    for index, (source, name) in enumerate(zip(sources, _distinct(sources), strict=True)):
        sinks, event_sinks = outputs.of_source(index, name)
        streams.add(
            source,
            name=name,
            sinks=sinks,
            event_sinks=event_sinks,
            stability=rules,
            skip_unchanged_s=skip_unchanged_s,
            max_frames=max_frames,
        )


def _run(
    streams: Streams, interruption: Interruption, total: int | None, *, quiet: bool
) -> dict[str, RunSummary]:
    """Run to the end, or to SIGINT or SIGTERM."""
    summaries = {status.name: RunSummary() for status in streams.status()}
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    hidden = quiet or not stderr.is_terminal
    with (
        Progress(*columns, console=stderr, disable=hidden) as progress,
        closing(streams.results()) as results,
    ):
        interruption.calls(streams.request_end)
        task = progress.add_task("labelling", total=total)
        for result in results:
            summaries[result.source].add(result.frame, result.prediction)
            progress.advance(task)
    return summaries


def _raise_single_error(streams: Streams, interruption: Interruption) -> None:
    """What ended the only source is the error of the command."""
    statuses = streams.status()
    if len(statuses) == 1 and not interruption.number:
        error = streams.error(statuses[0].name)
        if error is not None:
            raise error


def _exit(reports: Sequence[SourceReport], lost: int, signal_number: int) -> None:
    if signal_number:
        frames = sum(report.status.frames for report in reports)
        stderr.print(f"interrupted after {frames} frames; outputs hold what was done")
        raise typer.Exit(128 + signal_number)
    failed = [report.failed for report in reports]
    if any(failed) or lost:
        raise typer.Exit(2 if all(failed) else 1)


def _expected(sources: Sequence[Source], max_frames: int | None) -> int | None:
    """Frames to come, where every source announces them."""
    each = [
        min((n for n in (source.num_frames, max_frames) if n is not None), default=None)
        for source in sources
    ]
    return None if None in each else sum(n for n in each if n is not None)


def _distinct(sources: Sequence[Source]) -> list[str]:
    """Their names, numbered where one is given more than once."""
    names = [source.name for source in sources]
    counts = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name} #{n + 1}" if n else name for name, n in zip(names, counts, strict=True)]


def read_rules(given: Sequence[str]) -> StabilityRules:
    """Read what `--stability` was given.

    Raises:
        SpecError: It is written otherwise than its help says.
    """
    known = [*vars(StabilityChange())]
    values: dict[str, dict[str, float]] = {}
    for text in given:
        found = re.fullmatch(r"(?:(.+)\.)?(\w+)=(\d*\.?\d+)", text, re.ASCII)
        if found is None or found[2] not in known:
            raise SpecError(
                f"cannot read --stability {text}: expected SETTING=NUMBER or LABEL.SETTING=NUMBER, "
                f"with one of {known}"
            )
        values.setdefault(found[1] or "", {})[found[2]] = float(found[3])
    changes = {name: StabilityChange(**changed) for name, changed in values.items()}
    return StabilityRules(changes.pop("", StabilityChange()), changes)
