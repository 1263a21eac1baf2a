"""A Ray cluster of two nodes on this machine, one of which is lost in the middle of a run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from benchmarks.archive.kills import rows_as_often_as_they_are, workers_of
from benchmarks.archive.material import repeat_pictures

PORT = 6399  # outside the range of ports that workers take
_RAY = [sys.executable, "-m", "ray.scripts.scripts"]
_UNITS = 60  # about: Ray needs a tenth of a second between two of an actor
_START = ["start", "--object-store-memory=200000000", "--disable-usage-stats"]


def run_on_two_nodes(photos: Path, engine: Path, folder: Path, count: int) -> dict[str, Any]:
    """Label pictures on two nodes of one core each: undisturbed, then with a node killed in the middle.

    Every row must be there once, as the local mode gives it.
    """
    repeat_pictures(photos, folder / "in", count)
    command = [sys.executable, "-m", "cmlr_edge", "archive", str(folder / "in"), "--json"]
    chunk = max(10, count // _UNITS)
    command += ["--engine", str(engine), "--provider", "cpu", "--chunk", str(chunk)]
    local = _run([*command, "--out", str(folder / "local")])
    with two_nodes(folder / "ray"):
        ray = _run([*command, "--out", str(folder / "calm"), "--ray", f"127.0.0.1:{PORT}"])
    with two_nodes(folder / "ray2") as second:
        run = subprocess.Popen(
            [*command, "--out", str(folder / "lost"), "--ray", f"127.0.0.1:{PORT}"],
            stdout=subprocess.PIPE,
            text=True,
        )
        _await_share(folder / "lost", count // chunk // 3)
        kill_all_of(second)
        done_before = len([*folder.glob("lost/rows/*/*")])
        output, _ = run.communicate()
        assert run.returncode == 0, f"exit code {run.returncode}"
        lost = json.loads(output)
    expected = rows_as_often_as_they_are(folder / "local")
    record: dict[str, Any] = {"pictures": count, "chunk": chunk, "nodes": 2, "cores_per_node": 1}
    for name, result in (("local", local), ("calm", ray), ("lost", lost)):
        found = rows_as_often_as_they_are(folder / name)
        record[name] = {
            "seconds": result["run"]["seconds"],
            "pictures_per_s": result["run"]["rows_per_second"],
            "rows": found.total(),
            "rows_missing": (expected - found).total(),
            "rows_more": (found - expected).total(),
        }
    record["lost"]["units_done_when_the_node_was_killed"] = done_before
    record["ray_to_local"] = round(
        record["calm"]["pictures_per_s"] / record["local"]["pictures_per_s"], 3
    )
    return record


def kill_all_of(pid: int) -> None:
    """Kill a node: its processes have groups of their own."""
    tree = [pid]
    for parent in tree:
        tree += workers_of(parent)
    for process in tree:
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def _run(command: list[str]) -> dict[str, Any]:
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def _await_share(out: Path, units: int) -> None:
    deadline_s = time.monotonic() + 300
    while len([*out.glob("rows/*/*")]) < units:
        assert time.monotonic() < deadline_s, "nothing was done"
        time.sleep(0.1)


@contextmanager
def two_nodes(folder: Path, cores: int = 1) -> Iterator[int]:
    """Start two nodes with so many cores each; yields the process of the second."""
    folder.mkdir()
    environment = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0"}
    head = [
        *_RAY,
        *_START,
        f"--num-cpus={cores}",
        "--node-ip-address=127.0.0.1",
        "--head",
        f"--port={PORT}",
        "--include-dashboard=false",
        "--block",
    ]
    head += [f"--temp-dir={folder}"]
    # Of an address of its own, or a run might take it for the node that it belongs to.
    second = [
        *_RAY,
        *_START,
        f"--num-cpus={cores}",
        "--node-ip-address=127.0.0.2",  # or a run might take it for the node it belongs to
        f"--address=127.0.0.1:{PORT}",
        "--block",
    ]
    nodes = []
    try:
        for command, log in ((head, "head.log"), (second, "second.log")):
            with (folder / log).open("w") as said:
                nodes.append(
                    subprocess.Popen(
                        command, stdout=said, stderr=said, start_new_session=True, env=environment
                    )
                )
            _await_nodes(len(nodes))
        yield nodes[1].pid
    finally:
        for node in reversed(nodes):
            _end(node)


def _end(node: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(node.pid, signal.SIGTERM)
    try:
        node.wait(20)
    except subprocess.TimeoutExpired:
        os.killpg(node.pid, signal.SIGKILL)
        node.wait()


def _await_nodes(count: int) -> None:
    code = (
        "import cmlr_edge, ray, sys; ray.init(address=sys.argv[1], log_to_driver=False);"
        "sys.exit(sum(node['Alive'] for node in ray.nodes()) < int(sys.argv[2]))"
    )
    deadline_s = time.monotonic() + 90
    while True:
        arguments = [sys.executable, "-c", code, f"127.0.0.1:{PORT}", str(count)]
        if subprocess.run(arguments, capture_output=True, check=False).returncode == 0:
            return
        assert time.monotonic() < deadline_s, "the cluster does not start"
        time.sleep(1)
