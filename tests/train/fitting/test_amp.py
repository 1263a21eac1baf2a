"""What training computes in, where it is measured and where it is known."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from train.fitting import amp


def test_a_processor_without_bfloat16_times_no_step_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[bool] = []

    def time_step(_backbone: nn.Module, _images: torch.Tensor, *, autocast: bool) -> float:
        timed.append(autocast)
        return 0.1 if autocast else 1.0

    monkeypatch.setattr(amp, "_time_step", time_step)
    monkeypatch.setattr(amp, "_found", {})
    for has_it in (False, True):
        monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda has=has_it: has)
        for network in (nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)):  # two that are compared
            assert amp.gains(network, 8) == has_it
        assert timed == ([False, True] if has_it else [])
    amp.gains(nn.Conv2d(3, 4, 1), 16)
    amp.gains(nn.Conv2d(3, 4, 1).requires_grad_(False), 8)
    assert timed == [False, True] * 3
