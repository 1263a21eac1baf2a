"""Run a trained network over a data set: scores of every read-out, and the backbone's tokens."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader

from cmlr_edge.model_spec import PreprocessSpec
from train.backbones import Backbone
from train.confounders import assign_context
from train.intervention import BackDoorIntervention
from train.model import CausalRecognizer
from train.transforms import ImageTensors, normalize


@dataclass(frozen=True)
class DatasetScores:
    """Probabilities (N, L) of one model on one data set, by read-out."""

    deployed: NDArray[np.float32]  # what the exported engine returns
    decoupled: NDArray[np.float32]  # the label decoder alone, no causal branch
    own_context: NDArray[np.float32] | None  # back-door only: at each image's own context
    prior_context: NDArray[np.float32] | None  # back-door only: averaged over the prior


def image_batches(images: ImageTensors, spec: PreprocessSpec, batch_size: int) -> Iterator[Tensor]:
    """Yield normalised batches (B, 3, H, W) in order."""
    for batch in DataLoader(images, batch_size=batch_size):
        yield normalize(batch, spec)


@torch.inference_mode()
def score_images(
    model: CausalRecognizer, images: ImageTensors, spec: PreprocessSpec, *, batch_size: int = 32
) -> DatasetScores:
    """Score every image in evaluation mode, float32."""
    model.eval()
    back_door = isinstance(model.intervention, BackDoorIntervention)
    columns: dict[str, list[Tensor]] = {"deployed": [], "decoupled": [], "own": [], "prior": []}
    for batch in image_batches(images, spec, batch_size):
        output = model(batch)
        columns["deployed"].append(model.scores(output))
        columns["decoupled"].append(output.decoupled_logits.sigmoid())
        if back_door:
            columns["own"].append(model.scores(output, "own"))
            columns["prior"].append(model.scores(output, "prior"))
    joined = {name: torch.cat(parts).numpy() if parts else None for name, parts in columns.items()}
    assert joined["deployed"] is not None
    assert joined["decoupled"] is not None
    return DatasetScores(joined["deployed"], joined["decoupled"], joined["own"], joined["prior"])


@torch.inference_mode()
def iterate_tokens(
    backbone: Backbone,
    images: ImageTensors,
    spec: PreprocessSpec,
    *,
    batch_size: int = 32,
    report: Callable[[int], None] = lambda _: None,
) -> Iterator[Tensor]:
    """Yield the backbone's tokens (B, T, D), batch by batch.

    Args:
        backbone: In evaluation mode.
        images: Without augmentation.
        spec: The input format.
        batch_size: Images at once.
        report: Called with the number of images done in each batch.
    """
    for batch in image_batches(images, spec, batch_size):
        tokens = backbone(batch)
        report(len(tokens))
        yield tokens


@torch.inference_mode()
def follow_centres(
    frozen: Backbone,
    trained: Backbone,
    centres: Tensor,
    images: ImageTensors,
    spec: PreprocessSpec,
    *,
    batch_size: int = 32,
) -> Tensor:
    """Find the centres again after the backbone was fine-tuned.

    Every token keeps the cluster that the frozen backbone gives it; the new centre is the mean of
    those tokens as the trained backbone sees them. A cluster that no token reaches keeps its
    centre.

    Args:
        frozen: The backbone that the centres were built with.
        trained: The fine-tuned backbone.
        centres: (K, D).
        images: Training images, without augmentation.
        spec: The input format.
        batch_size: Images at once.

    Returns:
        (K, D).
    """
    sums, counts = torch.zeros_like(centres), torch.zeros(len(centres))
    directions = torch.nn.functional.normalize(centres, dim=-1)
    for batch in image_batches(images, spec, batch_size):
        cluster = (frozen(batch) @ directions.T).argmax(dim=-1).flatten()
        sums.index_add_(0, cluster, trained(batch).flatten(0, 1))
        counts += torch.bincount(cluster, minlength=len(centres))
    return torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)


def contexts_of(tokens: Iterator[Tensor], centres: Tensor) -> Tensor:
    """Context (N, K) of every image."""
    return torch.cat([assign_context(batch, centres) for batch in tokens])
