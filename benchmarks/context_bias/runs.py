"""One head trained on stored tokens and scored on every part; many of them side by side."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from benchmarks.context_bias.features import load_tokens
from benchmarks.context_bias.methods import BASE, METHODS, RECIPE, Method
from benchmarks.heads import fit_head, precision_of, prepare_tokens, score_tokens
from benchmarks.natural.bias_models import bias_logits
from benchmarks.side_by_side import run_side_by_side
from train.config import ConfounderConfig, ModelConfig, TrainConfig
from train.data.base import ContextBias
from train.data.context_scenes import SceneTruth, read_truth
from train.explaining.link_effects import cooccurrence, swap_effects
from train.fitting.frozen import TokenSet
from train.fitting.prepare import Preparation
from train.judging.context_bias import score_context_bias
from train.judging.inference import DatasetScores
from train.judging.metrics import average_precisions
from train.judging.read_out import choose_read_out, read_outs_of
from train.network.model import CausalHead

CHOSEN = "chosen"  # the read-out that `fit` would deploy
_FIRST_EPOCHS, _JTT_WEIGHT = 5, 5.0  # of JTT, as on re-sampled photos
SCORED_PARTS = ("val", "iid", "do", "cross")


@dataclass(frozen=True)
class Job:
    """One run to do."""

    method: str
    scenes: str  # folder
    seed: int
    batch_size: int = RECIPE.batch_size

    @property
    def key(self) -> str:
        """Names the run in the file of results."""
        return f"{self.method} | {Path(self.scenes).name} | {self.seed}"


def run_all(
    jobs: list[Job], cache: Path, results: Path, *, workers: int, report: Callable[[Job], None]
) -> None:
    """Do the jobs that `results`, JSON lines, does not hold yet; append each as it ends."""
    done = finished_keys(results)
    todo = [job for job in jobs if job.key not in done]
    for job in jobs:
        if job.key in done:
            report(job)
    for job, record in run_side_by_side(partial(run, cache=cache), todo, workers):
        with results.open("a") as file:
            file.write(json.dumps(record) + "\n")
        report(job)


def finished_keys(results: Path) -> set[str]:
    """Names of the runs that a file of JSON lines holds; none where there is no file."""
    lines = results.read_text().splitlines() if results.is_file() else []
    return {json.loads(line)["key"] for line in lines}


def run(job: Job, cache: Path) -> dict[str, Any]:
    """Train and score one head."""
    started = time.process_time()
    method = next(m for m in METHODS if m.name == job.method)
    truth, parts = _open(job.scenes, str(cache))
    config = replace(
        RECIPE,
        model=method.model,
        lr=method.lr,
        link_sparsity=method.link_sparsity,
        seed=job.seed,
        batch_size=job.batch_size,
    )
    train = parts["train"]
    prepared = _prepared(job.scenes, str(cache), _key(config))
    beside = bias_logits("pooled", train, job.seed) if method.pooled_bias else None
    stress = _stress(method, config, train, prepared, truth)
    head = fit_head(config, train, prepared, beside=beside, **stress)
    scores = {part: score_tokens(head, parts[part]) for part in SCORED_PARTS}
    chosen = choose_read_out(read_outs_of(scores["val"], head.config), parts["val"].targets)
    return {
        "key": job.key,
        "method": method.name,
        "scenes": Path(job.scenes).name,
        "seed": job.seed,
        "precision": precision_of(config),
        "parts": {
            part: _score(found, head.config, chosen.chosen, parts[part].targets, truth)
            for part, found in scores.items()
        },
        # What `fit` would deploy: on held-out scenes like those of the training.
        "read_out": {"chosen": chosen.chosen, "val_map": chosen.val_map},
        "links": _links(head, method, parts["iid"], truth),
        # Of one thread: what else the machine does hardly shows in it.
        "cpu_seconds": round(time.process_time() - started, 1),
    }


@lru_cache(maxsize=2)
def _open(scenes: str, cache: str) -> tuple[SceneTruth, dict[str, TokenSet]]:
    return read_truth(Path(scenes)), load_tokens(Path(scenes), Path(cache), BASE)


def _key(config: TrainConfig) -> tuple[ConfounderConfig, str, str, int]:
    """What the preparation depends on."""
    model = config.model
    return model.confounders, model.intervention, model.head, config.seed


@lru_cache(maxsize=8)
def _prepared(scenes: str, cache: str, key: tuple[ConfounderConfig, str, str, int]) -> Preparation:
    confounders, intervention, head, seed = key
    model = replace(
        BASE,
        confounders=confounders,
        intervention=intervention,  # type: ignore[arg-type]
        label_links="none",
        head=head if head == "ccd" else "decoder",  # type: ignore[arg-type]
    )
    return prepare_tokens(replace(RECIPE, model=model, seed=seed), _open(scenes, cache)[1]["train"])


def _stress(
    method: Method,
    config: TrainConfig,
    train: TokenSet,
    prepared: Preparation,
    truth: SceneTruth,
) -> dict[str, Any]:
    """Which examples count more than others, and how much: those that are known, or that a first head gets wrong."""
    if method.jtt and not method.knows_pairs:
        first = fit_head(replace(config, epochs=_FIRST_EPOCHS), train, prepared)
        wrong = (score_tokens(first, train).deployed > 0.5) != (train.targets > 0)
        return {"exclusive": wrong, "exclusive_weight": _JTT_WEIGHT}
    known = exclusive_examples(truth, train.targets) if method.knows_pairs else None
    return {"exclusive": known, "exclusive_weight": method.exclusive_weight}


def exclusive_examples(truth: SceneTruth, targets: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N, L): where the effect of a spurious pair stands without its cause."""
    exclusive = np.zeros(targets.shape, bool)
    for effect, cause in truth.graph.links("spurious"):
        exclusive[:, effect] = (targets[:, effect] > 0) & (targets[:, cause] == 0)
    return exclusive


def _score(
    scores: DatasetScores,
    model: ModelConfig,
    chosen: str,
    targets: NDArray[np.float32],
    truth: SceneTruth,
) -> dict[str, dict[str, float]]:
    """Metrics of every read-out, in percent, and the mean negative log-likelihood."""
    read_outs = {"deployed": scores.deployed}
    if scores.own_context is not None and scores.prior_context is not None:
        read_outs = {"prior": scores.prior_context, "own": scores.own_context}
    if model.intervention != "none":
        read_outs[CHOSEN] = read_outs_of(scores, model)[chosen]
    return {name: _metrics(values, targets, truth) for name, values in read_outs.items()}


def _metrics(
    scores: NDArray[np.float32], targets: NDArray[np.float32], truth: SceneTruth
) -> dict[str, float]:
    bias = ContextBias(tuple(truth.graph.links("spurious")), (), "average precision")
    found = score_context_bias(scores, targets, truth.labels, bias, resamples=1)
    ap = average_precisions(scores, targets)
    caused = [effect for effect, _ in truth.graph.links("causal")]
    p = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    return {
        "exclusive": 100 * (found.exclusive.value or 0.0),
        "co_occur": 100 * (found.co_occur.value or 0.0),
        "all": 100 * float(np.nanmean(ap)),
        "causal_effects": 100 * float(np.nanmean(ap[caused])),
        "nll": float(-(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean()),
    }


def _links(
    head: CausalHead, method: Method, part: TokenSet, truth: SceneTruth
) -> dict[str, dict[str, float]]:
    """Link recovery by do-swap, and by raw co-occurrence for comparison."""
    maps = {"co-occurrence": cooccurrence(part.targets)}
    if head.links is not None or method.model.intervention in {"expectation", "linear", "explicit"}:
        maps["do-swap"] = swap_effects(head, part)
    direct, spurious = (truth.graph.links(kind) for kind in ("causal", "spurious"))
    return {name: link_recovery(effects, direct, spurious) for name, effects in maps.items()}


def link_recovery(
    effects: NDArray[np.float32], direct: list[tuple[int, int]], spurious: list[tuple[int, int]]
) -> dict[str, float]:
    """How a map of effects (L, L) ranks true direct links against pairs that only share a context.

    Both are given as (effect, cause); strengths are mean absolute effects.
    """
    true, false = (np.abs([effects[link] for link in links]) for links in (direct, spurious))
    kinds = np.repeat([1, 0], [len(true), len(false)])
    return {
        "auc": float(roc_auc_score(kinds, np.concatenate([true, false]))),
        "causal": float(true.mean()),
        "spurious": float(false.mean()),
    }
