"""Options that several commands have, and how they write JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cmlr_edge.model.files import write_atomically
from train.reporting import say

DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Data folder: labels.json, labels.csv, COCO or another layout of docs/datasets.md.",
    ),
]
SkipDamagedOption = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out pictures that cannot be read.")
]
CheckpointOption = Annotated[Path, typer.Option(help="Run folder that `fit` wrote.")]


def write_report(path: Path | None, report: dict[str, Any]) -> None:
    """Write a report as JSON, where a file was asked for."""
    if path is not None:
        write_atomically(path, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
        say(f"wrote {path}")
