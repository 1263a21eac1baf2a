"""`python -m benchmarks.kernel`: counted work and rooflines of the attention kernel, by board.

Counts and floors, no times: nothing here has run on a board yet.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.kernel.roofline import (
    CASES,
    Board,
    blocks,
    counted_instructions,
    floors_us,
    flop,
    least_bytes,
)
from benchmarks.records import markdown_table, write_json, write_text

ROOT = Path(__file__).parents[2]
RESULTS = Path("benchmarks/results/kernel")


def build_report() -> dict[str, Any]:
    """Every case on every board."""
    counts = json.loads((ROOT / "csrc/cuda/kernels.json").read_text())["executed"]
    sheet = json.loads((Path(__file__).parent / "boards.json").read_text())
    boards = {name: Board(**facts) for name, facts in sheet["boards"].items()}
    rows = []
    for case in CASES:
        instructions = counted_instructions(case, counts)
        floors = {name: floors_us(case, board, instructions) for name, board in boards.items()}
        rows.append(
            {
                **asdict(case),
                "flop": flop(case),
                "bytes": least_bytes(case),
                "flop_per_byte": flop(case) / least_bytes(case),
                "blocks": blocks(case),
                **instructions,
                "floors_us": floors,
            }
        )
    return {"boards": sheet, "cases": rows}


def table(report: dict[str, Any]) -> str:
    """The report in Markdown: the highest of the floors, and which it is."""
    names = list(report["boards"]["boards"])
    head = ["case", "MFLOP", "KB", "FLOP a byte", "blocks", "instructions a mma", *names]
    rows = []
    for row in report["cases"]:
        cells = [
            row["name"],
            f"{row['flop'] / 1e6:.1f}",
            f"{row['bytes'] / 1e3:.0f}",
            f"{row['flop_per_byte']:.0f}",
            str(row["blocks"]),
            f"{row['warp_instructions'] / row['mma']:.1f}",
        ]
        for floors in row["floors_us"].values():
            limit = max(floors, key=floors.__getitem__)
            cells.append(f"{floors[limit]:.1f} ({limit.replace('_', ' ')})")
        rows.append(cells)
    return markdown_table(head, rows, numbers=range(1, len(head)))


def main(
    out: Annotated[Path, typer.Option(help="Folder for kernel.json and kernel.md.")] = RESULTS,
) -> None:
    """Write the report and its table."""
    report = build_report()
    write_json(out / "kernel.json", report)
    write_text(out / "kernel.md", table(report))


if __name__ == "__main__":
    typer.run(main)
