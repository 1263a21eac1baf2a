"""Every setting of a training run, typed. Stored as config.json beside the weights."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cmlr_edge.errors import DataError


@dataclass(frozen=True)
class ConfounderConfig:
    """How the confounders are built from the frozen pre-trained backbone."""

    num_confounders: int = 40
    tokens_per_image: int = 32  # sampled for the clustering, so that memory stays bounded
    num_contexts: int = 64  # representative training contexts that stand for P(c) at inference
    ridge: float | None = None  # L2 strength of the context term; None: by cross-validation


@dataclass(frozen=True)
class ModelConfig:
    """The network. `docs/method.md` explains the options."""

    backbone: str = "tf_efficientnet_lite0"  # any timm model
    image_size: int = 320
    embed_dim: int = 256
    decoder_layers: int = 1
    num_heads: int = 8
    ffn_dim: int = 512
    self_attention: bool = False  # of the label queries, inside the decoder
    dropout: float = 0.1
    pooled_skip: bool = False  # add a linear read-out of mean and max pooled tokens
    intervention: Literal["back-door", "expectation", "none"] = "back-door"
    label_links: Literal["matrix", "attention", "none"] = "matrix"
    inference_context: Literal["prior", "own"] = "prior"
    confounders: ConfounderConfig = field(default_factory=ConfounderConfig)

    def __post_init__(self) -> None:
        """Reject sizes that do not fit together."""
        if self.embed_dim % self.num_heads:
            raise DataError(
                f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}"
            )
        if self.decoder_layers < 1:
            raise DataError(f"decoder_layers is {self.decoder_layers}: at least 1 is needed")


@dataclass(frozen=True)
class TrainConfig:
    """The recipe."""

    model: ModelConfig = field(default_factory=ModelConfig)
    epochs: int = 20
    batch_size: int = 32
    lr: float = 1e-3  # of the head, at the top of the OneCycle schedule
    backbone_lr: float = 1e-4
    weight_decay: float = 1e-2
    warmup_share: float = 0.2
    gradient_clip: float = 1.0
    gamma_positive: float = 0.0  # asymmetric loss (Ridnik et al. 2021)
    gamma_negative: float = 2.0
    probability_clip: float = 0.0
    freeze_batch_norm: bool = True  # of the backbone's statistics: small batches spoil them
    ema_decay: float = 0.97  # per step; the averaged weights are the ones evaluated and kept
    augmentation: Literal["none", "flip", "standard", "strong"] = "standard"
    amp: Literal["auto", "off", "bf16"] = "auto"
    weight_storage: Literal["float32", "float16"] = "float32"
    validation_share: float = 0.2  # taken from train where the data has no val split
    threshold_shrinkage: float = 5.0  # pseudo-positives of the global threshold
    seed: int = 0
    workers: int = 0
