"""One step of training: the loss of a batch in parts, its gradient over all processes, the update."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cmlr_edge.model.spec import PreprocessSpec
from train import distributed
from train.config import TrainConfig
from train.data.transforms import normalize
from train.fitting.losses import training_loss
from train.network.baselines import FeatureSplitClassifier
from train.network.dropout import seeded_per_sample
from train.network.model import CausalRecognizer

_FIRST_SCALE = 2.0**10  # of float16 losses; torch's own start would overflow for some steps
_MOMENTUM = 0.9
_DROPOUT_STREAM = 2**32  # keeps a sample's dropout apart from its augmentation


@dataclass(frozen=True)
class Part:
    """Pictures of a batch that one process computes at once."""

    images: Tensor | None  # uint8 (B, 3, H, W); None where there are tokens
    targets: Tensor  # (B, L)
    context_logits: Tensor | None  # (B, L), g of each picture's context
    seeds: Sequence[int]  # of each picture's dropout
    share: float  # of the pictures of the whole batch, in (0, 1]
    lone: Tensor | None = None  # (B, L), bool: a biased label without its usual company
    known: Tensor | None = None  # (B, L), bool: somebody looked for the label; None: everywhere
    tokens: Tensor | None = None  # (B, T, D), of a backbone that stays as it is
    remember: Callable[[Tensor], None] | None = None  # is given such tokens


class _TrainingLogits(nn.Module):
    """Images, or their tokens, to the logits that get a loss: what the processes keep in step."""

    def __init__(self, model: CausalRecognizer, precision: torch.dtype) -> None:
        super().__init__()
        self.model, self.precision = model, precision

    def forward(
        self, images: Tensor | None, tokens: Tensor | None, context_logits: Tensor | None
    ) -> list[Tensor]:
        """One of images (B, 3, H, W) and tokens (B, T, D) is given, and perhaps g (B, L)."""
        tokens = self.tokens(images) if tokens is None else tokens
        with self._autocast(tokens.device):
            output = self.model.head(tokens)
        return self.model.training_logits(output, context_logits)

    def tokens(self, images: Tensor | None) -> Tensor:
        """What the backbone sees, (B, T, D); one that is not trained builds no graph."""
        assert images is not None
        with self._autocast(images.device):
            tokens: Tensor = self.model.backbone(images)
        return tokens

    def _autocast(self, device: torch.device) -> torch.autocast:
        mixed = self.precision != torch.float32
        return torch.autocast(device.type, self.precision if mixed else None, enabled=mixed)


class Learner:
    """A network with its optimiser, schedule and average, on this process's device."""

    def __init__(
        self,
        model: CausalRecognizer,
        config: TrainConfig,
        spec: PreprocessSpec,
        *,
        precision: torch.dtype,
        num_steps: int,
    ) -> None:
        """Start before the first step.

        Args:
            model: With its confounders, on the device.
            config: The recipe.
            spec: The input format.
            precision: Of products and convolutions.
            num_steps: Of the whole run.
        """
        self.config, self.spec, self.model = config, spec, model
        self.device = distributed.device()
        model.backbone.requires_grad_(config.backbone_lr > 0)
        model.backbone.freeze_stages(config.frozen_stages)
        self._network = _TrainingLogits(model, precision)
        self._logits: nn.Module = self._network
        if distributed.count() > 1:
            self._logits = DistributedDataParallel(
                self._logits,
                broadcast_buffers=not config.freeze_batch_norm,
                find_unused_parameters=True,  # a head may leave the backbone's last layers out
            )
        self.averaged = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=False
        )
        self._optimizer, self._scheduler = _schedule(model, config, num_steps)
        self.lr = float(self._scheduler.get_last_lr()[-1])  # of the head, at the last step
        # Gradients of float16 would vanish without a scale; the loss, a sum over labels, is large.
        self._scaler = torch.amp.GradScaler(
            self.device.type, init_scale=_FIRST_SCALE, enabled=precision == torch.float16
        )

    @property
    def network(self) -> CausalRecognizer:
        """The averaged network, which is evaluated and kept."""
        network = self.averaged.module
        assert isinstance(network, CausalRecognizer)
        return network

    def train(self) -> None:
        """Switch to training mode."""
        self.model.train()
        if self.config.freeze_batch_norm:
            self.model.backbone.eval()

    def step(self, parts: Iterable[Part]) -> float:
        """Take one step.

        Args:
            parts: `config.accumulate` of them, this process's share of the batch.

        Returns:
            The loss of the whole batch. Where it is not finite, the network was left as it was.
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for number, part in enumerate(parts, start=1):
            with (
                self._wait_with_gradients(number),
                seeded_per_sample([seed + _DROPOUT_STREAM for seed in part.seeds], self.device),
            ):
                part_loss = part.share * self._loss(part)
                # The mean over processes is taken of gradients, the sum is wanted.
                self._scaler.scale(part_loss * distributed.count()).backward()
            loss += float(part_loss.detach())
        loss = distributed.total(loss)
        if math.isfinite(loss):
            self._scaler.unscale_(self._optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clip)
            scale = self._scaler.get_scale()
            self._scaler.step(self._optimizer)
            self._scaler.update()
            if self._scaler.get_scale() >= scale:  # else float16 overflowed and nothing was learned
                self.lr = float(self._scheduler.get_last_lr()[-1])
                self.model.shrink_links(self.lr * self.config.link_sparsity)
                self._scheduler.step()
                self.averaged.update_parameters(self.model)
        return loss

    def _wait_with_gradients(self, part: int) -> AbstractContextManager[Any]:
        """Exchange gradients between processes with the last part alone."""
        last = part == self.config.accumulate
        if last or not isinstance(self._logits, DistributedDataParallel):
            return nullcontext()
        return self._logits.no_sync()

    def _loss(self, part: Part) -> Tensor:
        images, tokens = self._inputs(part)
        targets, context = part.targets.to(self.device), part.context_logits
        context = None if context is None else context.to(self.device)
        lone = None if part.lone is None else part.lone.to(self.device)
        if isinstance(self.model.classifier, FeatureSplitClassifier):
            self.model.classifier.exclusive = lone
        found = self._logits(images, tokens, context)
        targets = self.model.wanted(targets)
        weight = None if lone is None else 1 + (self.config.lone_weight - 1) * lone
        if part.known is not None:  # no loss is taken on what nobody looked for
            unknown = self.model.wanted(1 - part.known.to(self.device).float())
            settled = torch.maximum(1 - unknown, targets)  # of two pictures united, one may show it
            weight = settled if weight is None else weight * settled
        return training_loss(found, targets, self.config, weight)

    def _inputs(self, part: Part) -> tuple[Tensor | None, Tensor | None]:
        """Images to be trained on, or the tokens of a backbone that stays as it is."""
        if part.tokens is not None:
            return None, part.tokens.to(self.device)
        assert part.images is not None
        images = normalize(part.images.to(self.device), self.spec)
        if part.remember is None:
            return images, None
        tokens = self._network.tokens(images)
        part.remember(tokens)
        return None, tokens

    def state(self) -> dict[str, Any]:
        """What resuming needs."""
        return {name: part.state_dict() for name, part in self._stateful().items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        for name, part in self._stateful().items():
            part.load_state_dict(state[name])

    def _stateful(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "averaged": self.averaged,
            "optimizer": self._optimizer,
            "scheduler": self._scheduler,
            "scaler": self._scaler,
        }


def _schedule(
    model: CausalRecognizer, config: TrainConfig, num_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """The optimiser, and what sets its rates step by step."""
    groups = _parameter_groups(model, config)
    if config.optimizer == "sgd":
        sgd = torch.optim.SGD(groups, config.lr, momentum=_MOMENTUM)
        drops = [num_steps * epoch // config.epochs for epoch in config.lr_drops]
        return sgd, torch.optim.lr_scheduler.MultiStepLR(sgd, drops, gamma=0.1)
    adamw = torch.optim.AdamW(groups)
    total = max(2, num_steps)
    # Of exactly one step, PyTorch would divide by the nothing between its first step and its last.
    warms_up = config.warmup_share * total != 1
    return adamw, torch.optim.lr_scheduler.OneCycleLR(
        adamw,
        max_lr=[group["lr"] for group in groups],
        total_steps=total,
        pct_start=config.warmup_share if warms_up else 0.0,
    )


def _parameter_groups(model: CausalRecognizer, config: TrainConfig) -> list[dict[str, Any]]:
    """Decay on matrices only; backbone and head each at their own rate."""
    groups: list[dict[str, Any]] = []
    for lr, owned in ((config.backbone_lr, True), (config.lr, False)):
        for decays in (True, False):
            parameters = [
                p
                for name, p in model.named_parameters()
                if p.requires_grad
                and name.startswith("backbone.") is owned
                and (p.ndim >= 2) is decays
            ]
            if parameters:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": parameters, "lr": lr, "weight_decay": decay})
    return groups
