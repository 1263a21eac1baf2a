"""Reads `preprocessor_config.json`, which Hugging Face's image processors keep beside a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cmlr_edge.adopting.recipe import SCALES, Recipe, Triple
from cmlr_edge.errors import SpecError
from cmlr_edge.model.spec import Interpolation
from cmlr_edge.model.strict_json import json_value, read_bounded

# Pillow's numbers of its filters.
_FILTERS: dict[int, Interpolation] = {
    0: "pillow-nearest",
    1: "pillow-lanczos",
    2: "pillow-bilinear",
    3: "pillow-bicubic",
}


def read_processor(path: Path) -> Recipe:
    """Read what an image processor does to a picture.

    Raises:
        SpecError: It cannot be read, or does something that cannot be followed.
    """
    try:
        value = json_value(read_bounded(path))
    except (OSError, ValueError) as error:
        raise SpecError(f"cannot read the preprocessing in {path}: {error}") from error
    if not isinstance(value, dict):
        raise SpecError(f"{path} should hold an object, got {type(value).__name__}")
    if value.get("do_rescale", True) is False:
        scaled = replace(SCALES["0..255"])
    else:
        scaled = _scaled(value, path)
    recipe = replace(scaled, color="rgb", layout="nchw")
    if value.get("do_resize", True):
        recipe = _resized(value, recipe, path)
    return recipe


def _scaled(value: dict[str, Any], path: Path) -> Recipe:
    factor = value.get("rescale_factor", 1 / 255)
    if not isinstance(factor, int | float) or not 0 < factor < 1:
        raise SpecError(f"{path}: rescale_factor is {str(factor)[:40]}: expected 1/255 or the like")
    plain = value.get("do_normalize", True) is False
    mean = (0.0, 0.0, 0.0) if plain else _triple(value, "image_mean", path)
    std = (1.0, 1.0, 1.0) if plain else _triple(value, "image_std", path)
    share = 1 / (255 * factor)  # pixels are x * factor; ours are x / 255
    return Recipe(mean=_times(mean, share), std=_times(std, share))


def _times(values: Triple, factor: float) -> Triple:
    return values[0] * factor, values[1] * factor, values[2] * factor


def _triple(value: dict[str, Any], name: str, path: Path) -> Triple:
    found: Any = value.get(name)
    numbers: list[Any] = found if isinstance(found, list) else [found] * 3
    if len(numbers) != 3 or not all(
        isinstance(n, int | float) and not isinstance(n, bool) and abs(n) < 1e6 for n in numbers
    ):
        raise SpecError(f"{path}: {name} is {str(found)[:60]}: expected three numbers")
    if name == "image_std" and min(numbers) <= 0:
        raise SpecError(f"{path}: image_std is {str(found)[:60]}: expected numbers above 0")
    return float(numbers[0]), float(numbers[1]), float(numbers[2])


def _resized(value: dict[str, Any], recipe: Recipe, path: Path) -> Recipe:
    resample = value.get("resample", 2)
    if resample not in _FILTERS:
        raise SpecError(
            f"{path}: resample is {str(resample)[:40]}: expected 0 to 3, Pillow's filters"
        )
    recipe = replace(recipe, interpolation=_FILTERS[resample])
    size = _size(value.get("size"), path)
    short = size.get("shortest_edge")
    if not value.get("do_center_crop", False):
        if short is not None:
            return replace(recipe, resize="crop", size_hw=(short, short))
        return replace(recipe, resize="stretch", size_hw=(size["height"], size["width"]))
    crop = _size(value.get("crop_size"), path)
    side = crop.get("shortest_edge", 0)
    cut = crop.get("height", side), crop.get("width", side)
    # Stretched to a square before it is cut, or its shorter side made so long.
    if short is None and (size["height"], size["width"]) != cut:
        raise SpecError(f"{path} stretches to {size} and cuts {cut} out: say --preprocess in words")
    resize: Any = "stretch" if short is None else "crop"
    return replace(recipe, resize=resize, short_side=short or 0, size_hw=cut)


def _size(value: Any, path: Path) -> dict[str, int]:
    size = {"shortest_edge": value} if type(value) is int else value
    known = isinstance(size, dict) and ("shortest_edge" in size or {"height", "width"} <= set(size))
    if not known or not all(type(v) is int and 0 < v <= 8192 for v in size.values()):
        raise SpecError(f"{path}: a size is {str(value)[:60]}: expected height and width in pixels")
    found: dict[str, int] = size
    return found
