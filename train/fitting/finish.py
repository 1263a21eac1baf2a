"""From trained weights to a finished run folder: confounders, thresholds, weights and spec."""

from __future__ import annotations

from importlib.metadata import version

import torch

from cmlr_edge.model.spec import MethodSpec, ModelSpec, Provenance, ThresholdFit
from train import distributed
from train.config import TrainConfig
from train.data.transforms import ImageTensors
from train.fitting.run import Run
from train.judging.inference import follow_centres, score_images
from train.judging.metrics import MIN_POSITIVES, evaluate_scores
from train.judging.thresholds import ThresholdRule, fit_thresholds
from train.network import checkpoint
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer


def finish(run: Run, model: CausalRecognizer) -> ModelSpec:
    """Score the validation part, fit thresholds, and write weights and spec."""
    _follow_backbone(run, model)
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
    if distributed.is_first():
        checkpoint.save_weights(run.folder, model)
        checkpoint.save_spec(run.folder, spec)
    distributed.wait()
    return spec


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
            ImageTensors(run.train, run.spec),
            run.spec,
        ).clone()


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
