"""A foreign ONNX classifier becomes an engine: one file, and the spec that also lies beside it."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmlr_edge.adopting.foreign import Foreign, assumed, choose_output, read_foreign
from cmlr_edge.adopting.graph import wrap
from cmlr_edge.adopting.labels import labels_of_metadata
from cmlr_edge.adopting.recipe import Activation, Recipe
from cmlr_edge.adopting.reference import (
    Reference,
    activated,
    are_probabilities,
    are_shares,
    guess_activation,
    require_activation,
)
from cmlr_edge.adopting.search import Fit, best_fit, difference, prepared
from cmlr_edge.backends import load_backend
from cmlr_edge.backends.golden import GOLDEN_TOLERANCE, golden_frames
from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.embedded import SPEC_KEY, UNSEALED, names_entry, seal, with_metadata
from cmlr_edge.model.files import sha256_of, signature_path, spec_path, write_together
from cmlr_edge.model.spec import (
    AdoptedModel,
    BuiltFile,
    GoldenSample,
    MethodSpec,
    ModelSpec,
    ParityReport,
    Provenance,
    ThresholdFit,
)
from cmlr_edge.model.thresholds import ThresholdRule, fit_thresholds, reaches, written
from cmlr_edge.wording import few_of

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

FILE = "model.onnx"
_log = logging.getLogger(__name__)
_NAMED = 8  # labels in a warning
_SEED = 20241
_FRAMES = 4  # that both are compared on
_SHRINKAGE = 5.0  # as `train` takes it
# Both run in one runtime; in float16 the last bit of a pixel moves where constants are folded.
_PARITY = {"float32": 1e-4, "float16": 1e-2, "int8": 5e-2}
_QUANTISED = {"QuantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "ConvInteger"}


@dataclass(frozen=True)
class Wishes:
    """What the user says of a model; None where the file, or what is usual, decides."""

    recipe: Recipe = field(default_factory=Recipe)
    labels: tuple[str, ...] | None = None
    activation: Activation | None = None
    output: str | None = None
    name: str | None = None
    threshold: float = 0.5  # of every label, unless they are fitted


@dataclass(frozen=True, eq=False)
class Known:
    """Pictures, in BGR, whose scores (N, L) another runtime gave."""

    names: tuple[str, ...]
    pictures: tuple[NDArray[np.uint8], ...]
    scores: NDArray[np.float32]
    tolerance: float = 1e-3  # of a score


@dataclass(frozen=True, eq=False)
class Adopted:
    """An engine to be written."""

    content: bytes
    spec: ModelSpec

    def write(self, folder: Path) -> Path:
        """Write `model.onnx` and `model.json`; return the first."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        write_together({path: self.content, spec_path(path): self.spec.to_json()})
        signature_path(path).unlink(missing_ok=True)  # of what lay there before
        return path


class Adoption:
    """A foreign model, looked at; `finish` makes the engine.

    Example:
        >>> adoption = Adoption(Path("model.onnx"), Wishes(parse_recipe("imagenet,crop=256")))
        >>> adoption.finish().write(Path("engine"))
    """

    def __init__(self, path: Path, wishes: Wishes) -> None:
        """Read a model, settle what is said of it, and run it once.

        Args:
            path: An ONNX file.
            wishes: What is known of it.

        Raises:
            DependencyError: onnx or ONNX Runtime is not installed.
            EngineError: It is no classifier that can be run.
            SpecError: What is said of it does not fit.
        """
        self.foreign, self.wishes = read_foreign(path), wishes
        self.output = choose_output(self.foreign, wishes.output)
        told = wishes.recipe.over(self.foreign.told())
        if told.layout is None:
            raise SpecError(
                f"{path.name} takes {self.foreign.input_dims}: say --preprocess nchw or nhwc"
            )
        self.recipe = told.over(assumed(self.foreign))
        self.guessed = [f.name for f in fields(Recipe) if getattr(told, f.name) is None]
        _check_size(self.foreign, self.recipe)
        self.reference = Reference.of(self.foreign, self.output)
        self._frames = [golden_frames(_SEED + i, self.recipe.size) for i in range(_FRAMES)]
        raw = self.reference.raw(np.concatenate(self._frames), self.recipe)
        if not np.isfinite(raw).all():
            raise EngineError(
                f"{path.name} gives scores that are no numbers: its weights are damaged, or it cannot "
                f"take --preprocess {self.recipe.words()}"
            )
        if (raw == raw[0]).all():  # as where pictures of one batch are compared with each other
            raise EngineError(
                f"{path.name} gives the same scores for {len(raw)} different pictures, {raw[0, 0]:.3g} of "
                "the first label: it says nothing of a picture by itself; export it for evaluation"
            )
        self.labels = self._named(raw.shape[1])
        require_activation(self.foreign, self.output, wishes.activation, raw.shape[1])
        guess, self.activation_is_guess = guess_activation(self.foreign, self.output, raw)
        self.activation: Activation = wishes.activation or guess
        self.activation_is_guess &= wishes.activation is None
        if self.activation == "none" and not are_probabilities(raw):
            worst = float(raw.ravel()[np.abs(raw - 0.5).argmax()])
            raise SpecError(
                f"{path.name} gives {worst:.3g}, which is no probability: say --activation softmax, "
                "or sigmoid where several labels can be true at once"
            )
        self.exclusive = are_shares(activated(raw, self.activation))
        self.thresholds = (wishes.threshold,) * len(self.labels)
        self.threshold_fit = ThresholdFit("fixed", "none", 0, _precision(self.foreign.model), 0.0)
        self.checked = ""

    def _named(self, number: int) -> tuple[str, ...]:
        name = self.foreign.path.name
        labels = self.wishes.labels or labels_of_metadata(self.foreign.metadata, name)
        if not labels:
            raise SpecError(f"{name} gives {number} scores and no names: give --labels, one a line")
        if len(labels) != number:
            hint = (
                "; its first class may be the background: put that line first"
                if number == len(labels) + 1
                else ""
            )
            raise SpecError(f"{name} gives {number} scores for {len(labels)} labels{hint}")
        return labels

    def hold_against(self, known: Known) -> float:
        """Compare with scores of another runtime; what was guessed gives way where that explains them.

        Returns:
            The largest difference of a score.

        Raises:
            EngineError: It is above the tolerance.
        """
        activations: list[Activation] = [self.activation]
        if self.activation_is_guess and self.activation == "softmax":
            activations.append("sigmoid")
        found = best_fit(
            self.reference,
            known.pictures,
            known.scores,
            self.recipe,
            self.wishes.recipe,
            activations,
            good=known.tolerance / 100,  # several filters give nearly the same
        )
        raw = self.reference.raw(prepared(known.pictures, found.recipe), found.recipe)
        each = [
            difference(raw[i : i + 1], known.scores[i : i + 1], found.activation)
            for i in range(len(raw))
        ]
        worst = int(np.argmax(each))
        if not each[worst] <= known.tolerance:
            raise EngineError(
                f"{self.foreign.path.name} gives other scores than those given: they differ by "
                f"{each[worst]:.2g} on {known.names[worst]}, {known.tolerance:g} allowed; nothing was "
                f"written. Nearest: --preprocess {found.recipe.words()} --activation {found.activation}; "
                "what you gave was kept, and what you leave out is searched"
            )
        self._take(found, f"{len(raw)} pictures: scores differ by at most {each[worst]:.2g}")
        return each[worst]

    def _take(self, found: Fit, checked: str) -> None:
        self.exclusive = self.exclusive and found.activation == self.activation
        self.recipe, self.activation = found.recipe, found.activation
        self.checked, self.guessed, self.activation_is_guess = checked, [], False

    def fit(
        self,
        pictures: Iterable[NDArray[np.uint8]],
        targets: NDArray[np.float32],
        rule: ThresholdRule,
        *,
        data: str,
    ) -> None:
        """Choose the thresholds by labelled pictures.

        Args:
            pictures: N of them, uint8 (H, W, 3), BGR.
            targets: (N, L), 1 where the label is present.
            rule: What thresholds should be best for.
            data: Names the pictures.
        """
        rows = [self.reference.raw(prepared([p], self.recipe), self.recipe) for p in pictures]
        scores = activated(np.concatenate(rows), self.activation)
        fitted = fit_thresholds(scores, targets, shrinkage=_SHRINKAGE, rule=rule)
        self.thresholds = written(fitted)
        named = reaches(scores, np.asarray(self.thresholds, np.float32))
        missed = np.any(targets, axis=0) & ~np.any(named, axis=0)
        if silent := [self.labels[k] for k in np.flatnonzero(missed)]:
            _log.warning(
                "never named on these pictures, though they are there: %s; try another --rule, or check "
                "--preprocess and the order of the labels",
                few_of(silent, _NAMED),
            )
        about = f"{_printable(data)}, {len(targets)} images"
        precision = self.threshold_fit.precision
        self.threshold_fit = ThresholdFit(str(rule), about, len(targets), precision, _SHRINKAGE)

    def finish(self) -> Adopted:
        """Build the engine, and run it beside the model that came.

        Raises:
            EngineError: They differ.
        """
        expected = activated(
            self.reference.raw(np.concatenate(self._frames), self.recipe), self.activation
        )
        precision = _precision(self.foreign.model)
        one_by_one = False
        try:
            built, content = self._built(expected, precision, any_batch=True)
        except EngineError as error:  # its shapes say so in more places than can be told
            if (number := self.foreign.input_dims[0] or 1) > 1:
                raise EngineError(
                    f"{self.foreign.path.name} takes {number} pictures at a time, and cannot be changed "
                    "to take another number: export it for one"
                ) from error
            one_by_one = True
            built, content = self._built(expected, precision, any_batch=False)
        spec = self._spec(built, one_by_one=one_by_one)
        entries = {**names_entry(spec.labels), SPEC_KEY: spec.to_json().decode()}
        content = seal(with_metadata(content, entries))
        whole = replace(built, sha256=sha256_of(content))
        return Adopted(content, replace(spec, files={FILE: whole}))

    def _built(
        self, expected: NDArray[np.float32], precision: str, *, any_batch: bool
    ) -> tuple[BuiltFile, bytes]:
        model = wrap(
            self.foreign,
            self.recipe,
            self.output,
            len(self.labels),
            self.activation,
            any_batch=any_batch,
        )
        content: bytes = model.SerializeToString()
        with closing(load_backend(Path(FILE), content, provider="cpu")) as backend:
            alone = np.concatenate([backend.infer(frame) for frame in self._frames])
            together = backend.infer(np.concatenate(self._frames))
        gap = max(float(np.abs(found - expected).max()) for found in (alone, together))
        if not gap <= _PARITY[precision]:
            raise EngineError(
                f"{self.foreign.path.name} gives other scores once its input is ours: they differ by "
                f"{gap:.2g}, {_PARITY[precision]:g} allowed; nothing was written"
            )
        golden = tuple(round(float(score), 7) for score in alone[0])
        sample = GoldenSample(_SEED, golden, GOLDEN_TOLERANCE[precision])
        parity = ParityReport(len(alone), gap, 0)
        return BuiltFile(UNSEALED, "onnx", precision, parity, sample), content

    def _spec(self, built: BuiltFile, *, one_by_one: bool) -> ModelSpec:
        foreign, wishes = self.foreign, self.wishes
        if wishes.name is not None and not wishes.name.isprintable():
            raise SpecError(f"the name {repr(wishes.name)[:60]} should be printable text")
        open_ = Recipe(**{name: getattr(self.recipe, name) for name in self.guessed}).words()
        guessed = [open_] if open_ else []
        guessed += [f"activation {self.activation}"] if self.activation_is_guess else []
        about = AdoptedModel(
            source=_printable(foreign.path.name),
            source_sha256=foreign.source_sha256,
            input=f"{foreign.type_name} {foreign.input_dims}, {self.recipe.layout}, "
            f"{self.recipe.words()}".replace("None", "any"),
            activation=self.activation,
            exclusive=self.exclusive,
            one_by_one=one_by_one,
            assumed=tuple(guessed),
            checked=self.checked,
        )
        return ModelSpec(
            name=wishes.name or _printable(foreign.path.stem),
            labels=self.labels,
            thresholds=self.thresholds,
            preprocess=self.recipe.spec(),
            method=MethodSpec("adopted", "none", "none", 0, 0, 0),
            provenance=Provenance("unknown", 0, 0, 0, version("cmlr-edge")),
            threshold_fit=self.threshold_fit,
            files={FILE: built},
            adopted=about,
        )


def _check_size(foreign: Foreign, recipe: Recipe) -> None:
    """Refuse a size that is missing, or that the model cannot take."""
    name = foreign.path.name
    if recipe.size_hw is None:
        raise SpecError(f"{name} takes pictures of any size: say --preprocess size=224")
    recipe.spec()
    height, width = recipe.size_hw
    dims = foreign.input_dims
    if len(dims) == 2:
        if dims[1] not in {None, height * width * 3}:
            raise SpecError(
                f"{name} takes rows of {dims[1]} values, {height}x{width} pixels have "
                f"{height * width * 3}: say --preprocess size="
            )
        return
    sides = dims[2:] if recipe.layout == "nchw" else dims[1:3]
    fixed = all(want in {None, side} for want, side in zip(sides, (height, width), strict=True))
    if not fixed:
        raise SpecError(f"{name} takes pictures of {sides[0]}x{sides[1]}, not of {height}x{width}")


def _precision(model: onnx.ModelProto) -> str:
    if any(node.op_type in _QUANTISED for node in model.graph.node):
        return "int8"
    halves = any(tensor.data_type == tensor.FLOAT16 for tensor in model.graph.initializer)
    return "float16" if halves else "float32"


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "_" for c in text)
