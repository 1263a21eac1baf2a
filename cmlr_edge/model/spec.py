"""What a trained model needs to be run: its input format, its labels, their thresholds, its files.

The one source of these facts. Training writes the spec into the checkpoint, export copies it beside
the engine and adds what it built, and the Recognizer reads it back; nobody else states a mean, a
size or a label name.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from cmlr_edge.errors import SpecError
from cmlr_edge.model.explanation import ExplanationSpec
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.stability import StabilityRules, stability_from_thresholds
from cmlr_edge.model.strict_json import json_text, parse_json, read_bounded

FORMAT_VERSION = 1
INPUT_NAME = "frames"  # uint8 (N, H, W, 3), RGB
# How far a score may be from the golden one: beyond, the self-test would find nothing.
MAX_TOLERANCE = 0.15  # what int8 needs
OUTPUT_NAME = "scores"  # float32 (N, L), probabilities


# How a frame is brought to the model's size: its aspect ratio is lost; kept, with bars; or kept, and
# what lies outside the middle is cut off.
Resize: TypeAlias = Literal["stretch", "letterbox", "crop"]
# Those of Pillow look at every pixel when they shrink, as torchvision's do; OpenCV's at the nearest ones.
Interpolation: TypeAlias = Literal[
    "area",
    "nearest",
    "bilinear",
    "bicubic",
    "pillow-nearest",
    "pillow-bilinear",
    "pillow-bicubic",
    "pillow-lanczos",
]


@dataclass(frozen=True)
class PreprocessSpec:
    """How a frame becomes model input; `preprocess()` applies the resize, the graph the rest."""

    size_hw: tuple[int, int]
    mean: tuple[float, float, float]  # of pixels scaled to [0, 1], R G B
    std: tuple[float, float, float]
    resize: Resize = "stretch"
    interpolation: Interpolation = "area"
    color_order: Literal["rgb"] = "rgb"
    # Of "crop": pixels that the shorter side is resized to before the middle is cut out; 0: as few as
    # fill size_hw.
    short_side: int = 0
    fill: int = 0  # of the bars of "letterbox", 0 to 255

    def __post_init__(self) -> None:
        """Reject sizes and scales that no model has."""
        if not all(1 <= side <= 8192 for side in self.size_hw):
            raise SpecError(f"preprocess.size_hw is {self.size_hw}: each side must be 1 to 8192")
        if min(self.std) <= 0:
            raise SpecError(f"preprocess.std is {self.std}: every value must be above 0")
        if self.short_side and not max(self.size_hw) <= self.short_side <= 8192:
            raise SpecError(
                f"preprocess.short_side is {self.short_side}: it must be 0, or {max(self.size_hw)} "
                f"to 8192, so that {self.size_hw} can be cut out"
            )
        if not 0 <= self.fill <= 255:
            raise SpecError(f"preprocess.fill is {self.fill}: it must lie in 0 to 255")


PRECISIONS = ("float32", "float16", "bfloat16", "int8")
_FORMER_PRECISIONS = {"fp32": "float32", "fp16": "float16", "bf16": "bfloat16"}  # in older specs


@dataclass(frozen=True)
class ThresholdFit:
    """How the thresholds came about."""

    rule: str  # "f1", "precision=0.9", "cost=5", "fixed"
    data: str
    num_images: int
    precision: str  # of the model whose scores were used
    shrinkage: float  # pseudo-count of positives that pulls a rare label to the global threshold


@dataclass(frozen=True)
class MethodSpec:
    """The method settings that matter to whoever reads the scores."""

    backbone: str
    intervention: str
    inference_context: str
    num_confounders: int
    embed_dim: int
    decoder_layers: int

    @property
    def read_out(self) -> str:
        """Which of the network's scores are deployed; one without intervention has plain ones alone."""
        return "plain" if self.intervention == "none" else self.inference_context


@dataclass(frozen=True)
class Provenance:
    """Where the weights come from."""

    data: str
    num_train_images: int
    epochs: int
    seed: int
    cmlr_edge_version: str
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ParityReport:
    """The built file against the training model, on `num_images` images."""

    num_images: int
    max_score_difference: float
    decision_flips: int


@dataclass(frozen=True)
class GoldenSample:
    """A seeded input and the scores it must give; see `cmlr_edge.backends.golden`."""

    seed: int
    scores: tuple[float, ...]
    tolerance: float

    def __post_init__(self) -> None:
        """Reject what cannot be drawn or compared."""
        if not 0 <= self.seed < 2**32:
            raise SpecError(f"golden.seed is {self.seed}: it must lie in 0 to 2**32 - 1")
        if not 0 <= self.tolerance <= MAX_TOLERANCE:
            raise SpecError(f"golden.tolerance is {self.tolerance}: expected 0 to {MAX_TOLERANCE}")


@dataclass(frozen=True)
class EngineBuild:
    """Where and from what a TensorRT engine was built: it runs nowhere else."""

    tensorrt: str  # "10.3.0"
    compute_capability: str  # "8.7"
    gpu: str
    plugin_version: str | None  # of CmlrAttention; None: its plain operations
    batch: tuple[int, int, int]  # smallest, tuned for, largest
    source: str  # the ONNX file in this spec that it was built from
    source_sha256: str
    layers: dict[str, int] = field(default_factory=dict)  # by precision, as built
    dla_core: int | None = None  # accelerator that it runs on, besides the GPU
    dla_layers: int = 0  # that the accelerator takes

    def __post_init__(self) -> None:
        """Reject a batch that is no range."""
        smallest, tuned, largest = self.batch
        if not 1 <= smallest <= tuned <= largest:
            raise SpecError(f"batch is {self.batch}: expected 1 <= smallest <= tuned <= largest")


@dataclass(frozen=True)
class BuiltFile:
    """One model file that export wrote beside the spec."""

    sha256: str
    runtime: Literal["onnx", "tensorrt"]
    precision: str  # one of PRECISIONS
    parity: ParityReport
    golden: GoldenSample
    engine: EngineBuild | None = None  # of the runtime "tensorrt"

    def __post_init__(self) -> None:
        """Reject a digest that cannot be one, and an engine of unknown origin."""
        precision = _FORMER_PRECISIONS.get(self.precision, self.precision)
        if precision not in PRECISIONS:
            raise SpecError(f"precision is {self.precision!r}: expected one of {PRECISIONS}")
        object.__setattr__(self, "precision", precision)
        if not re.fullmatch(r"[0-9a-f]{64}", self.sha256):
            raise SpecError(f"sha256 {self.sha256!r} is not 64 lower-case hexadecimal digits")
        if (self.runtime == "tensorrt") != (self.engine is not None):
            raise SpecError('a file has "engine" if, and only if, its runtime is "tensorrt"')


@dataclass(frozen=True)
class AdoptedModel:
    """What is known of a model that was trained elsewhere; see `cmlr_edge.adopting`."""

    source: str  # name of the file that came
    source_sha256: str
    input: str  # of that file, in words; the frames are made into it inside the graph
    activation: Literal["none", "softmax", "sigmoid"]  # that was put behind it
    exclusive: bool  # its scores are shares of one whole: at most one label reaches 0.5
    one_by_one: bool = False  # it takes a single frame at a time
    assumed: tuple[str, ...] = ()  # settings that neither the file nor anybody told
    checked: str = ""  # what the settings were held against, and how it ended


@dataclass(frozen=True)
class TaughtLabel:
    """How one label was added to an engine, and what is to be expected of it; intervals hold 95 %.

    Its scores of pictures that it was not taught from, by cross-validation, are what all this is from.
    """

    name: str
    positives: int  # pictures with it, each counted once
    negatives: int  # without
    threshold_between: tuple[float, float]
    recall: float
    recall_between: tuple[float, float]
    false_alarms: float  # share of the negatives
    false_alarms_between: tuple[float, float]


@dataclass(frozen=True)
class Teaching:
    """The labels that were added to an engine, and the proof that the others are as they were."""

    base_sha256: str  # of the file without them, which can be had back from this one
    base_golden: tuple[float, ...]  # its golden scores
    frames: tuple[str, ...]  # SHA-256 of each model input that was compared, 16 digits
    bit_equal: dict[str, int]  # by provider: inputs on which every old score had the same bits
    labels: tuple[TaughtLabel, ...]  # the last ones of the spec, in their order

    def __post_init__(self) -> None:
        """Reject a certificate that certifies nothing."""
        if not re.fullmatch(r"[0-9a-f]{64}", self.base_sha256):
            raise SpecError("taught.base_sha256 is not 64 lower-case hexadecimal digits")
        if not self.labels or not self.frames or not self.bit_equal:
            raise SpecError("taught names no labels, no frames or no provider: teach them again")
        if short := {k: n for k, n in self.bit_equal.items() if n != len(self.frames)}:
            raise SpecError(
                f"taught.bit_equal is {short} of {len(self.frames)} frames: an old score was moved, "
                "which no taught engine may; teach the engine again from its base"
            )

    def require_describes(self, labels: tuple[str, ...], files: dict[str, BuiltFile]) -> None:
        """Compare with the rest of a spec.

        Raises:
            SpecError: They contradict each other.
        """
        old = len(labels) - len(self.labels)
        if old != len(self.base_golden) or labels[old:] != tuple(x.name for x in self.labels):
            raise SpecError(
                f"taught has {len(self.base_golden)} scores of the base and the labels "
                f"{[x.name for x in self.labels]}: they are not what the spec's labels begin and end "
                "with"
            )
        for name, built in files.items():
            # An engine for a GPU is built anew, and its bits are its own.
            if built.runtime == "onnx" and built.golden.scores[:old] != self.base_golden:
                raise SpecError(
                    f"the golden sample of {name} has other scores of the old labels than the base: "
                    "teach the engine again from its base"
                )


@dataclass(frozen=True)
class ModelSpec:
    """Input format, label names, decision thresholds and files of one trained model."""

    name: str
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]  # one per label: reported when its score is >= this; 1: never
    preprocess: PreprocessSpec
    method: MethodSpec
    provenance: Provenance
    threshold_fit: ThresholdFit
    files: dict[str, BuiltFile] = field(default_factory=dict)
    stability: StabilityRules = field(default_factory=StabilityRules)  # of its labels' events
    adopted: AdoptedModel | None = None  # of a model that was trained elsewhere
    taught: Teaching | None = None  # labels that were added after export
    explanation: ExplanationSpec | None = None  # of files that can say why
    format_version: int = FORMAT_VERSION

    def __post_init__(self) -> None:
        """Reject a spec that cannot describe a model."""
        if self.format_version != FORMAT_VERSION:
            raise SpecError(
                f"the spec has format_version {self.format_version}, this cmlr_edge reads "
                f"{FORMAT_VERSION}: export the model again with this version"
            )
        if not self.labels:
            raise SpecError("the spec lists no labels: a model needs at least one")
        repeated = sorted(label for label, count in Counter(self.labels).items() if count > 1)
        if repeated or "" in self.labels:
            raise SpecError(f"label names must be unique and not empty; repeated: {repeated}")
        if len(self.labels) != len(self.thresholds):
            raise SpecError(
                f"{len(self.labels)} labels but {len(self.thresholds)} thresholds: "
                "every label needs exactly one threshold"
            )
        if outside := [value for value in self.thresholds if not 0 <= value <= 1]:
            raise SpecError(f"thresholds must lie in [0, 1], got {outside}")
        stability_from_thresholds(self.thresholds_by_label, self.stability)
        explained = len(self.labels) - (len(self.taught.labels) if self.taught else 0)
        if self.explanation is not None and len(self.explanation.bias) != explained:
            raise SpecError(
                f"{explained} labels but explanation.bias has {len(self.explanation.bias)} "
                "values: export the model again"
            )
        for name, built in self.files.items():
            if name in {"", ".", ".."} or "/" in name:
                raise SpecError(f"files lists {name!r}: expected plain file names, without folders")
            if len(built.golden.scores) != len(self.labels):
                raise SpecError(
                    f"{len(self.labels)} labels but the golden sample of {name} has "
                    f"{len(built.golden.scores)} scores: export the model again"
                )
        if self.taught is not None:
            self.taught.require_describes(self.labels, self.files)

    @property
    def thresholds_by_label(self) -> dict[str, float]:
        """The threshold of each label."""
        return dict(zip(self.labels, self.thresholds, strict=True))

    def save(self, path: Path) -> None:
        """Write the spec as JSON, whole or not at all."""
        write_atomically(path, self.to_json())

    def to_json(self) -> bytes:
        """Return what `save` writes."""
        # An older cmlr_edge refuses what it does not know, so write it only where it says something.
        silent = {
            "stability": self.stability == StabilityRules(),
            "adopted": self.adopted is None,
            "taught": self.taught is None,
            "explanation": self.explanation is None,
            "explanation.training": self.explanation is not None
            and self.explanation.training is None,
            "preprocess.short_side": not self.preprocess.short_side,
            "preprocess.fill": not self.preprocess.fill,
        }
        return json_text(self, omit=[name for name, is_silent in silent.items() if is_silent])

    @classmethod
    def load(cls, path: Path) -> ModelSpec:
        """Read a spec that `save` wrote.

        Raises:
            SpecError: The file is missing or unreadable, is not JSON, has unknown or missing keys,
                or contradicts itself.
        """
        return cls.parse(read_spec_text(path), path)

    @classmethod
    def parse(cls, text: bytes, path: Path) -> ModelSpec:
        """Take what was read from `path`; raises as `load` does."""
        try:
            return parse_json(text, cls)
        except SpecError as error:
            raise SpecError(f"{path}: {error}") from error
        except ValueError as error:
            raise _no_spec(path, error) from error


def read_spec_text(path: Path) -> bytes:
    """Read a spec, without looking at what it says.

    Raises:
        SpecError: There is none, or it cannot be one.
    """
    try:
        return read_bounded(path)
    except FileNotFoundError as error:
        raise SpecError(
            f"no model spec at {path}: export/build_engine.py writes it beside the engine; "
            "copy both files together, or make an engine of any other classifier with `cmlr-edge adopt`"
        ) from error
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise _no_spec(path, error) from error


def _no_spec(path: Path, error: Exception) -> SpecError:
    return SpecError(
        f"{path} is not a model spec: {error}. Copy the spec that "
        "export/build_engine.py wrote beside the engine"
    )
