"""`python -m benchmarks.place`: shifted priors and alarms, photos and clips, and cost; a JSON file each."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.place import alarms, shifted
from benchmarks.place.cost import run_cost
from benchmarks.place.plot import plot_place
from benchmarks.place.real import run_real
from benchmarks.place.worlds import counts_of, world_of
from benchmarks.records import kept, write_record
from benchmarks.side_by_side import one_thread
from benchmarks.size import Size
from train.reporting import exit_on_error

PARTS = ("scenes", "clips", "cost")
_OUT = Path("benchmarks/results/place")
_FRAMES = 500  # of each way that is timed


def place(
    photos: Annotated[
        Path | None, typer.Option(envvar="CMLR_PHOTOS", help="Folder of labelled photos.")
    ] = None,
    clips: Annotated[
        Path | None, typer.Option(envvar="CMLR_CLIPS", help="Folder of MP4 clips.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the JSON files and the picture.")] = _OUT,
    work: Annotated[
        Path,
        typer.Option(
            help="Scenes, tokens and findings are kept here, and used again: an interrupted run goes on."
        ),
    ] = Path("build/place"),
    only: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(PARTS)}.")] = None,
    worlds: Annotated[int, typer.Option(min=2, help="Small worlds of scenes.")] = 3,
    first_world: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 3,
    scale: Annotated[
        float, typer.Option(min=0.001, max=1, help="Of all numbers: to see that it works.")
    ] = 1.0,
) -> None:
    """Measure all that docs/place.md tells.

    Example: python -m benchmarks.place --photos PHOTOS --clips CLIPS
    """
    chosen = only or PARTS
    if unknown := {*chosen} - {*PARTS}:
        raise typer.BadParameter(f"there is no {sorted(unknown)}: {', '.join(PARTS)}")
    if "clips" in chosen and (photos is None or clips is None):
        raise typer.BadParameter("give --photos and --clips, or --only scenes --only cost")
    size = Size(scale)
    work = size.folders(work, out, _OUT)
    if "scenes" in chosen:
        with one_thread():
            seeds = range(first_world, first_world + worlds)
            found = [_of_world(seed, work, size) for seed in seeds]
        prior = shifted.summarize([one["prior"] for one in found])
        told = alarms.summarize([one["alarms"] for one in found])
        record = {"counts": counts_of(size), "prior": prior, "alarms": told, "worlds": found}
        write_record(out / "scenes.json", record)
        plot_place(prior, told, out / "place.png")
    if "clips" in chosen:
        assert photos is not None
        assert clips is not None
        with one_thread():
            real = partial(run_real, photos, clips, work, seed=0, size=size)
            write_record(out / "clips.json", kept(work / "clips.json", real))
    if "cost" in chosen:
        write_record(out / "cost.json", run_cost(size.of(_FRAMES, 8)))


def _of_world(seed: int, work: Path, size: Size) -> dict[str, Any]:
    def shifts() -> dict[str, Any]:
        return shifted.run_shifts(world_of(seed, work, size), seed, size)

    told = partial(alarms.run_alarms, seed, work, size)
    return {
        "world": seed,
        "prior": kept(work / f"prior-{seed}.json", shifts),
        "alarms": kept(work / f"alarms-{seed}.json", told),
    }


if __name__ == "__main__":
    with exit_on_error():
        typer.run(place)
