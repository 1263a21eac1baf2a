"""`cmlr-edge doctor`: what this machine has, what is missing, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cmlr_edge.cli import options
from cmlr_edge.cli.console import stderr
from cmlr_edge.cli.progress import progress_bars
from cmlr_edge.diagnosis.doctor import examine, worst
from cmlr_edge.diagnosis.findings import Finding
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.wording import counted

_COLORS = {"ok": "green", "warning": "yellow", "problem": "red"}


def doctor(
    engine: Annotated[
        Path | None, typer.Argument(help="Also try whether this model would run here.")
    ] = None,
    provider: options.Provider = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Look at this machine: libraries, GPU, Jetson, memory, cameras; with a remedy for each trouble.

    Exit code 0: nothing is broken, though there may be warnings. 1: something is.

    \b
    cmlr-edge doctor
    cmlr-edge doctor models/first --provider cuda
    """  # noqa: D301
    if provider is not None:
        engine = engine or demo_engine()  # only a model can be run by it
    with progress_bars(stderr, transient=True) as bar:
        task = bar.add_task("libraries and drivers that answered", total=None)
        findings = examine(engine, provider=provider, heard=lambda _name: bar.advance(task))
    state = worst(findings)
    if as_json:
        record = {"state": state, "findings": [asdict(finding) for finding in findings]}
        print(json.dumps(record, indent=2, allow_nan=False))  # noqa: T201
    else:
        _print_report(findings)
    if state == "problem":
        raise typer.Exit(1)


def _print_report(findings: list[Finding]) -> None:
    console = Console(highlight=False)
    for group, members in groupby(findings, key=lambda finding: finding.group):
        console.print(f"[bold]{group}[/bold]")
        for item in members:
            state = f"[{_COLORS[item.state]}]{item.state:<7}[/]"
            console.print(f"  {state} {item.name:<13} {escape(item.found)}", soft_wrap=True)
            if item.remedy:
                console.print(f"{'':24}-> {escape(item.remedy)}", soft_wrap=True)
    counts = {state: sum(item.state == state for item in findings) for state in _COLORS}
    console.print(
        f"{counts['ok']} ok, {counted(counts['warning'], 'warning')}, {counted(counts['problem'], 'problem')}"
    )
