"""`cmlr-edge verify ENGINE`: is this engine whole, and does it compute here what it should?"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cmlr_edge.cli import options
from cmlr_edge.engines.verification import verify_engine
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.spec import model_path


def verify(
    engine: Annotated[
        Path | None, typer.Argument(help="Model file, or its folder. Default: the bundled.")
    ] = None,
    provider: options.Provider = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check an engine: its hash, its labels, the device it runs on, and its golden sample.

    Exit code 0: it may be used. 1: a check failed. 2: there is nothing to check.

    \b
    cmlr-edge verify model.onnx --provider cuda
    """  # noqa: D301
    path = model_path(engine or demo_engine())
    checks = verify_engine(path, provider=provider)
    passed = all(check.passed for check in checks)
    if as_json:
        record = {"engine": str(path), "passed": passed, "checks": [asdict(c) for c in checks]}
        print(json.dumps(record, indent=2, allow_nan=False))  # noqa: T201
    else:
        console = Console()
        for check in checks:
            state = "[green]ok     [/green]" if check.passed else "[red]problem[/red]"
            console.print(f"{state} {check.name:<14} {escape(check.found)}", soft_wrap=True)
            if check.remedy:
                console.print(f"{'':22} -> {escape(check.remedy)}", soft_wrap=True)
    if not passed:
        raise typer.Exit(1)
