"""How many labelled frames until Exclusive errors halve, in worlds of ContextScenes.

A model is trained on scenes in which labels live with their usual company. The pool are frames of another place (other
background photos), most with the usual company, some without. Of the pool each way chooses frames, which
are labelled and added, and the model is trained anew. An Exclusive decision is one about the effect of a spurious pair
where effect and cause are not together: the effect alone, or the cause alone. Its error is a wrong decision at the
stored threshold.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.collect.sampling import choose, kinds_of
from benchmarks.context_bias.features import load_tokens
from benchmarks.context_bias.methods import BASE, RECIPE
from benchmarks.heads import fit_head, prepare_tokens
from benchmarks.records import kept
from benchmarks.size import Size
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.model.thresholds import fit_thresholds
from cmlr_edge.why import Reasons
from export.explain import explained, explanation_of
from train.config import ConfounderConfig
from train.data.base import ContextBias
from train.data.context_scenes import SceneConfig, SceneTruth, generate, read_truth
from train.fitting.frozen import TokenSet
from train.judging.context_bias import score_context_bias
from train.network.model import CausalHead

COUNTS = {"train": 1600, "val": 400, "iid": 800, "do": 1200, "cross": 0}  # a larger world's first
ALONE = 200  # scenes of do(context) in the pool; the others are tested on
BUDGETS = (0, 160, 320)  # labelled frames of the pool
_LEAST = 80  # scenes of a part: a batch has 64
_STEPS, _LEAST_STEPS = 250, 3  # of every training, however many frames there are
_MAP_HW = (7, 7)
_CONFOUNDER_TOKENS = 16_000  # that confounders are built from, of those of all frames


def counts_of(size: Size) -> dict[str, int]:
    """Scenes of each part."""
    return size.counts(COUNTS, _LEAST)


def alone_of(size: Size) -> int:
    """Scenes of do(context) that are in the pool."""
    return size.of(ALONE, _LEAST // 4)


def run_world(
    seed: int, trainings: int, work: Path, ways: Sequence[str], size: Size
) -> dict[str, Any]:
    """Draw a world, and label and train in it by each way.

    Args:
        seed: Of the world.
        trainings: Of each way, each with a seed of its own.
        work: What is drawn, computed and found is kept here: an interrupted run goes on.
        ways: Of `WAYS`.
        size: How much of it.
    """
    folder = work / f"world-{seed}"
    if not (folder / "labels.json").is_file():
        generate(folder, SceneConfig(seed=seed, counts=counts_of(size)), work / "assets")
    world = World(read_truth(folder), load_tokens(folder, work / "tokens", BASE), size)

    def run(way: str, number: int) -> dict[str, Any]:
        return {"way": way, "seed": number, "points": world.follow(way, number)}

    runs = [
        kept(
            work / f"run-{seed}-{zlib.crc32(way.encode()):08x}-{number}.json",
            partial(run, way, number),
        )
        for way in ways
        for number in range(trainings)
    ]
    return {"world": seed, "runs": runs}


@dataclass(frozen=True)
class Model:
    """A trained head, what it can say of itself, and its thresholds (L,)."""

    head: CausalHead
    meaning: ExplanationSpec
    thresholds: NDArray[np.float32]


class World:
    """One world as a frozen backbone sees it."""

    def __init__(self, truth: SceneTruth, parts: dict[str, TokenSet], size: Size) -> None:
        """Divide the scenes into pool and test."""
        self._size, counts = size, counts_of(size)
        parts = {name: _rows(parts[name], np.arange(n)) for name, n in counts.items() if n}
        self._truth, self._start, self._val = truth, parts["train"], parts["val"]
        do, alone = parts["do"], alone_of(size)
        self._test = _rows(do, np.arange(alone, len(do.tokens)))
        self._pool = _together(parts["iid"], _rows(do, np.arange(alone)))
        self._first: dict[int, Model] = {}  # by seed: the same for all ways
        self._is_alone = np.arange(len(self._pool.tokens)) >= len(parts["iid"].tokens)

    def follow(self, way: str, seed: int) -> list[dict[str, Any]]:
        """Label ever more frames of the pool by one way; a point for each budget."""
        left, train, alone = np.arange(len(self._pool.tokens)), self._start, 0
        if seed not in self._first:
            self._first[seed] = self._fit(self._start, seed)
        model = self._first[seed]
        points: list[dict[str, Any]] = [{"budget": 0, "alone": 0} | self._judge(model)]
        for before, budget in pairwise([self._size.of(n, n // 40) for n in BUDGETS]):
            pool = self._reasons(model, _rows(self._pool, left))
            rows = choose(way, pool, budget - before, 1000 * seed + budget)
            alone += int(self._is_alone[left[rows]].sum())
            point = {"budget": budget, "alone": alone, "kinds": kinds_of(pool, rows)}
            train = _together(train, _rows(self._pool, left[rows]))
            left = np.delete(left, rows)
            model = self._fit(train, seed)
            points.append(point | self._judge(model))
        return points

    def _fit(self, train: TokenSet, seed: int) -> Model:
        head = _train(train, seed, self._size.of(_STEPS, _LEAST_STEPS))
        meaning = explanation_of(head, _MAP_HW)
        val = _outputs(head, meaning, self._val)["scores"]
        shrinkage = RECIPE.threshold_shrinkage
        return Model(head, meaning, fit_thresholds(val, self._val.targets, shrinkage=shrinkage))

    def _judge(self, model: Model) -> dict[str, float]:
        scores = _outputs(model.head, model.meaning, self._test)["scores"]
        there, pairs = self._test.targets > 0, self._truth.graph.links("spurious")
        said = scores >= model.thresholds
        missed, false, both = [], [], []
        for effect, cause in pairs:
            alone = there[:, effect] & ~there[:, cause]
            without = ~there[:, effect] & there[:, cause]
            missed.append(1 - said[alone, effect].mean())
            false.append(said[without, effect].mean())
            apart = alone | without
            both.append((said[apart, effect] != there[apart, effect]).mean())
        bias = ContextBias(tuple(pairs), (), "average precision")
        found = score_context_bias(
            scores, self._test.targets, self._truth.labels, bias, resamples=1
        )
        return {
            "exclusive_error": float(np.mean(both)),
            "missed_alone": float(np.mean(missed)),
            "said_without": float(np.mean(false)),
            "exclusive_ap": float(found.exclusive.value or 0.0),
            "all_ap": float(found.all_labels or 0.0),
            "error": float((said != there).mean()),
        }

    def _reasons(self, model: Model, part: TokenSet) -> list[Reasons]:
        found, meaning = _outputs(model.head, model.meaning, part), model.meaning
        return [
            Reasons(
                self._truth.labels,
                found["scores"][i],
                {name: found[name][i] for name in meaning.shapes},
                meaning,
                model.thresholds,
            )
            for i in range(len(part.tokens))
        ]


def _rows(part: TokenSet, rows: NDArray[np.int_]) -> TokenSet:
    return replace(part, tokens=np.asarray(part.tokens[rows]), targets=part.targets[rows])


def _together(first: TokenSet, second: TokenSet) -> TokenSet:
    tokens, targets = (
        np.concatenate([getattr(part, name) for part in (first, second)])
        for name in ("tokens", "targets")
    )
    return replace(first, tokens=tokens, targets=targets)


def _train(train: TokenSet, seed: int, steps: int) -> CausalHead:
    model = replace(
        BASE,
        intervention="back-door",
        inference_context="own",
        confounders=ConfounderConfig(kind="early", max_tokens=_CONFOUNDER_TOKENS),
    )
    epochs = max(1, round(steps / (len(train.tokens) // RECIPE.batch_size)))
    config = replace(RECIPE, model=model, seed=seed, epochs=epochs)
    return fit_head(config, train, prepare_tokens(config, train)).eval()


def _outputs(
    head: CausalHead, meaning: ExplanationSpec, part: TokenSet
) -> dict[str, NDArray[np.float32]]:
    names = ["scores", *meaning.shapes]
    with torch.no_grad():
        found = [
            [output.numpy() for output in explained(head, tokens, meaning).values()]
            for tokens in part.batches()
        ]
    return {name: np.concatenate(rows) for name, *rows in zip(names, *found, strict=True)}
