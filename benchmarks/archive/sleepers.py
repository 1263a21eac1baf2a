"""The simulation held against Ray: units that sleep, handed out as an archive's are, on two nodes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.archive.cluster import PORT, kill_all_of, two_nodes
from benchmarks.archive.stragglers import Loss, Worker, simulate
from benchmarks.records import markdown_table
from cmlr_edge.archive.packages import ray
from cmlr_edge.archive.ray_crew import hand_out

_CORES = 3  # of each of two nodes; sleeping takes none of them
UNITS, _UNIT_S = 60, 1.0
_SLOWNESS = 3.0
_LOST_AFTER_S = 4.5  # of work
_SECOND = "127.0.0.2"


class Sleeper:
    """Does a unit by sleeping, on the second node so many times as long, and writes down when."""

    def __init__(self, slowness: float, log: str) -> None:
        """Say that it is there."""
        self._node, self._log = ray().util.get_node_ip_address(), log
        self._unit_s = _UNIT_S * (slowness if self._node == _SECOND else 1.0)
        self._write("came", -1)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Sleep."""
        unit = int(batch["unit"][0])
        self._write("begun", unit)
        time.sleep(self._unit_s)
        self._write("ended", unit)
        return {"unit": np.array([unit])}

    def _write(self, what: str, unit: int) -> None:
        line = {
            "what": what,
            "unit": unit,
            "s": time.time(),
            "node": self._node,
            "pid": os.getpid(),
        }
        with Path(self._log).open("a") as file:
            file.write(json.dumps(line) + "\n")


def compare_with_ray() -> dict[str, Any]:
    """A calm cluster, one with a slow node and one that loses a node: by Ray, and simulated."""
    runs = {}
    for name, slowness, loses in (
        ("calm", 1.0, False),
        ("slow", _SLOWNESS, False),
        ("lost", 1.0, True),
    ):
        with tempfile.TemporaryDirectory(prefix="r") as name_of_folder:
            folder = Path(name_of_folder)
            log = folder / "log"
            log.touch()
            with two_nodes(folder / "ray", _CORES) as second:
                command = [sys.executable, "-m", "benchmarks.archive.sleepers"]
                command += [str(slowness), str(log), str(second if loses else 0)]
                subprocess.run(command, check=True)
            lines = [json.loads(line) for line in log.read_text().splitlines()]
        runs[name] = judged(lines, slowness)
    return {
        "nodes": 2,
        "cores_per_node": _CORES,
        "units": UNITS,
        "unit_s": _UNIT_S,
        "slowness": _SLOWNESS,
        "ray": ray().__version__,
        "runs": runs,
    }


def judged(lines: list[dict[str, Any]], slowness: float) -> dict[str, Any]:
    """What Ray took, and what the simulation says of actors that came, waited and were lost as they did.

    Args:
        lines: What sleepers wrote down, and the loss.
        slowness: Of the second node.
    """
    of = {
        what: [line for line in lines if line["what"] == what]
        for what in ("came", "begun", "ended", "lost")
    }
    start_s = min(line["s"] for line in of["came"])
    workers = [
        Worker(
            int(line["node"] == _SECOND),
            slowness if line["node"] == _SECOND else 1.0,
            line["s"] - start_s,
        )
        for line in of["came"]
    ]
    losses, noticed_s = [], None
    for lost in of["lost"]:
        noticed_s = _begun_again(of["begun"]) - lost["s"]
        losses.append(Loss(1, lost["s"] - start_s, noticed_s, None))
    pause_s = _pause_of([*of["ended"], *of["begun"]])
    simulated = simulate([_UNIT_S] * UNITS, workers, pause_s=pause_s, losses=losses)
    ended = {line["unit"] for line in of["ended"]}
    return {
        "actors": len(workers),
        "units_done": len(ended),
        "units_begun": len(of["begun"]),
        "loss_noticed_after_s": noticed_s and round(noticed_s, 1),
        "pause_s": round(pause_s, 3),
        "seconds": round(max(line["s"] for line in of["ended"]) - start_s, 2),
        "simulated_s": round(simulated.seconds, 2),
    }


def sleepers_table(record: dict[str, Any]) -> str:
    """Markdown of what `compare_with_ray` returns."""
    slow = f"the second node takes {record['slowness']:g} times as long"
    told = {"calm": "both nodes alike", "slow": slow, "lost": "the second node is killed"}
    rows = [
        (told[name], f"{run['seconds']:.1f}", f"{run['simulated_s']:.1f}", run["units_begun"])
        for name, run in record["runs"].items()
    ]
    head = "two nodes", "by Ray, s", "simulated, s", "units begun"
    return markdown_table(head, rows, numbers=(1, 2, 3))


def _pause_of(lines: list[dict[str, Any]]) -> float:
    """What an actor waits between two units, the median; 0 where none had two."""
    pauses, ended_s = list[float](), dict[tuple[str, int], float]()
    for line in sorted(lines, key=lambda line: float(line["s"])):
        actor = line["node"], line["pid"]
        if line["what"] == "ended":
            ended_s[actor] = line["s"]
        elif actor in ended_s:
            pauses.append(line["s"] - ended_s[actor])
    return float(np.median(pauses)) if pauses else 0.0


def _begun_again(begun: list[dict[str, Any]]) -> float:
    """When a unit was begun for the second time."""
    seen = set[int]()
    for line in sorted(begun, key=lambda line: float(line["s"])):
        if line["unit"] in seen:
            return float(line["s"])
        seen.add(line["unit"])
    raise ValueError("no unit was begun again")


def _lose(node: int, log: Path) -> None:
    """Kill a node some seconds after it began with its first unit."""
    while not any('"begun"' in line and _SECOND in line for line in log.read_text().splitlines()):
        time.sleep(0.05)
    time.sleep(_LOST_AFTER_S)
    with log.open("a") as file:
        file.write(json.dumps({"what": "lost", "s": time.time()}) + "\n")
    kill_all_of(node)


def _run(slowness: float, log: str, loses: int) -> None:
    ray().init(address=f"127.0.0.1:{PORT}", log_to_driver=False, logging_level="error")
    ray().data.DataContext.get_current().enable_progress_bars = False
    if loses:
        threading.Thread(target=_lose, args=(loses, Path(log)), daemon=True).start()
    done = [*hand_out(range(UNITS), Sleeper, (slowness, log), 2 * _CORES)]
    assert sorted(int(row["unit"]) for row in done) == [*range(UNITS)]


if __name__ == "__main__":
    # Under its own name, for actors import the class from there.
    from benchmarks.archive import sleepers  # noqa: PLW0406

    sleepers._run(float(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
