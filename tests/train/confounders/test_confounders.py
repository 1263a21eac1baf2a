"""Confounders of many images, of another backbone, and from the cache."""

from __future__ import annotations

import logging
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from cmlr_edge.backends import load_backend
from cmlr_edge.errors import DataError
from export.deploy import DeployModel
from export.onnx_graph import export_fused
from tests.tiny_training import tiny_config, write_dataset
from train.config import ConfounderConfig
from train.confounders.clustering import SamplePlan, sample_tokens
from train.data import read_dataset
from train.fitting.loop import fit
from train.fitting.prepare import TokenReaders, prepare
from train.judging.evaluate import evaluate_run
from train.network.backbones import create_backbone
from train.network.checkpoint import load_model

WIDTH = 64


def batches(images: int, first: int = 0, size: int = 50) -> Iterator[Tensor]:
    """Tokens (B, 49, WIDTH) of images of three kinds."""
    for start in range(first, images, size):
        numbers = np.arange(start, min(start + size, images))
        tokens = np.random.default_rng(start).random((len(numbers), 49, WIDTH), np.float32)
        tokens[np.arange(len(numbers)), :, numbers % 3] += 5
        yield torch.from_numpy(tokens)


def peak_bytes_of_preparing(images: int) -> int:
    config = tiny_config(
        "model.intervention=expectation", "model.confounders.max_tokens=2000",
    ).model  # fmt: skip
    targets = np.zeros((images, 2), np.float32)
    readers = TokenReaders(lambda: batches(images), range(images), 0)
    tracemalloc.start()
    prepared = prepare(config, readers, targets, seed=0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert prepared.confounders is not None
    return peak


def test_memory_does_not_grow_with_the_number_of_images() -> None:
    few, many = peak_bytes_of_preparing(2000), peak_bytes_of_preparing(16000)
    assert many < 1.2 * few
    assert many < 16000 * 49 * WIDTH * 4 / 20  # a small part of all tokens


@pytest.mark.parametrize(
    ("images", "plan"), [(10, (32, 1)), (1000, (2, 1)), (2000, (1, 1)), (5000, (1, 3))]
)
def test_the_sample_is_spread_over_all_images(images: int, plan: tuple[int, int]) -> None:
    found = SamplePlan.of(images, ConfounderConfig(max_tokens=2000))
    assert (found.per_image, found.stride) == plan
    assert -(-images // found.stride) * found.per_image <= 2000


@pytest.mark.parametrize("plan", [SamplePlan(4, 1), SamplePlan(1, 3)])
def test_an_image_gives_the_same_tokens_wherever_the_batches_begin(plan: SamplePlan) -> None:
    whole = sample_tokens(batches(150), plan, seed=1)
    parts = [
        sample_tokens(batches(end, start), plan, seed=1, first_image=start)
        for start, end in ((0, 50), (50, 150))
    ]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    assert len(whole) == 150 / plan.stride


def only_file(folder: Path) -> Path:
    (path,) = folder.iterdir()
    return path


def test_runs_on_the_same_pictures_share_their_confounders_and_a_changed_picture_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    data, cache = write_dataset(tmp_path / "data"), tmp_path / "cache"

    def fit_run(name: str, *settings: str) -> dict[str, Tensor]:
        caplog.clear()
        config = tiny_config("epochs=1", "backbone_lr=0", *settings)
        fit(read_dataset(data), tmp_path / name, config, cache=cache)
        return load_file(tmp_path / name / "model.safetensors")

    first = fit_run("first")
    stored = only_file(cache)
    assert "seen of these pictures before" not in caplog.text
    second = fit_run("second", "model.embed_dim=16", "lr=1e-4")
    assert "seen of these pictures before" in caplog.text
    assert only_file(cache) == stored
    assert torch.equal(first["intervention.centres"], second["intervention.centres"])
    stored.write_bytes(stored.read_bytes()[:100])
    again = fit_run("again")
    assert "looking at the pictures again" in caplog.text
    assert torch.equal(first["intervention.centres"], again["intervention.centres"])
    (data / "0.png").write_bytes((data / "1.png").read_bytes())
    fit_run("changed")
    assert "seen of these pictures before" not in caplog.text
    assert len([*cache.iterdir()]) == 2
    fit_run("other", "model.confounders.num_confounders=3")
    assert len([*cache.iterdir()]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("intervention", ["back-door", "linear"])
def test_confounders_of_another_backbone_and_layer_train_score_and_export(
    tiny_data: Path, tmp_path: Path, intervention: str
) -> None:
    settings = [
        f"model.intervention={intervention}", "model.standardize_tokens=true",
        "model.confounders.backbone=tf_efficientnet_lite1", "model.confounders.layer=-4",
    ]  # fmt: skip
    data, run = read_dataset(tiny_data), tmp_path / "run"
    fit(data, run, tiny_config("epochs=1", *settings))
    model, spec = load_model(run)
    width = create_backbone("tf_efficientnet_lite1", 64, pretrained=False, layer=-4).num_features
    assert width != model.backbone.num_features
    assert model.intervention is not None
    assert model.intervention.centres.shape[1] == width
    report = evaluate_run(run, data, "val", min_positives=1)
    averaged = {"prior_context"} if intervention == "back-door" else set()
    assert set(report["read_outs"]) == {"deployed", "decoupled", *averaged}
    frames = torch.randint(0, 256, (3, 64, 64, 3), dtype=torch.uint8)
    with torch.no_grad():
        trained = DeployModel(model, spec.preprocess).eval()(frames)
    content = export_fused(model, spec.preprocess)[0].SerializeToString()
    backend = load_backend(Path("m.onnx"), content, provider="cpu")
    np.testing.assert_allclose(backend.infer(frames.numpy()), trained, atol=1e-4)


def test_a_layer_that_a_backbone_does_not_have_is_refused() -> None:
    with pytest.raises(DataError, match="5 feature maps"):
        create_backbone("tf_efficientnet_lite0", 64, pretrained=False, layer=7)


@pytest.mark.parametrize(("layer", "side"), [(-1, 2), (-2, 4), (0, 32)])
def test_a_layer_is_read_as_timm_gives_it(layer: int, side: int) -> None:
    backbone = create_backbone("tf_efficientnet_lite0", 64, pretrained=False, layer=layer).eval()
    images, reached = torch.randn(1, 3, 64, 64), []
    with torch.no_grad():
        blocks = backbone.network.get_submodule("blocks").children()
        hooks = [block.register_forward_hook(lambda *_: reached.append(1)) for block in blocks]
        tokens = backbone(images)
        for hook in hooks:
            hook.remove()
        maps = backbone.network.forward_intermediates(images, intermediates_only=True)  # type: ignore[operator]
    assert tokens.shape == (1, side * side, backbone.num_features)
    torch.testing.assert_close(tokens, maps[layer].flatten(2).transpose(1, 2))
    assert (len(reached) < len(hooks)) is (layer != -1)  # nothing behind it is computed
