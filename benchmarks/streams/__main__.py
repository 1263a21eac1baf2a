"""`python -m benchmarks.streams`: eight sources for ten minutes, two of which fail in turn."""

from __future__ import annotations

import json
import os
import platform
import tempfile
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.streams.endurance import endure
from benchmarks.streams.stand_in import write_stand_in
from cmlr_edge import Recognizer, demo_engine
from cmlr_edge.machine.allocator import bound_arenas
from cmlr_edge.machine.facts import cpu_name, usable_cores
from cmlr_edge.model.files import write_atomically
from train.reporting import exit_on_error


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    sources: Annotated[int, typer.Option(min=3)] = 8,
    fps: Annotated[float, typer.Option(help="Of each source.")] = 5.0,
    minutes: Annotated[float, typer.Option(min=0.5)] = 10.0,
    size: Annotated[str, typer.Option(help="Of the pictures.")] = "320x240",
    threshold: Annotated[
        float | None, typer.Option(help="For all labels: low enough that patterns make events.")
    ] = None,
    stand_in: Annotated[
        bool, typer.Option(help="A model that costs nothing, to try the streams alone.")
    ] = False,
) -> None:
    """Run many sources for long; exit code 1 where a limit of the report is not kept.

    The bundled model takes the moving square of a pattern for a person, at 0.02 to 0.14 in turn: a
    threshold of 0.1 makes events that come and go.

    Example: python -m benchmarks.streams --threshold 0.1 --out benchmarks/results/streams/endurance.json
    """
    bound_arenas()  # as the command line does
    settings = {
        "sources": sources,
        "fps": fps,
        "duration_s": minutes * 60,
        "size": size,
        "threshold": threshold,
    }
    with tempfile.TemporaryDirectory() as folder:
        engine = write_stand_in(Path(folder)) if stand_in else demo_engine()
        with Recognizer.from_engine(engine, thresholds=threshold) as recognizer:
            machine = {
                "cpu": cpu_name(),
                "cores": usable_cores(),
                "load_at_start": os.getloadavg()[0],
                "python": platform.python_version(),
                "runtime": recognizer.runtime,
                "model": recognizer.spec.name,
            }
            report = endure(
                recognizer, sources=sources, fps=fps, duration_s=minutes * 60, size=size
            )
    machine["load_at_end"] = os.getloadavg()[0]
    record = {"settings": settings, "machine": machine, **report}
    write_atomically(out, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())
    print("passed" if report["passed"] else "NOT passed", out)  # noqa: T201
    if not report["passed"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
