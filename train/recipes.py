"""Named recipes: settings for few, thousands of, or many pictures, in one place.

A recipe is what `fit` starts from; options and `--set` count more. All have the head that won on
re-sampled photos (docs/natural.md). `few` is measured as a whole (docs/photos.md); what the other two
do beside the head follows what is usual for so many pictures.
"""

from __future__ import annotations

from typing import Any

from cmlr_edge.errors import DataError

NO_RECIPE = "none"  # the defaults of train/config.py as they are
AUTO = "auto"  # by the number of training pictures

_HEAD = {
    "model.token_stages": 2,
    "model.standardize_tokens": True,
    "model.decoder_layers": 2,
    "model.pooled_skip": True,
    "model.united_share": 0.5,
    "model.confounders.kind": "none",
}
# What cannot harm: read-out and epoch are chosen on held-out pictures.
_SAFE = {"model.inference_context": "auto", "keep": "best"}
RECIPES: dict[str, dict[str, Any]] = {
    # The backbone stays as ImageNet made it, so a head without intervention costs little to compare.
    "few": {
        **_HEAD,
        **_SAFE,
        "epochs": 12,
        "backbone_lr": 0.0,
        "gamma_negative": 0.0,
        "model.dropout": 0.2,
        "compare_plain": True,
        "threshold_rule": "precision=0.8",
    },
    # Early layers have little to learn from so few, and take most of a step's time.
    "thousands": {**_HEAD, **_SAFE, "epochs": 20, "frozen_stages": 3},
    "many": {**_HEAD, **_SAFE, "epochs": 20},
}
_BOUNDS = {"few": 1_000, "thousands": 20_000}  # fewer training pictures than this


def recipe_for(num_images: int) -> str:
    """Name the recipe for so many training pictures."""
    return next((name for name, bound in _BOUNDS.items() if num_images < bound), "many")


def settings_of(recipe: str) -> dict[str, Any]:
    """Settings of a recipe, dotted key -> value.

    Raises:
        DataError: There is none of this name.
    """
    if recipe == NO_RECIPE:
        return {}
    if recipe not in RECIPES:
        raise DataError(f"there is no recipe {recipe!r}: {AUTO}, {NO_RECIPE}, {', '.join(RECIPES)}")
    return dict(RECIPES[recipe])
