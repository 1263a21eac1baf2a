"""Run a trained network over a data set: scores of every read-out, and the backbone's tokens.

Several processes divide the pictures among them; the scores come together on every one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from cmlr_edge.errors import TrainingError
from cmlr_edge.model.spec import PreprocessSpec
from train import distributed
from train.data.transforms import ImageTensors, normalize
from train.network.backbones import Backbone
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalHead, CausalRecognizer, ModelOutput
from train.network.token_memory import TokenMemory
from train.reporting import pace

BATCH = 32  # images at once, without gradients


@dataclass(frozen=True)
class DatasetScores:
    """Probabilities (N, L) of one model on one data set, by read-out."""

    deployed: NDArray[np.float32]  # what the exported engine returns
    decoupled: NDArray[np.float32]  # the label decoder alone, no causal branch
    own_context: NDArray[np.float32] | None  # back-door only: at each image's own context
    prior_context: NDArray[np.float32] | None  # back-door only: averaged over the prior


def own_batches(
    images: ImageTensors, spec: PreprocessSpec, device: torch.device
) -> Iterator[Tensor]:
    """Yield this process's share as normalised batches (B, 3, H, W), in order."""
    rows = distributed.own_rows(len(images), BATCH)
    batches = [list(rows[i : i + BATCH]) for i in range(0, len(rows), BATCH)]
    told = pace("pictures looked at")
    for number, batch in enumerate(images.read(batches)):
        told.reached(number * BATCH, len(rows))
        yield normalize(batch.to(device, non_blocking=True), spec)


@torch.inference_mode()
def score_images(
    model: CausalRecognizer,
    images: ImageTensors,
    spec: PreprocessSpec,
    memory: TokenMemory | None = None,
) -> DatasetScores:
    """Score every image in evaluation mode, float32.

    Args:
        model: The network.
        images: Without augmentation.
        spec: The input format.
        memory: Of these images, where the backbone gives the same tokens every time.

    Returns:
        Scores; 0 where nobody knows whether the label is there, see `LabeledImages.judged`.

    Raises:
        TrainingError: A score is NaN.
    """
    # A GPU's convolutions would round to ten bits: thresholds would fit what no engine computes.
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        found = _all_scores(model, images, spec, memory)
    if not all(np.isfinite(kind).all() for kind in vars(found).values() if kind is not None):
        raise TrainingError(
            "the network's scores are not numbers: its weights are damaged, or grew without bound; "
            "train it again with a lower --lr"
        )
    own, prior = found.own_context, found.prior_context
    return DatasetScores(
        deployed=images.judged(found.deployed),
        decoupled=images.judged(found.decoupled),
        own_context=None if own is None else images.judged(own),
        prior_context=None if prior is None else images.judged(prior),
    )


def _all_scores(
    model: CausalRecognizer, images: ImageTensors, spec: PreprocessSpec, memory: TokenMemory | None
) -> DatasetScores:
    model.eval()
    read = _tokens(model, images, spec, memory)
    own = [score_batch(model, model.head(tokens)) for tokens in read]
    if distributed.count() == 1:
        return concatenate_scores(own)

    def gather(name: str) -> NDArray[np.float32]:
        parts = [torch.from_numpy(getattr(scores, name)) for scores in own]
        gathered: NDArray[np.float32] = distributed.gather_batches(
            parts, model.num_labels, len(images), BATCH
        ).numpy()
        return gathered

    with_own, with_prior = _contexts(model)
    return DatasetScores(
        deployed=gather("deployed"),
        decoupled=gather("decoupled"),
        own_context=gather("own_context") if with_own else None,
        prior_context=gather("prior_context") if with_prior else None,
    )


def _tokens(
    model: CausalRecognizer, images: ImageTensors, spec: PreprocessSpec, memory: TokenMemory | None
) -> Iterator[Tensor]:
    """Tokens of this process's images, batch by batch: those kept, or all of them anew."""
    device = device_of(model)
    number = -(-len(distributed.own_rows(len(images), BATCH)) // BATCH)
    kept = [None if memory is None else memory.get(i) for i in range(number)]
    known = [tokens.to(device) for tokens in kept if tokens is not None]
    if len(known) == number:
        yield from known
        return
    for i, batch in enumerate(own_batches(images, spec, device)):
        tokens = model.backbone(batch)
        if memory is not None:
            memory.keep(i, tokens)
        yield tokens


def device_of(module: nn.Module) -> torch.device:
    """Where a network is."""
    return next(module.parameters()).device


def _contexts(head: CausalHead) -> tuple[bool, bool]:
    """Whether a head can be read at an image's own context, and averaged over the prior."""
    back_door = isinstance(head.intervention, BackDoorIntervention)
    return back_door and not head.config.confounders.other_view, back_door


def score_batch(head: CausalHead, output: ModelOutput) -> DatasetScores:
    """Probabilities of one batch, by read-out."""
    with_own, with_prior = _contexts(head)
    return DatasetScores(
        deployed=head.scores(output).cpu().numpy(),
        decoupled=output.decoupled_logits.sigmoid().cpu().numpy(),
        own_context=head.scores(output, "own").cpu().numpy() if with_own else None,
        prior_context=head.scores(output, "prior").cpu().numpy() if with_prior else None,
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
) -> Iterator[Tensor]:
    """Yield the backbone's tokens (B, T, D) of this process's images, batch by batch, on the CPU.

    Args:
        backbone: In evaluation mode.
        images: Without augmentation.
        spec: The input format.
    """
    for batch in own_batches(images, spec, device_of(backbone)):
        yield backbone(batch).cpu()


@torch.inference_mode()
def follow_centres(
    frozen: Callable[[Tensor], Tensor],
    trained: Callable[[Tensor], Tensor],
    centres: Tensor,
    images: ImageTensors,
    spec: PreprocessSpec,
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

    Returns:
        (K, D).
    """
    number, device = len(centres), centres.device
    sums, counts = torch.zeros_like(centres), torch.zeros(number, 1, device=device)
    directions = torch.nn.functional.normalize(centres, dim=-1)
    for batch in own_batches(images, spec, device):
        cluster = (frozen(batch) @ directions.T).argmax(dim=-1).flatten()
        sums.index_add_(0, cluster, trained(batch).flatten(0, 1))
        counts += torch.bincount(cluster, minlength=number)[:, None]
    processes = distributed.count()
    shares = distributed.gather_rows(torch.cat([sums, counts], dim=1).cpu(), [number] * processes)
    summed = shares.view(processes, number, -1).sum(dim=0).to(device)
    sums, counts = summed[:, :-1], summed[:, -1:]
    return torch.where(counts > 0, sums / counts.clamp_min(1), centres)
