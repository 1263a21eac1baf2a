"""Sums of what explains a score, for every head that can be exported, in both runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.base import ExplainingBackend
from cmlr_edge.errors import EngineError
from cmlr_edge.model.spec import PreprocessSpec
from export.onnx_graph import export_explained
from export.verify import sum_errors, synthetic_frames
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer
from train.settings import build_config

LABELS, _SIDE = 20, 96
HEADS = {
    "decoder": ["model.intervention=none"],
    "decoder without layers": ["model.decoder_layers=0", "model.intervention=none"],
    "ML-Decoder": ["model.head=ml-decoder", "model.intervention=none"],
    "pooled": ["model.head=pooled", "model.intervention=none"],
    "feature-split, own context": ["model.head=feature-split", "model.inference_context=own"],
    "CCD": ["model.head=ccd", "model.intervention=none"],
    "two stages, two layers, pooled tokens, links": [
        "model.token_stages=2", "model.decoder_layers=2", "model.pooled_skip=true",
        "model.confounders.kind=none",
    ],
    **{
        f"{links} links, {context}": [
            f"model.label_links={links}", f"model.inference_context={context}",
        ]
        for links in ("matrix", "gated-attention", "attention")
        for context in ("own", "prior")
    },
    **{
        f"{kind}, sum of logits": [f"model.intervention={kind}", "model.fusion=sum"]
        for kind in ("expectation", "linear", "explicit")
    },
    "expectation, mean of probabilities": ["model.intervention=expectation"],
}  # fmt: skip
_TINY = [
    "model.backbone=test_efficientnet", f"model.image_size={_SIDE}", "model.embed_dim=64",
    "model.num_heads=4", "model.ffn_dim=64",
]  # fmt: skip


def run_sums() -> dict[str, Any]:
    """Largest difference from the score's logit, by head and runtime; or why there is no sum."""
    return {name: _sums_of(settings) for name, settings in HEADS.items()}


def _sums_of(settings: list[str]) -> Any:
    model = _random(settings)
    spec = PreprocessSpec((_SIDE, _SIDE), mean=model.backbone.mean, std=model.backbone.std)
    try:
        graph, _, meaning = export_explained(model, spec)
    except EngineError as error:
        return {"no_sum": str(error)}
    frames, found = synthetic_frames(spec.size_hw, 16), {}
    for provider in ("cpu", "openvino"):
        backend = load_backend(Path("model.onnx"), graph.SerializeToString(), provider=provider)
        assert isinstance(backend, ExplainingBackend)
        outputs = backend.explain(frames)
        backend.close()
        difference, _ = sum_errors(outputs, meaning)
        ordinary = (outputs["scores"] > 0.01) & (outputs["scores"] < 0.99)
        found[provider] = {
            "largest": float(difference[ordinary].max(initial=0)),
            "scores_from_0.01_to_0.99": int(ordinary.sum()),
        }
    return found


def _random(settings: list[str]) -> CausalRecognizer:
    """A network in which no term is nothing: a sum of zeros would prove nothing."""
    torch.manual_seed(0)
    config = build_config({}, [*_TINY, *settings]).model
    model = CausalRecognizer(config, LABELS, pretrained=False).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.startswith("backbone.") and parameter.ndim:
            nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else 0.1)
    if isinstance(model.intervention, BackDoorIntervention):
        for name, buffer in list(model.intervention.named_buffers()):
            value = torch.rand_like(buffer)
            shift = 0.0 if "spread" in name else 0.4  # a variance is not below 0
            setattr(
                model.intervention, name, value / value.sum() if "prior" in name else value - shift
            )
    elif model.intervention is not None:
        nn.init.normal_(model.intervention.centres)
    return model


def largest(found: dict[str, Any]) -> float:
    """Of all heads and runtimes, on scores between 0.01 and 0.99."""
    sums = [
        runtime["largest"]
        for head in found.values()
        if "no_sum" not in head
        for runtime in head.values()
    ]
    return float(np.max(sums))
