"""What is compared: rivals and candidates, on one backbone and one recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from train.config import ConfounderConfig, ModelConfig, TrainConfig

# The tokens are those of two stages, standardised and reduced beforehand by `tokens.py`.
BASE = ModelConfig(
    backbone="tf_efficientnet_lite0",
    image_size=224,
    embed_dim=128,
    num_heads=4,
    ffn_dim=256,
    token_stages=2,
    dropout=0.2,
    intervention="none",
)
RECIPE = TrainConfig(model=BASE, epochs=12, batch_size=16, gamma_negative=0.0)
_POOLED_LR = 1e-2  # pooled heads learn too slowly at the common rate
_UNITED = 0.5  # share of the batches


@dataclass(frozen=True)
class Method:
    """One row of the comparison."""

    name: str
    model: ModelConfig = BASE
    group: Literal["rival", "candidate", "ablation", "chosen"] = "candidate"
    lr: float = RECIPE.lr
    united: float = 0.0  # share of batches whose photos are united with others
    uniting: Literal["all", "halves"] = "all"  # tokens of each
    erased: float = 0.0  # share of batches with a label erased from every photo
    surrounded: float = 0.0  # share of batches with the surroundings of others added
    token_share: float = 0.25  # of a photo, erased or added
    weights: Literal["none", "jtt", "pairs"] = "none"  # of decisions; "pairs" knows the pairs
    # Logits of a bias-only model that training sees beside the head's own. A back-door head has the
    # clusters' own; its read-outs are two.
    beside: Literal["none", "clusters", "pooled", "surroundings"] = "none"
    strength: float = 1.0  # multiplies those logits
    interaction: bool = False  # a term of features and context beside f and g
    epochs: int = RECIPE.epochs


def _early(**changes: Any) -> ModelConfig:
    confounders = ConfounderConfig(kind="early")
    return replace(BASE, intervention="back-door", confounders=confounders, **changes)


DECODER = "label decoder"
POOLED = "label decoder and pooled tokens"
_SKIP = replace(BASE, pooled_skip=True)
_LINKS = replace(_early(pooled_skip=True), confounders=ConfounderConfig(kind="none"))
_RIVALS = (
    Method("standard (pooled)", replace(BASE, head="pooled"), lr=_POOLED_LR),
    Method(DECODER),
    Method(POOLED, _SKIP),
    Method("ML-Decoder", replace(BASE, head="ml-decoder")),
    Method("two decoder layers", replace(BASE, decoder_layers=2)),
    Method("JTT", weights="jtt"),
    Method("JTT, pooled tokens", _SKIP, weights="jtt"),
    Method("product of experts, pooled bias model", beside="pooled"),
    Method("known pairs weighted", weights="pairs"),
    Method("united photos", united=_UNITED),
    Method("united photos, pooled tokens", _SKIP, united=_UNITED),
    Method("back-door, matrix links", _early()),
    Method("back-door, matrix links, pooled tokens", _early(pooled_skip=True)),
)
_CANDIDATES = (
    Method("united halves, pooled tokens", _SKIP, united=_UNITED, uniting="halves"),
    Method("united photos always, pooled tokens", _SKIP, united=1.0),
    Method("erased labels", erased=0.5),
    Method("erased labels, pooled tokens", _SKIP, erased=0.5),
    Method("united photos, erased labels, pooled tokens", _SKIP, united=_UNITED, erased=0.5),
    Method("surroundings added, pooled tokens", _SKIP, surrounded=0.5, token_share=0.5),
    Method(
        "united photos, surroundings added, pooled tokens",
        _SKIP,
        united=_UNITED,
        surrounded=0.5,
        token_share=0.5,
    ),
    Method("united photos, JTT, pooled tokens", _SKIP, united=_UNITED, weights="jtt"),
    Method(
        "united photos, beside surroundings, pooled tokens",
        _SKIP,
        united=_UNITED,
        beside="surroundings",
    ),
    Method("beside surroundings without the object", beside="surroundings"),
    Method("beside clusters", beside="clusters"),
    Method("beside a quarter of clusters", beside="clusters", strength=0.25),
    Method("interaction of features and context", _early(label_links="none"), interaction=True),
    Method("united photos, back-door, pooled tokens", _early(pooled_skip=True), united=_UNITED),
    Method(
        "united photos, a quarter of the context term, pooled tokens",
        _early(pooled_skip=True),
        united=_UNITED,
        strength=0.25,
    ),
    Method(
        "united photos, interaction, pooled tokens",
        _early(pooled_skip=True, label_links="none"),
        united=_UNITED,
        interaction=True,
    ),
    Method("united photos, pooled tokens, 24 epochs", _SKIP, united=_UNITED, epochs=24),
    Method("label decoder and pooled tokens, 24 epochs", _SKIP, epochs=24),
    Method("united photos, links, pooled tokens", _LINKS, united=_UNITED),
    Method(
        "united photos, two layers, pooled tokens", replace(_SKIP, decoder_layers=2), united=_UNITED
    ),
)
_BATCHES = replace(_SKIP, united_share=_UNITED)
_DEEP = replace(_BATCHES, decoder_layers=2)
_DEEP_LINKS = replace(_LINKS, united_share=_UNITED, decoder_layers=2)
_DEEP_CONTEXT = _early(pooled_skip=True, united_share=_UNITED, decoder_layers=2)
CHOSEN = "united batches, two layers, links, pooled tokens"
# Weighed after the candidates above, and united by the network itself: within a batch.
_LATER = (
    Method("two layers, pooled tokens", replace(_SKIP, decoder_layers=2), "ablation"),
    Method("two layers, links, pooled tokens", replace(_LINKS, decoder_layers=2), "ablation"),
    Method("united batches, pooled tokens", _BATCHES),
    Method("united batches, two layers, pooled tokens", _DEEP, "ablation"),
    Method(CHOSEN, _DEEP_LINKS, "chosen"),
    Method(
        "united batches, two layers, a tenth of the context term, pooled tokens",
        _DEEP_CONTEXT,
        strength=0.1,
    ),
    Method("united batches, two layers, erased labels, pooled tokens", _DEEP, erased=0.5),
    Method(
        "united batches, two layers, surroundings added, pooled tokens",
        _DEEP,
        surrounded=0.5,
        token_share=0.5,
    ),
    Method(
        "united batches, two layers, links, surroundings added, pooled tokens",
        _DEEP_LINKS,
        surrounded=0.5,
        token_share=0.5,
    ),
)
METHODS = (
    *(replace(method, group="rival") for method in _RIVALS),
    *_CANDIDATES,
    *_LATER,
)
