"""The fused network against the trained one, for every option, and its report against counters."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cmlr_edge.model.spec import PreprocessSpec
from export.deploy import DeployModel
from export.fuse import fuse
from export.verify import synthetic_frames
from tests.export.networks import (
    CASES,
    input_spec,
    random_frames,
    randomized,
    small,
)
from tests.export.sums import check_sum
from train.network.checkpoint import load_model
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer
from train.network.model import DecoderLayer as TrainedLayer


def head_tokens(model: CausalRecognizer) -> Tensor:
    return torch.randn(1, 4, model.backbone.num_features)


def multiply_adds(function: Callable[[Tensor], Tensor], tokens: Tensor) -> int:
    """Of matrix products; the attention operator is counted by its formula."""

    def of_attention(query: tuple[int, ...], key: tuple[int, ...], *_: object, **__: object) -> int:
        return 4 * max(query[0], key[0]) * query[1] * key[1] * key[2]

    counted = {torch.ops.cmlr.attention: of_attention}
    with FlopCounterMode(display=False, custom_mapping=counted) as counter, torch.no_grad():
        function(tokens)
    return int(counter.get_total_flops()) // 2


def values(module: nn.Module) -> int:
    return sum(t.numel() for t in (*module.parameters(), *module.buffers()))


@pytest.mark.parametrize("name", CASES)
def test_the_fused_network_gives_the_trained_scores_and_saves_what_it_reports(name: str) -> None:
    model = randomized(small(*CASES[name]))
    spec = input_spec(model)
    fused, report = fuse(model, spec)
    tokens = torch.cat([head_tokens(model) for _ in range(3)])
    with torch.no_grad():
        expected, actual = model.scores(model.head(tokens)), fused.head(tokens)
        torch.testing.assert_close(actual, expected, atol=1e-5, rtol=0)
        assert (expected.max(0).values - expected.min(0).values).max() > 1e-4
        frames = random_frames(2)
        whole = DeployModel(model, spec).eval()(frames)
        torch.testing.assert_close(fused(frames), whole, atol=1e-4, rtol=0)
    check_sum(name, model, fused, frames)
    one = tokens[:1]
    before = multiply_adds(lambda x: model.scores(model.head(x)), one)
    assert before - multiply_adds(fused.head, one) == report.multiply_adds_saved
    assert report.multiply_adds_saved >= 0
    trained = values(model) - values(model.backbone)
    assert 4 * (trained - values(fused.head)) == report.bytes_saved


def test_a_trained_run_keeps_its_scores(tiny_run: Path) -> None:
    model, spec = load_model(tiny_run)
    fused, _ = fuse(model, spec.preprocess)
    frames = torch.from_numpy(synthetic_frames(spec.preprocess.size_hw, 8))
    with torch.no_grad():
        expected = DeployModel(model, spec.preprocess).eval()(frames)
        torch.testing.assert_close(fused(frames), expected, atol=1e-4, rtol=0)


def test_fusion_leaves_the_trained_network_as_it_was() -> None:
    model = randomized(small("model.head=pooled", "model.standardize_tokens=true"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    fuse(model, input_spec(model))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize(
    ("backbone", "folded"), [("vit_tiny_patch16_224", True), ("mobilenetv3_small_050", False)]
)
def test_the_mean_is_folded_only_into_a_convolution_without_padding(
    backbone: str, folded: bool
) -> None:
    model = randomized(small(f"model.backbone={backbone}", "model.intervention=none"))
    spec = PreprocessSpec((64, 64), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    fused, report = fuse(model, spec)
    assert (fused.pixel_mean is None) is folded
    assert fused.pixel_scale is None
    assert ("no padding" in report.folds[0].what) is folded
    frames = random_frames(2)
    with torch.no_grad():
        expected = DeployModel(model, spec).eval()(frames)
        torch.testing.assert_close(fused(frames), expected, atol=1e-4, rtol=0)


def test_weights_that_no_fold_pays_for_stay_bit_for_bit() -> None:
    model = randomized(small("model.intervention=expectation"))
    fused, _ = fuse(model, input_spec(model))
    kept = {tensor.numpy().tobytes() for tensor in fused.buffers()}
    assert model.decoder is not None
    layer = model.decoder.layers[0]
    assert isinstance(layer, TrainedLayer)
    attention = layer.cross_attention
    for linear in (model.decoder.project, attention.key, attention.value, attention.out):
        assert linear.weight.T.contiguous().numpy().tobytes() in kept


def test_the_report_reads_as_a_table_and_as_json() -> None:
    model = randomized(small("model.label_links=gated-attention"))
    _, report = fuse(model, input_spec(model))
    values = json.loads(json.dumps(report.to_json()))
    assert values["bytes_saved"] == sum(fold["bytes_saved"] for fold in values["folds"])
    lines = report.to_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        "node", "preprocess", "standardize", "decoder.memory", "decoder.layers.0", "links",
        "combine", "total",
    ]  # fmt: skip
    assert f"{report.multiply_adds_saved:,}" in lines[-1]


def test_channels_that_no_centre_looks_at_are_left_out_after_fusion_too() -> None:
    model = randomized(small("model.inference_context=own"))
    assert isinstance(model.intervention, BackDoorIntervention)
    model.intervention.centres[:, ::2] = 0
    fused, _ = fuse(model, input_spec(model))
    tokens = torch.cat([head_tokens(model) for _ in range(3)])
    with torch.no_grad():
        expected = model.scores(model.head(tokens))
        torch.testing.assert_close(fused.head(tokens), expected, atol=1e-5, rtol=0)
        tokens[..., ::2] *= 1.5  # the context must not notice
        before = model.intervention.own_context(tokens)
        tokens[..., ::2] = 0
        torch.testing.assert_close(model.intervention.own_context(tokens), before)
