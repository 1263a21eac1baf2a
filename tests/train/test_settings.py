"""The list of settings: all of them, each with words."""

from __future__ import annotations

import dataclasses
import json

import pytest

from cmlr_edge.errors import DataError
from train.cli.app import app
from train.config import TrainConfig
from train.recipes import RECIPES
from train.settings import build_config, check_names
from train.settings_list import list_settings


def test_every_setting_is_listed_with_what_it_means() -> None:
    listed = {item.name: item for item in list_settings(TrainConfig())}
    for part, above in ((TrainConfig(), ""), (TrainConfig().model, "model.")):
        for field in dataclasses.fields(part):
            value = getattr(part, field.name)
            if not dataclasses.is_dataclass(value):
                assert listed[above + field.name].value in {value, json.dumps(value)}
    assert [item.name for item in listed.values() if len(item.meaning.split()) < 3] == []
    assert listed["keep"].choices == ("last", "best")
    assert "bends" in listed["model.detach_causal"].meaning
    assert "share" not in listed["lr"].meaning  # of others


@pytest.mark.parametrize("recipe", ["none", *RECIPES])
def test_the_list_shows_a_recipes_values_that_can_be_typed_again(
    recipe: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    app(["settings", "--recipe", recipe], standalone_mode=False)
    shown = capsys.readouterr().out
    config = build_config({}, [], recipe)
    listed = list_settings(config)
    typed = [f"{item.name}={item.value}" for item in listed]
    lines = [line.strip() for line in shown.splitlines()]
    assert sorted(line for line in lines if line in typed) == sorted(typed)
    assert build_config({}, typed, recipe) == config


def test_a_wrong_setting_is_told_where_all_are_listed() -> None:
    for wrong in ("epoch=1", "qqqq=1"):
        with pytest.raises(DataError, match="python -m train settings"):
            build_config({}, [wrong])


@pytest.mark.parametrize("group", ["model={}", "model.confounders={}"])
def test_a_group_of_settings_is_not_set_as_one(group: str) -> None:
    with pytest.raises(DataError, match="is a group of settings: give one of it"):
        build_config({}, ["model.embed_dim=32", group])


def test_a_recipe_is_chosen_by_its_option_alone() -> None:
    check_names(["recipe=few"], "few")
    with pytest.raises(DataError, match="sets nothing: give --recipe few"):
        check_names(["recipe=few"], "none")
