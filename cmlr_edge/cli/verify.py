"""`cmlr-edge verify ENGINE`: is this engine whole, and does it compute here what it should?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from cmlr_edge.cli import options
from cmlr_edge.engines.opening import examine
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.files import model_path

_COLORS = {"ok": "green", "warning": "yellow", "failed": "red"}


def verify(
    engine: Annotated[
        Path | None, typer.Argument(help="Model file, or its folder. Default: the bundled.")
    ] = None,
    provider: options.Provider = None,
    require_signature: options.RequireSignature = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Check an engine: who signed it, its hash, its labels, the device it runs on, its golden sample.

    Exit code 0: it may be used. 1: a check failed. 2: there is nothing to check.

    \b
    cmlr-edge verify model.onnx --provider cuda
    """  # noqa: D301
    path = model_path(engine or demo_engine())
    checks = examine(path, provider=provider, public_key=require_signature)
    passed = all(check.state != "failed" for check in checks)
    if as_json:
        record = {
            "engine": str(path),
            "passed": passed,
            "checks": [check.to_record() for check in checks],
        }
        print(json.dumps(record, indent=2, allow_nan=False))  # noqa: T201
    else:
        console = Console()
        for check in checks:
            state = f"[{_COLORS[check.state]}]{check.state:<7}[/]"
            console.print(f"{state} {check.name:<14} {escape(check.message)}", soft_wrap=True)
            if check.remedy:
                console.print(f"{'':22} -> {escape(check.remedy)}", soft_wrap=True)
    if not passed:
        raise typer.Exit(1)
