"""What is compared on photos: baselines and the method, on the same backbone and recipe."""

from __future__ import annotations

from dataclasses import replace

from train.config import ConfounderConfig, ModelConfig, TrainConfig

_DECODER = ModelConfig(token_stages=2, intervention="none", dropout=0.2)
_BACK_DOOR = replace(_DECODER, intervention="back-door", confounders=ConfounderConfig(kind="early"))
_MODELS = {
    "standard (pooled)": replace(_DECODER, head="pooled"),
    "label decoder": _DECODER,
    "ML-Decoder": replace(_DECODER, head="ml-decoder"),
    "label decoder and pooled tokens": replace(_DECODER, pooled_skip=True),
    "matrix links, no confounders": replace(_BACK_DOOR, confounders=ConfounderConfig(kind="none")),
    "back-door, matrix links": _BACK_DOOR,
    "back-door, gated attention links": replace(_BACK_DOOR, label_links="gated-attention"),
    "back-door, matrix links, and pooled tokens": replace(_BACK_DOOR, pooled_skip=True),
}
_TUNED = (
    "standard (pooled)",
    "label decoder",
    "label decoder and pooled tokens",
    "back-door, matrix links",
    "back-door, matrix links, and pooled tokens",
)
_POOLED_LR = 1e-2  # pooled heads learn too slowly at the common rate


def frozen_methods() -> dict[str, TrainConfig]:
    """Heads on EfficientNet-Lite2 at 384 x 384.

    Tokens are standardised and reduced beforehand, and not augmented.
    """
    recipe = TrainConfig(epochs=12, gamma_negative=0.0, amp="bf16")
    return {name: _config(recipe, name, "tf_efficientnet_lite2", 384) for name in _MODELS}


def tuned_methods() -> dict[str, TrainConfig]:
    """EfficientNet-Lite0 at 224 x 224, its layers up to stride 8 left as they are.

    Small, so that several seeds are affordable; the early layers take most of a step's time and have
    little to learn from some hundred pictures.
    """
    recipe = TrainConfig(
        epochs=12, gamma_negative=0.0, amp="off", backbone_lr=1e-4, frozen_stages=3
    )
    configs = {name: _config(recipe, name, "tf_efficientnet_lite0", 224) for name in _TUNED}
    # Tokens come as the backbone gives them, so the head standardises them itself.
    return {
        name: replace(config, model=replace(config.model, standardize_tokens=True))
        for name, config in configs.items()
    }


def _config(recipe: TrainConfig, name: str, backbone: str, image_size: int) -> TrainConfig:
    model = replace(_MODELS[name], backbone=backbone, image_size=image_size)
    lr = _POOLED_LR if model.head == "pooled" else recipe.lr
    return replace(recipe, model=model, lr=lr)
