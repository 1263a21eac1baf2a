"""The fused network against the trained one, for every option, and its report against counters."""

from __future__ import annotations

import itertools
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
from tests.tiny_training import tiny_config
from train.config import ModelConfig
from train.confounders.clustering import Confounders
from train.network.baselines import CcdClassifier
from train.network.checkpoint import load_model
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer
from train.network.model import DecoderLayer as TrainedLayer

LABELS = 3
HEADS = {
    "pooled": ["model.head=pooled", "model.intervention=none"],
    "pooled with links": ["model.head=pooled"],
    "ml-decoder": ["model.head=ml-decoder", "model.intervention=none"],
    "ml-decoder, attention links": ["model.head=ml-decoder", "model.label_links=attention"],
    "ccd": ["model.head=ccd", "model.intervention=none"],
    "feature-split": ["model.head=feature-split", "model.intervention=none"],
    "feature-split, own context": ["model.head=feature-split", "model.inference_context=own"],
    "decoder": ["model.intervention=none"],
    "no layer": ["model.decoder_layers=0", "model.label_links=attention"],
    "ml-decoder, no layer": ["model.head=ml-decoder", "model.decoder_layers=0"],
    "two stages": ["model.token_stages=2"],
    "no confounders": ["model.confounders.kind=none"],
    "expectation, no confounders": [
        "model.intervention=expectation", "model.confounders.kind=none",
    ],
    "linear, no confounders": ["model.intervention=linear", "model.confounders.kind=none"],
    "pooled skip": ["model.pooled_skip=true"],
    "wide": ["model.embed_dim=704"],  # more than half the features: the projection is composed
    "wide, two layers": ["model.embed_dim=992", "model.decoder_layers=2"],
}  # fmt: skip
BRANCHES = {
    **{
        f"{links}, {context}": [f"model.label_links={links}", f"model.inference_context={context}"]
        for links in ("matrix", "attention", "gated-attention", "none")
        for context in ("prior", "own")
    },
    **{
        f"{kind}, {fusion}": [f"model.intervention={kind}", f"model.fusion={fusion}"]
        for kind in ("expectation", "explicit", "linear")
        for fusion in ("mean", "sum")
    },
}
DECODERS = {
    "one layer": [],
    "two layers, one head": [
        "model.decoder_layers=2", "model.self_attention=true", "model.num_heads=1",
    ],
}  # fmt: skip
CASES = {
    **HEADS,
    **{f"{name}, standardised": [*s, "model.standardize_tokens=true"] for name, s in HEADS.items()},
    **{
        f"{branch}, {decoder}, own cause {own}": [
            *BRANCHES[branch], *DECODERS[decoder], f"model.include_self={own}",
        ]
        for branch, decoder, own in itertools.product(BRANCHES, DECODERS, ("true", "false"))
    },
}  # fmt: skip


def randomized(config: ModelConfig) -> CausalRecognizer:
    """A network in which nothing is zero or one, as after long training."""
    torch.manual_seed(0)
    model = CausalRecognizer(config, LABELS, pretrained=False).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.startswith("backbone.") and parameter.ndim:
            nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else 0.1)
    nn.init.normal_(model.token_mean)
    nn.init.uniform_(model.token_scale, 0.2, 2)
    if isinstance(model.classifier, CcdClassifier):
        nn.init.normal_(model.classifier.memory)
    intervention = model.intervention
    if isinstance(intervention, BackDoorIntervention):
        for name, buffer in list(intervention.named_buffers()):
            value = torch.rand_like(buffer)
            setattr(intervention, name, value / value.sum() if "prior" in name else value - 0.4)
    elif intervention is not None:
        centres = torch.randn_like(intervention.centres)
        intervention.set_confounders(Confounders(centres, torch.tensor([0.1, 0.2, 0.3, 0.4])))
    return model


def small(*settings: str) -> ModelConfig:
    return tiny_config("model.pooled_skip=false", *settings).model


def input_spec(model: CausalRecognizer, size: int = 64) -> PreprocessSpec:
    return PreprocessSpec((size, size), mean=model.backbone.mean, std=model.backbone.std)


def random_frames(number: int, size: int = 64) -> Tensor:
    return torch.randint(0, 256, (number, size, size, 3), dtype=torch.uint8)


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
