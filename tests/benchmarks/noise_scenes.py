"""Scenes with noise in place of what a backbone sees in them, so that a whole benchmark takes seconds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import typer

from benchmarks.context_bias.features import COMPONENTS
from benchmarks.context_bias.methods import BASE
from tests.train.data.scene_assets import write_assets
from train.config import ConfounderConfig
from train.data import read_dataset
from train.fitting.frozen import TokenSet

_TOKENS = 49


def use_noise(monkeypatch: pytest.MonkeyPatch, work: Path, *modules: ModuleType) -> None:
    """Let modules of a benchmark draw made-up scenes in `work`, and read noise for them.

    Their heads are small, with few confounders, of which nothing is tried to choose a ridge.
    """
    small = {
        "BASE": replace(BASE, embed_dim=32, ffn_dim=32),
        "ConfounderConfig": partial(ConfounderConfig, num_confounders=8, ridge=10.0),
    }
    write_assets(work / "assets")
    for module in modules:
        monkeypatch.setattr(module, "load_tokens", _noise)
        for name, value in small.items():
            if hasattr(module, name):
                monkeypatch.setattr(module, name, value)


def typer_app(command: Callable[..., Any]) -> typer.Typer:
    """What `typer.run` makes of a command."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    return app


def _noise(scenes: Path, *_: Any) -> dict[str, TokenSet]:
    data, rng = read_dataset(scenes), np.random.default_rng(0)
    parts = {}
    for split in data.splits:
        targets = data.split(split).targets()
        shape = len(targets), _TOKENS, sum(COMPONENTS)
        parts[split] = TokenSet(
            rng.standard_normal(shape).astype(np.float16), targets, COMPONENTS[0]
        )
    return parts
