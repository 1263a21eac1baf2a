"""The networks that are timed, with seeded weights, and the files that the routes load.

Weights do not change the time, so none of these is trained; a backbone whose weights come as a
package has them. There is one threshold for all labels, which as many scores reach as there are labels
in a photo of MS-COCO: 2.9 of 80.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim

from benchmarks.engine_files import write_engine
from benchmarks.peers.frames import NUM_FRAMES, frames
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.spec import (
    MethodSpec,
    ModelSpec,
    PreprocessSpec,
    Provenance,
    ThresholdFit,
)
from cmlr_edge.preprocess import preprocess
from export.deploy import DeployModel
from export.fold_graph import fold_graph
from export.onnx_graph import export_onnx
from export.quantize_cpu import quantize_for_cpu
from train.config import ModelConfig
from train.confounders.clustering import Confounders, ContextTerm
from train.network.backbones import WEIGHT_PACKAGES
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalRecognizer

INT8 = "int8"  # folder of the quantised model, inside that of the others
_LABELS_PRESENT = 2.9 / 80  # share of MS-COCO's labels that are in a photo
_CALIBRATION_FRAMES = 4


@dataclass(frozen=True)
class Network:
    """One network whose routes are compared."""

    name: str
    backbone: str
    image_size: int
    embed_dim: int
    decoder_layers: int


NETWORKS = {
    network.name: network
    for network in (
        Network("lite0-224", "tf_efficientnet_lite0", 224, 256, 1),
        Network("lite0-320", "tf_efficientnet_lite0", 320, 256, 1),
        Network("mobilenetv3-224", "mobilenetv3_large_100", 224, 256, 1),
        Network("mobilenetv4-224", "mobilenetv4_conv_medium", 224, 256, 1),
        Network("resnet50-448", "resnet50", 448, 512, 2),
        Network("resnet101-448", "resnet101", 448, 512, 2),
    )
}


@torch.no_grad()
def make_model(network: Network, num_labels: int, **settings: Any) -> CausalRecognizer:
    """Make a network with seeded weights: the same on every call; `settings` are of `ModelConfig`."""
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "backbone": network.backbone,
        "image_size": network.image_size,
        "embed_dim": network.embed_dim,
        "ffn_dim": 2 * network.embed_dim,
        "decoder_layers": network.decoder_layers,
    }
    config = ModelConfig(**sizes | settings)
    packaged = network.backbone in WEIGHT_PACKAGES
    model = CausalRecognizer(config, num_labels, pretrained=packaged).eval()
    _set_confounders(model, num_labels)
    return model


def prepare(network: Network, num_labels: int, folder: Path) -> None:
    """Write the files that the routes load, unless they are there: ours, the plain and the bare one."""
    if (folder / "model.json").is_file():
        return
    folder.mkdir(parents=True, exist_ok=True)
    model = make_model(network, num_labels)
    spec = _make_spec(network, num_labels, model)
    size_hw = spec.preprocess.size_hw
    bare = BareBackbone(model, spec.preprocess).eval()
    write_atomically(folder / "bare.onnx", _serialize(_export(bare, size_hw)))
    pixels = torch.zeros(2, 3, *size_hw)
    write_atomically(folder / "plain.onnx", _export_plain(PlainModel(model).eval(), pixels))
    exported = _export(DeployModel(model, spec.preprocess).eval(), size_hw)
    images = np.stack([preprocess(frame, spec.preprocess) for frame in frames()])
    scores = run_frames(DeployModel(model, spec.preprocess).eval(), images)
    threshold = float(np.quantile(scores, 1 - _LABELS_PRESENT))
    spec = replace(spec, thresholds=(threshold,) * num_labels)
    # Decisions of seeded weights are a matter of rounding, and no reason to leave layers in float32.
    int8 = quantize_for_cpu(exported, images[:_CALIBRATION_FRAMES], spec, max_share=1.0).model
    write_engine(folder / INT8, int8, spec, "int8")
    write_engine(folder, exported, spec)


def prepare_ncnn(network: Network, num_labels: int, folder: Path) -> None:
    """Write the plain network as ncnn reads it, by ncnn's own converter, unless it is there."""
    if (folder / "plain.ncnn.bin").is_file():
        return
    import pnnx

    model = PlainModel(make_model(network, num_labels)).eval()
    pixels = torch.zeros(1, 3, network.image_size, network.image_size)
    with tempfile.TemporaryDirectory() as scratch, contextlib.redirect_stdout(io.StringIO()):
        pnnx.export(model, str(Path(scratch) / "plain.pt"), (pixels,))
        for name in ("plain.ncnn.param", "plain.ncnn.bin"):  # the second says that both are there
            write_atomically(folder / name, (Path(scratch) / name).read_bytes())


def _make_spec(network: Network, num_labels: int, model: CausalRecognizer) -> ModelSpec:
    backbone, side = model.backbone, network.image_size
    method = MethodSpec(
        network.backbone, "back-door", "prior", 40, network.embed_dim, network.decoder_layers
    )
    return ModelSpec(
        name=f"{network.name}, {num_labels} labels, seeded weights",
        labels=tuple(f"label {i}" for i in range(num_labels)),
        thresholds=(0.5,) * num_labels,
        preprocess=PreprocessSpec((side, side), backbone.mean, backbone.std),
        method=method,
        provenance=Provenance("none", 0, 0, 0, "0"),
        threshold_fit=ThresholdFit("labels present", "seeded patterns", NUM_FRAMES, "float32", 0.0),
    )


def run_frames(model: nn.Module, images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Scores (N, L) of model inputs (N, H, W, 3), one by one."""
    with torch.inference_mode():
        scores = [model(torch.from_numpy(image)[None]) for image in images]
    return torch.cat(scores).numpy()


def _export(model: DeployModel, size_hw: tuple[int, int]) -> onnx.ModelProto:
    exported = export_onnx(model, size_hw)
    fold_graph(exported, norms=True)
    return exported


def _serialize(model: onnx.ModelProto) -> bytes:
    content: bytes = model.SerializeToString()
    return content


def _export_plain(model: nn.Module, pixels: Tensor) -> bytes:
    """As PyTorch's documentation shows it."""
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            model, (pixels,), dynamo=True, dynamic_shapes=({0: Dim("batch")},)
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


class PlainModel(nn.Module):
    """The training model as a user would export it: normalised images in, scores out."""

    def __init__(self, model: CausalRecognizer) -> None:
        """Wrap it."""
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) to scores (N, L)."""
        return self.model.scores(self.model(images))


def _set_confounders(model: CausalRecognizer, num_labels: int) -> None:
    """Give the intervention, links and read-out something to say."""
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    intervention = model.intervention
    confounders = Confounders(draw(40, model.backbone.num_features), torch.full((40,), 1 / 40))
    term = ContextTerm(
        draw(40, num_labels),
        torch.zeros(num_labels),
        draw(64, 40).softmax(dim=1),
        torch.full((64,), 1 / 64),
        torch.zeros(40),
        torch.zeros(1, num_labels),
        1.0,
    )
    if not isinstance(intervention, BackDoorIntervention):
        intervention.set_confounders(confounders)  # type: ignore[union-attr]
        return
    intervention.set_confounders(confounders, term)
    for parameter in model.links.parameters():  # type: ignore[union-attr]
        parameter.copy_(draw(*parameter.shape) * 0.01 / num_labels**0.5)


class BareBackbone(DeployModel):
    """The backbone, normalisation included, under the cheapest head there is: the floor of every recognizer."""

    def outputs(self, tokens: Tensor) -> tuple[Tensor, ...]:
        """Map tokens (N, T, D) to their mean (N, D)."""
        return (tokens.mean(dim=1),)
