"""One seed gives one model, whatever was measured, cached or drawn before."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file

from tests.tiny_training import tiny_config, write_dataset
from tests.train.data import official_trees
from train.data import read_dataset
from train.data.coco_stuff import CACHE
from train.fitting.amp import choose_precision
from train.fitting.loop import fit
from train.network.backbones import create_backbone


def test_timing_the_precision_leaves_network_and_random_stream_alone() -> None:
    backbone = create_backbone("tf_efficientnet_lite0", 64, pretrained=False).train()
    before = {name: tensor.clone() for name, tensor in backbone.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    choose_precision("auto", backbone, 64)
    assert torch.equal(torch.rand(4), expected)
    for name, tensor in backbone.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert backbone.training
    assert all(parameter.grad is None for parameter in backbone.parameters())


def weights_of(
    data: Path, run: Path, cache: Path | None, *settings: str
) -> dict[str, torch.Tensor]:
    fit(read_dataset(data), run, tiny_config("epochs=1", *settings), cache=cache)
    return load_file(run / "model.safetensors")


def assert_same_bits(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


def test_confounders_from_the_cache_give_the_same_bits_as_built_ones(tmp_path: Path) -> None:
    data, cache = write_dataset(tmp_path / "data"), tmp_path / "cache"
    # Stochastic depth draws from the common stream, which building confounders moves.
    settings = ("freeze_batch_norm=false", "model.standardize_tokens=true", "backbone_lr=1e-3")
    without = weights_of(data, tmp_path / "without", None, *settings)
    cold = weights_of(data, tmp_path / "cold", cache, *settings)
    warm = weights_of(data, tmp_path / "warm", cache, *settings)
    assert_same_bits(cold, without)
    assert_same_bits(cold, warm)


def test_labels_from_the_cache_give_the_same_bits_as_read_ones(tmp_path: Path) -> None:
    data = official_trees.write_coco_stuff(tmp_path / "data")
    assert not (data / CACHE).exists()
    cold = weights_of(data, tmp_path / "cold", tmp_path / "cache")
    assert (data / CACHE).exists()
    warm = weights_of(data, tmp_path / "warm", tmp_path / "cache")
    assert_same_bits(cold, warm)
