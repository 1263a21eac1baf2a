"""`cmlr-edge bench ENGINE [SOURCE]`: how fast a model is here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cmlr_edge.cli import options
from cmlr_edge.cli.console import stderr
from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.diagnosis.bench import BenchSettings, find_regressions, run_bench
from cmlr_edge.errors import DataError, OutputError
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.files import model_path, write_atomically
from cmlr_edge.model.strict_json import json_value, read_bounded
from cmlr_edge.wording import counted


def bench(
    engine: Annotated[
        Path | None, typer.Argument(help="Model that build_engine.py wrote. Default: the bundled.")
    ] = None,
    source: Annotated[
        str | None,
        typer.Argument(help="As for label. Default: one picture of 640 x 480 in memory."),
    ] = None,
    provider: options.Provider = None,
    warm_up: Annotated[float, typer.Option("--warmUp", min=0, help="ms before timing.")] = 200,
    duration: Annotated[float, typer.Option("--duration", min=0, help="Seconds, at least.")] = 10,
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Frames, at least.")] = 10,
    percentile: Annotated[
        str, typer.Option("--percentile", help="Further ones, by commas: 75,99.99.")
    ] = "",
    batches: Annotated[str, typer.Option(help="Batch sizes, by commas; may be empty.")] = "1,2,4,8",
    streams: Annotated[str, typer.Option(help="Threads with an engine each.")] = "1,2",
    out: Annotated[Path | None, typer.Option("--json", help="File for the record.")] = None,
    compare: Annotated[
        Path | None, typer.Option(help="An earlier --json: exit code 1 where this run is slower.")
    ] = None,
    max_regression: Annotated[str, typer.Option(help="Allowed with --compare.")] = "5%",
) -> None:
    """Check a model, then time every stage from capture to label.

    \b
    cmlr-edge bench models/first street.mp4 --provider auto --json now.json
    cmlr-edge bench models/first street.mp4 --compare before.json --max-regression 5%
    """  # noqa: D301
    allowed, old = _share(max_regression), _read(compare)
    if out is not None and not out.absolute().parent.is_dir():
        raise OutputError(f"cannot write {out}: there is no folder {out.parent}; create it")
    settings = BenchSettings(
        warm_up_ms=warm_up,
        duration_s=duration,
        iterations=iterations,
        percentiles=tuple(_numbers(percentile, "--percentile", most=100)),
        batches=tuple(int(n) for n in _numbers(batches, "--batches")),
        streams=tuple(int(n) for n in _numbers(streams, "--streams")),
    )
    path = model_path(engine or demo_engine())
    record = run_bench(path, source, provider=provider, settings=settings, tell=_tell)
    if out is not None:
        write_atomically(out, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())
    _print(record)
    if not record["valid"]:
        stderr.print("[red]invalid:[/red] the board throttled; cool it, or set its power mode")
        raise typer.Exit(1)
    if old is None:
        return
    if slower := find_regressions(record, old, allowed):
        stderr.print(f"[red]slower than {compare}[/red] by more than {max_regression}: {slower}")
        raise typer.Exit(1)
    _tell(f"not slower than {compare} by more than {max_regression}")


def _tell(line: str) -> None:
    stderr.print(escape(line), highlight=False, soft_wrap=True)


def _share(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError as error:
        raise DataError(f"--max-regression is {text!r}: expected a percentage like 5%") from error


def _numbers(text: str, option: str, *, most: float = 1024) -> list[float]:
    try:
        values = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        values = [0.0]
    if not all(0 < value <= most for value in values):
        raise DataError(
            f"{option} is {text!r}: expected numbers above 0 and up to {most}, by commas"
        )
    return values


def _read(path: Path | None) -> dict[str, Any] | None:
    if path is None:
        return None
    try:
        record = json_value(read_bounded(path))
    except (OSError, ValueError) as error:
        raise DataError(f"--compare {path} cannot be read: {error}") from error
    if not isinstance(record, dict) or not {"latency_ms", "throughput", "valid"} <= set(record):
        raise DataError(f"--compare {path} is no record of this command: give a file of its --json")
    return record


def _print(record: dict[str, Any]) -> None:
    console = stdout()
    console.print(f"{escape(record['engine'])}: {escape(record['runtime'])}", soft_wrap=True)
    console.print(
        f"{record['machine']['cpu']}, {counted(record['machine']['cores'], 'core')}", soft_wrap=True
    )
    latencies = record["latency_ms"]
    columns = list(next(iter(latencies.values())))
    title = f"{counted(record['iterations'], 'frame')}, {escape(record['source'])}"
    latency = table("ms", right=tuple(columns), title=title)
    for stage, values in latencies.items():
        latency.add_row(stage.replace("_", " "), *(f"{values[name]:.2f}" for name in columns))
    console.print(latency)
    throughput, memory = record["throughput"], record["memory_mb"]
    console.print(f"frames per second: {throughput['frames_per_second']:.1f}")
    for name in ("by_batch", "by_streams"):
        rates = ", ".join(f"{n}: {rate:.1f}" for n, rate in throughput[name].items())
        console.print(f"  {name.replace('_', ' ')} {rates}")
    console.print(
        f"load {record['load_s']:.2f} s, to the first label {record['load_to_first_label_s']:.2f} s; "
        f"memory {memory['before_load']:.0f} MB before, {memory['steady']:.0f} MB in use"
    )
    if record["board"]:
        console.print_json(data=record["board"])
