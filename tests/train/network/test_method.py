"""The mathematics of the method against formulas written out in NumPy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn

from cmlr_edge.errors import DataError
from train.config import ConfounderConfig, ModelConfig
from train.confounders import clustering
from train.confounders.clustering import (
    Confounders,
    ContextTerm,
    assign_context,
    build_confounders,
    fit_context_term,
)
from train.fitting.losses import asymmetric_loss
from train.network.attention import MultiHeadAttention
from train.network.intervention import BackDoorIntervention, ExpectationIntervention, MatrixLinks
from train.network.model import LabelDecoder

LABELS, WIDTH, FEATURES, CENTRES = 5, 16, 12, 4


def sigmoid(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-x))


def back_door() -> BackDoorIntervention:
    torch.manual_seed(0)
    module = BackDoorIntervention(LABELS, CENTRES, FEATURES, 6)
    prior = torch.rand(6)
    module.set_confounders(
        Confounders(torch.randn(CENTRES, FEATURES), torch.full((CENTRES,), 1 / CENTRES)),
        ContextTerm(
            weight=torch.randn(CENTRES, LABELS),
            bias=torch.randn(LABELS),
            contexts=torch.rand(6, CENTRES),
            prior=prior / prior.sum(),
            spread=torch.zeros(CENTRES),
            held_out_logits=torch.zeros(1, LABELS),
            ridge=1.0,
        ),
    )
    return module


def test_back_door_average_is_the_written_out_sum_over_contexts() -> None:
    module, logits = back_door(), torch.randn(3, LABELS)
    weight, bias = module.context_weight.double().numpy(), module.context_bias.double().numpy()
    expected = np.zeros((3, LABELS))
    for context, share in zip(module.stored_contexts, module.context_prior, strict=True):
        g = context.double().numpy() @ weight + bias
        expected += float(share) * sigmoid(logits.double().numpy() + g)
    np.testing.assert_allclose(module.average(logits).numpy(), expected, atol=1e-6)


def test_with_identical_contexts_the_average_does_not_depend_on_the_prior() -> None:
    module, logits = back_door(), torch.randn(3, LABELS)
    module.stored_contexts = module.stored_contexts[:1].expand(6, -1)
    before = module.average(logits)
    module.context_prior = torch.tensor([0.9, 0.1, 0, 0, 0, 0])
    torch.testing.assert_close(module.average(logits), before)


def test_permuting_contexts_with_their_prior_changes_nothing() -> None:
    module, logits = back_door(), torch.randn(3, LABELS)
    before = module.average(logits)
    order = torch.tensor([3, 1, 0, 5, 4, 2])
    module.stored_contexts = module.stored_contexts[order]
    module.context_prior = module.context_prior[order]
    torch.testing.assert_close(module.average(logits), before)


def expectation(confounders: int, prior: torch.Tensor) -> ExpectationIntervention:
    torch.manual_seed(1)
    module = ExpectationIntervention(LABELS, WIDTH, 2, confounders, FEATURES).eval()
    centres = torch.randn(4, FEATURES, generator=torch.Generator().manual_seed(2))[:confounders]
    module.set_confounders(Confounders(centres, prior))
    return module


def test_with_one_confounder_the_expectation_does_not_depend_on_its_prior() -> None:
    features = torch.randn(2, LABELS, WIDTH)
    sure, unsure = (expectation(1, torch.tensor([p]))(features) for p in (1.0, 0.25))
    torch.testing.assert_close(sure, unsure)


def test_permuting_confounders_with_their_prior_changes_nothing() -> None:
    features = torch.randn(2, LABELS, WIDTH)
    module = expectation(4, torch.tensor([0.1, 0.2, 0.3, 0.4]))
    before = module(features)
    order = torch.tensor([2, 0, 3, 1])
    module.set_confounders(Confounders(module.centres[order], module.confounder_prior[order]))
    torch.testing.assert_close(module(features), before)


def test_a_prior_of_zero_removes_a_confounder_from_the_expectation() -> None:
    features = torch.randn(2, LABELS, WIDTH)
    module = expectation(4, torch.tensor([0.5, 0.5, 0.0, 0.0]))
    before = module(features)
    module.centres[2:] += 1
    torch.testing.assert_close(module(features), before, atol=1e-3, rtol=1e-3)


def test_permuting_labels_permutes_the_links() -> None:
    links = MatrixLinks(LABELS)
    nn.init.normal_(links.strength)
    logits, order = torch.randn(3, LABELS), torch.randperm(LABELS)
    before = links(torch.empty(0), logits)
    links.strength.data = links.strength.data[order][:, order]
    torch.testing.assert_close(links(torch.empty(0), logits[:, order]), before[:, order])


def test_links_leave_out_the_label_itself_and_send_no_gradient_to_it() -> None:
    links = MatrixLinks(LABELS)
    nn.init.normal_(links.strength)
    logits = torch.randn(1, LABELS, requires_grad=True)
    changed = logits.detach().clone()
    changed[0, 2] += 5
    before, after = links(torch.empty(0), logits), links(torch.empty(0), changed)
    assert before[0, 2] == after[0, 2]
    assert (
        not before.requires_grad
        or not torch.autograd.grad(before.sum(), logits, allow_unused=True)[0]
    )


def test_shrinking_links_is_the_proximal_step_of_l1() -> None:
    links, amount = MatrixLinks(LABELS), 0.3
    nn.init.normal_(links.strength)
    before = links.strength.detach().double().numpy()
    links.shrink(amount)
    # argmin over a of (a - before)^2 / 2 + amount |a|, searched for on a grid.
    grid = np.linspace(-5, 5, 100_001)
    cost = (grid - before[..., None]) ** 2 / 2 + amount * np.abs(grid)
    np.testing.assert_allclose(links.strength.detach(), grid[cost.argmin(axis=-1)], atol=1e-4)
    assert (links.strength == 0).any()


def test_permuting_label_queries_permutes_label_features() -> None:
    config = ModelConfig(embed_dim=WIDTH, num_heads=2, ffn_dim=8, self_attention=True)
    decoder, tokens = LabelDecoder(config, LABELS, FEATURES).eval(), torch.randn(2, 7, FEATURES)
    before, order = decoder(tokens), torch.randperm(LABELS)
    decoder.label_queries.data = decoder.label_queries.data[:, order]
    torch.testing.assert_close(decoder(tokens), before[:, order])


def test_attention_equals_pytorch_s_own() -> None:
    ours = MultiHeadAttention(WIDTH, 4)
    theirs = nn.MultiheadAttention(WIDTH, 4, batch_first=True)
    parts = (ours.query, ours.key, ours.value)
    theirs.in_proj_weight.data = torch.cat([p.weight.data for p in parts])
    theirs.in_proj_bias.data = torch.cat([p.bias.data for p in parts])
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    query, tokens = torch.randn(2, LABELS, WIDTH), torch.randn(2, 9, WIDTH)
    torch.testing.assert_close(ours(query, tokens, tokens), theirs(query, tokens, tokens)[0])


def test_attention_with_a_log_prior_equals_weighting_before_normalising() -> None:
    torch.manual_seed(3)
    attention = MultiHeadAttention(WIDTH, 1)
    query, tokens = torch.randn(1, 3, WIDTH), torch.randn(1, 5, WIDTH)
    prior = torch.tensor([0.4, 0.1, 0.1, 0.2, 0.2])
    q, k, v = attention.query(query), attention.key(tokens), attention.value(tokens)
    weights = (q @ k.transpose(1, 2) * WIDTH**-0.5).exp() * prior
    expected = attention.out(weights / weights.sum(-1, keepdim=True) @ v)
    torch.testing.assert_close(attention(query, tokens, tokens, bias=prior.log()), expected)


def test_contexts_are_shares_and_follow_the_nearest_centre() -> None:
    centres = torch.eye(4)
    tokens = torch.cat([centres[[0]].expand(3, -1), centres[[2]]])[None] * 5
    context = assign_context(tokens, centres)
    torch.testing.assert_close(context.sum(1), torch.ones(1))
    torch.testing.assert_close(context[0], torch.tensor([0.75, 0, 0.25, 0]), atol=1e-6, rtol=0)


def test_confounders_are_raw_means_of_direction_clusters_with_their_shares() -> None:
    rng = np.random.default_rng(0)
    groups = [rng.normal(0, 0.02, (n, 3)) + 4 * np.eye(3)[i] for i, n in enumerate((30, 60, 10))]
    lengths = [g * rng.uniform(0.5, 2, (len(g), 1)) for g in groups]
    tokens = np.concatenate(lengths).astype(np.float32)
    built = build_confounders(tokens, ConfounderConfig(num_confounders=3), seed=0)
    order = built.centres.argmax(dim=1).argsort()
    expected = np.stack([g.mean(axis=0) for g in lengths])
    np.testing.assert_allclose(built.centres[order].numpy(), expected, atol=1e-4)
    np.testing.assert_allclose(built.prior[order].numpy(), [0.3, 0.6, 0.1], atol=1e-6)


def test_the_context_term_finds_what_context_explains_and_is_centred() -> None:
    rng = np.random.default_rng(0)
    contexts = rng.dirichlet(np.ones(3), 400)
    targets = (rng.random((400, 2)) < np.stack([contexts[:, 0], np.full(400, 0.3)], 1)) * 1.0
    term = fit_context_term(
        torch.from_numpy(contexts).float(),
        torch.from_numpy(targets).float(),
        ConfounderConfig(num_confounders=3, num_contexts=20),
        seed=0,
    )
    logits = torch.from_numpy(contexts).float() @ term.weight + term.bias
    torch.testing.assert_close(logits.mean(0), torch.zeros(2), atol=1e-4, rtol=0)
    assert np.corrcoef(logits[:, 0], contexts[:, 0])[0, 1] > 0.95
    assert logits[:, 1].std() < 0.5 * logits[:, 0].std()
    assert np.corrcoef(term.held_out_logits[:, 0], contexts[:, 0])[0, 1] > 0.9
    assert float(term.prior.sum()) == pytest.approx(1)
    # What stands for the pictures, and what it leaves out, is all of their variance.
    about = (term.contexts - term.prior @ term.contexts).square()
    variance = term.prior @ about + term.spread
    np.testing.assert_allclose(variance.numpy(), contexts.var(axis=0), rtol=1e-3)


def test_strength_scales_all_that_the_context_term_says_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    contexts = torch.from_numpy(rng.dirichlet(np.ones(3), 100)).float()
    targets = (torch.rand(100, 2, generator=torch.manual_seed(0)) < contexts[:, :2]).float()
    config = ConfounderConfig(num_confounders=3, num_contexts=8)
    whole = fit_context_term(contexts, targets, config, seed=0)
    half = fit_context_term(contexts, targets, replace(config, strength=0.5), seed=0)
    for name in ("weight", "bias", "held_out_logits"):
        torch.testing.assert_close(2 * getattr(half, name), getattr(whole, name))
    assert half.held_out_logits.std() > 0.1
    for name in ("contexts", "prior", "spread"):
        torch.testing.assert_close(getattr(half, name), getattr(whole, name))
    with pytest.raises(DataError, match=r"strength is -1.* 0 or more"):
        replace(config, strength=-1)


def test_context_that_says_nothing_is_shrunk_to_almost_nothing() -> None:
    rng = np.random.default_rng(0)
    contexts = torch.from_numpy(rng.dirichlet(np.ones(10), 80)).float()
    targets = torch.from_numpy((rng.random((80, 6)) < 0.3) * 1.0).float()
    config = ConfounderConfig(num_confounders=10)
    chosen = fit_context_term(contexts, targets, config, seed=0)
    assert chosen.ridge >= 30
    assert chosen.held_out_logits.std() < 0.5


@pytest.mark.parametrize(("num_labels", "chosen_by"), [(480, 480), (10_000, 500)])
def test_the_ridge_is_chosen_by_no_more_labels_than_tell_it(
    num_labels: int, chosen_by: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted: list[int] = []

    def fit_logistic(features: Any, labels: Any, ridge: float) -> tuple[Any, Any]:
        fitted.append(labels.shape[1])
        assert ridge > 0
        return np.zeros((features.shape[1], labels.shape[1])), np.zeros(labels.shape[1])

    monkeypatch.setattr(clustering, "_fit_logistic", fit_logistic)
    config = ConfounderConfig(num_confounders=3)
    fit_context_term(torch.rand(10, 3), torch.ones(10, num_labels), config, seed=0)
    # Six strengths and five folds; then all labels: once, and by folds.
    assert fitted == 30 * [chosen_by] + 6 * [num_labels]


def test_fewer_images_than_folds_is_one_clear_error() -> None:
    config = ConfounderConfig(num_confounders=3)
    with pytest.raises(DataError, match=r"4 training images are too few .* give 5 or more"):
        fit_context_term(torch.rand(4, 3), torch.ones(4, 2), config, seed=0)


def test_loss_without_focusing_is_binary_cross_entropy() -> None:
    logits, targets = torch.randn(4, LABELS), (torch.rand(4, LABELS) < 0.3).float()
    ours = asymmetric_loss(logits, targets, gamma_negative=0.0)
    theirs = nn.functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    torch.testing.assert_close(ours, theirs.sum(1).mean())


def test_asymmetric_loss_equals_its_formula_and_stays_finite() -> None:
    logits, targets = torch.randn(4, LABELS), (torch.rand(4, LABELS) < 0.3).float()
    p = logits.double().sigmoid().numpy()
    y = targets.numpy()
    shifted = np.maximum(p - 0.05, 0)
    expected = -(y * (1 - p) * np.log(p) + (1 - y) * shifted**4 * np.log(1 - shifted))
    ours = asymmetric_loss(
        logits, targets, gamma_positive=1.0, gamma_negative=4.0, probability_clip=0.05
    )
    assert float(ours) == pytest.approx(expected.sum(1).mean(), rel=1e-5)
    assert torch.isfinite(asymmetric_loss(torch.full((1, 2), 1e4), torch.tensor([[0.0, 1.0]])))
