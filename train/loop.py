"""One training run, from a data folder to a run folder."""

from __future__ import annotations

import copy
import hashlib
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from cmlr_edge.errors import DataError, TrainingError
from cmlr_edge.model_spec import (
    MethodSpec,
    ModelSpec,
    PreprocessSpec,
    Provenance,
    ThresholdFit,
)
from train import checkpoint
from train.amp import choose_autocast
from train.backbones import Backbone
from train.config import TrainConfig
from train.datasets.base import LabeledImages
from train.inference import follow_centres, iterate_tokens, score_images
from train.intervention import BackDoorIntervention
from train.losses import asymmetric_loss
from train.metrics import MIN_POSITIVES, evaluate_scores
from train.model import CausalRecognizer
from train.prepare import install, prepare
from train.thresholds import ThresholdRule, fit_thresholds
from train.transforms import ImageTensors, build_augmentation, normalize

_USED = {"train", "val"}  # splits
_FEW_IMAGES = 20
_log = logging.getLogger(__name__)


@dataclass
class _Run:
    """What the steps of one run share."""

    folder: Path
    config: TrainConfig
    train: LabeledImages
    val: LabeledImages
    model: CausalRecognizer
    frozen: Backbone  # as pre-trained: the confounders' view of the images
    spec: PreprocessSpec
    context_logits: Tensor | None  # (N, L), g of the training images, held out
    progress: Progress


def fit(
    data: LabeledImages, folder: Path, config: TrainConfig, *, resume: bool = False
) -> ModelSpec:
    """Train, evaluate, fit thresholds and write the run folder.

    A run that was killed continues with `resume` after its last whole epoch and ends with the same
    weights as one that was not.

    Args:
        data: With a `train` split; `val` is taken from it where there is none.
        folder: Created; must not hold another run unless `resume`.
        config: The recipe.
        resume: Continue the run in `folder`.

    Raises:
        DataError: The folder holds a run already, or one of another configuration or data.
        TrainingError: The loss became NaN or infinite; the last whole epoch is kept.
    """
    ThresholdRule.parse(config.threshold_rule)  # a slip is found before hours of training
    data = data.with_validation(config.validation_share, config.seed)
    _report_splits(data)
    state = _check_folder(folder, config, data, resume=resume)
    torch.manual_seed(config.seed)
    model = CausalRecognizer(config.model, len(data.classes), pretrained=True)
    if not resume:  # written only now, so that a wrong backbone leaves no folder behind
        folder.mkdir(parents=True, exist_ok=True)
        checkpoint.save_config(folder, config)
    with _progress() as progress:
        run = _Run(
            folder=folder,
            config=config,
            train=data.split("train"),
            val=data.split("val"),
            model=model,
            frozen=copy.deepcopy(model.backbone).eval().requires_grad_(False),
            spec=_input_format(model, config),
            context_logits=None,
            progress=progress,
        )
        _prepare_intervention(run)
        averaged = _train_epochs(run, state, _fingerprint(data))
        _follow_backbone(run, averaged)
        return _finish(run, averaged)


def _report_splits(data: LabeledImages) -> None:
    counts = {name: len(data.split(name).images) for name in data.splits}
    unused = ", ".join(f"{n} of split {name!r}" for name, n in counts.items() if name not in _USED)
    _log.info(
        "%s: %d pictures to train on, %d to validate on%s",
        data.name,
        counts.get("train", 0),
        counts.get("val", 0),
        f"; not used: {unused}" if unused else "",
    )
    if counts.get("val", 0) < _FEW_IMAGES:
        _log.warning("so few validation pictures say little: thresholds and metrics are guesses")


def _progress() -> Progress:
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def _check_folder(
    folder: Path, config: TrainConfig, data: LabeledImages, *, resume: bool
) -> dict[str, Any] | None:
    if not resume:
        # A folder whose first epoch never ended holds nothing to lose.
        if (folder / checkpoint.STATE).exists() or (folder / checkpoint.WEIGHTS).exists():
            raise DataError(
                f"{folder} holds a run already: continue it with --resume, or choose another --out"
            )
        return None
    if checkpoint.load_config(folder) != config:
        raise DataError(
            f"{folder / checkpoint.CONFIG} differs from what was asked for: resume with the same "
            "options, or choose another --out"
        )
    state = checkpoint.load_state_file(folder)
    if state is not None and state["data"] != _fingerprint(data):
        raise DataError(f"{folder} was trained on other data than {data.name}: nothing was changed")
    return state


def _fingerprint(data: LabeledImages) -> str:
    listing = repr([(image.path.name, image.split, image.labels) for image in data.images])
    return hashlib.sha256((listing + repr(data.classes)).encode()).hexdigest()


def _input_format(model: CausalRecognizer, config: TrainConfig) -> PreprocessSpec:
    side = config.model.image_size
    return PreprocessSpec(size_hw=(side, side), mean=model.backbone.mean, std=model.backbone.std)


def _prepare_intervention(run: _Run) -> None:
    """Build the confounders with the frozen backbone, and fit the context term."""
    images = ImageTensors(run.train, run.spec)
    task = run.progress.add_task("confounders", total=2 * len(images))

    def read_tokens() -> Iterator[Tensor]:
        return iterate_tokens(
            run.frozen, images, run.spec, report=lambda n: run.progress.advance(task, n)
        )

    prepared = prepare(
        run.config.model,
        read_tokens,
        run.train.targets(),
        finer_channels=run.model.backbone.finer_channels,
        seed=run.config.seed,
    )
    install(run.model, prepared)
    run.context_logits = prepared.context_logits
    if prepared.context_term is not None:
        _log.info("confounders built, ridge %g", prepared.context_term.ridge)
    run.progress.remove_task(task)


def _train_epochs(run: _Run, state: dict[str, Any] | None, fingerprint: str) -> AveragedModel:
    config = run.config
    optimizer, scheduler = _optimizer(run)
    averaged = AveragedModel(
        run.model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay), use_buffers=False
    )
    first, autocast = 0, choose_autocast(config.amp, run.model.backbone, config.model.image_size)
    if state is not None:
        first, autocast = state["epochs"], state["autocast"]
        run.model.load_state_dict(state["model"])
        averaged.load_state_dict(state["averaged"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
    checkpoint.truncate_log(run.folder, first)
    augmented = ImageTensors(
        run.train,
        run.spec,
        augmentation=build_augmentation(config.augmentation, config.model.image_size),
    )
    held_out = ImageTensors(run.val, run.spec)
    for epoch in range(first, config.epochs):
        started = time.monotonic()
        loss = _train_epoch(
            run, averaged, optimizer, scheduler, augmented, epoch, autocast=autocast
        )
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            "loss": loss,
            "lr": scheduler.get_last_lr()[-1],
        }
        record["val_map"] = _validation_map(run, averaged, held_out)
        record["seconds"] = round(time.monotonic() - started, 2)
        state = {
            "epochs": epoch + 1,
            "autocast": autocast,
            "data": fingerprint,
            "model": run.model.state_dict(),
            "averaged": averaged.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        }
        checkpoint.append_log(run.folder, record)
        _log.info(
            "epoch %d of %d: loss %.4f, validation mAP %s, %.0f s",
            epoch + 1,
            config.epochs,
            loss,
            "not measurable" if record["val_map"] is None else f"{record['val_map']:.3f}",
            record["seconds"],
        )
        checkpoint.save_state(run.folder, state)
    return averaged


def _optimizer(run: _Run) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.OneCycleLR]:
    """AdamW, decay on matrices only, backbone and head each at their own rate, OneCycle."""
    config = run.config
    groups: list[dict[str, Any]] = []
    run.model.backbone.requires_grad_(config.backbone_lr > 0)
    for lr, owned in ((config.backbone_lr, True), (config.lr, False)):
        for decays in (True, False):
            parameters = [
                p
                for name, p in run.model.named_parameters()
                if p.requires_grad
                and name.startswith("backbone.") is owned
                and (p.ndim >= 2) is decays
            ]
            if parameters:
                decay = config.weight_decay if decays else 0.0
                groups.append({"params": parameters, "lr": lr, "weight_decay": decay})
    optimizer = torch.optim.AdamW(groups)
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in groups],
        total_steps=max(2, config.epochs * len(_epoch_batches(run, 0))),
        pct_start=config.warmup_share,
    )
    return optimizer, scheduler


def _epoch_batches(run: _Run, epoch: int) -> list[list[tuple[int, int]]]:
    """Shuffle (index, augmentation seed) pairs into whole batches, the same on every machine."""
    size, count = run.config.batch_size, len(run.train.images)
    rng = np.random.default_rng((run.config.seed, epoch))
    order = rng.permutation(count)
    pairs = [(int(i), int(s)) for i, s in zip(order, rng.integers(2**31, size=count), strict=True)]
    return [pairs[i : i + size] for i in range(0, max(size, count - count % size), size)]


def _train_epoch(
    run: _Run,
    averaged: AveragedModel,
    optimizer: torch.optim.Optimizer,
    scheduler: torch.optim.lr_scheduler.OneCycleLR,
    images: ImageTensors,
    epoch: int,
    *,
    autocast: bool,
) -> float:
    """Train on every batch once; return the mean loss."""
    # Seeded afresh each epoch, so that a resumed run draws the same dropout.
    torch.manual_seed(run.config.seed * 1_000_003 + epoch)
    run.model.train()
    if run.config.freeze_batch_norm:
        run.model.backbone.eval()
    targets, losses = torch.from_numpy(run.train.targets()), []
    batches = _epoch_batches(run, epoch)
    task = run.progress.add_task(f"epoch {epoch + 1}/{run.config.epochs}", total=len(batches))
    for pairs, batch in zip(batches, _load(images, batches, run.config.workers), strict=True):
        rows = [index for index, _ in pairs]
        context = None if run.context_logits is None else run.context_logits[rows]
        loss = _loss(run, normalize(batch, run.spec), targets[rows], context, autocast=autocast)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss.item()} in epoch {epoch + 1}: epoch {epoch} is kept in "
                f"{run.folder}; start again with a lower --lr, or with --set amp=off"
            )
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(run.model.parameters(), run.config.gradient_clip)
        optimizer.step()
        scheduler.step()
        averaged.update_parameters(run.model)
        losses.append(float(loss.detach()))
        run.progress.advance(task)
    run.progress.remove_task(task)
    return float(np.mean(losses))


def _load(
    images: ImageTensors, batches: list[list[tuple[int, int]]], workers: int
) -> Iterator[Tensor]:
    yield from DataLoader(images, batch_sampler=batches, num_workers=workers)


def _loss(
    run: _Run, images: Tensor, targets: Tensor, context_logits: Tensor | None, *, autocast: bool
) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        output = run.model(images)  # a frozen backbone builds no graph: nothing in it needs one
    config, total = run.config, torch.zeros(())
    for logits in run.model.training_logits(output, context_logits):
        total = total + asymmetric_loss(
            logits,
            targets,
            gamma_positive=config.gamma_positive,
            gamma_negative=config.gamma_negative,
            probability_clip=config.probability_clip,
        )
    return total


def _validation_map(run: _Run, averaged: AveragedModel, images: ImageTensors) -> float | None:
    """Mean AP over labels with enough positives; None where there is no such label."""
    scores = score_images(_network(averaged), images, run.spec).deployed
    thresholds = np.full(len(run.val.classes), 0.5, np.float32)
    targets, classes = run.val.targets(), run.val.classes
    metrics = evaluate_scores(scores, targets, classes, thresholds, min_positives=MIN_POSITIVES)
    return metrics.mean_ap if metrics.num_labels_scored else None


def _network(averaged: AveragedModel) -> CausalRecognizer:
    network = averaged.module
    assert isinstance(network, CausalRecognizer)
    return network


def _follow_backbone(run: _Run, averaged: AveragedModel) -> None:
    """Round to the storage precision, and let the confounders follow a fine-tuned backbone."""
    model = _network(averaged)
    if run.config.weight_storage == "float16":
        for parameter in model.state_dict().values():
            if parameter.dtype == torch.float32:
                parameter.copy_(parameter.half().float())
    if isinstance(model.intervention, BackDoorIntervention) and run.config.backbone_lr > 0:
        images = ImageTensors(run.train, run.spec)
        model.eval()
        model.intervention.centres = follow_centres(
            lambda images: model.standardize(run.frozen(images)),
            lambda images: model.standardize(model.backbone(images)),
            model.intervention.centres,
            images,
            run.spec,
        ).clone()


def _finish(run: _Run, averaged: AveragedModel) -> ModelSpec:
    """Score the validation part, fit thresholds, and write weights and spec."""
    model = _network(averaged)
    config, targets = run.config, run.val.targets()
    scores = score_images(model, ImageTensors(run.val, run.spec), run.spec).deployed
    rule = ThresholdRule.parse(config.threshold_rule)
    thresholds = fit_thresholds(scores, targets, shrinkage=config.threshold_shrinkage, rule=rule)
    metrics = evaluate_scores(
        scores, targets, run.val.classes, thresholds, min_positives=MIN_POSITIVES
    )
    spec = ModelSpec(
        name=f"{run.train.name}-{config.model.backbone}-{config.model.image_size}",
        labels=run.train.classes,
        thresholds=tuple(round(float(value), 6) for value in thresholds),
        preprocess=run.spec,
        method=_method(model, config),
        provenance=Provenance(
            data=run.train.name,
            num_train_images=len(run.train.images),
            epochs=config.epochs,
            seed=config.seed,
            cmlr_edge_version=version("cmlr-edge"),
            metrics={"val_map": round(metrics.mean_ap, 4)} if metrics.num_labels_scored else {},
        ),
        threshold_fit=ThresholdFit(
            rule=str(rule),
            data=f"{run.val.name}, {len(run.val.images)} validation images",
            num_images=len(run.val.images),
            precision="float32",
            shrinkage=config.threshold_shrinkage,
        ),
    )
    checkpoint.save_weights(run.folder, model)
    spec.save(run.folder / checkpoint.SPEC)
    return spec


def _method(model: CausalRecognizer, config: TrainConfig) -> MethodSpec:
    intervention = model.intervention
    return MethodSpec(
        backbone=config.model.backbone,
        intervention=config.model.intervention,
        inference_context=config.model.inference_context,
        num_confounders=0 if intervention is None else len(intervention.centres),
        embed_dim=config.model.embed_dim,
        decoder_layers=config.model.decoder_layers,
    )
