"""One training run, from a data folder to a run folder."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import Progress
from torch import Tensor

from cmlr_edge.errors import DataError, TrainingError
from cmlr_edge.machine.claim import IN_USE, Claim
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.thresholds import ThresholdRule
from train import distributed
from train.config import TrainConfig
from train.data.base import LabeledImages
from train.data.copies import first_of_equal
from train.data.damaged import leave_out_damaged, refuse_damaged
from train.data.transforms import ImageTensors, build_augmentation
from train.fitting import confounder_cache
from train.fitting.amp import choose_precision
from train.fitting.batches import epoch_batches, load_parts
from train.fitting.finish import compares_plain, finish
from train.fitting.learner import Learner
from train.fitting.lone import lone_examples
from train.fitting.prepare import (
    Preparation,
    TokenReaders,
    install,
    needs_preparation,
    num_passes,
    prepare,
)
from train.fitting.run import (
    Run,
    check_folder,
    check_shares,
    refuse_what_would_be_lost,
    report_data,
)
from train.fitting.tracking import Trackers
from train.judging.inference import BATCH, iterate_tokens, score_images
from train.judging.metrics import MIN_POSITIVES, evaluate_scores
from train.network import checkpoint
from train.network.backbones import Backbone, create_confounder_view
from train.network.detector import check_class_maps
from train.network.model import CausalRecognizer
from train.network.token_memory import TokenMemory
from train.reporting import progress_bars

_log = logging.getLogger(__name__)


def fit(
    data: LabeledImages,
    folder: Path,
    config: TrainConfig,
    *,
    resume: bool = False,
    cache: Path | None = None,
    memory: TokenMemory | None = None,
    track: Sequence[str] = (),
    show_progress: bool = True,
    data_is_told: bool = False,
    only_compared: bool = False,
) -> ModelSpec:
    """Train, evaluate, fit thresholds and write the run folder.

    A run that was killed continues with `resume` after its last whole epoch and ends with the same
    weights as one that was not. Started in several processes, each computes its share of every
    batch, and the first one writes.

    Args:
        data: With a `train` split; `val` is taken from it where there is none.
        folder: Created; must not hold another run unless `resume`.
        config: The recipe.
        resume: Continue the run in `folder`.
        cache: Folder of confounders that runs on the same pictures share.
        memory: Of tokens, to be shared with other runs on the same data.
        track: Trackers that are told every epoch; see `Trackers`.
        show_progress: Draw bars on stderr.
        data_is_told: What there is to say about the data was said, by a run on the same before.
        only_compared: Nobody exports this one; so what its thresholds do is not said.

    Raises:
        DataError: The folder holds a run already, or one of another configuration or data.
        DependencyError: A tracker is not installed.
        TrainingError: The loss became NaN or infinite; the last whole epoch is kept.
        OutputError: The run folder cannot be written, the last whole epoch is kept; or another
            process trains in it.
    """
    ThresholdRule.parse(config.threshold_rule)  # a slip is found before hours of training
    memory = memory or TokenMemory()
    first = distributed.is_first()
    with Claim(folder / IN_USE, f"{folder}") if first else nullcontext():
        with progress_bars(visible=show_progress and first) as progress:
            run, state = _open(
                data, folder, config, progress, memory, resume=resume, tell=not data_is_told
            )
            _prepare_intervention(run, cache)
            trackers = Trackers(track if first else (), folder, config)
            try:
                model = _train_epochs(run, state, trackers)
            finally:
                trackers.close()
        if compares_plain(run):
            _fit_plain(data, folder, config, memory, cache=cache, show_progress=show_progress)
        return finish(run, model, tell=not only_compared)


def _fit_plain(
    data: LabeledImages,
    folder: Path,
    config: TrainConfig,
    memory: TokenMemory,
    *,
    cache: Path | None,
    show_progress: bool,
) -> None:
    """Train the same without intervention, in a folder within the run's, or what is left of it."""
    plain = replace(
        config,
        compare_plain=False,
        link_sparsity=0.0,
        model=replace(config.model, intervention="none", inference_context="prior"),
    )
    inner = folder / checkpoint.PLAIN
    if not distributed.decide(lambda: int((inner / checkpoint.SPEC).is_file())):
        begun = bool(distributed.decide(lambda: int((inner / checkpoint.CONFIG).is_file())))
        _log.info(
            "now the same network without links between labels: what these gain on held-out pictures "
            "is seen beside it, and the better one is kept"
        )
        shared: dict[str, Any] = {
            "cache": cache,
            "memory": memory,
            "data_is_told": True,
            "only_compared": True,
        }
        fit(data, inner, plain, resume=begun, **shared, show_progress=show_progress)


def _open(
    data: LabeledImages,
    folder: Path,
    config: TrainConfig,
    progress: Progress,
    memory: TokenMemory,
    *,
    resume: bool,
    tell: bool,
) -> tuple[Run, dict[str, Any] | None]:
    """Check everything, then make the networks and the folder; also the state to go on from."""
    if not resume:
        refuse_what_would_be_lost(folder)
    skipped = None
    if config.skip_damaged:
        data, skipped = leave_out_damaged(data, progress, tell=tell)
    drawn = "val" not in data.splits
    data = data.with_validation(config.validation_share, config.seed)
    check_shares(config, data)
    if tell:
        report_data(data, folder, config)
    check_class_maps(config.model, data.classes)
    lone = lone_examples(config, data.split("train"))
    state = check_folder(folder, config, data) if resume else None
    if state is None and not config.skip_damaged and "val" in data.splits:
        refuse_damaged(data.split("val"), progress)
    torch.manual_seed(config.seed)
    model = CausalRecognizer(config.model, len(data.classes), pretrained=True)
    view = create_confounder_view(config.model)
    if distributed.is_first():  # only now, so that a wrong backbone leaves no folder behind
        checkpoint.open_folder(folder, config, skipped, resume=resume)
        if drawn and "val" in data.splits:
            checkpoint.save_held_out(folder, data)
    run = Run.of(data, folder, config, model, view, lone=lone, progress=progress, memory=memory)
    return run, state


def _prepare_intervention(run: Run, cache: Path | None) -> None:
    """Build the confounders with the frozen backbone, and fit the context term."""
    if not needs_preparation(run.config.model):
        return
    prepared = confounder_cache.build_or_load(
        cache, lambda: _content_key(run, cache), lambda: _build_confounders(run)
    )
    install(run.model, prepared)
    run.model.to(distributed.device())
    run.context_logits = prepared.context_logits
    if prepared.context_term is not None:
        _log.info(
            "measured what the surroundings alone say of each label: the network learns beside that, "
            "so that a label need not rest on them"
        )


def _content_key(run: Run, cache: Path | None) -> str:
    networks = [run.frozen, *([run.confounder_view] if run.confounder_view else [])]
    task = run.progress.add_task("reading pictures", total=len(run.train.images))
    key = confounder_cache.content_key(
        run.train,
        run.spec,
        run.config,
        networks,
        lambda: run.progress.advance(task),
        None if cache is None else confounder_cache.pictures_of(cache),
    )
    run.progress.remove_task(task)
    return key


def _build_confounders(run: Run) -> Preparation:
    images = run.pictures(run.train)
    rows = distributed.own_rows(len(images), BATCH)
    passes = num_passes(run.config.model)
    _log.info(
        "looking at %d pictures, %d time%s, before training",
        len(images),
        passes,
        "s"[passes == 1 :],
    )

    def reader(backbone: Backbone) -> Callable[[], Iterator[Tensor]]:
        # The other view is normalised as its own training was.
        spec = replace(run.spec, mean=backbone.mean, std=backbone.std)
        return lambda: iterate_tokens(backbone, images, spec)

    view = None if run.confounder_view is None else reader(run.confounder_view)
    readers = TokenReaders(reader(run.frozen), rows, run.model.backbone.finer_channels, view)
    return prepare(
        run.config.model,
        readers,
        run.train.targets(),
        seed=run.config.seed,
        known=run.train.known(),
        first=first_of_equal([image.path for image in run.train.images]),
    )


def _train_epochs(run: Run, state: dict[str, Any] | None, trackers: Trackers) -> CausalRecognizer:
    """Train the epochs that are missing; return the averaged network."""
    config, state = run.config, state or {}
    first, best = state.get("epochs", 0), state.get("best")
    learner, precision = _learner(run, state)
    if distributed.is_first():
        checkpoint.truncate_log(run.folder, first)
    augmentation = build_augmentation(config.augmentation, config.model.size_hw)
    augmented, held_out = run.pictures(run.train, augmentation), run.pictures(run.val)
    seen = None if run.memory is None else run.memory.of(*_token_key(run, str(precision)))
    for epoch in range(first, config.epochs):
        started = time.monotonic()
        record: dict[str, Any] = {
            "epoch": epoch + 1,
            **_train_epoch(run, learner, augmented, epoch, seen),
            "lr": learner.lr,
            "val_map": _validation_map(run, learner, held_out, seen, epoch),
        }
        record["seconds"] = round(time.monotonic() - started, 2)
        best = _better(best, record, learner.network) if config.keep == "best" else None
        if distributed.is_first():
            _save_epoch(run, learner, record, str(precision).removeprefix("torch."), best)
            trackers.epoch(record)
    if best is not None:
        _log.info("kept: epoch %d, validation mAP %.3f", best["epoch"], best["val_map"])
        learner.network.load_state_dict(best["weights"])
    return learner.network


def _learner(run: Run, state: dict[str, Any]) -> tuple[Learner, torch.dtype]:
    """What trains, as its state left it if there is one, and what it computes in."""
    config = run.config
    if state:
        precision = getattr(torch, state["precision"])
    else:
        precision = choose_precision(config.amp, run.model.backbone, config.model.image_size)
    steps = config.epochs * len(epoch_batches(config, len(run.train.images), 0))
    learner = Learner(run.model, config, run.spec, precision=precision, num_steps=steps)
    if state:
        try:
            learner.load_state(state)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise DataError(
                f"{run.folder / checkpoint.STATE} does not fit this run: delete it to start it again"
            ) from error
    return learner, precision


def _better(
    best: dict[str, Any] | None, record: dict[str, Any], network: CausalRecognizer
) -> dict[str, Any] | None:
    """The best epoch so far, the later one of equals; None where none could be measured."""
    if record["val_map"] is None or (best is not None and record["val_map"] < best["val_map"]):
        return best
    weights = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    return {"epoch": record["epoch"], "val_map": record["val_map"], "weights": weights}


def _save_epoch(
    run: Run,
    learner: Learner,
    record: dict[str, Any],
    precision: str,
    best: dict[str, Any] | None,
) -> None:
    epochs, val_map = record["epoch"], record["val_map"]
    _log.info(
        "epoch %d of %d: loss %.4f, validation mAP %s, %.0f s, %.1f images/s, waiting for them %.0f %%",
        epochs,
        run.config.epochs,
        record["loss"],
        "not measurable" if val_map is None else f"{val_map:.3f}",
        record["seconds"],
        record["images_per_s"],
        100 * record["waiting"],
    )
    checkpoint.append_log(run.folder, record)
    about = {"epochs": epochs, "precision": precision, "best": best}
    about |= {"data": run.fingerprint, "sizes": run.sizes}
    checkpoint.save_state(run.folder, about | learner.state())


def _token_key(run: Run, precision: str) -> tuple[str, ...]:
    """What tokens hang on beside the pictures."""
    model = run.config.model
    about = (model.backbone, model.token_stages, run.spec, run.config.augmentation, precision)
    return (run.fingerprint, repr(about))


def _train_epoch(
    run: Run, learner: Learner, images: ImageTensors, epoch: int, memory: TokenMemory | None
) -> dict[str, float]:
    """Train on every batch once; give the mean loss, the rate, and the share of time waited."""
    config, started, waited = run.config, time.monotonic(), images.waited
    known = run.train.known()
    batches = epoch_batches(config, len(run.train.images), epoch)
    parts = load_parts(
        batches,
        images,
        torch.from_numpy(run.train.targets()),
        run.context_logits,
        config,
        run.lone,
        None if memory is None else memory.of("train"),
        None if known is None else torch.from_numpy(known),
    )
    task = run.progress.add_task(f"steps of epoch {epoch + 1}/{config.epochs}", total=len(batches))
    # Whatever was drawn before, a cache filled or found, an epoch draws from its own stream.
    torch.manual_seed(int(np.random.default_rng((config.seed, epoch)).integers(2**62)))
    learner.train()
    losses = []
    for batch in parts:
        losses.append(learner.step(batch))
        if not math.isfinite(losses[-1]):
            raise _diverged(run, f"the loss is {losses[-1]}", epoch)
        run.progress.advance(task)
    run.progress.remove_task(task)
    seconds = time.monotonic() - started
    return {
        "loss": float(np.mean(losses)),
        "images_per_s": round(sum(map(len, batches)) / seconds, 2),
        "waiting": round((images.waited - waited) / seconds, 3),
    }


def _diverged(run: Run, what: str, epoch: int) -> TrainingError:
    kept = f"epoch {epoch} is kept in {run.folder}" if epoch else "nothing is kept"
    return TrainingError(
        f"{what} in epoch {epoch + 1}: {kept}; start again with a lower --lr, or with --set amp=off"
    )


def _validation_map(
    run: Run,
    learner: Learner,
    images: ImageTensors,
    memory: TokenMemory | None,
    epoch: int,
) -> float | None:
    """Mean AP over labels with enough held-out positives; None where there is no such label.

    Raises:
        TrainingError: A weight is not finite, which a loss shows only at the next step; or a score.
    """
    tensors = [*learner.model.parameters(), *learner.network.parameters()]
    if not all(bool(tensor.isfinite().all()) for tensor in tensors):
        raise _diverged(run, "a weight became infinite", epoch)
    if not run.held_out:
        return None
    seen = None if memory is None else memory.of("val")
    scores = score_images(learner.network, images, run.spec, seen).deployed
    thresholds = np.full(len(run.val.classes), 0.5, np.float32)
    targets, classes = run.val.targets(), run.val.classes
    metrics = evaluate_scores(scores, targets, classes, thresholds, min_positives=MIN_POSITIVES)
    return metrics.mean_ap if metrics.num_labels_scored else None
