"""`python -m train.data.context_scenes`: draw the benchmark's pictures."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from cmlr_edge.cli.usage import run_command
from cmlr_edge.errors import DataError
from train.data.context_scenes import PARTS, SOURCES, SceneConfig, generate
from train.reporting import exit_on_error

_log = logging.getLogger(__name__)
DEFAULT_ASSETS = Path("build/context_scenes_assets")


def draw(
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    seed: Annotated[int, typer.Option(help="Of the graph and every scene.")] = 0,
    assets: Annotated[
        Path, typer.Option(help="Sprites and backgrounds; fetched here the first time.")
    ] = DEFAULT_ASSETS,
    bias_strength: Annotated[
        float, typer.Option(min=0, max=1, help="1: contexts decide; 0: they say nothing.")
    ] = 1.0,
    mixed: Annotated[
        bool, typer.Option(help="Spurious effects have a direct cause as well.")
    ] = False,
    contexts_per_scene: Annotated[
        int, typer.Option(min=1, max=2, help="2: two backgrounds side by side.")
    ] = 1,
    source: Annotated[str, typer.Option(help=f"Of the pictures: {', '.join(SOURCES)}.")] = "drawn",
    scale: Annotated[float, typer.Option(min=0.001, help="Times the usual number of scenes.")] = 1,
) -> None:
    """Draw ContextScenes: train, val, iid, do and cross, with the true graph beside them.

    Example: python -m train.data.context_scenes --out scenes --seed 0
    """
    if source not in SOURCES:
        raise DataError(f"there is no source {source!r} of pictures: {', '.join(SOURCES)}")
    counts = {name: max(1, round(n * scale)) for name, n in SOURCES[source].counts.items()}
    config = SceneConfig(
        seed=seed,
        counts=counts,
        bias_strength=bias_strength,
        mixed=mixed,
        contexts_per_scene=contexts_per_scene,
        source=source,
    )
    with Progress(console=Console(stderr=True)) as progress:
        tasks = {part.name: progress.add_task(part.name, total=counts[part.name]) for part in PARTS}
        generate(
            out,
            config,
            assets,
            workers=os.cpu_count() or 1,
            report=lambda part, done: progress.advance(tasks[part], done),
        )


if __name__ == "__main__":
    with exit_on_error():
        run_command(draw, "python -m train.data.context_scenes")
