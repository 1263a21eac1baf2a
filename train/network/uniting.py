"""Pictures united in training: tokens of two pictures stand for one that shows the labels of both.

A label is then seen in company that it never had, which is what an intervention on its surroundings
would show; it costs nothing at inference, where pictures are alone.
"""

from __future__ import annotations

import torch
from torch import Tensor

from train.network.dropout import shared_generator


def draw_partners(num_images: int, share: float, device: torch.device) -> Tensor | None:
    """Draw whom each picture of a batch is united with, (B,); None where the batch stays as it is.

    Args:
        num_images: B. One picture alone has no partner.
        share: Of the batches that are united.
        device: Of the pictures.
    """
    if share == 0 or num_images < 2:
        return None
    generator = shared_generator()
    if float(torch.rand((), generator=generator, device=device)) >= share:
        return None
    # A step round a random ring: nobody is united with itself.
    ring = torch.randperm(num_images, generator=generator, device=device)
    partners = torch.empty_like(ring)
    partners[ring] = ring.roll(1)
    return partners


def unite_tokens(tokens: Tensor, partners: Tensor) -> Tensor:
    """Map tokens (B, T, D) to those of both pictures, (B, 2 T, D)."""
    return torch.cat([tokens, tokens[partners]], dim=1)


def unite_targets(targets: Tensor, partners: Tensor | None) -> Tensor:
    """Map targets (B, L) to what is on either picture; without partners to themselves."""
    return targets if partners is None else torch.maximum(targets, targets[partners])
