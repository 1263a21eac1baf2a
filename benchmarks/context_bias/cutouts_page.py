"""`python -m benchmarks.context_bias.cutouts_page`: the tables of docs/cutouts.md, from stored results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.context_bias.methods import CUTOUT_CHOICE, DECODER, THOUSANDS
from benchmarks.context_bias.report import GAINS, gain_cell, gains_table, references_table
from benchmarks.records import fill_marks, markdown_table
from cmlr_edge.model.files import write_atomically
from train.reporting import exit_on_error

RESULTS = Path(__file__).parents[1] / "results" / "context_bias" / "cutouts"
AIMS = {"do exclusive": 8.0, "do all": 4.0}  # points over the label decoder, set before any run
_CROSS = "objects of the training"  # what the fifth part is here


def tables(results: Path) -> dict[str, str]:
    """Tables of the page by mark, from the folder of results."""
    reported, development, candidates, drawn = (
        json.loads((results / folder / "results.json").read_text())
        for folder in ("", "development", "candidates", "drawn")
    )
    found = {
        "aims": _aims(reported, THOUSANDS),
        "choice": _aims(reported, CUTOUT_CHOICE),
        "reported": gains_table(reported, None),
        "against": references_table(reported, THOUSANDS, "chosen"),
        "development": gains_table(development, None),
        "candidates": gains_table(candidates, None, only={"chosen"}),
    }
    of_cutouts = {name: table.replace("cross-style", _CROSS) for name, table in found.items()}
    return of_cutouts | {"drawn": gains_table(drawn, None, only={"chosen"})}


def _aims(report: dict[str, Any], head: str) -> str:
    cells = []
    rows = {row["read_out"]: row for row in report["rows"] if row["method"] == head}
    for measure, aim in AIMS.items():
        for read_out, name in (("chosen", "as fit chooses"), ("prior", "averaged prior")):
            gain = rows[read_out]["gains"][DECODER][measure]
            short = max(0.0, aim - gain["median"])
            said = f"{short:.1f}" if short else "reached"
            title = GAINS[measure].removesuffix(", do")
            cells.append((title, f"+{aim:.0f}", name, gain_cell(gain), said))
    titles = "under do(context)", "aim", "read-out", "gain", "short of the aim"
    return markdown_table(titles, cells)


def main(
    page: Annotated[Path, typer.Option(help="Whose tables are filled in.")] = Path(
        "docs/cutouts.md"
    ),
    results: Annotated[Path, typer.Option(help="Folder with results.json.")] = RESULTS,
) -> None:
    """Fill in the page's tables."""
    write_atomically(page, fill_marks(page.read_text(), tables(results)).encode())


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
