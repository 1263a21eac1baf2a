"""`python -m benchmarks.context_bias`: draw the scenes, train every head, write the report."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks.context_bias.features import load_tokens
from benchmarks.context_bias.methods import BASE, CUTOUT_METHODS, METHODS, RECIPE, Method
from benchmarks.context_bias.report import (
    gains_table,
    markdown_table,
    plot_gains,
    rounded,
    summarize,
)
from benchmarks.context_bias.runs import Job, finished_keys, run_all
from benchmarks.records import write_json, write_text
from cmlr_edge.cli.grouped import takes_flags
from cmlr_edge.errors import DataError
from cmlr_edge.model.files import write_atomically
from train.data.context_scenes import PARTS, SOURCES, SceneConfig, generate
from train.reporting import exit_on_error, progress_bars

_QUICK_SCALE = 0.15
_FIRST_REPORTED = 3  # worlds 0 to 2 are for development: methods are chosen on them


@dataclass(frozen=True)
class Worlds:
    """Which scenes are drawn."""

    data_seeds: Annotated[int, typer.Option(min=1, help="Worlds to draw.")] = 3
    first_world: Annotated[int, typer.Option(min=0, help="Seed of the first of them.")] = (
        _FIRST_REPORTED
    )
    scale: Annotated[float, typer.Option(min=0.01, max=1, help="Scenes per world, a share.")] = 1.0
    mixed: Annotated[bool, typer.Option(help="Spurious effects have a direct cause too.")] = False
    contexts_per_scene: Annotated[int, typer.Option(min=1, max=2)] = 1
    bias_strength: Annotated[float, typer.Option(min=0, max=1)] = 1.0
    source: Annotated[str, typer.Option(help=f"Of the pictures: {', '.join(SOURCES)}.")] = "drawn"
    assets: Annotated[
        Path | None,
        typer.Option(help="Those pictures, fetched here; in the work folder if left out."),
    ] = None

    def __post_init__(self) -> None:
        """Check the source."""
        if self.source not in SOURCES:
            raise DataError(f"there is no source {self.source!r}: {', '.join(SOURCES)}")

    @property
    def variant(self) -> str:
        """Of these and of no other worlds."""
        kind = "" if self.source == "drawn" else f"{self.source}-"
        kind += "mixed-" if self.mixed else ""
        return f"{kind}{self.contexts_per_scene}-{self.bias_strength:g}-{self.scale:g}"

    def configs(self, folder: Path) -> dict[Path, SceneConfig]:
        """A folder for each, and what is drawn there."""
        counts = {name: round(n * self.scale) for name, n in SOURCES[self.source].counts.items()}
        return {
            folder / f"world-{seed}": SceneConfig(
                seed=seed,
                counts=counts,
                mixed=self.mixed,
                contexts_per_scene=self.contexts_per_scene,
                bias_strength=self.bias_strength,
                source=self.source,
            )
            for seed in range(self.first_world, self.first_world + self.data_seeds)
        }


@takes_flags
def compare(
    out: Annotated[Path, typer.Option(help="Folder for results.json, tables and pictures.")],
    work: Annotated[Path, typer.Option(help="Scenes, tokens and finished runs are kept here.")] = (
        Path("build/context_bias")
    ),
    seeds: Annotated[int, typer.Option(min=1, help="Trainings per world, main methods.")] = 3,
    ablation_seeds: Annotated[int, typer.Option(min=0, help="The same, ablations.")] = 2,
    only: Annotated[
        list[str] | None, typer.Option(help="Only this method; give it again for more.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Of the training.")] = RECIPE.batch_size,
    keep_runs: Annotated[
        bool, typer.Option(help="Go on from the runs that the folder of results holds.")
    ] = False,
    quick: Annotated[bool, typer.Option(help="One small world, main methods: a smoke test.")] = (
        False
    ),
    workers: Annotated[int, typer.Option(min=1, help="Processes.")] = os.cpu_count() or 1,
    *,
    flags: Worlds,
) -> None:
    """Compare heads on ContextScenes. Interrupted, it goes on where it was.

    Example: python -m benchmarks.context_bias --out benchmarks/results/context_bias
    """
    if quick:
        seeds, ablation_seeds = 1, 0
        flags = replace(flags, data_seeds=1, scale=_QUICK_SCALE)
    variant = flags.variant
    worlds = flags.configs(work / variant)
    methods = _choose(only or list(CUTOUT_METHODS if flags.source == "cutouts" else ()))
    jobs = _jobs(list(worlds), methods, seeds, ablation_seeds, batch_size)
    finished = work / variant / "runs.jsonl"
    if batch_size != RECIPE.batch_size:
        variant += f"-{batch_size}"
        finished = work / variant / "runs.jsonl"
        finished.parent.mkdir(parents=True, exist_ok=True)
    if keep_runs:
        take_over(out, variant, finished)
    done = finished_keys(finished)
    left = {job.scenes for job in jobs if job.key not in done}
    with progress_bars() as progress:
        for world, config in worlds.items():
            if str(world) in left:
                _prepare_world(world, config, work, flags.assets, progress, workers)
        task = progress.add_task("training heads", total=len(jobs))
        tokens, advance = work / "tokens", lambda _job: progress.advance(task)
        run_all(jobs, tokens, finished, workers=workers, report=advance)
    wanted = {job.key for job in jobs}
    records = map(json.loads, finished.read_text().splitlines())
    runs = [record for record in records if record["key"] in wanted]
    write_report(runs, out, variant)


def _choose(only: list[str] | None) -> list[Method]:
    if unknown := set(only or []) - {method.name for method in METHODS}:
        names = [method.name for method in METHODS]
        raise DataError(f"no such methods: {sorted(unknown)}; there are {names}")
    if only:
        return [method for method in METHODS if method.name in only]
    return [method for method in METHODS if method.group != "fit"]


def take_over(out: Path, variant: str, finished: Path) -> None:
    """Add the runs of an earlier report to the file of finished ones.

    Args:
        out: Folder of the report.
        variant: The worlds that are compared on now.
        finished: JSON lines; runs that are there already stay as they are.

    Raises:
        DataError: There is no report, or one of other worlds.
    """
    try:
        known = json.loads((out / "results.json").read_text())["variant"]
        lines = (out / "runs.jsonl").read_text().splitlines()
    except OSError as error:
        raise DataError(f"{out} holds no runs to keep: {error}; leave out --keep-runs") from error
    if known != variant:
        raise DataError(f"{out} holds runs on worlds {known}, not {variant}: choose another --out")
    finished.parent.mkdir(parents=True, exist_ok=True)
    present = finished_keys(finished)
    with finished.open("a") as file:
        file.writelines(f"{line}\n" for line in lines if json.loads(line)["key"] not in present)


def _jobs(
    worlds: list[Path], methods: list[Method], seeds: int, ablation_seeds: int, batch_size: int
) -> list[Job]:
    """Those of the main methods first; runs that share a preparation follow each other."""
    jobs = [
        (method.group == "ablation", Job(method.name, str(world), seed, batch_size))
        for world in worlds
        for method in methods
        for seed in range(ablation_seeds if method.group == "ablation" else seeds)
    ]
    jobs.sort(key=lambda job: (job[0], job[1].scenes, job[1].seed))
    return [job for _, job in jobs]


def _prepare_world(
    world: Path,
    config: SceneConfig,
    work: Path,
    assets: Path | None,
    progress: Progress,
    workers: int,
) -> None:
    total = sum(config.counts[part.name] for part in PARTS)
    if not (world / "labels.json").is_file():
        task = progress.add_task(f"drawing {world.name}", total=total)
        generate(
            world,
            config,
            assets or work / "assets",
            workers=workers,
            report=lambda _part, done: progress.advance(task, done),
        )
    task = progress.add_task(f"tokens of {world.name}", total=total)
    load_tokens(
        world, work / "tokens", BASE, report=lambda _part, done: progress.advance(task, done)
    )
    progress.update(task, completed=total)


def write_report(runs: list[dict[str, Any]], out: Path, variant: str) -> None:
    """Write runs.jsonl, and results.json, tables.md and gains.png that follow from it."""
    out.mkdir(parents=True, exist_ok=True)
    runs = [rounded(run) for run in sorted(runs, key=lambda run: run["key"])]
    lines = "".join(json.dumps(run) + "\n" for run in runs)
    write_atomically(out / "runs.jsonl", lines.encode())
    report = {"variant": variant} | summarize(runs)
    write_json(out / "results.json", report)
    tables = "\n\n".join(
        table(report, group)
        for table in (markdown_table, gains_table)
        for group in ("main", "fit", "ablation")
        if any(row["group"] == group for row in report["rows"])
    )
    write_text(out / "tables.md", tables)
    plot_gains(report, out / "gains.png")
    Console().print(tables)


if __name__ == "__main__":
    with exit_on_error():
        typer.run(compare)
