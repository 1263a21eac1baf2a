"""`python -m train fit`: data folder to run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from train.cli.options import DataOption
from train.settings import build_config


def fit(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    backbone: Annotated[str, typer.Option(help="Any timm model.")] = "tf_efficientnet_lite0",
    image_size: Annotated[int, typer.Option(help="Side of the square input, in pixels.")] = 320,
    epochs: Annotated[int, typer.Option(help="Passes over the training pictures.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Pictures per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the head.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other setting of train/config.py, for example model.embed_dim=512."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue a run that was stopped.")] = False,
    accumulate: Annotated[
        int, typer.Option(help="Parts that a step is computed in, where memory is short.")
    ] = 1,
    skip_damaged: Annotated[
        bool,
        typer.Option("--skip-damaged", help="Leave out pictures that cannot be read; list them."),
    ] = False,
    cache: Annotated[
        Path | None,
        typer.Option(help="Folder of confounders to share; default confounders/ beside the run."),
    ] = None,
) -> None:
    """Train a model and write a run folder: weights, spec, configuration and log.

    \b
    python -m train fit --data photos --epochs 20 --out runs/first
    torchrun --nproc-per-node 4 -m train fit --data photos --out runs/first
    """  # noqa: D301
    from train import distributed
    from train.data import read_dataset
    from train.fitting.loop import fit as run_fit
    from train.judging.metrics import MIN_POSITIVES

    given = {
        "model.backbone": backbone,
        "model.image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "accumulate": accumulate,
        "skip_damaged": skip_damaged,
    }
    config = build_config(given, settings or [])
    try:
        spec = run_fit(
            read_dataset(data),
            out,
            config,
            resume=resume,
            cache=cache or out.absolute().parent / "confounders",
        )
    except KeyboardInterrupt:
        Console(stderr=True).print(
            f"whole epochs are kept in {out}: go on with the same command and --resume"
        )
        raise
    if not distributed.is_first():
        return
    val_map = spec.provenance.metrics.get("val_map")
    measured = (
        f"not measurable, no label has {MIN_POSITIVES} positives"
        if val_map is None
        else f"{val_map:.3f} over labels with at least {MIN_POSITIVES} positives"
    )
    Console(stderr=True).print(
        f"wrote {out}: validation mAP {measured}. "
        f"Next: python export/build_engine.py --checkpoint {out} --out DIR"
    )
