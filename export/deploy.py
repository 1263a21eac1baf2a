"""The network as it is deployed: uint8 frames in, probabilities out."""

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
        mean, std = (
            torch.tensor(values).view(1, 1, 1, 3) * 255 for values in (spec.mean, spec.std)
        )
        # A row of pixels: ONNX Runtime repeats three numbers far more slowly than a row of them.
        self.register_buffer("pixel_mean", mean.repeat(1, 1, spec.size_hw[1], 1))
        self.register_buffer("pixel_std", std)

    def forward(self, frames: Tensor) -> Tensor:
        """Map frames, uint8 (N, H, W, 3) RGB, to scores, float32 (N, L)."""
        return self.outputs(self.tokens(frames))[0]

    def tokens(self, frames: Tensor) -> Tensor:
        """Map frames to the backbone's tokens, (N, T, D)."""
        # Normalised as the pixels lie: what is left before the first convolution is a transpose, and
        # engines that compute with channels last (OpenVINO on a CPU) drop it. TensorRT moves no uint8.
        pixels = (frames.float() - self.pixel_mean) / self.pixel_std
        return self.model.backbone(pixels.permute(0, 3, 1, 2))

    def outputs(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Map the backbone's tokens (N, T, D) to all that the file gives, the scores first."""
        return (self.model.scores(self.model.head(tokens)),)


class WithTokens(nn.Module):
    """A deployed network that shows its tokens, so that the exporter can tell them."""

    def __init__(self, deploy: DeployModel) -> None:
        """Wrap it."""
        super().__init__()
        self.deploy = deploy

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """Map frames, uint8 (N, H, W, 3) RGB, to its outputs, and the tokens (N, T, D) behind them."""
        tokens = self.deploy.tokens(frames)
        return (*self.deploy.outputs(tokens), tokens)
