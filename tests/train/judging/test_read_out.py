"""The read-out that is deployed: chosen on held-out pictures, simplest first, stored and exported."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from cmlr_edge.backends import load_backend
from cmlr_edge.model.spec import PreprocessSpec
from export.deploy import DeployModel
from export.onnx_graph import export_fused
from tests.export.networks import randomized
from tests.tiny_training import tiny_config
from train.cli.plot import plot
from train.data import read_dataset
from train.data.transforms import ImageTensors
from train.fitting.loop import fit
from train.judging import inference
from train.judging.inference import score_images
from train.judging.read_out import choose_read_out
from train.network.checkpoint import load_model

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((200, 6)) < 0.3).astype(np.float32)


def test_a_gpu_scores_in_whole_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """What thresholds are fitted to: PyTorch's own choice rounds what convolutions read to ten bits."""
    seen: list[bool] = []

    def score(*_: object) -> inference.DatasetScores:
        seen.append(torch.backends.cudnn.allow_tf32)
        return inference.DatasetScores(
            np.ones((1, 1), np.float32), np.ones((1, 1), np.float32), None, None
        )

    monkeypatch.setattr(inference, "_all_scores", score)
    pictures: Any = SimpleNamespace(judged=lambda found: found)
    score_images(cast("Any", None), pictures, PreprocessSpec((8, 8), (0.0,) * 3, (1.0,) * 3))
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32  # of training, as PyTorch has it


def scores(sharpness: float, seed: int = 1) -> NDArray[np.float32]:
    noise = np.random.default_rng(seed).random(TARGETS.shape)
    found: NDArray[np.float32] = (sharpness * TARGETS + noise).astype(np.float32)
    return found


@pytest.mark.parametrize(
    ("sharpness", "expected"),
    [
        ({"plain": 0.5, "decoder": 0.5, "own": 0.5, "prior": 0.5}, "plain"),
        ({"plain": 0.3, "decoder": 0.3, "own": 0.3, "prior": 0.9}, "prior"),
        ({"decoder": 0.3, "own": 0.9, "prior": 0.9}, "prior"),
        ({"decoder": 0.3, "own": 0.9, "prior": 0.3}, "own"),
        ({"plain": 0.9, "decoder": 0.5, "own": 0.5, "prior": 0.1}, "plain"),
        ({"decoder": 0.5, "prior": 0.501}, "decoder"),
    ],
)
def test_the_simplest_read_out_stays_unless_another_is_clearly_better(
    sharpness: dict[str, float], expected: str
) -> None:
    choice = choose_read_out({name: scores(s) for name, s in sharpness.items()}, TARGETS)
    assert choice.chosen == expected
    assert choice.val_map.keys() == sharpness.keys()


@pytest.mark.parametrize(("sharpness", "expected"), [(0.52, "prior"), (0.55, "own")])
def test_the_own_context_must_gain_two_points(sharpness: float, expected: str) -> None:
    rng = np.random.default_rng(0)
    targets = (rng.random((4000, 6)) < 0.3).astype(np.float32)
    noise = rng.random(targets.shape)  # the same for both: more than a point is no chance
    found = {"prior": 0.5 * targets + noise, "own": sharpness * targets + noise}
    choice = choose_read_out(
        {name: values.astype(np.float32) for name, values in found.items()}, targets
    )
    assert choice.val_map["own"] > choice.val_map["prior"] + 0.01
    assert choice.chosen == expected


def test_the_reason_says_what_was_compared_and_what_was_needed() -> None:
    said = choose_read_out({"plain": scores(0.5), "prior": scores(0.9)}, TARGETS).reason
    assert re.fullmatch(
        r"`prior` is better: \+[\d.]+ points of mAP against `plain`, needed are \+[\d.]+", said
    )
    said = choose_read_out({"plain": scores(0.5), "prior": scores(0.5)}, TARGETS).reason
    assert said.startswith("`prior` is not better by enough: +0.0 points of mAP against `plain`")


def test_a_gain_within_chance_is_not_taken() -> None:
    taken = 0
    for seed in range(20):
        by_chance = {"decoder": scores(0.5, seed), "prior": scores(0.5, seed + 100)}
        taken += choose_read_out(by_chance, TARGETS).chosen != "decoder"
    assert taken <= 3


def test_without_pictures_to_compare_on_the_simplest_is_taken() -> None:
    choice = choose_read_out({"prior": scores(0.5), "decoder": scores(0.1)}, 0 * TARGETS)
    assert choice.chosen == "decoder"
    assert "no label" in choice.reason


def test_the_choice_is_stored_and_is_what_is_loaded(tiny_data: Path, tmp_path: Path) -> None:
    data, run = read_dataset(tiny_data), tmp_path / "run"
    spec = fit(data, run, tiny_config("epochs=1", "model.inference_context=auto", "keep=best"))
    report = json.loads((run / "report.json").read_text())
    chosen = report["read_out"]["chosen"]
    assert spec.method.inference_context == chosen
    assert chosen in {"decoder", "own", "prior"}
    assert report["read_out"]["val_map"].keys() == {"decoder", "own", "prior"}
    assert {"precision", "precision_at_least"} <= report["labels"]["red"].keys()
    model, loaded = load_model(run)
    assert model.config.inference_context == chosen
    images = ImageTensors(data.split("val"), loaded.preprocess)
    found = score_images(model, images, loaded.preprocess)
    name = {"decoder": "decoupled", "own": "own_context", "prior": "prior_context"}[chosen]
    np.testing.assert_array_equal(found.deployed, getattr(found, name))


def test_the_head_without_intervention_is_a_candidate_and_loads_like_any(
    tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    settings = ("epochs=1", "model.inference_context=auto", "compare_plain=true", "backbone_lr=0")
    # Nothing is learned, by the head or by the context term: nobody is better than the simplest.
    config = tiny_config(*settings, "lr=1e-12", "model.confounders.ridge=1e9")
    spec = fit(read_dataset(tiny_data), run, config)
    assert (spec.method.intervention, spec.method.inference_context) == ("none", "plain")
    assert json.loads((run / "report.json").read_text())["read_out"]["chosen"] == "plain"
    weights, plain = (load_file(f / "model.safetensors") for f in (run, run / "plain"))
    assert weights.keys() == plain.keys()
    assert all(torch.equal(weights[name], plain[name]) for name in plain)
    model, _ = load_model(run)
    assert model.intervention is None
    of_plain = json.loads((run / "plain" / "report.json").read_text())["read_out"]["chosen"]
    assert of_plain == load_model(run / "plain")[1].method.read_out == "plain"
    plot(run, tmp_path / "log.png")
    assert f"python -m train plot {run / 'plain'}" in capsys.readouterr().err
    plot(run / "plain", tmp_path / "log.png")
    assert "deployed" not in capsys.readouterr().err


def test_the_best_epoch_is_kept(tiny_data: Path, tmp_path: Path) -> None:
    data = read_dataset(tiny_data)
    found = {}
    for keep in ("best", "last"):
        settings = ("epochs=4", "backbone_lr=0", "lr=0.05", "warmup_share=0.9", f"keep={keep}")
        spec = fit(data, tmp_path / keep, tiny_config(*settings))
        lines = (tmp_path / keep / "log.jsonl").read_text().splitlines()
        logged = [json.loads(line)["val_map"] for line in lines]
        found[keep] = (spec.provenance.metrics["val_map"], max(logged), logged[-1])
    assert found["best"][0] == pytest.approx(found["best"][1], abs=1e-3)
    assert found["last"][0] == pytest.approx(found["last"][2], abs=1e-3)


@pytest.mark.parametrize(
    "settings",
    [[], ["model.label_links=attention"], ["model.intervention=expectation"],
     ["model.standardize_tokens=true", "model.head=pooled", "model.pooled_skip=false"]],
)  # fmt: skip
def test_the_decoder_alone_is_exported_without_what_it_does_not_use(settings: list[str]) -> None:
    config = tiny_config("model.inference_context=decoder", *settings).model
    model = randomized(config)
    spec = PreprocessSpec((64, 64), model.backbone.mean, model.backbone.std)
    frames = torch.randint(0, 256, (2, 64, 64, 3), dtype=torch.uint8)
    with torch.inference_mode():
        deploy = DeployModel(model, spec).eval()
        expected = model.head(deploy.tokens(frames)).decoupled_logits.sigmoid()
        torch.testing.assert_close(deploy(frames), expected)
    exported, report = export_fused(model, spec)
    backend = load_backend(Path("m.onnx"), exported.SerializeToString(), provider="cpu")
    np.testing.assert_allclose(backend.infer(frames.numpy()), expected, atol=1e-5)
    assert not {"links", "intervention"} & {fold.node for fold in report.folds}
