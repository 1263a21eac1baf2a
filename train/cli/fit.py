"""`python -m train fit`: data folder to run folder."""

from __future__ import annotations

import logging
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmlr_edge.wording import counted
from train.cli.options import DataOption
from train.config import TrainConfig
from train.recipes import AUTO, recipe_for
from train.reporting import say
from train.settings import build_config, check_names, parse_settings

if TYPE_CHECKING:
    from cmlr_edge.model.spec import ModelSpec
    from train.data import LabeledImages

_STAGES = "model.token_stages"
_log = logging.getLogger(__name__)

_Out = Annotated[Path, typer.Option(help="Run folder to write.")]
_Recipe = Annotated[
    str,
    typer.Option(
        help="Settings to start from: few, thousands, many (auto: by the number of training "
        "pictures), or none, the defaults of train/config.py. Everything else given counts more."
    ),
]
_Backbone = Annotated[
    str | None, typer.Option(help="Any timm model; tf_efficientnet_lite0 without it.")
]
_ImageSize = Annotated[
    int | None, typer.Option(help="Side of the square input, in pixels; 320 without it.")
]
_Epochs = Annotated[
    int | None, typer.Option(help="Passes over the training pictures; as in the recipe.")
]
_BatchSize = Annotated[int | None, typer.Option(help="Pictures per step; 32.")]
_Lr = Annotated[float | None, typer.Option(help="Highest learning rate of the head; 0.001.")]
_Seed = Annotated[int, typer.Option(min=0, help="Of everything random.")]
_Pairs = Annotated[
    Path | None,
    typer.Option(
        help="Biased pairs for head feature-split or lone_weight, as `biased-pairs --json` writes "
        "them; without it, those that the data names."
    ),
]
_Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set", help="Any other setting of train/config.py, for example model.embed_dim=512."
    ),
]
_Resume = Annotated[bool, typer.Option("--resume", help="Continue a run that was stopped.")]
_Accumulate = Annotated[
    int, typer.Option(help="Parts that a step is computed in, where memory is short.")
]
_SkipDamaged = Annotated[
    bool, typer.Option("--skip-damaged", help="Leave out pictures that cannot be read; list them.")
]
_Track = Annotated[
    list[str] | None,
    typer.Option(help="Show each epoch in tensorboard or mlflow too; may be given again."),
]
_Cache = Annotated[
    Path | None,
    typer.Option(help="Folder of confounders to share; default confounders/ beside the run."),
]


def fit(
    data: DataOption,
    out: _Out,
    recipe: _Recipe = AUTO,
    backbone: _Backbone = None,
    image_size: _ImageSize = None,
    epochs: _Epochs = None,
    batch_size: _BatchSize = None,
    lr: _Lr = None,
    seed: _Seed = 0,
    pairs: _Pairs = None,
    settings: _Settings = None,
    resume: _Resume = False,
    accumulate: _Accumulate = 1,
    skip_damaged: _SkipDamaged = False,
    cache: _Cache = None,
    track: _Track = None,
) -> None:
    """Train a model and write a run folder: weights, spec, configuration and log.

    \b
    python -m train fit --data photos --epochs 20 --out runs/first
    torchrun --nproc-per-node 4 -m train fit --data photos --out runs/first
    """  # noqa: D301
    check_names(settings or [], recipe)  # before PyTorch is loaded and pictures are read
    from train import distributed
    from train.data import read_dataset
    from train.fitting.lone import read_pairs
    from train.fitting.run import refuse_what_would_be_lost
    from train.fitting.tracking import check_trackers
    from train.network.checkpoint import check_writable, load_config

    check_trackers(track or [])
    check_writable(out)
    if resume:
        load_config(out)
    else:
        refuse_what_would_be_lost(out)
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
    config = choose_config(recipe, pictures, given, settings or [])
    spec = _run(pictures, out, config, resume=resume, cache=cache, track=track or [])
    if distributed.is_first():
        _say_what_is_next(data, out, spec)


def _run(
    data: LabeledImages,
    out: Path,
    config: TrainConfig,
    *,
    resume: bool,
    cache: Path | None,
    track: list[str],
) -> ModelSpec:
    from train.fitting.loop import fit as run_fit

    try:
        cache = cache or out.absolute().parent / "confounders"
        return run_fit(data, out, config, resume=resume, cache=cache, track=track)
    except KeyboardInterrupt:
        say(f"whole epochs are kept in {out}: go on with the same command and --resume")
        raise


def choose_config(
    recipe: str, data: LabeledImages, given: dict[str, Any], settings: list[str]
) -> TrainConfig:
    """Put what is given over a recipe, or over the one for so many pictures.

    Args:
        recipe: Its name, or auto.
        data: To be trained on.
        given: Dotted key -> value; None where an option was left out.
        settings: "dotted.key=value" each; they count most.
    """
    number = sum(image.split == "train" for image in data.images)
    fitting = recipe_for(number)
    recipe = fitting if recipe == AUTO else recipe
    given = {key: value for key, value in given.items() if value is not None}
    own = given | parse_settings(settings)
    if recipe != fitting:
        _log.info("for %s --recipe auto takes `%s`", counted(number, "training picture"), fitting)
    config = build_config(given, settings, recipe)
    return config if _STAGES in own else _with_stages_it_has(config)


def _with_stages_it_has(config: TrainConfig) -> TrainConfig:
    """Leave out a second stage that a recipe asks for and the backbone does not give."""
    from train.network.backbones import gives_two_stages

    model = config.model
    if model.token_stages == 1 or gives_two_stages(model.backbone, model.size_hw):
        return config
    _log.info(
        "%s gives features of one stage alone, so that is read: %s=1", model.backbone, _STAGES
    )
    confounders = model.confounders
    if confounders.kind == "early":  # clusters of the stage that is left out
        confounders = replace(confounders, kind="kmeans")
    return replace(config, model=replace(model, token_stages=1, confounders=confounders))


def _say_what_is_next(data: Path, out: Path, spec: ModelSpec) -> None:
    from train.judging.metrics import MIN_POSITIVES

    val_map = spec.provenance.metrics.get("val_map")
    measured = (
        f"not measurable, no label has {MIN_POSITIVES} positives"
        if val_map is None
        else f"{val_map:.3f} over labels with at least {MIN_POSITIVES} positives"
    )
    say(f"wrote {out}: validation mAP {measured}")
    places = f"--checkpoint {shlex.quote(str(out))} --data {shlex.quote(str(data))}"
    say(f"Next: python export/build_engine.py {places} --out DIR")
