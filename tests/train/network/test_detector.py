"""The detector as a backbone: its layers, its weights from the package, and class maps beside a head."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from cmlr_edge.errors import DataError, DependencyError
from tests.tiny_training import tiny_config
from train.network import detector
from train.network.backbones import create_backbone, gives_two_stages
from train.network.detector import LABELS, NanoDet, check_class_maps, convert
from train.network.model import CausalHead


def packaged(network: NanoDet) -> tuple[bytes, bytes]:
    """Graph and numbers as the package has them: kernels (h, w, in, out), BGR, box maps behind class maps."""
    entries, nodes, content = [], [], b""
    modules = [m for m in network.modules() if isinstance(m, torch.nn.Conv2d)]
    for i, module in enumerate(modules):
        assert module.bias is not None
        weight, bias = module.weight.detach(), module.bias.detach()
        if i == 0:
            weight = weight.flip(1)
        if len(bias) == len(LABELS):
            weight, bias = torch.cat([weight, weight[:44]]), torch.cat([bias, bias[:44]])
        name = f"call/convolution_{i}" if i else "call/convolution"
        for kind, values in (("kernel", weight.permute(2, 3, 1, 0)), ("bias", bias)):
            stored = values.contiguous().numpy().astype(np.float16)
            entry = {"name": f"{kind}{i}", "shape": list(stored.shape), "dtype": "float32"}
            entries.append({**entry, "quantization": {"dtype": "float16"}})
            content += stored.tobytes()
        nodes.append({"name": name, "op": "Conv2D", "input": ["x", f"kernel{i}"]})
        nodes.append({"name": f"add{i}", "op": "Add", "input": [name, f"bias{i}"]})
    nodes.append({"name": "other", "op": "Add", "input": ["a", "b"]})
    graph = {"modelTopology": {"node": nodes}, "weightsManifest": [{"weights": entries}]}
    return json.dumps(graph).encode(), content


def test_weights_of_the_package_are_read_as_they_were_written() -> None:
    torch.manual_seed(0)
    network = NanoDet().half().float().eval()
    read = NanoDet().eval()
    read.load_state_dict(convert(*packaged(network)))
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        expected, found = network.forward_features(images), read.forward_features(images)
    assert found.shape == (2, len(LABELS) + 128, 2, 3)
    torch.testing.assert_close(found, expected)


def test_it_is_a_backbone_of_one_stage_whose_tokens_begin_with_class_logits() -> None:
    assert not gives_two_stages("nanodet_g", (64, 96))
    backbone = create_backbone("nanodet_g", 64, pretrained=False).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        tokens = backbone(images)
        maps = backbone.network.forward_features(images)  # type: ignore[operator]
    assert tokens.shape == (1, 4, backbone.num_features)
    torch.testing.assert_close(tokens[0, 1, : len(LABELS)], maps[0, : len(LABELS), 0, 1])


def test_weights_are_asked_for_where_none_were_written() -> None:
    with pytest.raises(DependencyError, match=r"python -m train\.network\.detector"):
        create_backbone("nanodet_g", 64, pretrained=True)


def test_a_package_with_other_files_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def pack(_command: list[str], *, cwd: str, **_: object) -> None:
        files = [f"package/models/{name}" for name in ("nanodet.json", "nanodet.bin")]
        subprocess.check_call(["mkdir", "-p", f"{cwd}/package/models"])
        for name in files:
            (Path(cwd) / name).write_bytes(b"{}")
        subprocess.check_call(["tar", "czf", "x.tgz", "package"], cwd=cwd)

    monkeypatch.setattr("subprocess.run", pack)
    with pytest.raises(DependencyError, match="SHA-256"):
        detector.fetch()


@pytest.mark.parametrize("standardised", [False, True])
def test_a_head_starts_from_the_highest_class_logits(*, standardised: bool) -> None:
    settings = ("model.class_maps=true", f"model.standardize_tokens={str(standardised).lower()}")
    head = CausalHead(tiny_config(*settings).model, 3, 8).eval()
    tokens = torch.randn(2, 5, 8)
    if standardised:
        head.token_mean, head.token_scale = torch.randn(8), torch.rand(8) + 0.5
    with torch.no_grad():
        logits = head.head(tokens).decoupled_logits
    torch.testing.assert_close(logits, tokens[..., :3].amax(1))


def test_class_maps_of_other_labels_are_refused() -> None:
    config = tiny_config("model.class_maps=true", "model.backbone=nanodet_g").model
    check_class_maps(config, LABELS)
    with pytest.raises(DataError, match="80 labels"):
        check_class_maps(config, LABELS[::-1])
    with pytest.raises(DataError, match="gives none"):
        check_class_maps(tiny_config("model.class_maps=true").model, LABELS)
    with pytest.raises(DataError, match="no map of each"):
        CausalHead(config, 80, 8)


def test_without_pytorch_the_command_ends_on_one_line(tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise ImportError('no torch here', name='torch')\n")
    where = os.pathsep.join([str(tmp_path), str(Path(detector.__file__).parents[2])])
    ended = subprocess.run(
        [sys.executable, "-m", "train.network.detector", "--out", str(tmp_path / "w.safetensors")],
        env={**os.environ, "PYTHONPATH": where},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: torch is needed and cannot be imported")
    assert ended.stderr.count("\n") == 1
