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
from train.intervention import BackDoorIntervention
from train.model import CausalHead, CausalRecognizer, ModelOutput
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
    batches = image_batches(images, spec, batch_size)
    return concatenate_scores([score_batch(model, model(batch)) for batch in batches])


def score_batch(head: CausalHead, output: ModelOutput) -> DatasetScores:
    """Probabilities of one batch, by read-out."""
    back_door = isinstance(head.intervention, BackDoorIntervention)
    return DatasetScores(
        deployed=head.scores(output).numpy(),
        decoupled=output.decoupled_logits.sigmoid().numpy(),
        own_context=head.scores(output, "own").numpy() if back_door else None,
        prior_context=head.scores(output, "prior").numpy() if back_door else None,
    )


def concatenate_scores(batches: list[DatasetScores]) -> DatasetScores:
    """Join the scores of successive batches."""
    own = [b.own_context for b in batches if b.own_context is not None]
    prior = [b.prior_context for b in batches if b.prior_context is not None]
    return DatasetScores(
        deployed=np.concatenate([b.deployed for b in batches]),
        decoupled=np.concatenate([b.decoupled for b in batches]),
        own_context=np.concatenate(own) if own else None,
        prior_context=np.concatenate(prior) if prior else None,
    )


@torch.no_grad()
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
    frozen: Callable[[Tensor], Tensor],
    trained: Callable[[Tensor], Tensor],
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
        frozen: Gives the tokens (B, T, D) of images that the centres were built with.
        trained: Gives those of the fine-tuned backbone.
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
