"""`python -m benchmarks.peers`: the same network by every route, interleaved in one run.

python -m benchmarks.peers --networks lite0-224 --labels 80,600
"""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from numpy.typing import NDArray
from rich.console import Console

from benchmarks.peers.frames import SIZE_HW
from benchmarks.peers.models import NETWORKS, prepare, prepare_ncnn
from benchmarks.peers.report import write_report
from benchmarks.peers.routes import FLOORS, OURS, route_names
from benchmarks.peers.turns import Worker, take_turns, times_ms
from benchmarks.records import write_json
from cmlr_edge.machine.facts import describe_machine
from cmlr_edge.model.agreement import Agreement

RESULTS = Path("benchmarks/results/latency")
REFERENCE = "torch-eager"
_stderr = Console(stderr=True)


def compare(folder: Path, names: list[str], *, rounds: int, seconds: float) -> dict[str, Any]:
    """Check, then time the routes of one network.

    Args:
        folder: What `prepare` wrote.
        names: Of the routes; the reference is always among them.
        rounds: Turns of each.
        seconds: Of a turn.
    """
    workers, failed = take_turns(names, folder, folder / "log.txt", rounds=rounds, seconds=seconds)
    expected = next(_scores(worker) for worker in workers if worker.name == REFERENCE)
    thresholds = widest_gaps(expected)
    routes = {}
    for worker in workers:
        check = {} if worker.name in FLOORS else _check(_scores(worker), expected, thresholds)
        routes[worker.name] = {**times_ms(worker), "load_s": worker.ready["load_s"], **check}
    return {"routes": routes, "failed": failed, "rounds": rounds, "seconds_a_turn": seconds}


def widest_gaps(scores: NDArray[np.float32]) -> NDArray[np.float32]:
    """For each label the threshold that scores (N, L) lie furthest from: (L,).

    Frames hardly move the scores of a network with seeded weights, so that any other threshold would
    be a matter of rounding.
    """
    ordered = np.sort(scores, axis=0)
    widest = np.diff(ordered, axis=0).argmax(axis=0)[None]
    below, above = (np.take_along_axis(ordered, widest + i, axis=0)[0] for i in (0, 1))
    thresholds: NDArray[np.float32] = (below + above) / 2
    return thresholds


def _scores(worker: Worker) -> NDArray[np.float32]:
    return np.asarray(worker.ready["scores"], np.float32)


def _check(
    scores: NDArray[np.float32], expected: NDArray[np.float32], thresholds: NDArray[np.float32]
) -> dict[str, float | int]:
    labels = [f"label {i}" for i in range(len(thresholds))]
    found = Agreement.of(labels, expected >= thresholds, scores >= thresholds)
    return {
        "decisions": found.decisions,
        "decisions_that_differ": found.flips,
        "largest_score_difference": float(np.abs(scores - expected).max()),
    }


def main(
    networks: Annotated[str, typer.Option(help="By commas.")] = ",".join(NETWORKS),
    labels: Annotated[
        str, typer.Option(help="Numbers of labels, by commas.")
    ] = "20,80,171,600,1200",
    routes: Annotated[str, typer.Option(help="By commas; default: every one.")] = "",
    rounds: Annotated[int, typer.Option(min=2, help="Turns of each route.")] = 20,
    seconds: Annotated[float, typer.Option(help="Length of a turn.")] = 0.4,
    out: Annotated[Path, typer.Option(help="Results; those of other networks stay.")] = RESULTS,
    files: Annotated[Path, typer.Option(help="Folder for the models.")] = Path("build/peers"),
) -> None:
    """Compare routes from a BGR frame to labels, and write results.json, a table and plots."""
    out.mkdir(parents=True, exist_ok=True)
    path = out / "peers.json"
    report = json.loads(path.read_text()) if path.is_file() else {"comparisons": {}}
    report |= {"machine": describe_machine(), "frame_hw": SIZE_HW}
    names = routes.split(",") if routes else route_names()
    names = [*dict.fromkeys([REFERENCE, *names])]
    for network in networks.split(","):
        for count in (int(number) for number in labels.split(",")):
            key = f"{network}-{count}"
            with _stderr.status(f"{key}: exporting"):
                prepare(NETWORKS[network], count, files / key)
                if "ncnn" in names:
                    prepare_ncnn(NETWORKS[network], count, files / key)
            with _stderr.status(f"{key}: timing {len(names)} routes"):
                record = compare(files / key, names, rounds=rounds, seconds=seconds)
            now = datetime.now(timezone.utc).isoformat(timespec="seconds")
            report["comparisons"][key] = {"network": network, "labels": count, "at": now, **record}
            write_json(path, report)
            ours = {
                name: round(r["p50"], 2) for name, r in record["routes"].items() if name in OURS
            }
            _stderr.print(f"{key}: {ours}")
    write_report(out)


if __name__ == "__main__":
    typer.run(main)
