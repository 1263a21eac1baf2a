"""Every setting of a training run, typed. Stored as config.json beside the weights.

`python -m train settings` shows the comments right above a field and behind it, so each says what the
setting is, as it is typed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from cmlr_edge.errors import DataError

# Of a run folder, for who does not load PyTorch.
LOG, SPEC, PLAIN = "log.jsonl", "model.json", "plain"
_SMALLEST_IMAGE = 32  # one position of a backbone's last stage
# Rates: far above any that learns, far below what float32 cannot hold. A worker is a process; the
# seed is what scikit-learn takes.
_STRONGEST = 10**6
_MOST = {
    **dict.fromkeys(
        ("lr", "backbone_lr", "weight_decay", "link_sparsity", "lone_weight"), _STRONGEST
    ),
    "workers": 256,
    "seed": 2**32 - 1,
}


@dataclass(frozen=True)
class ConfounderConfig:
    """How the confounders are built from the frozen pre-trained backbone."""

    # kmeans: clusters of tokens. random: the same number of random directions. early: clusters of
    # the finer stage alone (token_stages=2). label: mean features of each label's images.
    # none: a control without any.
    kind: Literal["kmeans", "random", "early", "label", "none"] = "kmeans"
    num_confounders: int = 40  # how many are built
    # How often each is met, for the averaged read-out: its share of training tokens, or all alike.
    prior: Literal["share", "uniform"] = "share"
    tokens_per_image: int = 32  # sampled of each picture for the clustering
    max_tokens: int = 200_000  # clustered in all, so that memory stays bounded
    backbone: str | None = None  # timm model whose tokens are clustered; null: the network's own
    layer: int | None = None  # feature map of it that is clustered, -1 the last; null: its output
    num_contexts: int = 64  # representative training contexts that stand for P(c) at inference
    ridge: float | None = None  # L2 strength of the context term; null: by cross-validation
    strength: float = 1.0  # times the context term: below 1 the picture itself says more

    def __post_init__(self) -> None:
        """Reject numbers that nothing can be clustered with."""
        for name in ("num_confounders", "tokens_per_image", "num_contexts", "max_tokens"):
            if getattr(self, name) < 1:
                raise DataError(
                    f"confounders.{name} is {getattr(self, name)}: at least 1 is needed"
                )
        if not 0 <= self.strength <= _STRONGEST:
            raise DataError(
                f"confounders.strength is {self.strength}: it should be 0 or more, and at most {_STRONGEST}"
            )
        if self.ridge is not None and self.ridge <= 0:
            raise DataError(f"confounders.ridge is {self.ridge}: it should be more than 0")

    @property
    def other_view(self) -> bool:
        """Whether other tokens are clustered than those the labels are recognised from."""
        return self.backbone is not None or self.layer is not None


@dataclass(frozen=True)
class ModelConfig:
    """The network."""

    backbone: str = "tf_efficientnet_lite0"  # any timm model
    # File with the backbone's pre-trained weights, as timm or torchvision name them (.safetensors,
    # .pth); null: timm's hub, or a package.
    weights: str | None = None
    image_size: int = 320  # side of the square input, in pixels
    image_width: int | None = None  # of the input, where image_size is its height; null: square
    token_stages: int = 1  # 1: the last feature map is read; 2: the second last stage, folded, stands beside the last
    standardize_tokens: bool = (
        False  # scale tokens by each channel's mean and deviation over training images
    )
    # What makes scores of tokens. decoder: Query2Label's. ml-decoder: fixed random queries. ccd: context subtracted from pooled
    # features. pooled: mean tokens and a linear classifier. feature-split: the same in two halves.
    head: Literal["decoder", "ml-decoder", "ccd", "pooled", "feature-split"] = "decoder"
    embed_dim: int = 256  # width of a label's feature, a multiple of num_heads
    decoder_layers: int = 1  # 0: a label's query is added to the mean token
    num_heads: int = 8  # of the decoder's attention
    ffn_dim: int = 512  # width of the decoder's feed-forward layers
    self_attention: bool = False  # let labels' queries see each other, inside the decoder
    dropout: float = 0.1  # share of the head's values that a training step drops
    pooled_skip: bool = False  # add a linear read-out of mean and max pooled tokens
    # Leading channels of a token are class logits of the very labels, as those of backbone nanodet_g
    # are of MS-COCO's 80: add the highest of the picture.
    class_maps: bool = False
    # Share of training steps that unite every picture with another of the batch: tokens of both,
    # labels of both. Nothing of it is left at inference.
    united_share: float = 0.0
    # How label links and confounders enter the scores: docs/method.md has each; none: they do not.
    intervention: Literal["back-door", "expectation", "explicit", "linear", "none"] = "back-door"
    # How one label moves another: a weight for each pair, attention among labels' features, or none.
    label_links: Literal["matrix", "attention", "gated-attention", "none"] = "matrix"
    include_self: bool = False  # let a label be its own cause
    detach_causal: bool = True  # training the links never bends the label features
    fusion: Literal["mean", "sum"] = "mean"  # how branches are joined: probabilities, or logits
    # Which scores are deployed, the read-out: averaged over the prior, the image's own, or the decoder alone, without
    # links and context. auto: chosen on held-out pictures when training ends.
    inference_context: Literal["auto", "prior", "own", "decoder"] = "prior"
    confounders: ConfounderConfig = field(default_factory=ConfounderConfig)

    def __post_init__(self) -> None:
        """Reject numbers that no network can have, and settings that do not fit together."""
        for name in ("embed_dim", "num_heads", "ffn_dim"):
            if getattr(self, name) < 1:
                raise DataError(f"{name} is {getattr(self, name)}: at least 1 is needed")
        if not 0 <= self.dropout < 1:
            raise DataError(f"dropout is {self.dropout}: it should be 0 or more, and below 1")
        if self.embed_dim % self.num_heads:
            raise DataError(
                f"embed_dim {self.embed_dim} is not a multiple of num_heads {self.num_heads}"
            )
        if self.decoder_layers < 0:
            raise DataError(f"decoder_layers is {self.decoder_layers}: it should be 0 or more")
        if self.decoder_layers == 0 and self.self_attention:
            raise DataError("self_attention is a part of a decoder layer, and decoder_layers is 0")
        for name in ("image_size", "image_width"):
            if (side := getattr(self, name)) is not None and side < _SMALLEST_IMAGE:
                raise DataError(f"{name} is {side}: at least {_SMALLEST_IMAGE} pixels are needed")
        if not 0 <= self.united_share <= 1:
            raise DataError(f"united_share is {self.united_share}: it should be from 0 to 1")
        if self.token_stages not in {1, 2}:
            raise DataError(f"token_stages is {self.token_stages}: 1 or 2")
        if self.head not in {"decoder", "ml-decoder"} and self.needs_label_features:
            raise DataError(
                f"head {self.head!r} has no feature per label, which intervention "
                f"{self.intervention!r} with {self.label_links!r} links reads: take head 'decoder'"
            )
        if self.confounders.kind == "none" and self.intervention == "explicit":
            raise DataError("the explicit sum has nothing to sum over without confounders")
        if self.confounders.other_view and self.inference_context == "own":
            raise DataError(
                "inference_context 'own' assigns the recognition backbone's tokens to the "
                "confounders, which confounders.backbone or confounders.layer build from other "
                "tokens: take inference_context 'prior', or leave both out"
            )

    @property
    def size_hw(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.image_size, self.image_width or self.image_size

    @property
    def needs_label_features(self) -> bool:
        """Whether the causal branch reads a feature per label."""
        if self.intervention == "back-door":
            return self.label_links == "attention"
        return self.intervention != "none"


@dataclass(frozen=True)
class TrainConfig:
    """The recipe."""

    recipe: str = "none"  # the named settings that these started from; choose it with --recipe
    model: ModelConfig = field(default_factory=ModelConfig)
    # Train a head without intervention too, and keep it unless the other is better on held-out
    # pictures: cheap where the backbone is frozen.
    compare_plain: bool = False
    keep: Literal["last", "best"] = "last"  # which epoch is kept, best by validation mAP
    # Labels and their usual company, for the head feature-split and for lone_weight; --pairs reads them.
    biased_pairs: tuple[tuple[str, str], ...] = ()
    lone_weight: float = (
        1.0  # multiplies the loss of such a label where it stands without the other
    )
    epochs: int = 20  # passes over the training pictures
    batch_size: int = 32  # pictures per step, of all processes together
    accumulate: int = 1  # parts that a process computes its share of a batch in, to save memory
    # adamw: OneCycle up to lr and backbone_lr. sgd: momentum 0.9, the rates fall to a tenth after each
    # epoch of lr_drops.
    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr_drops: tuple[int, ...] = ()  # epochs after which sgd's rates fall
    lr: float = 1e-3  # learning rate of the head, at the top of the schedule
    backbone_lr: float = 1e-4  # likewise of the backbone; 0: it stays as it is
    frozen_stages: int = 0  # leading feature maps of the backbone whose layers stay as they are
    weight_decay: float = 1e-2  # how fast weights shrink that nothing holds
    # L1 of the link matrix, per unit of learning rate: more leaves fewer links. AdamW's step is a gradient over its deviation,
    # so a link stays at 0 whose gradient points one way by less than about this share of its noise.
    link_sparsity: float = 0.0
    warmup_share: float = 0.2  # share of all steps in which adamw's rates rise
    gradient_clip: float = 1.0  # largest norm of a step's gradient
    # Asymmetric loss (Ridnik et al. 2021): how much less a label that is there counts once it is sure.
    gamma_positive: float = 0.0
    gamma_negative: float = 2.0  # likewise for a label that is not there
    probability_clip: float = 0.0  # labels that are not there count for nothing below this score
    freeze_batch_norm: bool = True  # keep the backbone's statistics: small batches spoil them
    # How slowly the average of the weights follows, per step; the averaged weights are the ones evaluated and kept. 0: nothing is averaged.
    ema_decay: float = 0.97
    # How pictures are varied: mirrored, cut, and changed in colour, from flip to strong ever more.
    augmentation: Literal["none", "flip", "crop", "standard", "strong"] = "standard"
    # Numbers of 16 bits where they are fast enough to gain; auto: on a GPU, and on a CPU
    # where a timed step gains.
    amp: Literal["auto", "off", "bf16", "fp16"] = "auto"
    skip_damaged: bool = False  # leave out pictures that cannot be read, and list them
    # Of the finished weights; float16 halves the model's file.
    weight_storage: Literal["float32", "float16"] = "float32"
    # Taken from train where the data has no val split, as a share; null: a fifth, and nothing from benchmarks
    # that publish their splits.
    validation_share: float | None = None
    # What thresholds are best for: f1; precision=P, most recall with that precision; cost=C, a missed
    # label costs C times a wrong one.
    threshold_rule: str = "f1"
    threshold_shrinkage: float = 5.0  # pull of the common threshold on rare labels, in positives
    seed: int = 0  # of everything random
    # Processes that read pictures, for every one that trains. null: 0 on a CPU, whose cores train;
    # on a GPU as many as there are cores for, 8 at most.
    workers: int | None = None

    @property
    def backbone_stays(self) -> bool:
        """Whether the backbone gives the same tokens from the first step to the last."""
        return self.backbone_lr == 0 and self.freeze_batch_norm

    def __post_init__(self) -> None:
        """Reject numbers that no training can use."""
        for name in ("epochs", "batch_size", "accumulate", "lr", "gradient_clip", "lone_weight"):
            if getattr(self, name) <= 0:
                raise DataError(f"{name} is {getattr(self, name)}: it should be more than 0")
        for name in (
            "backbone_lr", "frozen_stages", "weight_decay", "link_sparsity", "workers",
            "threshold_shrinkage", "seed", "gamma_positive", "gamma_negative",
        ):  # fmt: skip
            if (getattr(self, name) or 0) < 0:
                raise DataError(f"{name} is {getattr(self, name)}: it should be 0 or more")
        for name, most in _MOST.items():
            if (getattr(self, name) or 0) > most:
                raise DataError(f"{name} is {getattr(self, name)}: it should be at most {most}")
        for name in ("warmup_share", "validation_share", "ema_decay", "probability_clip"):
            value, or_none = getattr(self, name), name in {"ema_decay", "probability_clip"}
            if value is not None and not 0 < value < 1 and not (or_none and value == 0):
                raise DataError(f"{name} is {value}: it should be between 0 and 1")
        if self.lr_drops and self.optimizer != "sgd":
            raise DataError("lr_drops are of optimizer sgd: adamw has a schedule of its own")
        intervention, links = self.model.intervention, self.model.label_links
        if self.link_sparsity and (intervention, links) != ("back-door", "matrix"):
            raise DataError(
                f"link_sparsity {self.link_sparsity:g} is for the back-door's link matrix, and there "
                f"is none with intervention {intervention!r} and {links!r} links: "
                "take model.label_links=matrix, or link_sparsity=0"
            )
