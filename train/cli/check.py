"""`python -m train check DATA`: what a data folder is understood to be, before anything is trained."""

from __future__ import annotations

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import typer
from rich.markup import escape

from cmlr_edge.cli.tables import stdout, table
from train.cli.options import write_report
from train.reporting import say

if TYPE_CHECKING:
    from train.data import LabeledImages
    from train.data.report import DataReport

_MOST_SHOWN = 40  # labels of the table
_ON_SHEET = 12  # pictures


def check(
    data: Annotated[Path, typer.Argument(help="A data folder; docs/datasets.md has the layouts.")],
    sheet: Annotated[
        Path | None, typer.Option(help="Write pictures with their labels into this PNG.")
    ] = None,
    pictures: Annotated[
        bool, typer.Option("--pictures", help="Read every picture: damaged and repeated ones.")
    ] = False,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all of it.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of the pictures on the sheet.")] = 0,
) -> None:
    """Say what a data folder is understood to be: layout, splits, labels, counts and problems.

    Example: python -m train check photos --sheet photos.png --pictures
    """
    from train.data import layout_of
    from train.data.report import report_on

    layout = layout_of(data)
    found = layout.read(data)
    report = report_on(found, layout.name, pictures=pictures)
    _print(report)
    write_report(json_file, asdict(report))
    if sheet is not None:
        _draw(found, sheet, seed)


def _print(report: DataReport) -> None:
    console = stdout(highlight=False)
    total = sum(report.splits.values())
    splits = ", ".join(f"{name} {count}" for name, count in report.splits.items())
    console.print(f"[bold]{escape(report.name)}[/bold]: {report.layout}", soft_wrap=True)
    console.print(f"  pictures {total}: {escape(splits)}", soft_wrap=True)
    unknown = f"; {report.unknown_share:.1%} unknown" if report.unknown_share else ""
    console.print(
        f"  labels {len(report.labels)}: on average {report.labels_per_picture:g} a picture; "
        f"pictures without any: {report.without_labels}{unknown}",
        soft_wrap=True,
    )
    columns = (*report.splits, *(["unknown"] if report.unknown_share else []))
    labels = table("label", right=columns)
    ranked = sorted(report.labels, key=lambda label: -sum(label.present.values()))
    for label in ranked[:_MOST_SHOWN]:
        counts = [str(label.present[split]) for split in report.splits]
        labels.add_row(
            escape(label.name), *counts, *([str(label.unknown)] if report.unknown_share else [])
        )
    console.print(labels)
    if len(ranked) > _MOST_SHOWN:
        console.print(f"  and {len(ranked) - _MOST_SHOWN} rarer labels, in --json")
    for problem in report.problems:
        console.print(f"[yellow]to look at:[/yellow] {escape(problem)}", soft_wrap=True)


def _draw(data: LabeledImages, path: Path, seed: int) -> None:
    """Draw some pictures with what is said to be on them, drawn so that rare labels are seen too."""
    from cmlr_edge.capture.images import read_image
    from cmlr_edge.errors import CaptureError
    from cmlr_edge.frame import Frame
    from cmlr_edge.prediction import LabelScore, Latency, Prediction
    from cmlr_edge.sinks.base import Result
    from cmlr_edge.sinks.contact_sheet import ContactSheet

    sheet = ContactSheet(path, scored=False)
    for index in _chosen(data, seed):
        image = data.images[index]
        try:
            pixels = read_image(image.path)
        except CaptureError:
            continue  # --pictures names it
        labels = tuple(LabelScore(data.classes[i], 1.0) for i in image.labels)
        scores = np.zeros(len(data.classes), np.float32)
        prediction = Prediction(scores, labels, Latency(), time.time())
        frame = Frame(pixels, index, None, time.time(), 0.0, f"{image.split} {image.path.name}")
        sheet.write(Result(frame, prediction, ()))
    sheet.close()
    say(f"wrote {path}")


def _chosen(data: LabeledImages, seed: int) -> list[int]:
    """Indices: of one picture for each label, the rarest first, then of any."""
    rng = np.random.default_rng(seed)
    targets = data.targets() > 0
    chosen: list[int] = []
    for label in np.argsort(targets.sum(axis=0), kind="stable"):
        rows = np.flatnonzero(targets[:, label])
        if len(rows):
            chosen.append(int(rng.choice(rows)))
    chosen += rng.permutation(len(data.images)).tolist()
    return sorted([*dict.fromkeys(chosen)][:_ON_SHEET])
