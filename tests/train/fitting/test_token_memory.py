"""A backbone that stays as it is sees a picture once; the model is the same as if it looked again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny_training import tiny_config
from train.data import read_dataset
from train.fitting.loop import fit
from train.network.backbones import Backbone
from train.network.token_memory import TokenMemory

STAYS = ("epochs=2", "backbone_lr=0", "keep=best", "model.inference_context=auto")


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Pictures of every pass through a backbone."""
    found: list[int] = []
    forward = Backbone.forward

    def counted(self: Backbone, images: torch.Tensor) -> torch.Tensor:
        if images.any():  # whether it takes pictures at all is asked with a black one
            found.append(len(images))
        return forward(self, images)

    monkeypatch.setattr(Backbone, "forward", counted)
    return found


def full() -> TokenMemory:
    memory = TokenMemory()
    memory.store.room = 0
    return memory


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def assert_same_bits(first: Path, second: Path) -> None:
    ours, theirs = weights(first), weights(second)
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert torch.equal(tensor, theirs[name]), name


def test_tokens_from_memory_give_the_same_bits_as_fresh_ones(
    tiny_data: Path, tmp_path: Path, looks: list[int]
) -> None:
    data, config = read_dataset(tiny_data), tiny_config(*STAYS, "model.united_share=0.5")
    fit(data, tmp_path / "without", config, memory=full())
    without, shared = sum(looks), TokenMemory()
    looks.clear()
    fit(data, tmp_path / "cold", config, memory=shared)
    cold = sum(looks)
    looks.clear()
    fit(data, tmp_path / "warm", config, memory=shared)
    warm = sum(looks)
    assert_same_bits(tmp_path / "without", tmp_path / "cold")
    assert_same_bits(tmp_path / "without", tmp_path / "warm")
    # Confounders: 24 pictures twice. Two epochs of 24; the 12 held out after each, and at the end.
    assert (without, cold, warm) == (48 + 48 + 24 + 12, 48 + 48 + 12 + 12, 48 + 12)


def test_the_plain_run_beside_another_looks_at_no_training_picture_again(
    tiny_data: Path, tmp_path: Path, looks: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = tiny_config(*STAYS, "compare_plain=true", "model.confounders.kind=none")
    fit(read_dataset(tiny_data), tmp_path / "run", config)
    assert (tmp_path / "run" / "plain" / "model.json").is_file()
    # Two epochs of 24 and the 12 held out; these again when plain ends, and twice for the choice.
    assert sum(looks) == 48 + 12 + 3 * 12
    # The thresholds of the run that was asked for, not those of the one it is compared with.
    assert caplog.text.count("thresholds by ") == 1
    # A run of one's own may have that name.
    fit(read_dataset(tiny_data), tmp_path / "plain", tiny_config(*STAYS, "epochs=1"))
    assert caplog.text.count("thresholds by ") == 2


def test_a_resumed_run_ends_as_one_that_was_not_stopped(tiny_data: Path, tmp_path: Path) -> None:
    data, config = read_dataset(tiny_data), tiny_config(*STAYS)
    fit(data, tmp_path / "whole", config)

    class Stopped(Exception):
        pass

    class Stops(TokenMemory):
        def of(self, *about: object) -> TokenMemory:
            if about == ("train",) and self.get("epoch") is not None:
                raise Stopped
            self.keep("epoch", torch.zeros(1))
            return super().of(*about) if about == ("train",) else Stops((*self.about, *about))

    with pytest.raises(Stopped):
        fit(data, tmp_path / "stopped", config, memory=Stops())
    assert (tmp_path / "stopped" / "state.pt").is_file()
    fit(data, tmp_path / "stopped", config, resume=True)
    assert_same_bits(tmp_path / "whole", tmp_path / "stopped")


def test_a_backbone_that_learns_looks_at_every_picture_anew(
    tiny_data: Path, tmp_path: Path, looks: list[int]
) -> None:
    settings = ("epochs=2", "model.intervention=none")
    fit(read_dataset(tiny_data), tmp_path / "learns", tiny_config(*settings))
    assert sum(looks) == 2 * (24 + 12) + 12
    looks.clear()
    # Batch norm whose statistics move gives other tokens with every step.
    moving = ("backbone_lr=0", "freeze_batch_norm=false")
    fit(read_dataset(tiny_data), tmp_path / "moves", tiny_config(*settings, *moving))
    assert sum(looks) == 2 * (24 + 12) + 12


def test_memory_keeps_what_fits_and_knows_what_tokens_hang_on() -> None:
    memory = TokenMemory()
    memory.store.room = 100
    train, val = memory.of("train"), memory.of("val")
    train.keep(1, torch.ones(2, 5))  # 40 bytes
    val.keep(1, torch.zeros(2, 5))
    train.keep(2, torch.ones(2, 5))  # no room
    train.keep(1, torch.zeros(2, 5))  # is there
    assert train.get(2) is None
    assert (float(train.get(1).sum()), float(val.get(1).sum())) == (10, 0)  # type: ignore[union-attr]
    assert memory.store.room == 20
