"""The network as it is deployed: uint8 frames in, fused probabilities out."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from cmlr_edge.model.spec import PreprocessSpec
from train.network.model import CausalRecognizer


class DeployModel(nn.Module):
    """Normalisation, network and fusion in one module, for export."""

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: CausalRecognizer, spec: PreprocessSpec) -> None:
        """Wrap a trained network.

        Args:
            model: In evaluation mode.
            spec: Its mean and std become constants of the graph.
        """
        super().__init__()
        self.model = model
        for name, values in (("pixel_mean", spec.mean), ("pixel_std", spec.std)):
            self.register_buffer(name, torch.tensor(values).view(1, 3, 1, 1) * 255)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames, uint8 (N, H, W, 3) RGB, to scores, float32 (N, L)."""
        # Widened before it is transposed: TensorRT moves no uint8.
        images = (frames.float().permute(0, 3, 1, 2) - self.pixel_mean) / self.pixel_std
        return self.model.scores(self.model(images))


class FusedHead(nn.Module):
    """Backbone tokens (B, T, D) to fused probabilities (B, L), from the parts of `export.fused`."""

    def __init__(
        self,
        standardize: nn.Module | None,
        decouple: nn.Module,
        readout: nn.Module | None,
        pooled: nn.Module | None,
        class_maps: nn.Module | None,
        causal: nn.Module | None,
        combine: nn.Module,
    ) -> None:
        """Put the parts together.

        Args:
            standardize: Of the tokens, where it could not be folded.
            decouple: Tokens to label features, or to logits where there is no `readout`.
            readout: Label features to logits.
            pooled: Tokens to further logits.
            class_maps: Likewise.
            causal: What the labels say about each other, see `CausalPart`.
            combine: Everything to probabilities.
        """
        super().__init__()
        self.standardize, self.decouple, self.readout = standardize, decouple, readout
        self.pooled, self.class_maps = pooled, class_maps
        self.causal, self.combine = causal, combine

    def forward(self, tokens: Tensor) -> Tensor:
        """Map backbone tokens (B, T, D) to probabilities (B, L)."""
        tokens, _, logits, causal = self.branches(tokens)
        scores: Tensor = self.combine(tokens, logits, causal)
        return scores

    def branches(self, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """Compute what is combined.

        Args:
            tokens: Of the backbone, (B, T, D).

        Returns:
            Tokens as the head reads them, label features (B, L, d) where there is a read-out of them,
            logits (B, L), and what the labels say about each other (B, L).
        """
        if self.standardize is not None:
            tokens = self.standardize(tokens)
        features = logits = self.decouple(tokens)
        if self.readout is not None:
            logits = self.readout(features)
        if self.pooled is not None:
            logits = logits + self.pooled(tokens)
        if self.class_maps is not None:
            logits = logits + self.class_maps(tokens)
        causal = None if self.causal is None else self.causal(features, logits)
        return tokens, features, logits, causal


class FusedModel(nn.Module):
    """The rewritten network: what `DeployModel` computes, with fewer operations."""

    pixel_mean: Tensor | None
    pixel_scale: Tensor | None

    def __init__(
        self,
        backbone: nn.Module,
        head: nn.Module,
        pixel_mean: Tensor | None,
        pixel_scale: Tensor | None,
    ) -> None:
        """Keep the normalisation (1, 1, 1, 3) that is not in the first convolution."""
        super().__init__()
        self.backbone, self.head = backbone, head
        self.register_buffer("pixel_mean", pixel_mean)
        self.register_buffer("pixel_scale", pixel_scale)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames, uint8 (N, H, W, 3) RGB, to scores, float32 (N, L)."""
        return self.with_tokens(frames)[0]

    def with_tokens(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Map frames to scores, and give the backbone's tokens, (N, T, D), too."""
        tokens = self.tokens(frames)
        return self.head(tokens), tokens

    def tokens(self, frames: Tensor) -> Tensor:
        """Map frames, uint8 (N, H, W, 3) RGB, to the backbone's tokens (N, T, D)."""
        # Normalised as the pixels lie: what is left before the first convolution is a transpose, and
        # engines that compute with channels last (OpenVINO on a CPU) drop it.
        pixels = frames.float()
        if self.pixel_mean is not None:
            pixels = pixels - self.pixel_mean
        if self.pixel_scale is not None:
            pixels = pixels * self.pixel_scale
        tokens: Tensor = self.backbone(pixels.permute(0, 3, 1, 2))
        return tokens


class WithTokens(FusedModel):
    """A rewritten network that shows its tokens, so that the exporter gives them a name."""

    @classmethod
    def of(cls, model: FusedModel) -> WithTokens:
        """Take the parts of a network over."""
        return cls(model.backbone, model.head, model.pixel_mean, model.pixel_scale)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Map frames to scores (N, L) and tokens (N, T, D)."""
        return self.with_tokens(frames)
