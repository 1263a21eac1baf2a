"""What `fit` starts from without options, and what it does with benchmarks and biased pairs."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from cmlr_edge.errors import CmlrError, DataError
from tests.tiny_training import TINY, tiny_config
from tests.train.data import official_trees
from train.cli.app import app
from train.cli.fit import fit as fit_command
from train.cli.search import search
from train.cli.training import choose_config
from train.data import read_dataset
from train.fitting.lone import lone_examples
from train.fitting.loop import fit
from train.network.backbones import create_backbone
from train.network.checkpoint import load_config, load_model
from train.recipes import RECIPES, recipe_for
from train.settings import build_config

SETTINGS = [part for setting in [*TINY, "epochs=1"] for part in ("--set", setting)]


def call(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_a_recipe_goes_by_the_number_of_pictures() -> None:
    names = [recipe_for(number) for number in (10, 306, 1000, 5000, 20_000, 118_000)]
    assert names == ["few", "few", "thousands", "thousands", "many", "many"]


@pytest.mark.parametrize(
    ("slip", "meant"),
    [
        ("lrr", "lr"),
        ("epoch", "epochs"),
        ("dropout", "model.dropout"),  # without what stands before it
        ("num_confounder", "model.confounders.num_confounders"),
        ("model.confounder.kind", "model.confounders.kind"),
    ],
)
def test_a_setting_that_is_spelt_wrong_is_refused_with_the_one_that_was_meant(
    slip: str, meant: str
) -> None:
    with pytest.raises(DataError, match=rf"no setting '{slip}': did you mean .*\b{meant}\b"):
        build_config({}, [f"{slip}=1"])


@pytest.mark.parametrize(
    "setting",
    [
        "lr=1e38", "backbone_lr=1e30", "weight_decay=1e38", "workers=1000000000", "seed=4294967296",
        "link_sparsity=1e308", "lone_weight=1e38", "model.confounders.strength=1e308",
        "gamma_negative=-5", "probability_clip=2", "model.dropout=1", "model.dropout=-1",
        "model.embed_dim=0", "model.num_heads=-4", "model.ffn_dim=0", "model.image_width=0",
        "model.confounders.ridge=0",
    ],
)  # fmt: skip
def test_a_number_that_no_training_can_use_is_refused_by_its_name(setting: str) -> None:
    name = setting.partition("=")[0].removeprefix("model.")
    with pytest.raises(
        DataError, match=rf"^settings: {name} is .*(at most|at least|or more|than|and )"
    ):
        build_config({}, [setting])


@pytest.mark.parametrize(
    ("option", "says"),
    [
        (["--track", "tensorbord"], "no tracker 'tensorbord': expected one of tensorboard, mlflow"),
        (["--out", "{file}/run"], "run cannot be written: Not a directory"),
        (["--set", "lrr=1"], "did you mean lr"),
    ],
)
def test_a_slip_is_found_before_any_picture_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: list[str], says: str
) -> None:
    monkeypatch.setattr("train.data.read_dataset", lambda _root: pytest.fail("it read the data"))
    (tmp_path / "file").write_text("")
    words = [word.format(file=tmp_path / "file") for word in option]
    where = [] if "--out" in option else ["--out", tmp_path / "made/run"]
    with pytest.raises(CmlrError, match=says):
        call("fit", "--data", tmp_path, *where, *words)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_is_a_configuration_and_what_is_given_counts_more(recipe: str) -> None:
    config = build_config({}, [], recipe)
    assert config.recipe == recipe
    assert config.model.inference_context == "auto"
    config = build_config({"epochs": 3}, ["model.inference_context=own"], recipe)
    assert (config.epochs, config.model.inference_context) == (3, "own")


@pytest.mark.parametrize(
    "asked",
    [
        "model.intervention=none",
        "model.intervention=expectation",
        "model.intervention=explicit",
        "model.label_links=gated-attention",
        "model.token_stages=1",
        "model.confounders.layer=-2",
        "model.confounders.kind=none",
    ],
)
@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_leaves_out_what_is_refused_beside_what_is_asked_for(
    recipe: str, asked: str
) -> None:
    config = build_config({}, [asked], recipe)
    link_matrix = (config.model.intervention, config.model.label_links) == ("back-door", "matrix")
    assert (config.link_sparsity > 0) == (recipe != "few" and link_matrix)
    clusters = config.model.confounders
    own_finer_stage = config.model.token_stages == 2 and not clusters.other_view
    if (recipe, asked) == ("few", "model.intervention=explicit"):
        assert clusters.kind == "kmeans"
    elif recipe == "few" or asked == "model.confounders.kind=none":
        assert clusters.kind == "none"
    else:
        assert clusters.kind == ("early" if own_finer_stage else "kmeans")
    same = build_config(_as_given(asked), [], recipe)
    assert same == config  # given as an option or as a setting


def _as_given(setting: str) -> dict[str, object]:
    key, _, value = setting.partition("=")
    return {key: int(value) if value.lstrip("-").isdigit() else value}


@pytest.mark.parametrize("recipe", ["thousands", "many"])
def test_recipes_for_many_pictures_train_beside_clusters_with_sparse_links(
    tiny_data: Path, tmp_path: Path, recipe: str
) -> None:
    run = tmp_path / "run"
    call("fit", "--data", tiny_data, "--out", run, "--recipe", recipe, *SETTINGS,
         "--set", "model.pooled_skip=false")  # fmt: skip
    config = load_config(run)
    assert (config.model.confounders.kind, config.link_sparsity) == ("early", 0.1)
    assert config.model.united_share == 0
    choice = json.loads((run / "report.json").read_text())["read_out"]
    assert choice["val_map"].keys() == {"decoder", "own", "prior"}
    assert load_model(run)[0].config.inference_context == choice["chosen"]


def test_an_unknown_recipe_names_those_there_are() -> None:
    with pytest.raises(DataError, match="few, thousands, many"):
        build_config({}, [], "some")


def test_fit_without_options_takes_the_recipe_for_so_many_pictures_and_says_so(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = tmp_path / "run"
    caplog.set_level(logging.INFO)
    given = [setting for setting in [*TINY, "epochs=1"] if "backbone_lr" not in setting]
    kept = [part for setting in given for part in ("--set", setting)]
    call("fit", "--data", tiny_data, "--out", run, *kept)
    config = load_config(run)
    assert config.recipe == "few"
    assert config.backbone_lr == 0
    assert config.epochs == 1  # given, and counts more
    told = "recipe few: 1 epoch of test_efficientnet at 64x64 for 3 labels; 24 pictures to train on"
    assert caplog.text.count(told) == 1  # not of the run that is compared with, too
    assert caplog.text.count("so few validation pictures") == 1
    assert "backbone_lr" not in caplog.text  # settings stay in the run folder
    assert (run / "plain" / "model.json").is_file()
    report = json.loads((run / "report.json").read_text())
    assert report["recipe"] == "few"
    assert report["read_out"]["reason"] in caplog.text
    with pytest.raises(DataError, match="holds a run already"):  # before data is looked for
        call("fit", "--data", tmp_path / "none", "--out", run)


def test_nothing_is_held_out_of_a_benchmarks_train_unless_asked_for(tmp_path: Path) -> None:
    data = read_dataset(official_trees.write_coco_stuff(tmp_path / "data"))
    number = len(data.split("train").images)
    assert "val" not in data.with_validation(None, 0).splits
    assert len(data.with_validation(0.25, 0).split("val").images) == round(0.25 * number)
    spec = fit(data, tmp_path / "run", tiny_config("epochs=1", "keep=best"))
    assert spec.provenance.num_train_images == number
    assert "training images" in spec.threshold_fit.data
    assert spec.provenance.metrics == {}
    log = json.loads((tmp_path / "run" / "log.jsonl").read_text())
    assert log["val_map"] is None


def with_pairs(tiny_data: Path, root: Path) -> Path:
    shutil.copytree(tiny_data, root)
    record = json.loads((root / "labels.json").read_text())
    record["biased_pairs"] = [["red", "blue"]]
    (root / "labels.json").write_text(json.dumps(record))
    return root


@pytest.mark.parametrize(
    "settings",
    [("model.head=feature-split", "model.intervention=none"), ("lone_weight=10",)],
    ids=["feature-split", "weighted"],
)
def test_feature_split_and_weighted_need_pairs_and_learn_otherwise_with_them(
    tiny_data: Path, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    settings = ("epochs=2", "backbone_lr=0", "lr=0.01", *settings)
    plain = read_dataset(tiny_data)
    with pytest.raises(DataError, match="give --pairs FILE"):
        fit(plain, tmp_path / "refused", tiny_config(*settings))
    assert not (tmp_path / "refused").exists()
    runs = {"data": tmp_path / "data_run", "red": tmp_path / "red", "green": tmp_path / "green"}
    fit(
        read_dataset(with_pairs(tiny_data, tmp_path / "data")), runs["data"], tiny_config(*settings)
    )
    for name in ("red", "green"):
        config = tiny_config(*settings, f'biased_pairs=[["{name}", "blue"]]')
        fit(plain, runs[name], config)
    found = {name: load_file(run / "model.safetensors") for name, run in runs.items()}
    same = {
        name: all(torch.equal(found["data"][k], found[name][k]) for k in found["data"])
        for name in ("red", "green")
    }
    assert same == {"red": True, "green": False}  # the pairs count, and where they come from not


def test_lone_examples_are_those_with_the_label_and_without_its_company(tiny_data: Path) -> None:
    data = read_dataset(tiny_data).split("train")
    config = tiny_config("lone_weight=10", 'biased_pairs=[["red", "blue"]]')
    lone = lone_examples(config, data)
    assert lone is not None
    targets = data.targets() > 0
    np.testing.assert_array_equal(lone[:, 0].numpy(), targets[:, 0] & ~targets[:, 2])
    assert not lone[:, 1:].any()
    assert lone_examples(tiny_config(), data) is None
    with pytest.raises(DataError, match=r"\['pink'\] that are not in the labels of"):
        lone_examples(tiny_config("lone_weight=10", 'biased_pairs=[["red", "pink"]]'), data)


def test_pairs_found_by_biased_pairs_are_read_from_their_file(
    tiny_data: Path, tmp_path: Path
) -> None:
    pairs = tmp_path / "pairs.json"
    pairs.write_text(json.dumps({"pairs": [{"label": "red", "context": "blue", "bias": 2.0}]}))
    run = tmp_path / "run"
    call("fit", "--data", tiny_data, "--out", run, "--recipe", "none", "--pairs", pairs, *SETTINGS,
         "--set", "lone_weight=5")  # fmt: skip
    assert load_config(run).biased_pairs == (("red", "blue"),)
    pairs.write_text("{}")
    with pytest.raises(DataError, match="biased-pairs --json"):
        call("fit", "--data", tiny_data, "--out", tmp_path / "none", "--pairs", pairs)


@pytest.mark.parametrize(
    ("backbone", "size", "stages"),
    [
        ("tf_efficientnet_lite0", 224, 2),
        ("tf_efficientnet_lite0", 300, 1),  # its last maps have 19 and 10 positions a side
        ("vit_small_patch16_224", 224, 1),
        ("swin_tiny_patch4_window7_224", 224, 2),
        ("resnet50", 448, 2),
    ],
)
def test_a_recipes_second_stage_is_left_out_where_the_backbone_has_none(
    tiny_data: Path, caplog: pytest.LogCaptureFixture, backbone: str, size: int, stages: int
) -> None:
    caplog.set_level(logging.INFO)
    data, given = read_dataset(tiny_data), {"model.backbone": backbone, "model.image_size": size}
    assert choose_config("auto", data, given, []).model.token_stages == stages
    model = choose_config("thousands", data, given, []).model
    assert model.confounders.kind == ("early" if stages == 2 else "kmeans")
    assert ("of one stage" in caplog.text) == (stages == 1)
    assert caplog.text.count("for 24 training pictures --recipe auto takes `few`") == 1
    asked = choose_config("auto", data, given, ["model.token_stages=2"])
    assert asked.model.token_stages == 2  # what is asked for is not changed


def test_feature_maps_that_do_not_fold_are_one_error_with_a_remedy() -> None:
    backbone = create_backbone("tf_efficientnet_lite0", 300, pretrained=False, stages=2).eval()
    with pytest.raises(DataError, match=r"19x19 and 10x10.*32 divides, or token_stages=1"):
        backbone(torch.zeros(1, 3, 300, 300))


def test_a_recipe_that_there_is_not_is_told_before_anything_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no recipe 'small'"):
        fit_command(data=tmp_path / "no data", out=tmp_path / "run", recipe="small")
    with pytest.raises(DataError, match="no recipe 'small'"):
        search(data=tmp_path / "no data", out=tmp_path / "run", recipe="small")
    with pytest.raises(DataError, match=r"did you mean model\.image_size"):
        search(data=tmp_path / "no data", out=tmp_path / "run", settings=["image_size=96"])
