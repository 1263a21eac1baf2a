"""What a trained model takes for a cause: numbers as JSON, and the figures that show them.

After the figures of the NeurIPS 2024 paper: P(Y) beside P(Y | do(X)), the map of label links, heat
maps per label (Grad-CAM, Selvaraju et al. 2017), and a view of the label features (t-SNE).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cmlr_edge.errors import DataError
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.wording import counted, few_of
from train.confounders.clustering import cosine_to_centres
from train.data.base import LabeledImages
from train.data.transforms import ImageTensors
from train.explaining.drawing import shown
from train.explaining.figures import (
    READABLE,
    draw_bars,
    draw_company,
    draw_heat_maps,
    draw_link_map,
    draw_patches,
    draw_scatter,
)
from train.explaining.link_effects import cooccurrence, swap_effects
from train.explaining.views import (
    FEWEST,
    Seen,
    choose,
    company_of_absent,
    see,
    shades,
    token_grid,
    view_all,
)
from train.fitting.frozen import TokenSet
from train.judging.inference import iterate_tokens
from train.network.backbones import create_confounder_view
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer

_STRONGEST = 15  # links listed
_SCATTER_IMAGES, _SCATTER_POINTS = 200, 800
_IMAGES, _OF_EACH_LABEL = 1000, 4  # looked at; rates and co-occurrence are of all
_PATCHES = 6  # per confounder


@dataclass(frozen=True)
class Link:
    """How one label moves another."""

    cause: str
    effect: str
    causal: float  # change of P(effect) when the cause is set, in [-1, 1]
    cooccurrence: float  # P(effect | cause) - P(effect | no cause) in the data


def explain(
    model: CausalRecognizer,
    spec: ModelSpec,
    data: LabeledImages,
    cause: str,
    folder: Path,
    *,
    beside: tuple[CausalRecognizer, ModelSpec] | None = None,
    absent: str | None = None,
    names: tuple[str, str] = ("this run", "the other"),
    report: Callable[[str], None] = lambda _step: None,
) -> dict[str, Any]:
    """Write the figures of one model on one split, and return their numbers.

    Args:
        model: In evaluation mode, with a causal branch.
        spec: Its labels and input format.
        data: Pictures with the model's classes.
        cause: The label that the bars are drawn for.
        folder: Created; holds do.png, links.png, heat_maps.png, absent.png, features.png and
            confounders.png.
        beside: Another network with the same labels, as the baseline, to look at the same pictures.
        absent: Label that heat maps are drawn of where it is not; None: each picture's surest.
        names: What both are called in the figures.
        report: Told what is being done.

    Raises:
        DataError: A label or the classes are others than the model's, or it has no causal branch.
    """
    _check(model, spec, data, cause, beside, absent)
    folder.mkdir(parents=True, exist_ok=True)
    every, together = data.targets(), cooccurrence(data.targets(), data.known())
    data = replace(data, images=tuple(data.images[i] for i in _choose_images(every)))
    report(f"reading {counted(len(data.images), 'picture')}")
    networks = [see(names[0], model, spec, data)]
    if beside is not None:
        networks.append(see(names[1], *beside, data))
    report("swapping labels")
    tokens = networks[0].tokens.half().numpy()
    effects = swap_effects(model, TokenSet(tokens, data.targets(), model.backbone.finer_channels))
    report("drawing")
    record = {
        "cause": cause,
        "num_images": len(every),
        "num_images_looked_at": len(data.images),
        "points": _draw_inside(networks[0], data.targets() > 0, folder),
        **_draw_links(effects, every, together, spec.labels, cause, folder),
        **_look_for_labels(networks, data, together, cause, absent, folder),
    }
    record["not_written"] = _nothing_to_draw(record, model)
    for name in record["not_written"]:
        (folder / name).unlink(missing_ok=True)  # of what was explained before
    return record


def _nothing_to_draw(record: dict[str, Any], model: CausalRecognizer) -> dict[str, str]:
    """Figures that there is nothing for: file -> why."""
    looked_at = f"on the {counted(record['num_images_looked_at'], 'picture')} looked at"
    too_few = f"{FEWEST} times with its usual company and {FEWEST} times without"
    drawn = {
        "heat_maps.png": (record["heat_maps"], f"no label is missing {looked_at}"),
        "absent.png": (
            any(record["absent"].values()),
            f"{looked_at} no label is missing {too_few}: add pictures, or take another --split",
        ),
        "features.png": (
            record["points"]["label_features"],
            "this network has no feature of each label",
        ),
        "confounders.png": (model.intervention is not None, "this network has no confounders"),
    }
    return {name: why for name, (there, why) in drawn.items() if not there}


def _draw_inside(network: Seen, there: NDArray[np.bool_], folder: Path) -> dict[str, int]:
    """Draw features of labels that are there (N, L), and what each confounder looks at, if any."""
    model, spec, images = network.model, network.spec, network.images
    tokens = network.tokens
    points = _draw_features(model, tokens, there, spec.labels, folder / "features.png")
    if model.intervention is not None:
        seen = _confounder_tokens(model, tokens, images, spec)
        patches = _nearest_patches(seen, model.intervention.centres, images)
        draw_patches(patches, folder / "confounders.png")
    return points


def _draw_links(
    effects: NDArray[np.float32],
    targets: NDArray[np.float32],
    together: NDArray[np.float32],
    labels: tuple[str, ...],
    cause: str,
    folder: Path,
) -> dict[str, Any]:
    """Draw what labels do to each other, (L, L), beside what goes together in the data."""
    index, rates = labels.index(cause), targets.mean(axis=0)
    draw_bars(rates, effects[:, index], labels, cause, folder / "do.png")
    draw_link_map(effects, together, labels, folder / "links.png")
    links, strongest = _list_links(effects, together, labels), float(np.abs(effects).max())
    return {
        "p": dict(zip(labels, map(float, rates), strict=True)),
        "p_change_do": dict(zip(labels, map(float, effects[:, index]), strict=True)),
        "strongest_effect": strongest,
        "readable": strongest >= READABLE,
        "strongest": [vars(link) for link in links[:_STRONGEST]],
        "most_suppressed": [vars(link) for link in _most_suppressed(links)[:_STRONGEST]],
    }


def _look_for_labels(
    networks: list[Seen],
    data: LabeledImages,
    together: NDArray[np.float32],
    cause: str,
    absent: str | None,
    folder: Path,
) -> dict[str, Any]:
    """Heat maps of labels that are there and that are not, and what company does to the latter."""
    labels, targets = data.classes, data.targets()
    missing = None if absent is None else labels.index(absent)
    chosen = choose(networks, data, missing, labels.index(cause))
    views = view_all(networks, chosen, targets)
    rows: dict[int, list[Any]] = {}
    for view, shade in zip(views, shades(views), strict=True):
        there = "" if view.there else "NOT THERE, "
        title = f"{shown(labels[view.label])}, {there}{view.name}: {view.score:.2f}"
        picture = networks[0].images[view.picture].permute(1, 2, 0).numpy()
        rows.setdefault(view.picture, []).append((picture, shade, title))
    draw_heat_maps([*rows.values()], folder)
    company = {seen.name: company_of_absent(seen, data, together) for seen in networks}
    draw_company(company, folder / "absent.png")
    return {
        "heat_maps": [
            {
                "picture": data.images[view.picture].path.name,
                "label": labels[view.label],
                "there": view.there,
                "by": view.name,
                "score": view.score,
            }
            for view in views
        ],
        "absent": {name: [vars(item) for item in found] for name, found in company.items()},
    }


def _check(
    model: CausalRecognizer,
    spec: ModelSpec,
    data: LabeledImages,
    cause: str,
    beside: tuple[CausalRecognizer, ModelSpec] | None,
    absent: str | None,
) -> None:
    if data.classes != spec.labels:
        raise DataError(f"{data.name} has other classes than the run")
    if beside is not None and beside[1].labels != spec.labels:
        raise DataError(
            "both runs should have the same labels in the same order: train on one data"
        )
    for label in {cause, absent} - {None}:
        if label not in spec.labels:
            raise DataError(f"the run has no label {label!r}: it has {few_of(spec.labels, 8)}")
    if model.links is None and (
        model.intervention is None or isinstance(model.intervention, BackDoorIntervention)
    ):
        raise DataError(
            "the run has no label links to explain: `fit` it again into another --out, with "
            "--set compare_plain=false if `fit` chose the network without links (`plain`), with "
            "--set model.label_links=matrix if links were switched off"
        )


def _list_links(
    effects: NDArray[np.float32], together: NDArray[np.float32], labels: tuple[str, ...]
) -> list[Link]:
    """Every pair, the strongest effect first."""
    links = [
        Link(labels[i], labels[j], float(effects[j, i]), float(together[j, i]))
        for j in range(len(labels))
        for i in range(len(labels))
        if i != j
    ]
    return sorted(links, key=lambda link: -abs(link.causal))


def _most_suppressed(links: list[Link]) -> list[Link]:
    """Pairs that go together in the data and not in the model."""
    return sorted(links, key=lambda link: -(abs(link.cooccurrence) - abs(link.causal)))


def _choose_images(targets: NDArray[np.float32]) -> list[int]:
    """Take at most `_IMAGES`, a few of every label among them."""
    order = np.random.default_rng(0).permutation(len(targets))
    first = [i for label in targets[order].T for i in order[label > 0][:_OF_EACH_LABEL]]
    chosen = [*dict.fromkeys(map(int, [*first, *order]))][:_IMAGES]
    return sorted(chosen)


def _confounder_tokens(
    model: CausalRecognizer, tokens: torch.Tensor, images: ImageTensors, spec: ModelSpec
) -> torch.Tensor:
    """The images' tokens (N, T, D) as they were clustered."""
    view = create_confounder_view(model.config)
    if view is None:
        with torch.no_grad():
            return model.standardize(tokens)
    own_input = replace(spec.preprocess, mean=view.mean, std=view.std)
    return torch.cat(list(iterate_tokens(view, images, own_input)))


def _nearest_patches(
    tokens: torch.Tensor, centres: torch.Tensor, images: ImageTensors
) -> list[list[NDArray[np.uint8]]]:
    """For every confounder, what lies around the tokens nearest to it, of different pictures."""
    cosine = cosine_to_centres(tokens, centres)
    best, place = cosine.max(dim=1)  # (N, K): each picture's nearest token
    height, width = images[0].shape[1:]
    columns = token_grid(tokens.shape[1], (height, width))[1]
    rows = []
    for confounder in range(cosine.shape[2]):
        nearest = best[:, confounder].topk(min(_PATCHES, len(best))).indices.tolist()
        rows.append([_crop(images[i], int(place[i, confounder]), columns) for i in nearest])
    return rows


def _crop(picture: torch.Tensor, token: int, columns: int) -> NDArray[np.uint8]:
    """Cut the token's cell and as much around it, (h, w, 3) RGB, from a picture (3, H, W)."""
    cell = picture.shape[2] / columns
    size = round(2 * cell)
    top, left = (
        min(max(0, round((k - 0.5) * cell)), max(0, side - size))
        for k, side in zip(divmod(token, columns), picture.shape[1:], strict=True)
    )
    patch: NDArray[np.uint8] = (
        picture[:, top : top + size, left : left + size].permute(1, 2, 0).numpy()
    )
    return patch


@torch.no_grad()
def _draw_features(
    model: CausalRecognizer,
    tokens: torch.Tensor,
    there: NDArray[np.bool_],
    labels: tuple[str, ...],
    path: Path,
) -> dict[str, int]:
    """Draw the features of the labels that are there, or of all where hardly any is; and confounders.

    Returns:
        How many points of each kind were drawn.
    """
    features = model.head(tokens[:_SCATTER_IMAGES]).label_features
    if features is None:
        return {"label_features": 0, "confounders": 0}
    chosen = torch.from_numpy(there[:_SCATTER_IMAGES]).nonzero()
    if len(chosen) < 5:
        chosen = torch.ones(features.shape[:2]).nonzero()
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))]
    chosen = chosen[:_SCATTER_POINTS]
    names = [labels[int(label)] for _, label in chosen]
    confounders = _confounder_features(model)
    draw_scatter(features[chosen[:, 0], chosen[:, 1]].numpy(), names, confounders.numpy(), path)
    return {"label_features": len(chosen), "confounders": len(confounders)}


def _confounder_features(model: CausalRecognizer) -> torch.Tensor:
    """Confounders in the space of the label features, (K, d); none where they are not in it."""
    intervention = model.intervention
    if isinstance(intervention, BackDoorIntervention):
        if model.decoder is None or model.config.confounders.other_view:
            return torch.zeros(0, model.config.embed_dim)
        return model.decoder.memory(intervention.centres)  # as the label queries see them
    if intervention is None:
        return torch.zeros(0, model.config.embed_dim)
    return intervention.projected()[0]


def write_explanation(record: dict[str, Any], folder: Path) -> None:
    """Write what `explain` returned as explanation.json."""
    text = json.dumps(record, indent=2, allow_nan=False) + "\n"
    write_atomically(folder / "explanation.json", text.encode())
