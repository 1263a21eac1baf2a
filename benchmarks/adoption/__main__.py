"""Adopt classifiers of several tools, and hold every score against their own runtime's."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import onnx
import onnxruntime
import typer
from PIL import Image

from benchmarks.adoption.measure import measure
from benchmarks.adoption.models import cases
from benchmarks.adoption.small import draw
from benchmarks.records import write_json


def main(
    out: Annotated[Path | None, typer.Option(help="Write adoption.json here.")] = None,
    pictures: Annotated[
        Path | None, typer.Option(help="Folder of JPEGs; without it pictures are drawn.")
    ] = None,
    only: Annotated[str, typer.Option(help="Of the models, those whose name holds this.")] = "",
) -> None:
    """Print a table of the largest differences; exit code 1 where one is too large."""
    seen = _read(pictures) if pictures else draw()
    rows = [measure(case, seen) for case in cases() if only in case.name]
    for row in rows:
        print(f"| {' | '.join(str(row[k]) for k in row)} |")  # noqa: T201
    if out is not None:
        versions = {"onnxruntime": onnxruntime.__version__, "onnx": onnx.__version__}
        record = {"pictures": len(seen), **versions, "models": rows}
        write_json(out, record, indent=2)
    if any(row["largest_difference"] > row["allowed"] for row in rows):
        raise typer.Exit(1)


def _read(folder: Path) -> list[Image.Image]:
    return [Image.open(path).convert("RGB") for path in sorted(folder.glob("*.jpg"))[:8]]


if __name__ == "__main__":
    typer.run(main)
