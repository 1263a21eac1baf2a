"""Every option of the network, as networks in which nothing is zero or one."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn

from cmlr_edge.model.spec import PreprocessSpec
from tests.tiny_training import tiny_config
from train.config import ModelConfig
from train.confounders.clustering import Confounders
from train.network.baselines import CcdClassifier
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer

LABELS = 3
# Of other kinds: padding as TensorFlow's, squeezes and hard swishes, residual blocks.
BACKBONES = ["tf_efficientnet_lite0", "mobilenetv3_small_100", "resnet50"]
HEADS = {
    "pooled": ["model.head=pooled", "model.intervention=none"],
    "pooled with links": ["model.head=pooled"],
    "ml-decoder": ["model.head=ml-decoder", "model.intervention=none"],
    "ml-decoder, attention links": ["model.head=ml-decoder", "model.label_links=attention"],
    "ccd": ["model.head=ccd", "model.intervention=none"],
    "feature-split": ["model.head=feature-split", "model.intervention=none"],
    "feature-split, own context": ["model.head=feature-split", "model.inference_context=own"],
    "decoder": ["model.intervention=none"],
    "no layer": ["model.decoder_layers=0", "model.label_links=attention"],
    "ml-decoder, no layer": ["model.head=ml-decoder", "model.decoder_layers=0"],
    "two stages": ["model.token_stages=2"],
    "no confounders": ["model.confounders.kind=none"],
    "expectation, no confounders": [
        "model.intervention=expectation", "model.confounders.kind=none",
    ],
    "linear, no confounders": ["model.intervention=linear", "model.confounders.kind=none"],
    "pooled skip": ["model.pooled_skip=true"],
    "class maps": ["model.class_maps=true"],
    "class maps alone": ["model.class_maps=true", "model.pooled_skip=false"],
    "wide": ["model.embed_dim=704"],  # more than half the features: the projection is composed
    "wide, two layers": ["model.embed_dim=992", "model.decoder_layers=2"],
}  # fmt: skip
BRANCHES = {
    **{
        f"{links}, {context}": [f"model.label_links={links}", f"model.inference_context={context}"]
        for links in ("matrix", "attention", "gated-attention", "none")
        for context in ("prior", "own")
    },
    **{
        f"{kind}, {fusion}": [f"model.intervention={kind}", f"model.fusion={fusion}"]
        for kind in ("expectation", "explicit", "linear")
        for fusion in ("mean", "sum")
    },
}
DECODERS = {
    "one layer": [],
    "two layers, one head": [
        "model.decoder_layers=2", "model.self_attention=true", "model.num_heads=1",
    ],
}  # fmt: skip
CASES = {
    **HEADS,
    **{f"{name}, standardised": [*s, "model.standardize_tokens=true"] for name, s in HEADS.items()},
    **{
        f"{branch}, {decoder}, own cause {own}": [
            *BRANCHES[branch], *DECODERS[decoder], f"model.include_self={own}",
        ]
        for branch, decoder, own in itertools.product(BRANCHES, DECODERS, ("true", "false"))
    },
}  # fmt: skip


# The cases that are exported. PyTorch takes seconds to trace one, so a head that any branch may stand behind is
# tried with two of them, once with each decoder; and it is done once for all tests, see conftest.py.
_OPEN: dict[str, list[str]] = {
    name: HEADS.get(name, [])
    for name in (
        *("wide", "two stages", "pooled skip", "class maps", "class maps alone"),
        *("plain", "wide, two layers"),
    )
}
TRACED = {
    **{
        name: [*HEADS[name], f"model.standardize_tokens={str(i % 2 == 1).lower()}"]
        for i, name in enumerate(name for name in HEADS if name not in _OPEN)
    },
    **{
        f"{branch}, {head}": [
            *BRANCHES[branch], *list(DECODERS.values())[i % 2], *_OPEN[head],
            f"model.include_self={str(i // 2 % 2 == 0).lower()}",
        ]
        for i, (branch, head) in enumerate(zip(BRANCHES, itertools.cycle(_OPEN)))
    },
}  # fmt: skip


def randomized(config: ModelConfig) -> CausalRecognizer:
    """A network in which nothing is zero or one, as after long training."""
    torch.manual_seed(0)
    model = CausalRecognizer(config, LABELS, pretrained=False).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.startswith("backbone.") and parameter.ndim:
            nn.init.normal_(parameter, std=0.3 if parameter.ndim == 1 else 0.1)
    nn.init.normal_(model.token_mean)
    nn.init.uniform_(model.token_scale, 0.2, 2)
    if isinstance(model.classifier, CcdClassifier):
        nn.init.normal_(model.classifier.memory)
    intervention = model.intervention
    if isinstance(intervention, BackDoorIntervention):
        for name, buffer in list(intervention.named_buffers()):
            value = torch.rand_like(buffer)
            shift = 0.0 if "spread" in name else 0.4  # a variance is not below 0
            setattr(intervention, name, value / value.sum() if "prior" in name else value - shift)
    elif intervention is not None:
        centres = torch.randn_like(intervention.centres)
        intervention.set_confounders(Confounders(centres, torch.tensor([0.1, 0.2, 0.3, 0.4])))
    return model


def small(*settings: str) -> ModelConfig:
    return tiny_config("model.pooled_skip=false", *settings).model


def on_backbone(name: str) -> CausalRecognizer:
    """One of `BACKBONES` with an attention for the kernel, and a plain one: the intervention has one head."""
    heads = ["model.intervention=expectation", "model.embed_dim=128", "model.num_heads=2"]
    return randomized(tiny_config(f"model.backbone={name}", *heads).model)


def input_spec(model: CausalRecognizer, size: int = 64) -> PreprocessSpec:
    return PreprocessSpec((size, size), mean=model.backbone.mean, std=model.backbone.std)


def random_frames(number: int, size: int = 64) -> Tensor:
    return torch.randint(0, 256, (number, size, size, 3), dtype=torch.uint8)
