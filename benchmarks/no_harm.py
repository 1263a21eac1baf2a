"""Every stored run of `fit`'s default against the plain label decoder of the same data and seed.

    python -m benchmarks.no_harm --out benchmarks/results/no_harm.json --page docs/natural.md

Trains nothing: it reads the runs of the other benchmarks. A default may win on average and still harm
somewhere; here the run that lost most is what counts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from benchmarks.context_bias import methods as scenes
from benchmarks.natural import methods as natural
from benchmarks.photos import fitted
from benchmarks.records import fill_marks, markdown_table, write_json
from cmlr_edge.model.files import write_atomically
from train.reporting import exit_on_error

RESULTS = Path(__file__).with_name("results")
TOLERATED = 2.0  # points of mAP behind the decoder
_PARTS = {"iid": "like the training", "do": "under do(context)", "cross": "another style"}
_SCENES = {
    "": "ContextScenes, reported",
    "fit/development": "ContextScenes, development",
    "fit/untouched": "ContextScenes, untouched",
    "fit/untouched_full": "ContextScenes, untouched world 8",
    "cutouts": "cut-out photographs, reported",
    "cutouts/candidates": "cut-out photographs, development",
}


@dataclass(frozen=True)
class Pair:
    """One run of the default beside one of the decoder, mAP of all labels in percent."""

    benchmark: str
    run: str
    default: float
    decoder: float

    @property
    def gain(self) -> float:
        """Points ahead of the decoder."""
        return self.default - self.decoder


def read_pairs(results: Path) -> list[Pair]:
    """All pairs that the stored runs hold."""
    return [*_photos(results), *_natural(results), *_scenes(results)]


def _lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def _photos(results: Path) -> Iterator[Pair]:
    for name, title in (("fit", "reported"), ("fit_development", "development")):
        runs = {
            (r["arm"], r["number"]): r for r in _lines(results / "photos" / f"{name}_runs.jsonl")
        }
        for arm, number in sorted(runs):
            if arm == fitted.FITTED and (fitted.DECODER, number) in runs:
                values = [
                    runs[one, number]["read_outs"]["deployed"]["map"]
                    for one in (arm, fitted.DECODER)
                ]
                yield Pair(f"photos as they are, {title}", f"seed {number}", *values)


def _natural(results: Path) -> Iterator[Pair]:
    for folder, title in ((".", "reported"), ("development", "development")):
        records = _lines(results / "natural" / folder / "runs.jsonl")
        runs = {(r["method"], r["split"], r["seed"]): r["read_outs"] for r in records}
        for method, split, seed in sorted(runs):
            if method == natural.CHOSEN and (natural.DECODER, split, seed) in runs:
                own, other = runs[method, split, seed], runs[natural.DECODER, split, seed]
                values = (own.get("prior") or own["deployed"], other["deployed"])
                both = [read_out["values"]["all"] for read_out in values]
                yield Pair(f"re-sampled photos, {title}", f"split {split}, seed {seed}", *both)


def _scenes(results: Path) -> Iterator[Pair]:
    for folder, title in _SCENES.items():
        path = results / "context_bias" / folder / "runs.jsonl"
        runs = {(r["method"], r["scenes"], r["seed"]): r["parts"] for r in _lines(path)}
        parts = _PARTS | ({"cross": "objects of the training"} if "cutouts" in folder else {})
        for part, like in parts.items():
            for method, world, seed in sorted(runs):
                if method != scenes.THOUSANDS or (scenes.DECODER, world, seed) not in runs:
                    continue
                own, other = runs[method, world, seed], runs[scenes.DECODER, world, seed]
                # Older runs did not choose; in none of them the own context gains two points.
                values = (own[part].get("chosen") or own[part]["prior"], other[part]["deployed"])
                both = [read_out["all"] for read_out in values]
                yield Pair(f"{title}, {like}", f"{world}, seed {seed}", *both)


def table(pairs: list[Pair]) -> str:
    """A row per benchmark, in their order."""
    rows = []
    for name in dict.fromkeys(pair.benchmark for pair in pairs):
        gains = [pair.gain for pair in pairs if pair.benchmark == name]
        behind = sum(gain < -TOLERATED for gain in gains)
        mean, worst = sum(gains) / len(gains), min(gains)
        rows.append((name, len(gains), f"{mean:+.1f}", f"{worst:+.1f}", behind))
    head = "benchmark", "runs", "mean gain of All", "worst run", "runs more than 2 points behind"
    return markdown_table(head, rows)


def fill(page: str, rows: str) -> str:
    """Put the table between its marks on a page."""
    return fill_marks(page, {"no harm": rows})


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write, with every run.")],
    page: Annotated[Path | None, typer.Option(help="Page whose table is filled in.")] = None,
    results: Annotated[
        Path, typer.Option(help="Folder with the other benchmarks' runs.")
    ] = RESULTS,
) -> None:
    """List every run; exit code 1 where the default is more than two points behind."""
    pairs = read_pairs(results)
    rows = table(pairs)
    behind = [pair for pair in pairs if pair.gain < -TOLERATED]
    record = {
        "tolerated": TOLERATED,
        "behind": len(behind),
        "runs": [{**asdict(pair), "gain": round(pair.gain, 2)} for pair in pairs],
    }
    write_json(out, record)
    if page is not None:
        write_atomically(page, fill(page.read_text(), rows).encode())
    Console().print(rows)
    if behind:
        raise typer.Exit(1)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
