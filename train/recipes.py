"""Named recipes: settings for few, thousands of, or many pictures, in one place.

A recipe is what `fit` starts from; options and `--set` count more. `few` has the head that won on
re-sampled photos (docs/natural.md) and is measured as a whole (docs/photos.md). The other two have
the head that won on 4,000 drawn scenes (docs/context_scenes.md); the rest of them follows what is
usual for so many pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cmlr_edge.errors import DataError

NO_RECIPE = "none"  # the defaults of train/config.py as they are
AUTO = "auto"  # by the number of training pictures

_KIND = "model.confounders.kind"
_TOKENS = {"model.token_stages": 2, "model.standardize_tokens": True, "model.decoder_layers": 2}
_UNITED = {
    **_TOKENS,
    "model.pooled_skip": True,
    "model.united_share": 0.5,
    _KIND: "none",
}
# A context term of so many clusters needs thousands of pictures: with hundreds it costs.
_BESIDE_CONTEXT = {
    **_TOKENS,
    _KIND: "early",
    "model.confounders.num_confounders": 80,
    "link_sparsity": 0.1,
}
# What cannot harm: read-out and epoch are chosen on held-out pictures.
_SAFE = {"model.inference_context": "auto", "keep": "best"}
RECIPES: dict[str, dict[str, Any]] = {
    # The backbone stays as ImageNet made it, so a head without intervention costs little to compare.
    "few": {
        **_UNITED,
        **_SAFE,
        "epochs": 12,
        "backbone_lr": 0.0,
        "gamma_negative": 0.0,
        "model.dropout": 0.2,
        "compare_plain": True,
        "threshold_rule": "precision=0.8",
    },
    # Early layers have little to learn from so few, and take most of a step's time.
    "thousands": {**_BESIDE_CONTEXT, **_SAFE, "epochs": 20, "frozen_stages": 3},
    "many": {**_BESIDE_CONTEXT, **_SAFE, "epochs": 20},
}
_BOUNDS = {"few": 1_000, "thousands": 20_000}  # fewer training pictures than this


def recipe_for(num_images: int) -> str:
    """Name the recipe for so many training pictures."""
    return next((name for name, bound in _BOUNDS.items() if num_images < bound), "many")


def settings_of(recipe: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a recipe, dotted key -> value, without those that what is given has no use for.

    Args:
        recipe: Its name, or none.
        given: Dotted key -> value; what counts more than the recipe.

    Raises:
        DataError: There is none of this name.
    """
    if recipe == NO_RECIPE:
        return {}
    if recipe not in RECIPES:
        raise DataError(f"there is no recipe {recipe!r}: {AUTO}, {NO_RECIPE}, {', '.join(RECIPES)}")
    settings = dict(RECIPES[recipe])
    if _differs(given, {"model.intervention": "back-door", "model.label_links": "matrix"}):
        settings.pop("link_sparsity", None)
    own_view = {"model.confounders.backbone": None, "model.confounders.layer": None}
    if settings[_KIND] == "early":
        refused = _differs(given, {"model.token_stages": 2, **own_view})
    else:
        refused = given.get("model.intervention") == "explicit"  # a sum over nothing
    if refused:
        del settings[_KIND]  # clusters of the tokens that there are
    return settings


def _differs(given: Mapping[str, Any], needed: Mapping[str, Any]) -> bool:
    return any(given.get(key, value) != value for key, value in needed.items())
