"""Options of the commands that train, and the configuration that they make with a recipe."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cmlr_edge.wording import counted
from train.config import TrainConfig
from train.recipes import AUTO, recipe_for
from train.settings import build_config, check_names, parse_settings

if TYPE_CHECKING:
    from train.data import LabeledImages

_STAGES = "model.token_stages"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingFlags:
    """What every training may be given."""

    recipe: Annotated[
        str,
        typer.Option(
            help="Settings to start from: few, thousands, many (auto: by the number of training "
            "pictures), or none, the defaults. Everything else given counts more."
        ),
    ] = AUTO
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="Any other setting, for example model.embed_dim=512; `python -m train settings` "
            "lists them.",
        ),
    ] = None
    backbone: Annotated[
        str | None, typer.Option(help="Any timm model; tf_efficientnet_lite0 without it.")
    ] = None
    image_size: Annotated[
        int | None, typer.Option(help="Side of the square input, in pixels; 320 without it.")
    ] = None
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training pictures; as in the recipe.")
    ] = None
    batch_size: Annotated[int | None, typer.Option(help="Pictures per step; 32.")] = None
    lr: Annotated[float | None, typer.Option(help="Highest learning rate of the head; 0.001.")] = (
        None
    )
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0
    pairs: Annotated[
        Path | None,
        typer.Option(
            help="Biased pairs for head feature-split or lone_weight, as `biased-pairs --json` "
            "writes them; without it, those that the data names."
        ),
    ] = None
    accumulate: Annotated[
        int, typer.Option(help="Parts that a step is computed in, where memory is short.")
    ] = 1
    skip_damaged: Annotated[
        bool,
        typer.Option("--skip-damaged", help="Leave out pictures that cannot be read; list them."),
    ] = False

    def check(self) -> None:
        """Refuse names that are none, before PyTorch is loaded and pictures are read."""
        check_names(self.settings or [], self.recipe)

    def given(self) -> dict[str, Any]:
        """Dotted key -> value of what was given, but for `--set`."""
        from train.fitting.lone import read_pairs

        options = {
            "biased_pairs": None if self.pairs is None else read_pairs(self.pairs),
            "model.backbone": self.backbone,
            "model.image_size": self.image_size,
            "epochs": self.epochs,
            "batch_size": self.batch_size,
            "lr": self.lr,
            "seed": self.seed,
            "accumulate": self.accumulate,
            "skip_damaged": self.skip_damaged,
        }
        return {key: value for key, value in options.items() if value is not None}

    def words(self) -> list[str]:
        """What was given but the recipe, to be typed again."""
        typed = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name == "recipe" or value == field.default:
                continue
            name = "--set" if field.name == "settings" else f"--{field.name.replace('_', '-')}"
            items = value if isinstance(value, list) else [value]
            typed += [name if i is True else f"{name} {shlex.quote(str(i))}" for i in items]
        return typed


def choose_config(
    recipe: str, data: LabeledImages, given: dict[str, Any], settings: list[str]
) -> TrainConfig:
    """Put what is given over a recipe, as `choose_recipe` names it."""
    return build_config(*choose_recipe(recipe, data, given, settings))


def choose_recipe(
    recipe: str, data: LabeledImages, given: dict[str, Any], settings: list[str]
) -> tuple[dict[str, Any], list[str], str]:
    """What `build_config` takes: a recipe for so many pictures, and a backbone that has what it reads.

    Args:
        recipe: Its name, or auto.
        data: To be trained on.
        given: Dotted key -> value.
        settings: "dotted.key=value" each; they count most.
    """
    number = sum(image.split == "train" for image in data.images)
    fitting = recipe_for(number)
    recipe = fitting if recipe == AUTO else recipe
    if recipe != fitting:
        _log.info("for %s --recipe auto takes `%s`", counted(number, "training picture"), fitting)
    config = build_config(given, settings, recipe)
    if _STAGES not in given | parse_settings(settings) and _lacks_a_stage(config):
        given = {**given, _STAGES: 1}
    return given, settings, recipe


def _lacks_a_stage(config: TrainConfig) -> bool:
    """Whether a recipe asks for a second stage that the backbone does not give."""
    from train.network.backbones import gives_two_stages

    model = config.model
    if model.token_stages == 1 or gives_two_stages(model.backbone, model.size_hw):
        return False
    _log.info(
        "%s gives features of one stage alone, so that is read: %s=1", model.backbone, _STAGES
    )
    return True
