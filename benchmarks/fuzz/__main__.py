"""`python -m benchmarks.fuzz`: damage ONNX files, engines and specs; each is refused or works.

Most damaged files get a spec whose hash agrees, as somebody with bad intent would write it, so that
the file gets as far as it can: an ONNX file to the runtime, an engine to the search for a driver, and
on the made-up GPU to the made-up TensorRT and the self-test.
"""

from __future__ import annotations

import json
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

from benchmarks.fuzz.machines import Machine, compile_driver
from benchmarks.fuzz.mutations import OF_BYTES, OF_JSON
from benchmarks.fuzz.onnx_mutations import OF_ONNX
from benchmarks.fuzz.seeds import Seed, write_seeds
from benchmarks.records import write_json
from cmlr_edge.model.files import sha256_of
from cmlr_edge.model.spec import MAX_TOLERANCE
from train.reporting import exit_on_error

_ROOT = Path(__file__).parents[2]
_PATIENCE_S = 120.0  # for one case; thousands of times what one takes


def damage(number: int, seeds: list[Seed], folder: Path) -> tuple[Path, Machine, str]:
    """Write one damaged file with its spec; the file, its machine, and what was done to it."""
    random = Random(number)
    seed, other = random.choice(seeds), random.choice(seeds)
    content, spec = seed.path.read_bytes(), seed.path.with_suffix(".json").read_bytes()
    kind = random.choice(["spec", "file", *["file, hash agrees"] * 4])
    mutations = {"spec": OF_JSON, "file": OF_BYTES}.get(kind, (*OF_BYTES, *OF_ONNX))
    mutate = random.choice(mutations)
    if kind == "spec":
        spec = mutate(random, spec, other.path.with_suffix(".json").read_bytes())
    else:
        content = mutate(random, content, other.path.read_bytes())
    if kind == "file, hash agrees":
        record = json.loads(spec)
        built = record["files"][seed.path.name]
        built["sha256"] = sha256_of(content)
        if random.random() < 0.5:  # a self-test that lets pass what it may
            built["golden"]["tolerance"] = MAX_TOLERANCE
        spec = json.dumps(record).encode()
    path = folder / seed.path.name
    path.write_bytes(content)
    path.with_suffix(".json").write_bytes(spec)
    return path, seed.machine, f"{kind}: {mutate.__name__}"


class Worker:
    """A process that opens files on a machine; a new one after a crash or a hang."""

    def __init__(self, environment: dict[str, str]) -> None:
        """Start nothing yet."""
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    def open(self, path: Path) -> str:
        """What came of it, see `worker.open_engine`; or "crash: ..." or "hang"."""
        process = self._process = self._process or _start(self._environment)
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


def _start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.fuzz.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=_ROOT,
        env=environment,
    )


def fuzz(
    seeds: list[Seed],
    cases: range,
    folder: Path,
    *,
    report: Callable[[int], None] = lambda _done: None,
) -> dict[str, Any]:
    """Open every case.

    Args:
        seeds: Whole files to damage, their specs beside them.
        cases: Numbers to draw from.
        folder: To write damaged files and the made-up driver to.
        report: Told how many cases were done since.

    Returns:
        A JSON-ready record: outcomes by machine and by what was done, and every case that went wrong.
    """
    compile_driver(folder)
    workers = {s.machine: Worker(s.machine.environment(folder)) for s in seeds}
    outcomes: dict[Machine, dict[str, Counter[str]]] = {machine: {} for machine in workers}
    wrong: list[dict[str, Any]] = []
    try:
        for number in cases:
            path, machine, what = damage(number, seeds, folder)
            outcome = workers[machine].open(path)
            if _is_wrong(outcome, path, machine):
                wrong.append({"case": number, "what": what, "outcome": outcome})
            outcomes[machine].setdefault(what, Counter())[outcome.split(":")[0]] += 1
            report(1)
    finally:
        for worker in workers.values():
            worker.close()
    return {
        "cases": len(cases),
        "onnxruntime": onnxruntime.__version__,
        "totals": {
            m.name: _sorted(sum(found.values(), Counter())) for m, found in outcomes.items()
        },
        "outcomes": {
            m.name: {what: _sorted(counts) for what, counts in sorted(found.items())}
            for m, found in outcomes.items()
        },
        "wrong": wrong,
    }


def _is_wrong(outcome: str, path: Path, machine: Machine) -> bool:
    """An engine that loads without a GPU is as wrong as a crash."""
    if path.suffix == ".engine" and not machine.has_gpu and outcome == "loaded":
        return True
    return outcome.startswith(("untyped", "crash", "hang"))


def _sorted(counts: Counter[str]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def main(
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    cases: Annotated[int, typer.Option(min=1, help="Damaged files to open.")] = 10_000,
    first: Annotated[int, typer.Option(min=0, help="Number of the first.")] = 0,
) -> None:
    """Damage ONNX files, engines and specs, and open every one.

    Example: python -m benchmarks.fuzz --out fuzz.json
    """
    run_cases(out, range(first, first + cases), "opening", write_seeds, fuzz)


def run_cases(
    out: Path,
    cases: range,
    task: str,
    write_seeds: Callable[[Path], list[Any]],
    fuzz: Callable[..., dict[str, Any]],
) -> None:
    """Damage seeds that lie in a folder for a while, and write the record; exit code 1 if one went wrong."""
    with (
        tempfile.TemporaryDirectory() as name,
        Progress(console=Console(stderr=True), transient=True) as progress,
    ):
        whole, damaged = Path(name, "whole"), Path(name, "damaged")
        damaged.mkdir()
        shown = progress.add_task(task, total=len(cases))
        seeds = write_seeds(whole)
        record = fuzz(seeds, cases, damaged, report=lambda done: progress.advance(shown, done))
    write_json(out, record)
    Console().print(f"{len(cases)} damaged files: {len(record['wrong'])} went wrong, see {out}")
    if record["wrong"]:
        raise typer.Exit(1)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
