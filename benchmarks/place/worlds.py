"""Small worlds of drawn scenes, a network each, and what it tells of held-out scenes by their true context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.context_bias.features import load_tokens
from benchmarks.context_bias.methods import BASE, RECIPE
from benchmarks.heads import fit_head, prepare_tokens
from benchmarks.size import Size
from cmlr_edge.model.explanation import (
    CONTEXT,
    LINKS,
    OWN_EVIDENCE,
    ExplanationSpec,
    TrainedSurroundings,
)
from cmlr_edge.model.thresholds import fit_thresholds
from cmlr_edge.place.prior import averaged_logits
from export.explain import explained, explanation_of
from train.config import ConfounderConfig, TrainConfig
from train.confounders.clustering import assign_context
from train.data import read_dataset
from train.data.context_scenes import SceneConfig, generate, read_truth
from train.fitting.frozen import TokenSet
from train.network.model import CausalHead

COUNTS = {"train": 700, "val": 200, "iid": 1000, "do": 0, "cross": 0}
_LEAST = 80  # scenes: of fewer no 64 stand for the others


@dataclass(frozen=True)
class World:
    """What one network tells of scenes that it was not trained on, in the order of their files."""

    training: TrainedSurroundings
    contexts: NDArray[np.float32]  # (N, K), of the network
    effect: NDArray[np.float64]  # (N, L), logits without surroundings
    own: NDArray[np.float64]  # (N, L), logits at each scene's own context
    targets: NDArray[np.float32]  # (N, L)
    truth: NDArray[np.int_]  # (N,), the context that it was drawn in
    prevalence: NDArray[np.float64]  # (L,), of each label in training
    # (L,), by read-out: fitted to F1 on validation scenes, as training does
    thresholds: dict[str, NDArray[np.float32]]


def counts_of(size: Size) -> dict[str, int]:
    """Scenes of each part."""
    return size.counts(COUNTS, _LEAST)


def world_of(seed: int, work: Path, size: Size) -> World:
    """Draw a world, train in it, and look at held-out scenes; what is there already is used."""
    folder = work / f"world-{seed}"
    if not (folder / "labels.json").is_file():
        generate(folder, SceneConfig(seed=seed, counts=counts_of(size)), work / "assets")
    truth, parts = read_truth(folder), load_tokens(folder, work / "tokens", BASE)
    head, meaning = trained_head(parts["train"], seed)
    files = [
        str(image.path.relative_to(folder)) for image in read_dataset(folder).split("iid").images
    ]
    told = {name: tell(head, parts[name], meaning) for name in ("val", "iid")}
    assert meaning.training is not None
    val = {
        "own context": told["val"]["own"],
        "averaged": averaged_logits(
            told["val"]["effect"], meaning.training, np.array(meaning.training.prior)
        ),
    }
    thresholds = {
        name: fit_thresholds(
            sigmoid(logits).astype(np.float32),
            parts["val"].targets,
            shrinkage=RECIPE.threshold_shrinkage,
        )
        for name, logits in val.items()
    }
    found = told["iid"]
    return World(
        training=meaning.training,
        contexts=found["context"].astype(np.float32),
        effect=found["effect"],
        own=found["own"],
        targets=parts["iid"].targets,
        truth=np.array([truth.contexts[file][0] for file in files]),
        prevalence=parts["train"].targets.mean(axis=0, dtype=np.float64),
        thresholds=thresholds,
    )


def trained_head(train: TokenSet, seed: int) -> tuple[CausalHead, ExplanationSpec]:
    """The label decoder with back-door adjustment, matrix links and one layer, and what it can say."""
    confounders = ConfounderConfig(kind="early")
    model = replace(
        BASE, intervention="back-door", inference_context="own", confounders=confounders
    )
    config: TrainConfig = replace(RECIPE, model=model, amp="off", seed=seed)
    head = fit_head(config, train, prepare_tokens(config, train)).eval()
    meaning = explanation_of(head, None)
    assert meaning.training is not None
    training = replace(meaning.training, pictures=len(train.tokens))
    return head, replace(meaning, training=training)


def reference_of(
    part: TokenSet, held_out: int, seed: int
) -> tuple[TrainedSurroundings, Callable[[TokenSet], NDArray[np.float64]]]:
    """The surroundings of training pictures, without a network beside them, and how others are counted.

    Args:
        part: The pictures.
        held_out: How many others stand for a place that is like them: drawn from again and again they are
            a sample, too, and what is to be told apart are two means.
        seed: Of the clusters.

    Returns:
        The surroundings, and what gives the contexts (N, K) of pictures.
    """
    model = replace(BASE, intervention="back-door", confounders=ConfounderConfig(kind="early"))
    prepared = prepare_tokens(replace(RECIPE, model=model, amp="off", seed=seed), part)
    confounders, term = prepared.confounders, prepared.context_term
    assert confounders is not None
    assert term is not None
    labels = len(term.bias)
    training = TrainedSurroundings(
        contexts=tuple(map(tuple, term.contexts.tolist())),
        prior=tuple(term.prior.tolist()),
        spread=tuple(term.spread.tolist()),
        weight=((0.0,) * labels,) * len(confounders.centres),
        bias=(0.0,) * labels,
        pictures=round(1 / (1 / len(part.tokens) + 1 / held_out)),
    )

    def contexts_of(others: TokenSet) -> NDArray[np.float64]:
        rows = [assign_context(tokens, confounders.centres) for tokens in others.batches()]
        contexts: NDArray[np.float64] = np.concatenate([row.double().numpy() for row in rows])
        return contexts

    return training, contexts_of


@torch.no_grad()
def tell(
    head: CausalHead, part: TokenSet, meaning: ExplanationSpec
) -> dict[str, NDArray[np.float64]]:
    """Contexts (N, K), and logits (N, L) without surroundings and at each picture's own."""
    rows: dict[str, list[Any]] = {"context": [], "effect": [], "own": []}
    for tokens in part.batches():
        found = {k: v.double().numpy() for k, v in explained(head, tokens, meaning).items()}
        effect = found[OWN_EVIDENCE] + np.array(meaning.bias)
        effect = effect + (found[LINKS].sum(axis=-1) if LINKS in found else 0)
        rows["context"].append(found[CONTEXT])
        rows["effect"].append(effect)
        rows["own"].append(effect + found["surroundings"])
    return {name: np.concatenate(parts) for name, parts in rows.items()}


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probabilities of logits."""
    probabilities: NDArray[np.float64] = 1 / (1 + np.exp(-logits))
    return probabilities
