"""Checks and measures everything that is marked "unverified on hardware", on a machine with a GPU.

    python -m benchmarks.gpu --lease                       both parts, in less than ten minutes
    python -m benchmarks.gpu --part A --out results/gpu    the kernels; B: training, and engines
    python -m benchmarks.gpu --stage 3 --stage 9           some stages
    python -m benchmarks.gpu --lease --dry-run             what would be run, and what it lacks here

Each stage is a process of its own with a limit, and its JSON is in the folder from its first line
on: a stage that fails, hangs or crashes stops nothing. Stages for what is not installed are skipped
and say so; --model, a folder that export/build_engine.py wrote, is what TensorRT's stage builds.
Prints one table, and writes it as table.md. Exit code 0 if everything that ran holds, 1 if something
does not, 2 where there is no GPU. No package beyond NumPy is needed to start it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.gpu.plan import STAGES, Stage
from benchmarks.gpu.report import Report, fails, stage_file, table
from benchmarks.gpu.stage import missing_module
from benchmarks.records import markdown_table, write_text
from cmlr_edge.machine.child import python_command, run_limited

ROOT = Path(__file__).parents[2]
_LEAST_S = 5  # that a stage is started for
LEASE_S = 570  # a machine that is lent ends a command after ten minutes


def run_stage(stage: Stage, folder: Path, limit_s: float, model: Path | None) -> dict[str, Any]:
    """Run one stage, and end it at its limit."""
    file = stage_file(folder, stage.number)
    file.unlink(missing_ok=True)
    about = [str(stage.number), str(folder), *([str(model.resolve())] if model else [])]
    started = time.perf_counter()
    command = python_command("benchmarks.gpu.stage", "main", *about)
    done = run_limited(command, timeout_s=max(limit_s, 1))
    file.with_suffix(".log").write_text(done.output + done.messages)
    record: dict[str, Any] = {"number": stage.number, "name": stage.name, "rows": []}
    if file.is_file():
        record = json.loads(file.read_text())
    record["seconds"] = round(time.perf_counter() - started, 2)
    if done.limit:
        record.update(ended="over its limit", why=f"of {done.limit}: {limit_s:.0f} s were given")
    elif done.code != 0 or record.get("ended") in {None, "running"}:
        record.update(ended="failed", why=f"its process {done.error or 'ended'}; see its log")
    file.write_text(json.dumps(record, indent=1) + "\n")
    return record


def run_stages(stages: list[Stage], options: argparse.Namespace) -> list[dict[str, Any]]:
    """Run them, those that measure nothing at once; what there is no time for is skipped."""
    folder, records = options.out.resolve(), []
    ends = time.monotonic() + options.seconds

    def run(stage: Stage) -> dict[str, Any]:
        limit_s = min(stage.limit_s, ends - time.monotonic())
        if limit_s >= _LEAST_S:
            return run_stage(stage, folder, limit_s, options.model)
        file = stage_file(folder, stage.number)
        why = f"the {options.seconds:.0f} s were over"
        Report(stage.number, stage.name, file=file).end("skipped", why)
        skipped: dict[str, Any] = json.loads(file.read_text())
        return skipped

    for at_once in in_order(stages):
        with ThreadPoolExecutor(len(at_once)) as pool:
            for record in pool.map(run, at_once):
                say(
                    f"{record['number']} {record['name']}: {record['ended']}, {record['seconds']:.0f} s"
                )
                records.append(record)
        write_text(folder / "table.md", table(records))
    return records


def in_order(stages: list[Stage]) -> list[list[Stage]]:
    """One after the other; at the first that need not be alone, all of these at once."""
    together = [stage for stage in stages if not stage.alone]
    return [
        [stage] if stage.alone else together
        for stage in stages if stage.alone or stage is together[0]
    ]  # fmt: skip


def plan_table(stages: list[Stage]) -> str:
    """What would be run, in Markdown; nothing is."""
    rows = [
        (f"{s.number} {s.name}", s.part, f"{s.limit_s} s", missing_module(s.needs) or "")
        for s in stages
    ]
    return markdown_table(("stage", "part", "limit", "missing here"), rows, numbers=(2,))


def say(text: str) -> None:
    """To whoever waits, at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--lease", action="store_true", help="both parts")
    which.add_argument("--part", choices=["A", "B"])
    which.add_argument("--stage", type=int, action="append", choices=[s.number for s in STAGES])
    parser.add_argument("--out", type=Path, default=Path("results/gpu"))
    parser.add_argument("--model", type=Path)
    parser.add_argument(
        "--seconds", type=float, default=LEASE_S, help="for all of it, %(default)s by default"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="say what would be run and what is missing here"
    )
    options = parser.parse_args(arguments)
    asked = [
        stage for stage in STAGES
        if options.lease or stage.part == options.part or stage.number in (options.stage or ())
    ]  # fmt: skip
    if options.dry_run:
        say(plan_table(asked))
        return 0
    options.out.mkdir(parents=True, exist_ok=True)
    records = run_stages(asked, options)
    records.sort(key=lambda record: record["number"])
    write_text(options.out / "table.md", table(records))
    say(table(records))
    if all(record["ended"] == "no GPU" for record in records):
        sys.stderr.write(f"cannot be checked here: {records[0]['why']}\n")
        return 2
    return 1 if fails(records) else 0


if __name__ == "__main__":
    # Some packages install folders named `benchmarks` (pyarrow 17): ours come first in the stages too.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), before)))
    sys.exit(main())
