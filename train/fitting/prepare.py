"""What is fixed before the first gradient step: token scale, confounders, context term, memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmlr_edge.errors import DataError
from train import distributed
from train.config import ModelConfig
from train.confounders.clustering import (
    Confounders,
    ContextTerm,
    SamplePlan,
    assign_context,
    build_confounders,
    fit_context_term,
    sample_tokens,
)
from train.judging.inference import BATCH
from train.network.baselines import CcdClassifier
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalHead

ReadTokens = Callable[[], Iterable[Tensor]]


@dataclass(frozen=True)
class Preparation:
    """Results of `prepare`; None where the configuration has no use for one."""

    token_mean: Tensor | None  # (D,)
    token_scale: Tensor | None  # (D,), one over the deviation
    confounders: Confounders | None
    context_term: ContextTerm | None
    label_means: Tensor | None  # (L, D), mean tokens of each label's images

    @property
    def context_logits(self) -> Tensor | None:
        """Context term of every training image, held out, (N, L); the back-door trains beside it."""
        return None if self.context_term is None else self.context_term.held_out_logits

    def to_tensors(self) -> dict[str, Tensor]:
        """Flatten, to be stored or sent."""
        flat = {}
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                flat[name] = value
            elif value is not None:
                items = vars(value).items()
                flat |= {f"{name}.{key}": torch.as_tensor(item) for key, item in items}
        return flat

    @staticmethod
    def from_tensors(flat: dict[str, Tensor]) -> Preparation:
        """Read what `to_tensors` gave."""

        def inside(name: str) -> dict[str, Tensor]:
            start = f"{name}."
            return {key.removeprefix(start): v for key, v in flat.items() if key.startswith(start)}

        confounders, term = inside("confounders"), inside("context_term")
        ridge = float(term.pop("ridge")) if term else 0.0
        return Preparation(
            flat.get("token_mean"),
            flat.get("token_scale"),
            Confounders(**confounders) if confounders else None,
            ContextTerm(**term, ridge=ridge) if term else None,
            flat.get("label_means"),
        )


@dataclass(frozen=True)
class TokenReaders:
    """Passes over the training images: tokens of this process's share, in batches (B, T, D)."""

    read: ReadTokens
    rows: range  # the images of the share
    finer_channels: int  # leading channels of a token that come from the finer stage
    read_confounder_view: ReadTokens | None = None  # tokens to cluster, where they are others


def needs_preparation(config: ModelConfig) -> bool:
    """Whether anything is to be fixed before training."""
    return _has_confounders(config) or config.standardize_tokens or config.head == "ccd"


def num_passes(config: ModelConfig) -> int:
    """How often `prepare` looks at every image."""
    with_confounders, view = _has_confounders(config), config.confounders.other_view
    apart = with_confounders and view and (config.standardize_tokens or config.head == "ccd")
    return 1 + apart + (with_confounders and config.intervention == "back-door")


def _has_confounders(config: ModelConfig) -> bool:
    return config.intervention != "none" and config.confounders.kind != "none"


@torch.no_grad()
def prepare(
    config: ModelConfig,
    readers: TokenReaders,
    targets: NDArray[np.float32],
    *,
    seed: int,
    known: NDArray[np.bool_] | None = None,
    first: NDArray[np.int_] | None = None,
) -> Preparation:
    """Look at the training images through the frozen backbones, twice at most through each.

    Args:
        config: Of the network.
        readers: Give the tokens.
        targets: (N, L), 0 or 1, of all training images.
        seed: Of sampling and clustering.
        known: (N, L), whether somebody looked for the label; None: everywhere.
        first: (N,), of the images equal to each the first one; None: no two are equal.

    Raises:
        DataError: Early confounders without a finer stage, or fewer tokens than clusters.
    """
    if not needs_preparation(config):
        return Preparation(None, None, None, None, None)
    plan = SamplePlan.of(len(targets), config.confounders)
    view = readers.read_confounder_view if _has_confounders(config) else None
    of_labels = config.standardize_tokens or config.head == "ccd"
    sample = other = None
    if view is None or of_labels:
        sample = _gather_sample(readers.read, readers.rows, plan, len(targets), seed)
    if view is not None:
        other = _gather_sample(view, readers.rows, plan, len(targets), seed)

    def summarise() -> dict[str, Tensor]:
        finer = 0 if view else readers.finer_channels
        shown = targets[:: plan.stride]
        return _summarise(config, sample, other, shown, finer, seed).to_tensors()

    prepared = Preparation.from_tensors(distributed.share(summarise))
    if prepared.confounders is None or config.intervention != "back-door":
        return prepared
    contexts = _gather_contexts(readers, prepared, len(targets))

    def explain_by_context() -> dict[str, Tensor]:
        term = fit_context_term(
            contexts, torch.from_numpy(targets), config.confounders, seed, known, first
        )
        return replace(prepared, context_term=term).to_tensors()

    return Preparation.from_tensors(distributed.share(explain_by_context))


def _gather_sample(
    read: ReadTokens, rows: range, plan: SamplePlan, total: int, seed: int
) -> NDArray[np.float32]:
    """Sampled tokens of all images, (images drawn from, tokens of each, D)."""
    own = sample_tokens(read(), plan, seed, first_image=rows.start)
    lengths = [
        sum(i % plan.stride == 0 for i in distributed.own_rows(total, BATCH, process))
        for process in range(distributed.count())
    ]
    if len(own) != lengths[distributed.rank()]:
        raise ValueError(f"tokens of {len(own)} images, expected {lengths[distributed.rank()]}")
    # A process without images does not know the shape; the first one has some.
    shape = distributed.share(lambda: {"shape": torch.tensor(own.shape[1:])})["shape"].tolist()
    gathered = distributed.gather_rows(torch.from_numpy(own.reshape(len(own), *shape)), lengths)
    result: NDArray[np.float32] = gathered.numpy()
    return result


def _gather_contexts(readers: TokenReaders, prepared: Preparation, total: int) -> Tensor:
    """Context of every image, (N, K)."""
    assert prepared.confounders is not None
    centres = prepared.confounders.centres
    mean, scale = prepared.token_mean, prepared.token_scale
    read = readers.read_confounder_view
    if read is not None or mean is None or scale is None:
        found = [assign_context(tokens, centres) for tokens in (read or readers.read)()]
    else:
        found = [assign_context((tokens - mean) * scale, centres) for tokens in readers.read()]
    return distributed.gather_batches(found, len(centres), total, BATCH)


def _summarise(
    config: ModelConfig,
    sample: NDArray[np.float32] | None,
    other: NDArray[np.float32] | None,
    targets: NDArray[np.float32],
    finer_channels: int,
    seed: int,
) -> Preparation:
    """Everything but the context term.

    Args:
        config: Of the network.
        sample: (N, T, D), tokens that labels are recognised from, of the images drawn from.
        other: (N, T, D'), tokens to cluster instead.
        targets: (N, L).
        finer_channels: Leading channels from the finer stage, of the tokens to cluster.
        seed: Of clustering.
    """
    mean = scale = confounders = label_means = None
    if config.standardize_tokens and sample is not None:
        flat = sample.reshape(-1, sample.shape[-1])
        center, deviation = flat.mean(axis=0), np.maximum(flat.std(axis=0), 1e-4)
        mean, scale = torch.from_numpy(center), torch.from_numpy(1 / deviation)
        sample = (sample - center) * scale.numpy()
    if config.head == "ccd" and sample is not None:
        counts = np.maximum(targets.sum(axis=0), 1)[:, None]
        label_means = torch.from_numpy((targets.T @ sample.mean(axis=1)) / counts).float()
    if _has_confounders(config):
        settings, clustered = config.confounders, sample if other is None else other
        assert clustered is not None
        if settings.kind == "early" and finer_channels == 0:
            raise DataError("early confounders are those of a second stage: token_stages=2")
        flat = clustered.reshape(-1, clustered.shape[-1])
        confounders = build_confounders(
            flat, settings, seed, targets=targets, finer_channels=finer_channels
        )
    return Preparation(mean, scale, confounders, None, label_means)


def install(head: CausalHead, prepared: Preparation) -> None:
    """Put the results of `prepare` into a head built from the same configuration."""
    if prepared.token_mean is not None and prepared.token_scale is not None:
        head.token_mean, head.token_scale = prepared.token_mean, prepared.token_scale
    if isinstance(head.classifier, CcdClassifier) and prepared.label_means is not None:
        head.classifier.memory = prepared.label_means
    intervention, confounders = head.intervention, prepared.confounders
    if intervention is None or confounders is None:
        return
    if isinstance(intervention, BackDoorIntervention):
        assert prepared.context_term is not None
        intervention.set_confounders(confounders, prepared.context_term)
    else:
        intervention.set_confounders(confounders)
