"""Recipe files of published tables: each is a configuration, and goes from a tree to a table."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from benchmarks.papers import recipes
from benchmarks.papers.__main__ import compare
from benchmarks.papers.report import plan_table, results_table
from cmlr_edge.errors import DataError
from tests.tiny_training import TINY, tiny_config
from tests.train.data import official_trees
from train.fitting.learner import Learner
from train.network.backbones import create_backbone
from train.network.model import CausalRecognizer

# What makes a run small, whatever the arm.
SMALL = [
    *TINY[:2], "model.image_size=64", "model.embed_dim=32",
    "model.num_heads=4", "model.ffn_dim=32", "model.confounders.num_confounders=4",
    "model.confounders.num_contexts=6", "model.confounders.tokens_per_image=4", "epochs=1",
    "batch_size=8", "amp=off", "lr_drops=[]",
]  # fmt: skip
TREES: dict[str, Callable[[Path], Path]] = {
    "coco_stuff": official_trees.write_coco_stuff,
    "deepfashion": official_trees.write_deepfashion,
    "coco_to_nus_wide": official_trees.write_coco,
}


def test_every_recipe_file_is_tried() -> None:
    assert recipes.names() == sorted(TREES)


@pytest.mark.parametrize("name", TREES)
def test_every_arm_is_a_configuration_that_trains_all_of_train(name: str) -> None:
    table = recipes.load(name)
    for arm in table.arms:
        config = table.config(arm, 7, [])
        assert config.seed == 7
        assert config.validation_share is None
        assert config.model.inference_context == "prior"
        assert config.keep == "last"
        one, eight = table.hours(arm)
        assert one > eight > one / 8
    assert "http" in plan_table(table)
    with pytest.raises(DataError, match=r"coco_stuff, .*deepfashion"):
        recipes.load("table 1")


@pytest.mark.slow
@pytest.mark.parametrize("name", TREES)
def test_a_small_official_tree_becomes_a_table(name: str, tmp_path: Path) -> None:
    data, out = TREES[name](tmp_path / "data"), tmp_path / "out"

    def run(seeds: int) -> None:
        compare(name, data=data, out=out, work=tmp_path / "work", seeds=seeds, settings=SMALL,
                only=None, weights=None, test_data=None, test_split=None)  # fmt: skip

    run(seeds=1)
    lines = (out / "runs.jsonl").read_text().splitlines()
    table = recipes.load(name)
    assert [json.loads(line)["arm"] for line in lines] == list(table.arms)
    rows = (out / "table.md").read_text().splitlines()
    assert [row.split(" | ")[0].removeprefix("| ") for row in rows[4:]] == list(table.arms)
    run(seeds=1)  # nothing is done twice
    assert (out / "runs.jsonl").read_text().splitlines() == lines


def test_a_coco_run_is_scored_on_another_data_set(tmp_path: Path) -> None:
    coco = official_trees.write_coco(tmp_path / "coco")
    nus = official_trees.write_nus_wide(tmp_path / "nus")
    compare("coco_to_nus_wide", data=coco, out=tmp_path / "out", work=tmp_path / "work", seeds=1,
            settings=SMALL, only=["label decoder"], weights=None, test_data=nus,
            test_split="test")  # fmt: skip
    (line,) = (tmp_path / "out" / "runs.jsonl").read_text().splitlines()
    record = json.loads(line)
    assert record["test"] == "nus test"
    assert 0 < record["measures"]["mean_ap"]["value"] <= 100


def test_a_table_has_intervals_over_seeds_and_gains_paired_by_seed() -> None:
    table = recipes.load("coco_stuff")
    first, second = list(table.arms)[:2]
    values = {first: [50.0, 60.0, 55.0], second: [52.0, 63.0, 56.0]}
    runs = [
        {
            "arm": arm,
            "seed": seed,
            "measures": {
                name: {"value": value, "low": value - 5, "high": value + 5}
                for name in table.measures
            },
        }
        for arm, of_seeds in values.items()
        for seed, value in enumerate(of_seeds)
    ]
    row = results_table(table, runs).splitlines()[3]
    reach = 4.3027 * np.std([2.0, 3.0, 1.0], ddof=1) / 3**0.5
    assert f"57.0 ({57 - 13.83:.1f} - {57 + 13.83:.1f})" in row
    assert f"+2.0 ({2 - reach:.1f} - {2 + reach:.1f})" in row
    alone = results_table(table, [run for run in runs if run["seed"] == 0]).splitlines()[3]
    assert "52.0 (47.0 - 57.0) | +2.0 |" in alone


def test_sgd_falls_to_a_tenth_after_its_epochs_and_averages_nothing() -> None:
    config = tiny_config("optimizer=sgd", "lr=0.1", "backbone_lr=0.1", "lr_drops=[2,3]", "epochs=4",
                         "ema_decay=0", "weight_decay=0", "model.intervention=none")  # fmt: skip
    model = CausalRecognizer(config.model, 3, pretrained=False)
    learner = Learner(model, config, None, precision=torch.float32, num_steps=8)  # type: ignore[arg-type]
    rates = []
    for _ in range(8):
        rates.append(learner._scheduler.get_last_lr()[-1])
        learner._optimizer.step()
        learner._scheduler.step()
    assert rates == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    learner.averaged.update_parameters(model)
    assert torch.equal(next(learner.network.parameters()), next(model.parameters()))
    with pytest.raises(DataError, match="adamw has a schedule"):
        tiny_config("lr_drops=[2]")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_weights_of_a_file_are_those_of_the_backbone(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"weights{suffix}"
    torch.manual_seed(1)
    first = create_backbone("resnet18", 64, pretrained=False)
    tensors = dict(first.network.state_dict()) | {"fc.weight": torch.ones(10, 512)}
    if suffix == ".pth":
        torch.save(tensors, path)
    else:
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    second = create_backbone("resnet18", 64, pretrained=True, weights=str(path)).network
    assert all(torch.equal(tensor, tensors[name]) for name, tensor in second.state_dict().items())
    with pytest.raises(DataError, match=r"not of timm's resnet34: .* missing"):
        create_backbone("resnet34", 64, pretrained=True, weights=str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(DataError, match="cannot be read") as raised:
        create_backbone("resnet18", 64, pretrained=True, weights=str(path))
    assert "\n" not in str(raised.value)


def test_weights_that_would_run_code_are_refused(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return (Path.touch, (tmp_path / "harm",))  # type: ignore[return-value]

    torch.save({"conv1.weight": Harm()}, tmp_path / "bad.pth")
    with pytest.raises(DataError, match="cannot be read"):
        create_backbone("resnet18", 64, pretrained=True, weights=str(tmp_path / "bad.pth"))
    assert not (tmp_path / "harm").exists()
