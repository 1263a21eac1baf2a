"""Trained network -> deployed network: everything that hangs on weights alone is computed here.

Constants are computed in float64 and kept in float32. Weights that no fold pays for stay bit for bit
what was trained, so that those trained to fit float16 can be stored as float16.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmlr_edge.model.spec import PreprocessSpec
from export.deploy import FusedHead, FusedModel
from export.fold_causal import fold_causal, fold_combine
from export.fold_decoder import affine, fold_decoder, fold_readout
from export.fused import (
    Affine,
    ClassMaps,
    CosineClassifier,
    MeanClassifier,
    PooledReadout,
    Standardize,
)
from export.fusion_report import FusionReport, Ledger
from train.network.baselines import (
    COSINE_PARTS,
    COSINE_TEMPERATURE,
    CcdClassifier,
    FeatureSplitClassifier,
    PooledClassifier,
)
from train.network.intervention import BackDoorIntervention
from train.network.model import CausalHead, CausalRecognizer


@torch.no_grad()
def fuse(model: CausalRecognizer, spec: PreprocessSpec) -> tuple[FusedModel, FusionReport]:
    """Rewrite a trained network for inference.

    Args:
        model: Stays as it is.
        spec: Size, mean and std of its input.

    Returns:
        A network that maps uint8 frames to the same scores, and what was folded.
    """
    ledger = Ledger()
    backbone = copy.deepcopy(model.backbone).eval()
    mean, scale = _fold_normalisation(backbone, spec, ledger)
    num_tokens = backbone(torch.zeros(1, 3, *spec.size_hw)).shape[1]
    head = fuse_head(model, num_tokens, ledger)
    return FusedModel(backbone, head, mean, scale).eval(), ledger.report()


@torch.no_grad()
def fuse_head(model: CausalHead, num_tokens: int, ledger: Ledger) -> FusedHead:
    """Rewrite what stands behind the backbone.

    Args:
        model: Stays as it is.
        num_tokens: T, of one image.
        ledger: Notes what was folded.
    """
    without = {id(model.backbone): None} if isinstance(model, CausalRecognizer) else {}
    head: CausalHead = copy.deepcopy(model, dict(without)).double().eval()
    if head.config.inference_context == "decoder":
        dropped = [part for part in (head.links, head.intervention) if part is not None]
        head.links = head.intervention = None
        ledger.add("intervention", ["dropped: the decoder alone is deployed"], before=dropped)
    standardize = _fold_standardisation(head, ledger)
    if head.decoder is not None:
        assert head.readout is not None
        decouple: nn.Module = fold_decoder(head.decoder, num_tokens, ledger)
        readout: nn.Module | None = fold_readout(head.readout)
    else:
        decouple, readout = _fold_classifier(head, ledger), None
    pooled = None if head.pooled is None else PooledReadout(affine(head.pooled.linear))
    maps = _fold_class_maps(head, ledger)
    causal, combine = fold_causal(head, ledger), fold_combine(head, ledger)
    return FusedHead(standardize, decouple, readout, pooled, maps, causal, combine).float().eval()


def _fold_class_maps(head: CausalHead, ledger: Ledger) -> ClassMaps | None:
    """Read the detector's verdict from standardised tokens."""
    maps, number = head.class_maps, head.num_labels
    if maps is None:
        return None
    mean, scale = head.token_mean[:number], head.token_scale[:number]
    folded = ClassMaps(maps.scale / scale, maps.bias + maps.scale * mean)
    ledger.add("class_maps", ["kept"], before=[maps], after=[folded])
    return folded


def _fold_normalisation(
    backbone: nn.Module, spec: PreprocessSpec, ledger: Ledger
) -> tuple[Tensor | None, Tensor | None]:
    """Put mean and std into the first convolution; what cannot be is returned (1, 1, 1, 3)."""
    mean, std = (torch.tensor(v) * 255 for v in (spec.mean, spec.std))
    convolution = _first_convolution(backbone, spec.size_hw)
    if convolution is None:
        ledger.add("preprocess", ["kept: no plain convolution reads the image"])
        return mean.view(1, 1, 1, 3), 1 / std.view(1, 1, 1, 3)
    weight = convolution.weight.double() / std.view(3, 1, 1).double()
    convolution.weight = nn.Parameter(weight.float())
    # Zeros around a normalised picture stand for pixels of the mean colour. Zeros around raw
    # pixels would stand for black: with padding the mean has to be subtracted before, or a map be
    # added behind that is right at the border too.
    if type(convolution) is not nn.Conv2d or any(convolution.padding):
        (height, width), (down, right) = spec.size_hw, convolution.stride
        mapped = convolution.out_channels * -(-height // down) * -(-width // right)
        what = (
            f"std in the first convolution; the mean kept: {3 * height * width:,} subtractions, "
            f"where a map that is right at the padded border takes {mapped:,} additions"
        )
        ledger.add("preprocess", [what])
        return mean.view(1, 1, 1, 3), None
    shift = (weight * mean.view(3, 1, 1).double()).sum(dim=(1, 2, 3))
    bias = -shift if convolution.bias is None else convolution.bias.double() - shift
    before = [convolution.bias]
    convolution.bias = nn.Parameter(bias.float())
    what = "mean and std in the first convolution, which has no padding"
    ledger.add("preprocess", [what], before=before, after=[convolution.bias])
    return None, None


def _first_convolution(backbone: nn.Module, size_hw: tuple[int, int]) -> nn.Conv2d | None:
    """The convolution that reads the image itself, where it comes first and alone."""
    image, readers = torch.zeros(1, 3, *size_hw), []
    hooks = [
        module.register_forward_pre_hook(
            lambda module, inputs: readers.append(module) if inputs[0] is image else None
        )
        for module in backbone.modules()
        if not list(module.children())
    ]
    backbone(image)
    for hook in hooks:
        hook.remove()
    first = readers[0] if len(readers) == 1 else None
    grouped = isinstance(first, nn.Conv2d) and first.groups == 1
    return first if grouped and isinstance(first, nn.Conv2d) else None


def _reads_standardised(head: CausalHead) -> bool:
    """Whether anything but a linear map reads the tokens: a norm, a maximum or a cosine."""
    linear = head.config.head in {"pooled", "feature-split", "ml-decoder"}
    own = isinstance(head.intervention, BackDoorIntervention) and (
        head.config.inference_context == "own"
    )
    standardizes = head.config.standardize_tokens
    highest = head.pooled is not None or head.class_maps is not None
    return standardizes and (not linear or highest or own)


def _fold_standardisation(head: CausalHead, ledger: Ledger) -> Standardize | None:
    """Fold it into the linear map that alone reads the tokens, in place; else return it."""
    mean, scale = head.token_mean, head.token_scale
    if not head.config.standardize_tokens:
        ledger.add("standardize", ["dropped: not asked for"], before=[mean, scale])
        return None
    if _reads_standardised(head):
        kept = Standardize(mean, scale)
        what = "kept: a norm, maximum or cosine over channels follows, which sees their scales"
        ledger.add("standardize", [what], before=[mean, scale], after=[kept])
        return kept
    if isinstance(head.classifier, FeatureSplitClassifier):
        half, own, company = head.classifier.own_half, head.classifier.own, head.classifier.company
        own.bias.sub_(own.weight @ (mean * scale)[:half] + company.weight @ (mean * scale)[half:])
        own.weight.mul_(scale[:half])
        company.weight.mul_(scale[half:])
    else:
        linear = head.decoder.project if head.decoder is not None else head.classifier
        linear = linear.linear if isinstance(linear, PooledClassifier) else linear
        assert isinstance(linear, nn.Linear)
        linear.bias.sub_(linear.weight @ (mean * scale))
        linear.weight.mul_(scale)
    ledger.add("standardize", ["in the linear map behind it"], before=[mean, scale])
    return None


def _fold_classifier(head: CausalHead, ledger: Ledger) -> nn.Module:
    classifier = head.classifier
    if isinstance(classifier, CcdClassifier):
        rows = F.normalize(classifier.weight.unflatten(-1, (COSINE_PARTS, -1)), dim=-1).flatten(1)
        folded: nn.Module = CosineClassifier(
            affine(classifier.context),
            classifier.memory,
            affine(classifier.gate),
            Affine(rows.T * (COSINE_TEMPERATURE / COSINE_PARTS), classifier.bias),
            COSINE_PARTS,
        )
        what = "rows normalised, temperature in them"
    elif isinstance(classifier, FeatureSplitClassifier):
        weight = torch.cat([classifier.own.weight, classifier.company.weight], dim=1)
        folded = MeanClassifier(Affine(weight.T, classifier.own.bias))
        what = "both halves in one product; the running mean dropped"
    else:
        assert isinstance(classifier, PooledClassifier)
        folded, what = MeanClassifier(affine(classifier.linear)), "kept"
    ledger.add("classifier", [what], before=[classifier], after=[folded])
    return folded
