"""From trained weights to a finished run folder: confounders, thresholds, weights and spec."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from cmlr_edge import __version__
from cmlr_edge.model.spec import MethodSpec, ModelSpec, Provenance, ThresholdFit
from cmlr_edge.model.thresholds import (
    ThresholdRule,
    expect,
    fit_thresholds,
    lower_bound,
    reaches,
    written,
)
from cmlr_edge.wording import few_of
from train import distributed
from train.config import TrainConfig
from train.fitting.run import Run
from train.judging.inference import follow_centres, score_images
from train.judging.metrics import MIN_POSITIVES, MultiLabelMetrics, evaluate_scores
from train.judging.read_out import MEANING, ReadOutChoice, choose_read_out, read_outs_of
from train.network import checkpoint
from train.network.checkpoint import load_model
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer

_log = logging.getLogger(__name__)
_SHOWN = 8  # labels in a line


def finish(run: Run, model: CausalRecognizer, *, tell: bool = True) -> ModelSpec:
    """Score the validation part, choose the read-out, fit thresholds, and write weights and spec.

    Args:
        run: Whose epochs are over.
        model: Its network.
        tell: Say what is deployed, and what its thresholds do.
    """
    _follow_backbone(run, model)
    config, targets = run.config, run.val.targets()
    model, scores, choice = _choose(run, model)
    if tell and config.model.inference_context == "auto":
        _say_deployed(choice)
    rule = ThresholdRule.parse(config.threshold_rule)
    thresholds = fit_thresholds(scores, targets, shrinkage=config.threshold_shrinkage, rule=rule)
    metrics = evaluate_scores(
        scores, targets, run.val.classes, thresholds, min_positives=MIN_POSITIVES
    )
    spec = ModelSpec(
        name=f"{run.train.name}-{config.model.backbone}-{_size(config)}",
        labels=run.train.classes,
        thresholds=written(thresholds),
        preprocess=run.spec,
        method=_method(model, config),
        provenance=Provenance(
            data=run.train.name,
            num_train_images=len(run.train.images),
            epochs=config.epochs,
            seed=config.seed,
            cmlr_edge_version=__version__,
            metrics=_measured(run, metrics, choice),
        ),
        threshold_fit=ThresholdFit(
            rule=str(rule),
            data=f"{run.val.name}, {len(run.val.images)} "
            f"{'validation' if run.held_out else 'training'} images",
            num_images=len(run.val.images),
            precision="float32",
            shrinkage=config.threshold_shrinkage,
        ),
    )
    if distributed.is_first():
        checkpoint.save_weights(run.folder, model)
        lines = _report(run, spec, choice, scores)
        for line in lines if tell else ():
            _log.info(line)
        checkpoint.save_spec(run.folder, spec)
    distributed.wait()
    return spec


def _size(config: TrainConfig) -> str:
    height, width = config.model.size_hw
    return str(height) if height == width else f"{height}x{width}"


def compares_plain(run: Run) -> bool:
    """Whether a network without intervention is a candidate too."""
    model = run.config.model
    may_choose = model.inference_context == "auto" and model.intervention != "none"
    return run.config.compare_plain and run.held_out and may_choose


def _choose(
    run: Run, model: CausalRecognizer
) -> tuple[CausalRecognizer, NDArray[np.float32], ReadOutChoice]:
    """The network to deploy, set to its read-out, and its scores of the validation part."""
    images, config = run.pictures(run.val), model.config
    scores = score_images(model, images, run.spec)
    if config.inference_context != "auto":
        chosen = "plain" if config.intervention == "none" else config.inference_context
        return model, scores.deployed, ReadOutChoice(chosen, "asked for", {})
    found = read_outs_of(scores, config)
    plain = None
    if compares_plain(run):
        plain = load_model(run.folder / checkpoint.PLAIN)[0].to(distributed.device())
        found["plain"] = score_images(plain, images, run.spec).deployed
    if run.held_out:
        choice = choose_read_out(found, run.val.targets())
    else:
        choice = ReadOutChoice(
            "prior" if "prior" in found else "plain", "no pictures are held out to choose on", {}
        )
    if plain is not None and choice.chosen == "plain":
        return plain, found["plain"], choice
    if config.intervention != "none":
        model.config = replace(config, inference_context=cast("Any", choice.chosen))
    return model, found[choice.chosen], choice


def _say_deployed(choice: ReadOutChoice) -> None:
    _log.info(
        "deployed is the read-out `%s`, %s (%s); docs/train_your_own.md explains read-outs",
        choice.chosen,
        MEANING[choice.chosen],
        choice.reason,
    )


def _measured(run: Run, metrics: MultiLabelMetrics, choice: ReadOutChoice) -> dict[str, float]:
    if not run.held_out or not metrics.num_labels_scored:
        return {}
    others = {f"val_map_{name}": value for name, value in choice.val_map.items()}
    return {"val_map": round(metrics.mean_ap, 4), **others}


def _report(
    run: Run, spec: ModelSpec, choice: ReadOutChoice, scores: NDArray[np.float32]
) -> list[str]:
    """Store what was chosen and what to expect; return what the thresholds do."""
    targets, thresholds = run.val.targets(), np.asarray(spec.thresholds, np.float32)
    labels = expect(scores, targets, thresholds)
    report = {
        "recipe": run.config.recipe,
        "read_out": asdict(choice),
        "judged_by": spec.threshold_fit.data,
        "labels": {n: asdict(item) for n, item in zip(spec.labels, labels, strict=True)},
    }
    checkpoint.save_report(run.folder, report)
    kind = "held-out" if run.held_out else "training"
    return what_thresholds_do(spec, kind, targets > 0, reaches(scores, thresholds))


def what_thresholds_do(
    spec: ModelSpec, kind: str, there: NDArray[np.bool_], named: NDArray[np.bool_]
) -> list[str]:
    """How sure the precision of the decisions (N, L) is, and which labels the engine will not name."""
    lines, hits, count = [], int((named & there).sum()), int(named.sum())
    if count:
        lines.append(
            f"thresholds by {spec.threshold_fit.rule}: {hits} of {count} named labels are right on "
            f"{kind} pictures, precision {hits / count:.2f}, "
            f"at least {lower_bound(hits, count):.2f}"
        )
    silent = [spec.labels[i] for i in np.flatnonzero(there.any(axis=0) & ~named.any(axis=0))]
    if silent:
        other = "precision=0.5" if spec.threshold_fit.rule == "f1" else "f1"
        lines.append(
            f"there on {kind} pictures and never named: {few_of(silent, _SHOWN)}; train longer, add "
            "pictures of them, or export and fit the thresholds by another rule: python -m train "
            f"refit-thresholds --engine DIR --data PHOTOS --checkpoint RUN --rule {other}"
        )
    if absent := [spec.labels[i] for i in np.flatnonzero(~there.any(axis=0))]:
        lines.append(
            f"on no {kind} picture: {few_of(absent, _SHOWN)}; nobody knows how good they are"
        )
    return lines


def _follow_backbone(run: Run, model: CausalRecognizer) -> None:
    """Round to the storage precision, and let the confounders follow a fine-tuned backbone."""
    if run.config.weight_storage == "float16":
        for parameter in model.state_dict().values():
            if parameter.dtype == torch.float32:
                parameter.copy_(parameter.half().float())
    # Confounders of another view stay what that one sees.
    follows = run.config.backbone_lr > 0 and run.confounder_view is None
    if isinstance(model.intervention, BackDoorIntervention) and follows:
        model.eval()
        model.intervention.centres = follow_centres(
            lambda images: model.standardize(run.frozen(images)),
            lambda images: model.standardize(model.backbone(images)),
            model.intervention.centres,
            run.pictures(run.train),
            run.spec,
        ).clone()


def _method(model: CausalRecognizer, config: TrainConfig) -> MethodSpec:
    intervention = model.intervention
    return MethodSpec(
        backbone=config.model.backbone,
        intervention=model.config.intervention,
        inference_context=model.config.inference_context
        if model.config.intervention != "none"
        else "plain",
        num_confounders=0 if intervention is None else len(intervention.centres),
        embed_dim=config.model.embed_dim,
        decoder_layers=config.model.decoder_layers,
    )
