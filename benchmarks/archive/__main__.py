"""`python -m benchmarks.archive WHAT`: what archives cost, and whether they keep every row."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.archive.cluster import run_on_two_nodes
from benchmarks.archive.equality import compare_with_label
from benchmarks.archive.kills import kill_again_and_again
from benchmarks.archive.loops import compare_with_loops
from benchmarks.archive.many import label_many
from benchmarks.archive.marginal import compare_marginally
from benchmarks.archive.planning import Prices, plan_of
from benchmarks.archive.plans import measure_plans
from benchmarks.archive.rates import measure_rates
from benchmarks.archive.scale import Trouble, simulate_works
from benchmarks.archive.sleepers import compare_with_ray
from benchmarks.records import write_text
from cmlr_edge import demo_engine
from cmlr_edge.cli.usage import run_app
from cmlr_edge.machine.facts import describe_machine
from train.reporting import exit_on_error

RESULTS = Path("benchmarks/results/archive")
app = typer.Typer(no_args_is_help=True, help=__doc__)
Photos = Annotated[Path, typer.Option(envvar="CMLR_PHOTOS", help="Folder of photos.")]
Clips = Annotated[Path, typer.Option(envvar="CMLR_CLIPS", help="Folder of MP4 clips.")]
Provider = Annotated[str, typer.Option(help="That runs the bundled model.")]


@app.command()
def loops(
    photos: Photos, provider: Provider = "openvino", count: int = 1500, rounds: int = 3
) -> None:
    """The local mode against two pinned loops over the same pictures."""
    _write("loops", compare_with_loops(photos, demo_engine(), provider, count, rounds))


@app.command()
def marginal(
    photos: Photos, provider: Provider = "openvino", count: int = 100, rounds: int = 5
) -> None:
    """A picture in a loop against one in a unit, in one process on one core."""
    _write("marginal", compare_marginally(photos, demo_engine(), provider, count, rounds))


@app.command()
def many(photos: Photos, counts: str = "10000,100000", width: int = 160) -> None:
    """Memory of the driver and of workers for some numbers of pictures."""
    with tempfile.TemporaryDirectory() as folder:
        numbers = [int(text) for text in counts.split(",")]
        _write("many", label_many(photos, Path(folder), numbers, width))


@app.command()
def plans(counts: str = "100000,1000000,10000000") -> None:
    """What plans of some numbers of pictures take."""
    _write("plans", measure_plans([int(text) for text in counts.split(",")]))


@app.command()
def kills(photos: Photos, clips: Clips, count: int = 1000, times: int = 20, seed: int = 0) -> None:
    """Kill drivers and workers; the rows must be those of a calm run."""
    clip = min(clips.glob("*.mp4"), key=lambda path: path.stat().st_size)
    with tempfile.TemporaryDirectory() as folder:
        _write(
            "kills",
            kill_again_and_again(photos, clip, Path(folder), count=count, kills=times, seed=seed),
        )


@app.command()
def equal(photos: Photos, clips: Clips, provider: Provider = "openvino", parts: int = 4) -> None:
    """Rows and events against what `label` says of the same photos and of the longest clip."""
    clip = max(clips.glob("*.mp4"), key=lambda path: path.stat().st_size)
    with tempfile.TemporaryDirectory() as folder:
        found = compare_with_label(photos, clip, demo_engine(), provider, Path(folder), parts)
        _write("equal", found)


@app.command()
def cluster(photos: Photos, count: int = 600) -> None:
    """Two Ray nodes on this machine, one of which is lost."""
    with tempfile.TemporaryDirectory(prefix="r") as folder:
        _write("cluster", run_on_two_nodes(photos, demo_engine(), Path(folder), count))


@app.command()
def rates(photos: Photos, clips: Clips, provider: Provider = "openvino", rounds: int = 5) -> None:
    """Seconds of one core per picture and per frame."""
    _write("rates", measure_rates(photos, clips, demo_engine(), provider, rounds))


@app.command()
def plan(
    core_hour: Annotated[float, typer.Option(help="Price of a core for an hour.")] = 0.05,
    network_mb_s: Annotated[float, typer.Option(help="Megabytes a second to each node.")] = 100.0,
    cores_per_node: int = 16,
) -> None:
    """Hours and cost of ten million pictures and a thousand camera-days, from the stored rates."""
    measured = json.loads((RESULTS / "rates.json").read_text())
    prices = Prices(core_hour, network_mb_s, cores_per_node)
    _write("plan", plan_of(measured, prices))


@app.command()
def sleepers() -> None:
    """Slow and lost nodes: units that sleep, by Ray on two nodes of this machine, and simulated."""
    _write("sleepers", compare_with_ray())


@app.command()
def scale(draws: int = 20, seed: int = 0) -> None:
    """Hours of the stored plan where nodes are slow or lost, simulated."""
    planned = json.loads((RESULTS / "plan.json").read_text())
    _write("scale", simulate_works(planned, Trouble(draws=draws), seed))


def _write(name: str, record: dict[str, Any]) -> None:
    record = {"machine": describe_machine(), "load_average": [*os.getloadavg()], **record}
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(record, indent=2)
    write_text(RESULTS / f"{name}.json", text)
    typer.echo(text)


if __name__ == "__main__":
    with exit_on_error():
        run_app(app, "python -m benchmarks.archive")
