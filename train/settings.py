"""Settings of the command line over the defaults of `TrainConfig`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from cmlr_edge.errors import DataError
from cmlr_edge.model.strict_json import from_json
from train.config import TrainConfig
from train.recipes import AUTO, NO_RECIPE, settings_of


def build_config(
    given: dict[str, Any], settings: list[str], recipe: str = NO_RECIPE
) -> TrainConfig:
    """Put a recipe over the defaults, options over it, and `key=value` settings over all.

    Args:
        given: Dotted key -> value.
        settings: "dotted.key=value" each; the value is read as JSON where it is JSON.
        recipe: A name in `RECIPES`, or none.

    Raises:
        DataError: A key does not exist or a value has the wrong type.
    """
    record = json.loads(json.dumps(dataclasses.asdict(TrainConfig())))
    asked = given | parse_settings(settings)
    given = {**settings_of(recipe, asked), "recipe": recipe, **asked}
    for key, value in given.items():
        _place_of(key, record)[key.rpartition(".")[2]] = value
    try:
        return from_json(TrainConfig, record)
    except ValueError as error:
        raise DataError(f"settings: {error}") from error


def check_names(settings: list[str], recipe: str) -> None:
    """Refuse what is no setting or recipe, before anything is read; values are looked at later.

    Raises:
        DataError: A key does not exist, or one has no `=`, or there is no such recipe.
    """
    if recipe != AUTO:
        settings_of(recipe, {})
    record = dataclasses.asdict(TrainConfig())
    for key, value in parse_settings(settings).items():
        _place_of(key, record)
        # It would be noted with the run, and nothing of it would be set.
        if key == "recipe" and value != recipe:
            raise DataError(f"--set recipe={value} sets nothing: give --recipe {value}")


def _place_of(key: str, record: dict[str, Any]) -> dict[str, Any]:
    """Find the settings that hold the last word of a dotted key."""
    *parents, leaf = key.split(".")
    place: Any = record
    for parent in parents:
        place = place.get(parent, {}) if isinstance(place, dict) else {}
    if not isinstance(place, dict) or leaf not in place:
        raise DataError(f"there is no setting {key!r}: {_hint(key)}")
    if isinstance(place[leaf], dict):  # what it does not name would silently be the defaults again
        raise DataError(
            f"{key} is a group of settings: give one of it, as {key}.{next(iter(place[leaf]))}=VALUE"
        )
    return place


def _hint(key: str) -> str:
    """Which settings may have been meant: of the same last word, or spelt alike."""
    known = [*_dotted(dataclasses.asdict(TrainConfig()))]
    leaves = {name.rpartition(".")[2] for name in known}
    leaf = key.rpartition(".")[2]
    alike = [leaf] if leaf in leaves else get_close_matches(leaf, leaves, 1)
    meant = [name for name in known if name.rpartition(".")[2] in alike]
    if not meant:
        return "`python -m train settings` lists all of them"
    return f"did you mean {' or '.join(meant)}? `python -m train settings` lists all of them"


def _dotted(settings: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, value in settings.items():
        if isinstance(value, dict):
            yield from _dotted(value, f"{above}{name}.")
        else:
            yield above + name


def parse_settings(settings: list[str]) -> dict[str, Any]:
    """Dotted key -> value of "dotted.key=value" each.

    Raises:
        DataError: One has no `=`.
    """
    parsed: dict[str, Any] = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise DataError(f"--set {setting!r} should read key=value")
        try:
            parsed[key] = json.loads(value)
        except ValueError:
            parsed[key] = value
    return parsed


def as_options(settings: Mapping[str, object]) -> str:
    """Write settings as the options of a command."""
    values = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in settings.items()}
    return " ".join(f"--set {key}={value}" for key, value in values.items())
