"""Whatever backbone of timm is named, it gives spatial tokens or one line, and freezes as timm says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

from cmlr_edge.errors import DataError
from tests.tiny_training import IMAGENET, tiny_config
from train.data import read_dataset
from train.fitting.loop import fit
from train.network import backbones
from train.network.backbones import create_backbone, gives_two_stages


def test_missing_weights_are_an_error_and_never_a_random_start(
    tiny_data: Path, tmp_path: Path
) -> None:
    command = [
        sys.executable,
        "-m",
        "train",
        "fit",
        "--data",
        str(tiny_data),
        "--out",
        str(tmp_path / "run"),
    ]
    command += ["--backbone", "mobilenetv3_small_050"]
    # In a process of its own: the hub client reads the variable when it is imported.
    offline = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty")}
    done = subprocess.run(
        command,
        cwd=Path(__file__).parents[3],
        env=offline,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "no pre-trained weights for mobilenetv3_small_050" in done.stderr
    assert "--set model.weights=FILE" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_an_unknown_backbone_is_an_error_that_names_similar_ones() -> None:
    with pytest.raises(DataError, match=r"similar names: .*efficientnet_lite0"):
        create_backbone("efficientnet_lite00", 64, pretrained=True)
    with pytest.raises(DataError, match="timm has no model"):  # and no word of its stages
        gives_two_stages("efficientnet_lite00", (64, 64))


def test_a_backbone_that_gives_no_tokens_of_such_pictures_is_one_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def network(name: str, *_: object) -> torch.nn.Module:
        return timm.create_model(name, num_classes=0)

    monkeypatch.setattr(backbones, "_network_with_weights", network)
    for name, why in (("efficientvim_m1", "'list'"), ("test_vit", "divisible by patch")):
        with pytest.raises(DataError, match=f"{name} gives no tokens of pictures of 64x65 .*{why}"):
            create_backbone(name, (64, 65), pretrained=True)
    assert not gives_two_stages("halonet26t", (64, 64))


@pytest.mark.parametrize(
    "name",
    # davit: its name says vit, and it takes pictures of any size.
    ["mobilenetv4_conv_small", "resnet18", "vit_tiny_patch16_224", "davit_tiny"],
)
def test_any_kind_of_backbone_gives_spatial_tokens(name: str) -> None:
    backbone = create_backbone(name, 64, pretrained=False).eval()
    with torch.inference_mode():
        tokens = backbone(torch.zeros(2, 3, 64, 64))
    side = 64 // (16 if "16" in name else 32)
    assert tokens.shape == (2, side * side, backbone.num_features)


@pytest.mark.parametrize(
    ("name", "stages", "kept", "trained"),
    [
        ("tf_efficientnet_lite0", 2, "blocks.1.", "blocks.2."),
        ("resnet18", 1, "bn1.", "layer1."),  # its first feature map ends in a layer without weights
    ],
)
def test_frozen_stages_end_where_timm_says(name: str, stages: int, kept: str, trained: str) -> None:
    backbone = create_backbone(name, 64, pretrained=False)
    backbone.freeze_stages(stages)
    fixed = [n for n, p in backbone.network.named_parameters() if not p.requires_grad]
    learned = [n for n, p in backbone.network.named_parameters() if p.requires_grad]
    assert fixed[-1].startswith(kept)
    assert learned[0].startswith(trained)
    with pytest.raises(DataError, match="frozen_stages=9"):
        backbone.freeze_stages(9)


def test_training_leaves_frozen_stages_as_imagenet_made_them(
    tiny_data: Path, tmp_path: Path
) -> None:
    config = tiny_config(*IMAGENET, "epochs=1", "backbone_lr=1e-3", "frozen_stages=2")
    fit(read_dataset(tiny_data), tmp_path / "run", config)
    found = load_file(tmp_path / "run" / "model.safetensors")
    start = create_backbone(config.model.backbone, 64, pretrained=True).state_dict()
    same = {n: torch.equal(found[f"backbone.{n}"], start[n]) for n in start if ".conv" in n}
    assert all(same[n] for n in same if n.startswith(("network.blocks.0.", "network.blocks.1.")))
    assert not any(same[n] for n in same if n.startswith("network.blocks.3."))
