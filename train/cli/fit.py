"""`python -m train fit`: data folder to run folder."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from train.cli.options import DataOption
from train.recipes import AUTO, recipe_for, settings_of
from train.settings import build_config

if TYPE_CHECKING:
    from cmlr_edge.model.spec import ModelSpec
    from train.data import LabeledImages

_log = logging.getLogger(__name__)


def fit(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    recipe: Annotated[
        str,
        typer.Option(
            help="Settings to start from: few, thousands, many (auto: by the number of training "
            "pictures), or none, the defaults of train/config.py. Everything else given counts more."
        ),
    ] = "auto",
    backbone: Annotated[
        str | None, typer.Option(help="Any timm model; tf_efficientnet_lite0 without it.")
    ] = None,
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square input, in pixels; 320 without it.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training pictures; as in the recipe.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step; 32.")] = None,
    lr: Annotated[
        float | None, typer.Option(help="Highest learning rate of the head; 0.001.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Biased pairs for head feature-split or lone_weight, as `biased-pairs --json` "
            "writes them; without it, those that the data names."
        ),
    ] = None,
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
    from train.fitting.lone import read_pairs
    from train.fitting.loop import fit as run_fit

    given = {
        "biased_pairs": None if pairs is None else read_pairs(pairs),
        "model.backbone": backbone,
        "model.image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
        "accumulate": accumulate,
        "skip_damaged": skip_damaged,
    }
    pictures = read_dataset(data)
    recipe = choose_recipe(recipe, pictures, settings or [])
    given = {key: value for key, value in given.items() if value is not None}
    config = build_config(given, settings or [], recipe)
    try:
        spec = run_fit(
            pictures,
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
    if distributed.is_first():
        _say_what_is_next(out, spec)


def choose_recipe(asked: str, data: LabeledImages, settings: list[str]) -> str:
    """Take the recipe asked for, or the one for so many pictures, and say what is in it."""
    number = sum(image.split == "train" for image in data.images)
    recipe = recipe_for(number) if asked == AUTO else asked
    own = {setting.partition("=")[0] for setting in settings}
    words = [f"{k}={v}" for k, v in settings_of(recipe).items() if k not in own]
    _log.info("recipe %s for %d pictures: %s", recipe, number, " ".join(words) or "the defaults")
    return recipe


def _say_what_is_next(out: Path, spec: ModelSpec) -> None:
    from train.judging.metrics import MIN_POSITIVES

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
