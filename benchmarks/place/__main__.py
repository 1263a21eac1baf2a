"""`python -m benchmarks.place`: shifted priors, alarms, and photos and clips; a JSON file each."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.place import alarms, shifted
from benchmarks.place.plot import plot_place
from benchmarks.place.worlds import COUNTS, world_of
from benchmarks.records import write_record
from benchmarks.side_by_side import one_thread
from cmlr_edge.model.files import write_atomically
from train.reporting import exit_on_error


def place(
    out: Annotated[Path, typer.Option(help="Folder for the JSON files and the picture.")] = Path(
        "benchmarks/results/place"
    ),
    work: Annotated[Path, typer.Option(help="Scenes and tokens are kept here.")] = Path(
        "build/place"
    ),
    worlds: Annotated[int, typer.Option(min=2, help="Small worlds of scenes.")] = 3,
    first_world: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = 3,
    photos: Annotated[
        Path | None, typer.Option(envvar="CMLR_PHOTOS", help="Folder of labelled photos.")
    ] = None,
    clips: Annotated[
        Path | None, typer.Option(envvar="CMLR_CLIPS", help="Folder of MP4 clips.")
    ] = None,
) -> None:
    """Hold places against what is known.

    Example: python -m benchmarks.place --photos PHOTOS --clips CLIPS
    """
    out.mkdir(parents=True, exist_ok=True)
    with one_thread():
        found = [_of_world(seed, work) for seed in range(first_world, first_world + worlds)]
        prior = shifted.summarize([one["prior"] for one in found])
        told = alarms.summarize([one["alarms"] for one in found])
        write_record(
            out / "scenes.json", {"counts": COUNTS, "prior": prior, "alarms": told, "worlds": found}
        )
        plot_place(prior, told, out / "place.png")
        if photos is not None and clips is not None:
            from benchmarks.place.real import run_real

            write_record(out / "clips.json", run_real(photos, clips, work, seed=0))


def _kept(path: Path, find: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What is found, which takes minutes; an interrupted run goes on."""
    if path.is_file():
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    found = find()
    write_atomically(path, json.dumps(found).encode())
    return found


def _of_world(seed: int, work: Path) -> dict[str, Any]:
    return {
        "world": seed,
        "prior": _kept(
            work / f"prior-{seed}.json", lambda: shifted.run_shifts(world_of(seed, work), seed)
        ),
        "alarms": _kept(work / f"alarms-{seed}.json", partial(alarms.run_alarms, seed, work)),
    }


if __name__ == "__main__":
    with exit_on_error():
        typer.run(place)
