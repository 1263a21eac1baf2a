"""Where networks look for labels that are there and for labels that are not, side by side.

A label that is not there and still scores high is told by something else: its usual company.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cmlr_edge.model.spec import ModelSpec
from train.data.base import LabeledImages
from train.data.transforms import ImageTensors, normalize
from train.judging.inference import BATCH, iterate_tokens
from train.network.model import CausalRecognizer

_PICTURES, _PRESENT = 4, 2  # pictures shown, and their own labels
_PAIRS = 12  # of a label and its company
FEWEST = 3  # pictures behind a mean
_LEAST_HEAT = 0.05  # of a logit: below, a map is pale and not scaled up


@dataclass(frozen=True)
class Seen:
    """One network, and what it makes of the pictures."""

    name: str
    model: CausalRecognizer
    spec: ModelSpec
    images: ImageTensors
    tokens: Tensor  # (N, T, D)
    scores: NDArray[np.float32]  # (N, L), as deployed


@dataclass(frozen=True)
class View:
    """Grad-CAM of one label on one picture by one network."""

    picture: int
    label: int
    there: bool
    name: str  # of network or read-out
    score: float
    heat: NDArray[np.float32]  # (side, side), >= 0, in logits


@dataclass(frozen=True)
class Company:
    """Mean scores of a label on pictures that do not show it."""

    label: str
    company: str
    with_company: float
    without_company: float
    pictures: tuple[int, int]  # with, without


def see(name: str, model: CausalRecognizer, spec: ModelSpec, data: LabeledImages) -> Seen:
    """Look at every picture of `data` once."""
    images = ImageTensors(data, spec.preprocess)
    tokens = torch.cat(list(iterate_tokens(model.backbone, images, spec.preprocess)))
    with torch.no_grad():
        scores = [model.scores(model.head(batch)).numpy() for batch in tokens.split(BATCH)]
    return Seen(name, model, spec, images, tokens, np.concatenate(scores))


def choose(
    networks: list[Seen], data: LabeledImages, absent: int | None, wanted: int
) -> list[tuple[int, int]]:
    """Choose (picture, label): what any network is surest of that is not there, and what is there.

    Args:
        networks: One or two.
        data: The pictures.
        absent: The label that is not there; None: of each picture the one with the highest score.
        wanted: A label that is to be seen where it is there, if it is anywhere.
    """
    highest = np.max([network.scores for network in networks], axis=0)
    targets, looked = data.targets(), data.known()
    missing = np.where(targets > 0, -np.inf, highest)
    if looked is not None:  # what nobody looked for may be there
        missing = np.where(looked, missing, -np.inf)
    if absent is not None:
        missing[:, [label for label in range(missing.shape[1]) if label != absent]] = -np.inf
    best = missing.max(axis=1, initial=-np.inf)
    order = [i for i in np.argsort(-best, kind="stable") if np.isfinite(best[i])]
    chosen = order[:_PICTURES]
    having = [i for i in order if targets[i, wanted] > 0]
    if having and not set(having) & set(chosen):
        chosen[-1] = max(having, key=lambda i: highest[i, wanted])
    found = []
    for picture in chosen:
        own = np.flatnonzero(targets[picture])
        # The wanted one first, then the surest.
        own = own[np.lexsort((-highest[picture, own], own != wanted))][:_PRESENT]
        labels = [*own, int(missing[picture].argmax())]
        found += [(int(picture), int(label)) for label in labels]
    return found


def view_all(
    networks: list[Seen], chosen: list[tuple[int, int]], targets: NDArray[np.float32]
) -> list[View]:
    """Every chosen label by every network; of a single one by its decoder too, if more is deployed."""
    views = []
    decoder_alone = networks[0].model.config.inference_context == "decoder"
    both = len(networks) == 1 and not decoder_alone
    for picture, label in chosen:
        for network in networks:
            for read_out in ("decoder", "deployed") if both else ("deployed",):
                name = read_out if len(networks) == 1 else network.name
                heat, score = _grad_cam(network, picture, label, read_out)
                there = bool(targets[picture, label])
                views.append(View(picture, label, there, name, score, heat))
    return views


def _grad_cam(
    network: Seen, picture: int, label: int, read_out: str
) -> tuple[NDArray[np.float32], float]:
    model, spec = network.model, network.spec
    image = normalize(network.images[picture][None], spec.preprocess)
    tokens = model.backbone(image).detach().requires_grad_()
    output = model.head(tokens)
    logits = output.decoupled_logits if read_out == "decoder" else model.scores(output).logit()
    (gradient,) = torch.autograd.grad(logits[0, label], tokens)
    heat = (gradient.mean(dim=1, keepdim=True) * tokens).sum(dim=-1).relu()[0].detach()
    rows, columns = token_grid(len(heat), spec.preprocess.size_hw)
    laid_out = heat[: rows * columns].view(rows, columns).numpy()
    return laid_out, float(logits[0, label].detach().sigmoid())


def token_grid(number: int, size_hw: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns of so many tokens of a picture of this size, whose cells are square."""
    rows = max(1, round((number * size_hw[0] / size_hw[1]) ** 0.5))
    return rows, max(1, number // rows)


def shades(views: list[View]) -> list[NDArray[np.float32]]:
    """Heat in [0, 1], on one scale for all views of a label on a picture, and with a floor."""
    largest: dict[tuple[int, int], float] = {}
    for view in views:
        key = (view.picture, view.label)
        largest[key] = max(largest.get(key, _LEAST_HEAT), float(view.heat.max()))
    return [view.heat / largest[view.picture, view.label] for view in views]


def company_of_absent(
    network: Seen, data: LabeledImages, together: NDArray[np.float32]
) -> list[Company]:
    """What a label's company does to its score where the label is not there.

    Args:
        network: Its scores.
        data: The pictures; pairs that they name come before the ones that go together most.
        together: (L, L), co-occurrence as `link_effects.cooccurrence` gives it.
    """
    there, labels, looked = data.targets() > 0, data.classes, data.known()
    away = ~there if looked is None else ~there & looked
    found: list[Company] = []
    named = [] if data.context_bias is None else [*data.context_bias.pairs]
    order = np.argsort(-together.max(axis=1), kind="stable")
    pairs = named or [(int(b), int(together[b].argmax())) for b in order]
    for label, company in pairs:
        rows = [away[:, label] & there[:, company], away[:, label] & away[:, company]]
        counts = (int(rows[0].sum()), int(rows[1].sum()))
        if min(counts) >= FEWEST and len(found) < _PAIRS:
            means = [float(network.scores[row, label].mean()) for row in rows]
            found.append(Company(labels[label], labels[company], means[0], means[1], counts))
    return found
