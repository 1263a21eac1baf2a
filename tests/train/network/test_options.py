"""Every option of the network: it trains, and its formula holds; tests/export tries what is exported."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks.heads import fit_head, prepare_tokens, score_tokens
from cmlr_edge.errors import DataError
from tests.train.stored_tokens import FEATURES, LABELS, WIDTH, small_config, tokens
from train.config import ConfounderConfig
from train.confounders.clustering import Confounders, build_confounders
from train.fitting.frozen import TokenSet
from train.network.baselines import CcdClassifier, FeatureSplitClassifier
from train.network.intervention import (
    ExplicitIntervention,
    GatedAttentionLinks,
    LinearIntervention,
    MatrixLinks,
)
from train.network.model import CausalHead, CausalRecognizer

pytestmark = pytest.mark.slow

OPTIONS = {
    "pooled": ["model.head=pooled", "model.intervention=none", "lr=0.05"],
    "pooled with links": ["model.head=pooled"],
    "ml-decoder": ["model.head=ml-decoder", "model.intervention=none"],
    "ccd": ["model.head=ccd", "model.intervention=none"],
    "feature-split": ["model.head=feature-split", "model.intervention=none", "lr=0.05"],
    "decoder": ["model.intervention=none", "model.decoder_layers=2", "model.self_attention=true"],
    "no decoder layer": ["model.decoder_layers=0", "model.intervention=expectation"],
    "matrix links, own context": ["model.inference_context=own"],
    "attention links": ["model.label_links=attention", "model.include_self=true"],
    "gated attention links": ["model.label_links=gated-attention"],
    "no confounders": ["model.confounders.kind=none"],
    "random confounders": ["model.confounders.kind=random", "model.confounders.prior=uniform"],
    "early confounders": ["model.confounders.kind=early", "model.token_stages=2"],
    "label confounders": ["model.confounders.kind=label"],
    "standardised two-stage tokens": ["model.token_stages=2", "model.standardize_tokens=true"],
    "expectation": ["model.intervention=expectation", "model.include_self=true"],
    "expectation, logit sum": ["model.intervention=expectation", "model.fusion=sum"],
    "explicit": ["model.intervention=explicit"],
    "linear": ["model.intervention=linear", "model.detach_causal=false"],
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_option_learns_from_stored_tokens(name: str) -> None:
    config, train = small_config(*OPTIONS[name]), tokens(200)
    losses: list[float] = []
    head = fit_head(config, train, prepare_tokens(config, train), report=losses.append)
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:3])
    test = tokens(100, seed=1)
    scores = score_tokens(head, test).deployed
    assert ((scores >= 0) & (scores <= 1)).all()
    present, absent = scores[test.targets > 0].mean(), scores[test.targets == 0].mean()
    assert present > absent + 0.1


def layer_norm(x: NDArray[np.float64]) -> NDArray[np.float64]:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5)


def softmax(x: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.exp(x - x.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def test_the_explicit_sum_equals_its_formula_in_numpy() -> None:
    torch.manual_seed(0)
    prior = np.array([0.5, 0.2, 0.3])
    module = ExplicitIntervention(LABELS, WIDTH, 1, 3, FEATURES, include_self=True).eval()
    module.set_confounders(Confounders(torch.randn(3, FEATURES), torch.tensor(prior).float()))
    features = torch.randn(2, LABELS, WIDTH)
    actual = module(features).sigmoid().detach().numpy()
    w = {k: v.detach().double().numpy() for k, v in module.state_dict().items()}

    def linear(x: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    centres = linear(layer_norm(w["centres"]), "project")
    queries = linear(w["to_labels.queries"][0], "to_labels.attention.query")
    expected = np.zeros((2, LABELS))
    for image, x in enumerate(features.double().numpy()):
        for centre, share in zip(centres, prior, strict=True):
            z = layer_norm(x + linear(np.maximum(linear(x, "from_label") + centre, 0), "mixed"))
            keys = linear(z, "to_labels.attention.key")
            weights = softmax(queries @ keys.T / np.sqrt(WIDTH))
            mixed = weights @ linear(z, "to_labels.attention.value")
            h = layer_norm(linear(mixed, "to_labels.attention.out"))
            logits = (h * w["to_labels.readout.weight"]).sum(-1) + w["to_labels.readout.bias"]
            expected[image] += share / (1 + np.exp(-logits))
    np.testing.assert_allclose(actual, expected, atol=1e-5)


def test_the_rows_of_the_correlation_map_sum_to_one_and_skip_the_label_itself() -> None:
    head = CausalHead(small_config("model.label_links=attention").model, LABELS, FEATURES)
    links = head.links
    assert links is not None
    maps = links.to_labels.correlation(torch.randn(3, LABELS, 32))  # type: ignore[operator,union-attr]
    torch.testing.assert_close(maps.sum(-1), torch.ones(3, LABELS))
    assert maps.diagonal(dim1=1, dim2=2).abs().max() < 1e-6


def test_gated_links_hear_only_how_likely_the_other_labels_are() -> None:
    torch.manual_seed(0)
    links = GatedAttentionLinks(LABELS, WIDTH, 2, include_self=False)
    torch.nn.init.normal_(links.weight)
    logits = torch.randn(2, LABELS)
    before = links(torch.randn(2, LABELS, WIDTH), logits)
    torch.testing.assert_close(links(torch.randn(2, LABELS, WIDTH), logits), before)
    moved = logits.clone()
    moved[:, 2] += 3
    change = (links(None, moved) - before).abs()
    assert change[:, 2].max() < 1e-5
    assert change[:, [0, 1, 3, 4]].min() > 1e-4


def test_a_detached_causal_branch_leaves_the_label_features_alone() -> None:
    for detach in (True, False):
        settings = ("model.intervention=linear", f"model.detach_causal={str(detach).lower()}")
        head = CausalHead(small_config(*settings).model, LABELS, FEATURES)
        output = head.head(torch.randn(4, 9, FEATURES))
        assert output.causal_logits is not None
        output.causal_logits.sum().backward()
        assert head.decoder is not None
        assert (head.decoder.label_queries.grad is None) is detach


def test_sparse_links_keep_what_a_label_says_of_another_and_drop_noise() -> None:
    train = tokens(600)
    rng = np.random.default_rng(1)
    # Label 1 follows label 0 and cannot be seen itself; nothing links the others.
    unseen = train.tokens.copy()
    unseen[:, :3, 1] -= (3 * train.targets[:, 1:2]).astype(np.float16)
    targets = train.targets.copy()
    targets[:, 1] = rng.random(len(targets)) < np.where(targets[:, 0] > 0, 0.9, 0.1)
    data = TokenSet(unseen, targets, train.finer_channels)
    links = {}
    for sparsity in (0.0, 0.5):
        settings = (f"link_sparsity={sparsity}", "batch_size=32", "model.confounders.kind=none")
        config = small_config(*settings)
        head = fit_head(config, data, prepare_tokens(config, data))
        assert isinstance(head.links, MatrixLinks)
        links[sparsity] = head.links.matrix().detach().numpy()
    assert (links[0.0][~np.eye(LABELS, dtype=bool)] != 0).all()
    strength = np.abs(links[0.5])
    assert 1 <= np.count_nonzero(strength) <= 6
    # Label 1 is recognised by label 0, so the link may run either way.
    assert divmod(int(strength.argmax()), LABELS) in {(0, 1), (1, 0)}


def test_the_linear_intervention_without_itself_ignores_its_own_feature() -> None:
    torch.manual_seed(0)
    module = LinearIntervention(
        LABELS, WIDTH, 2, FEATURES, include_self=False, use_confounders=False
    )
    torch.nn.init.normal_(module.strength)
    features = torch.randn(1, LABELS, WIDTH)
    before = module(features)
    features[:, 1] = torch.randn(WIDTH)
    change = (module(features) - before).abs()[0]
    assert change[1] < 1e-6
    assert change[0] > 1e-4


def test_feature_split_keeps_the_company_half_out_of_lone_examples() -> None:
    torch.manual_seed(0)
    module = FeatureSplitClassifier(FEATURES, LABELS, 0.0).train()
    module.exclusive = torch.zeros(4, LABELS, dtype=torch.bool)
    module.exclusive[:, 1] = True
    module(torch.randn(4, 9, FEATURES))[:, 1].sum().backward()
    assert module.company.weight.grad is None or not module.company.weight.grad.any()
    assert module.own.weight.grad is not None
    assert module.own.weight.grad[1].any()


def test_ccd_subtracts_nothing_with_an_empty_memory() -> None:
    torch.manual_seed(0)
    module = CcdClassifier(FEATURES, LABELS).eval()
    batch = torch.randn(3, 9, FEATURES)
    x = batch.amax(1).double().numpy().reshape(3, 4, -1)
    w = module.weight.detach().double().numpy().reshape(LABELS, 4, -1)
    x, w = (v / np.linalg.norm(v, axis=-1, keepdims=True) for v in (x, w))
    expected = 32 * np.einsum("bpd,lpd->bl", x, w) / 4
    np.testing.assert_allclose(module(batch).detach().numpy(), expected, atol=1e-4)


def test_label_confounders_are_the_mean_features_of_each_labels_images() -> None:
    data = tokens(30)
    flat = data.tokens.astype(np.float32).reshape(-1, FEATURES)
    config = ConfounderConfig(kind="label")
    found = build_confounders(flat, config, 0, targets=data.targets)
    for label in range(LABELS):
        own = data.tokens[data.targets[:, label] > 0].astype(np.float32).mean((0, 1))
        np.testing.assert_allclose(found.centres[label].numpy(), own, atol=1e-5)
    np.testing.assert_allclose(
        found.prior.numpy(), data.targets.sum(0) / data.targets.sum(), atol=1e-6
    )


def test_early_confounders_look_at_the_finer_stage_alone() -> None:
    data = tokens(30)
    flat = data.tokens.astype(np.float32).reshape(-1, FEATURES)
    config = ConfounderConfig(kind="early", num_confounders=4)
    found = build_confounders(flat, config, 0, finer_channels=6)
    changed = flat.copy()
    changed[:, 6:] += 100
    again = build_confounders(changed, config, 0, finer_channels=6)
    torch.testing.assert_close(found.centres, again.centres)
    assert not found.centres[:, 6:].any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["model.head=pooled", "model.label_links=attention"], "no feature per label"),
        (["model.head=ccd", "model.intervention=expectation"], "no feature per label"),
        (["model.token_stages=3"], "1 or 2"),
        (["model.intervention=explicit", "model.confounders.kind=none"], "nothing to sum"),
        (["model.decoder_layers=0", "model.self_attention=true"], "part of a decoder layer"),
        (["model.decoder_layers=-1"], "0 or more"),
        (["model.confounders.layer=-2", "model.inference_context=own"], "take inference_context"),
        (["model.confounders.num_confounders=0"], "at least 1"),
        (["accumulate=0"], "more than 0"),
        (["link_sparsity=-1"], "0 or more"),
        (["lone_weight=0"], "more than 0"),
        (["validation_share=1.5"], "between 0 and 1"),
        (["link_sparsity=1", "model.label_links=attention"], "take model.label_links=matrix"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(settings: list[str], message: str) -> None:
    with pytest.raises(DataError, match=message):
        small_config(*settings)


@pytest.mark.parametrize(
    "name",
    [
        "tf_efficientnet_lite0", "mobilenetv4_conv_small.e2400_r224_in1k", "resnet50", "resnet101",
        "beit3_base_patch16_224",
    ],
)  # fmt: skip
def test_any_backbone_runs_forward_and_one_step_backward(name: str) -> None:
    import timm

    if not timm.is_model(name):
        pytest.skip(f"this timm has no {name}")
    size = 224 if "beit" in name else 64
    config = small_config(
        f"model.backbone={name}", f"model.image_size={size}", "model.intervention=none"
    ).model
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # timm's own notes on names
        model = CausalRecognizer(config, 3, pretrained=False)
    output = model(torch.randn(1, 3, size, size))
    loss = output.decoupled_logits.square().sum()
    loss.backward()
    weights = [p for p in model.backbone.parameters() if p.grad is not None]
    assert weights
    assert all(torch.isfinite(p.grad).all() for p in weights if p.grad is not None)
