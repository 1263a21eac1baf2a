"""`python -m benchmarks.fuzz`: damage engines and specs, and see that each is refused or works.

Most damaged engines get a spec whose hash agrees, as somebody with bad intent would write it,
so that the file reaches the runtime.
"""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Annotated, Any

import onnxruntime
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.fuzz.mutations import OF_BYTES, OF_JSON
from benchmarks.fuzz.onnx_mutations import OF_ONNX
from cmlr_edge.strict_json import write_atomically
from train.reporting import exit_on_error

_PATIENCE_S = 120.0  # for one case; thousands of times what one takes


def damage(seed: int, engines: list[Path], folder: Path) -> tuple[Path, str]:
    """Write one damaged engine with its spec; the engine, and what was done to it."""
    random = Random(seed)
    engine, other = random.choice(engines), random.choice(engines)
    content, spec = engine.read_bytes(), engine.with_suffix(".json").read_bytes()
    kind = random.choice(["spec", "engine", *["engine, hash agrees"] * 4])
    mutations = {"spec": OF_JSON, "engine": OF_BYTES}.get(kind, (*OF_BYTES, *OF_ONNX))
    mutate = random.choice(mutations)
    if kind == "spec":
        spec = mutate(random, spec, other.with_suffix(".json").read_bytes())
    else:
        content = mutate(random, content, other.read_bytes())
    if kind == "engine, hash agrees":
        record = json.loads(spec)
        record["files"][engine.name]["sha256"] = hashlib.sha256(content).hexdigest()
        if random.random() < 0.5:  # a self-test that lets anything pass
            record["files"][engine.name]["golden"]["tolerance"] = 1e30
        spec = json.dumps(record).encode()
    path = folder / engine.name
    path.write_bytes(content)
    path.with_suffix(".json").write_bytes(spec)
    return path, f"{kind}: {mutate.__name__}"


class _Worker:
    """A process that opens engines; a new one after a crash or a hang."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, path: Path) -> str:
        """What came of it, see `worker.open_engine`; or "crash: ..." or "hang"."""
        process = self._process = self._process or _start()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(f"{path}\n".encode())
        process.stdin.flush()
        ready, _, _ = select.select([process.stdout], [], [], _PATIENCE_S)
        answer = process.stdout.readline() if ready else b""
        if answer:
            outcome: str = json.loads(answer)
            return outcome
        self.close()
        return f"crash: exit code {process.returncode}" if ready else "hang"

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            if self._process.stdin is not None:
                self._process.stdin.close()
            try:
                self._process.wait(timeout=5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            if self._process.stdout is not None:
                self._process.stdout.close()
            self._process = None


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fuzz.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def fuzz(
    engines: list[Path],
    cases: range,
    folder: Path,
    *,
    report: Callable[[int], None] = lambda _done: None,
) -> dict[str, Any]:
    """Open every case.

    Args:
        engines: Whole ones to damage, their specs beside them.
        cases: Seeds.
        folder: To write damaged files to.
        report: Told how many cases were done since.

    Returns:
        A JSON-ready record: outcomes by what was done, and every case that went wrong.
    """
    outcomes: dict[str, Counter[str]] = {}
    wrong: list[dict[str, Any]] = []
    worker = _Worker()
    try:
        for seed in cases:
            path, what = damage(seed, engines, folder)
            outcome = worker.open(path)
            if outcome.startswith(("untyped", "crash", "hang")):
                wrong.append({"seed": seed, "what": what, "outcome": outcome})
            outcomes.setdefault(what, Counter())[outcome.split(":")[0]] += 1
            report(1)
    finally:
        worker.close()
    return {
        "cases": len(cases),
        "onnxruntime": onnxruntime.__version__,
        "outcomes": {what: dict(sorted(found.items())) for what, found in sorted(outcomes.items())},
        "wrong": wrong,
    }


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    cases: Annotated[int, typer.Option(min=1, help="Damaged files to open.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="Seed of the first.")] = 0,
) -> None:
    """Damage engines and specs, and open every one.

    Example: python -m benchmarks.fuzz --out fuzz.json
    """
    from benchmarks.fuzz.seeds import write_seeds  # it imports torch

    with (
        tempfile.TemporaryDirectory() as name,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        folder = Path(name)
        engines = write_seeds(folder / "whole")
        (folder / "damaged").mkdir()
        task = progress.add_task("opening", total=cases)
        record = fuzz(
            engines,
            range(first, first + cases),
            folder / "damaged",
            report=lambda done: progress.advance(task, done),
        )
    write_atomically(out, (json.dumps(record, indent=1) + "\n").encode())
    Console().print(f"{cases} damaged files: {len(record['wrong'])} went wrong, see {out}")
    if record["wrong"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
