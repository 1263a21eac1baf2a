"""The exported network against the trained one, for every option, and its report against counters."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from cmlr_edge.backends import load_backend
from export import attention
from export.deploy import DeployModel
from export.fusion_report import FusionReport, count_parts
from export.onnx_graph import export_fused
from tests.export.networks import TRACED, input_spec, random_frames, randomized, small
from tests.export.runtimes import run_everywhere
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer, DecoderLayer

pytestmark = pytest.mark.slow

# Attention nodes in the file of a case, which every runtime is given: what hangs on weights alone is none.
ATTENTIONS = {
    "matrix, prior, wide": 1,
    "gated-attention, own, plain": 3,
    "attention, prior, pooled skip": 1,  # the links' mask keeps theirs plain
    "expectation, sum, pooled skip": 5,
    "linear, mean, plain": 2,
    "ml-decoder, attention links": 1,
    "ccd": 0,
}


def network(*settings: str) -> CausalRecognizer:
    return randomized(small(*settings))


def run(model: onnx.ModelProto, frames: Tensor) -> NDArray[np.float32]:
    backend = load_backend(Path("m.onnx"), model.SerializeToString(), provider="cpu")
    return backend.infer(frames.numpy())


def trained_scores(model: CausalRecognizer, frames: Tensor) -> NDArray[np.float32]:
    with torch.no_grad():
        scores: NDArray[np.float32] = DeployModel(model, input_spec(model)).eval()(frames).numpy()
    return scores


def multiply_adds(model: CausalRecognizer) -> int:
    """Of matrix products and convolutions, for one image, as PyTorch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        DeployModel(model, input_spec(model)).eval()(random_frames(1))
    return int(counter.get_total_flops()) // 2


@pytest.mark.parametrize("name", TRACED)
def test_the_exported_network_gives_the_trained_scores_and_saves_what_it_reports(name: str) -> None:
    model = network(*TRACED[name])
    exported, report = export_fused(model, input_spec(model))
    frames = random_frames(3)
    expected = trained_scores(model, frames)
    np.testing.assert_allclose(run(exported, frames), expected, atol=1e-5)
    assert np.ptp(expected, axis=0).max() > 1e-6  # the pictures make a difference at all
    after = count_parts(exported)
    left = sum(part.multiply_adds for part in after.values())
    assert multiply_adds(model) - left == report.multiply_adds_saved
    assert report.multiply_adds_saved >= 0
    assert sum(part.bytes for part in after.values()) == sum(
        4 * math.prod(tensor.dims) for tensor in exported.graph.initializer
    )
    if name in ATTENTIONS:
        for (scores,) in run_everywhere(exported, {"frames": frames.numpy()}):
            np.testing.assert_allclose(scores, expected, atol=1e-4)
        counted = Counter(node.op_type for node in exported.graph.node)
        assert counted[attention.NAME] + counted[attention.PLAIN_NAME] == ATTENTIONS[name]
        if model.config.include_self or model.config.intervention == "linear":
            assert counted["Transpose"] == 2  # frames to channels first, and feature maps to tokens


def saved(report: FusionReport, node: str) -> int:
    return sum(fold.multiply_adds_saved for fold in report.folds if fold.node == node)


@pytest.mark.parametrize(("heads", "layers"), [(4, 1), (1, 2)])
def test_label_queries_their_own_attention_and_single_heads_cost_nothing(
    heads: int, layers: int
) -> None:
    model = network(
        "model.intervention=expectation", "model.self_attention=true", "model.include_self=true",
        f"model.num_heads={heads}", f"model.decoder_layers={layers}",
    )  # fmt: skip
    _, report = export_fused(model, input_spec(model))
    (labels, width), single = (3, 32), heads == 1
    tokens, confounders, features = 4, 4, model.backbone.num_features
    queries = labels * width**2
    own_attention = 4 * labels * width**2 + 2 * labels**2 * width
    first = queries + own_attention + single * labels * width**2
    assert saved(report, "decoder.layers.0") == first
    if layers == 2:  # of both its attentions
        assert saved(report, "decoder.layers.1") == 2 * labels * width**2
    mixing = confounders * features * width + 2 * (confounders + labels) * width**2
    assert saved(report, "intervention") == mixing + queries + single * labels * width**2
    assert tokens == 4


def test_export_leaves_the_trained_network_as_it_was() -> None:
    model = network("model.standardize_tokens=true")
    frames = random_frames(2)
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    expected = trained_scores(model, frames)
    export_fused(model, input_spec(model))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, tensors[name]), name
    np.testing.assert_array_equal(trained_scores(model, frames), expected)


def test_weights_that_no_fold_pays_for_stay_bit_for_bit() -> None:
    model = network("model.intervention=expectation")
    exported, _ = export_fused(model, input_spec(model), norms=False)
    kept = {tensor.raw_data for tensor in exported.graph.initializer}
    assert model.decoder is not None
    layer = model.decoder.layers[0]
    assert isinstance(layer, DecoderLayer)
    attention = layer.cross_attention
    for linear in (model.decoder.project, attention.key, attention.value, attention.out):
        assert linear.weight.T.contiguous().numpy().tobytes() in kept
    for name, weight in model.backbone.named_parameters():
        if weight.ndim == 4 and "conv_stem" not in name:  # which the pixels' deviation is in
            assert weight.detach().contiguous().numpy().tobytes() in kept, name


def test_the_report_names_each_part_and_reads_as_json() -> None:
    model = network("model.label_links=gated-attention")
    _, report = export_fused(model, input_spec(model))
    values = json.loads(json.dumps(report.to_json()))
    assert values["bytes_saved"] == sum(fold["bytes_saved"] for fold in values["folds"])
    assert [fold["node"] for fold in values["folds"]] == [
        "pixels", "backbone", "decoder", "decoder.layers.0", "readout", "links", "scores",
    ]  # fmt: skip
    assert values["multiply_adds_saved"] == report.multiply_adds_saved
    assert "key bias dropped (1)" in values["folds"][3]["what"]


def test_channels_that_no_centre_looks_at_are_left_out_of_the_file_too() -> None:
    model = network("model.inference_context=own")
    assert isinstance(model.intervention, BackDoorIntervention)
    model.intervention.centres[:, ::2] = 0
    exported, _ = export_fused(model, input_spec(model))
    frames = random_frames(3)
    np.testing.assert_allclose(run(exported, frames), trained_scores(model, frames), atol=1e-5)
    tokens = torch.randn(3, 4, model.backbone.num_features)
    before = model.intervention.own_context(tokens)
    tokens[..., ::2] = 0
    torch.testing.assert_close(model.intervention.own_context(tokens), before)
