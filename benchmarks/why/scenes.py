"""On drawn scenes: does the map point at the label's object, and does the flag name false alarms?

The network is the label decoder with back-door adjustment, matrix links and the picture's own context, one
layer, on tokens of a frozen backbone. Both questions are asked of scenes as in training (iid) and of
scenes whose context was set from outside (do), where surroundings mislead.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.context_bias.features import load_tokens
from benchmarks.context_bias.methods import BASE, RECIPE
from benchmarks.heads import fit_head, prepare_tokens
from benchmarks.intervals import mean_with_interval
from cmlr_edge.model.explanation import ATTENTION, ExplanationSpec
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.thresholds import fit_thresholds
from cmlr_edge.why import Explain, Reasons
from export.explain import explained, explanation_of
from export.verify import sum_errors
from train.config import ConfounderConfig, TrainConfig
from train.data import read_dataset
from train.data.context_scenes import SceneConfig, SceneTruth, generate, read_truth
from train.fitting.frozen import TokenSet
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalHead

COUNTS = {"train": 700, "val": 200, "iid": 200, "do": 400, "cross": 0}
MARGINS = (-4.0, -3.0, -2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
_MAP_HW, _SIDE, _NEAR = (7, 7), 224, 15  # pixels: what the pointing game calls near enough
PARTS = ("iid", "do")


def run_world(seed: int, work: Path) -> dict[str, Any]:
    """Draw a small world, train one head in it, and answer both questions.

    Args:
        seed: Of the world and of the training.
        work: What is drawn, computed and found is kept here: an interrupted run goes on.
    """
    kept = work / f"found-{seed}.json"
    if kept.is_file():
        found: dict[str, Any] = json.loads(kept.read_text())
        return found
    found = _run(seed, work)
    write_atomically(kept, json.dumps(found).encode())
    return found


def _run(seed: int, work: Path) -> dict[str, Any]:
    folder = work / f"world-{seed}"
    if not (folder / "labels.json").is_file():
        generate(folder, SceneConfig(seed=seed, counts=COUNTS), work / "assets")
    truth, parts = read_truth(folder), load_tokens(folder, work / "tokens", BASE)
    files = {name: [i.path for i in read_dataset(folder).split(name).images] for name in PARTS}
    head = _train(parts["train"], seed)
    meaning = explanation_of(head.eval(), _MAP_HW)
    val = _outputs(head, meaning, parts["val"])
    thresholds = fit_thresholds(
        val["scores"], parts["val"].targets, shrinkage=RECIPE.threshold_shrinkage
    )
    record: dict[str, Any] = {"world": seed, "parts": {}}
    for name in PARTS:
        part, found = parts[name], _outputs(head, meaning, parts[name])
        difference, allowed = sum_errors(found, meaning)
        reasons = [
            Reasons(
                truth.labels,
                found["scores"][i],
                {key: found[key][i] for key in meaning.shapes},
                meaning,
                thresholds,
            )
            for i in range(len(found["scores"]))
        ]
        relative = [str(path.relative_to(folder)) for path in files[name]]
        record["parts"][name] = {
            "sum_within": bool((difference <= allowed).all()),
            "pointing": _pointing(head, part, found[ATTENTION], truth, relative),
            "flag": _flag(reasons, found["scores"], part.targets, thresholds),
        }
    return record


def _outputs(
    head: CausalHead, meaning: ExplanationSpec, part: TokenSet
) -> dict[str, NDArray[np.float32]]:
    with torch.no_grad():
        found = [
            [output.numpy() for output in explained(head, tokens, meaning).values()]
            for tokens in part.batches()
        ]
    names = ["scores", *meaning.shapes]
    return {name: np.concatenate(rows) for name, *rows in zip(names, *found, strict=True)}


def _train(train: TokenSet, seed: int) -> CausalHead:
    confounders = ConfounderConfig(kind="early")
    model = replace(
        BASE, intervention="back-door", inference_context="own", confounders=confounders
    )
    config: TrainConfig = replace(RECIPE, model=model, amp="off", seed=seed)
    return fit_head(config, train, prepare_tokens(config, train))


def _pointing(
    head: CausalHead,
    part: TokenSet,
    maps: NDArray[np.float32],
    truth: SceneTruth,
    files: list[str],
) -> dict[str, float]:
    """Shares of labels that are there whose object the map's maximum lies in, or near."""
    hits: dict[str, list[tuple[bool, bool]]] = {
        "attention": [],
        "Grad-CAM": [],
        "a random cell": [],
    }
    rng, row = np.random.default_rng(0), 0
    for tokens in part.batches():
        cams = grad_cams(head, tokens)
        for image, cam in enumerate(cams):
            for label, box in truth.boxes[files[row]].items():
                index = truth.labels.index(label)
                found = {
                    "attention": maps[row, index].argmax(),
                    "Grad-CAM": cam[index].argmax(),
                    "a random cell": rng.integers(cam[index].size),
                }
                for name, cell in found.items():
                    hits[name].append((_hits(int(cell), box, 0), _hits(int(cell), box, _NEAR)))
            row += 1
            del image
    result: dict[str, float] = {"labels": len(hits["attention"])}
    for name, pairs in hits.items():
        inside, near = np.mean(pairs, axis=0)
        result |= {name: float(inside), f"{name}, within {_NEAR} pixels": float(near)}
    return result


def _hits(cell: int, box: tuple[int, int, int, int], slack: int) -> bool:
    rows, columns = _MAP_HW
    x, y = (cell % columns + 0.5) * _SIDE / columns, (cell // columns + 0.5) * _SIDE / rows
    left, top, right, bottom = box
    return left - slack <= x < right + slack and top - slack <= y < bottom + slack


def grad_cams(head: CausalHead, tokens: Tensor) -> NDArray[np.float32]:
    """Grad-CAM of every label's logit on the tokens (B, T, D) that the head reads: (B, L, T).

    Stored tokens are a linear map of the backbone's, so gradient times token is the same, but for a
    constant that moves no maximum.
    """
    read = tokens.float().clone().requires_grad_()
    output = head.head(read)
    assert isinstance(head.intervention, BackDoorIntervention)
    logits = output.decoupled_logits + head.intervention.context_logits(
        head.intervention.own_context(output.tokens)
    )
    if output.causal_logits is not None:
        logits = logits + output.causal_logits
    cams = []
    for label in range(logits.shape[1]):
        (gradient,) = torch.autograd.grad(logits[:, label].sum(), read, retain_graph=True)
        cams.append((gradient.mean(dim=1, keepdim=True) * read).sum(dim=-1).detach())
    return torch.stack(cams, dim=1).numpy()


def _flag(
    reasons: list[Reasons],
    scores: NDArray[np.float32],
    targets: NDArray[np.float32],
    thresholds: NDArray[np.float32],
) -> dict[str, Any]:
    """Of what is said, how much is false; of what is flagged at each margin, likewise."""
    said = scores >= thresholds
    wrong = said & (targets == 0)
    curve = []
    for margin in MARGINS:
        flagged = np.zeros_like(said)
        for i, why in enumerate(reasons):
            asked = replace(why, settings=Explain(margin))
            for index in np.flatnonzero(said[i]):
                flagged[i, index] = asked[why.labels[index]].because_of_surroundings
        named = int((flagged & wrong).sum())
        curve.append(
            {
                "margin": margin,
                "flagged": int(flagged.sum()),
                "precision": named / max(1, int(flagged.sum())),
                "recall": named / max(1, int(wrong.sum())),
            }
        )
    return {"said": int(said.sum()), "false_alarms": int(wrong.sum()), "curve": curve}


def summarize(worlds: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over worlds, with 95 % intervals (Student's t) of what is compared."""
    summary: dict[str, Any] = {}
    for part in PARTS:
        found = [world["parts"][part] for world in worlds]
        pointing = {
            key: mean_with_interval([f["pointing"][key] for f in found])
            for key in found[0]["pointing"]
            if key != "labels"
        }
        gain = mean_with_interval(
            [f["pointing"]["attention"] - f["pointing"]["Grad-CAM"] for f in found]
        )
        said, wrong = (sum(f["flag"][key] for f in found) for key in ("said", "false_alarms"))
        summary[part] = {
            "labels": sum(f["pointing"]["labels"] for f in found),
            "pointing": pointing,
            "attention less Grad-CAM": gain,
            "said": said,
            "false_alarms": wrong,
            "share_false": wrong / max(1, said),
            "curve": [
                {
                    "margin": margin,
                    "precision": mean_with_interval(
                        [f["flag"]["curve"][i]["precision"] for f in found]
                    ),
                    "recall": mean_with_interval([f["flag"]["curve"][i]["recall"] for f in found]),
                    "flagged": sum(f["flag"]["curve"][i]["flagged"] for f in found),
                }
                for i, margin in enumerate(MARGINS)
            ],
        }
    return summary
