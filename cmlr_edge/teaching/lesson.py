"""Teaching an engine: a label added, improved, renamed or taken away; every other score stays as it is."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.backends import find_providers, load_backend
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.backends.onnx_rows import (
    Row,
    features_of,
    find_tokens,
    rows_of,
    with_rows,
    without_rows,
)
from cmlr_edge.engines.check import look
from cmlr_edge.engines.opening import Opening
from cmlr_edge.errors import DataError, EngineError, TooFewError
from cmlr_edge.model.embedded import renamed
from cmlr_edge.model.files import (
    model_path,
    sha256_of,
    signature_path,
    spec_path,
    write_together,
)
from cmlr_edge.model.label_names import require_taught
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import ModelSpec, TaughtLabel, Teaching
from cmlr_edge.model.stability import StabilityRules
from cmlr_edge.teaching.certificate import count_bit_equal, digest_of, require_bit_equal
from cmlr_edge.teaching.examples import Examples, examples_path
from cmlr_edge.teaching.fitting import Array, Basis, fit_row
from cmlr_edge.teaching.judging import Judgement, judge
from cmlr_edge.teaching.pictures import Pictures

_log = logging.getLogger(__name__)
FEWEST = 10  # pictures with a label, and without, that say anything of its threshold
_PATTERNS = 8  # seeded frames that are compared beside the pictures
_FEATURE_BATCH = 4
_LONGEST_NAME = 64
Frame = NDArray[np.uint8]  # as the model sees it, (H, W, 3)
Report = Callable[[str, int], None]  # what is done, and how many frames since


@dataclass(frozen=True)
class Lesson:
    """An engine as it is to be, not written yet."""

    content: bytes
    spec: ModelSpec
    examples: Examples | None
    judgement: Judgement | None = None  # of the label that was taught

    def write(self, out: Path) -> Path:
        """Write model, spec and examples.

        Args:
            out: A folder, for `model.onnx` in it, or the name of an .onnx file.

        Returns:
            Where the model lies.
        """
        path = out if out.suffix == ".onnx" else out / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        [built] = self.spec.files.values()
        spec = replace(self.spec, files={path.name: built})
        files = {path: self.content, spec_path(path): spec.to_json()}
        if self.examples is not None:
            files[examples_path(path)] = self.examples.to_bytes()
        write_together(files)
        for place in {examples_path(path), signature_path(path)} - files.keys():
            place.unlink(missing_ok=True)  # of what lay there before
        return path


class Teacher:
    """Reads an engine, checks it, and makes lessons of it.

    Example:
        >>> lesson = Teacher.of(Path("models/first")).teach("forklift", positives, negatives)
        >>> lesson.write(Path("models/second"))
    """

    def __init__(self, pair: ModelPair, providers: Sequence[str], report: Report) -> None:
        """Take an engine that was read and checked.

        Args:
            pair: The engine, of an ONNX file, and its spec.
            providers: In which its scores are compared.
            report: Told what is done.
        """
        self._pair, self._providers, self._report = pair, providers, report
        self._spec, self._name = pair.spec, pair.path.name
        taught = self._spec.taught
        self._old = len(self._spec.labels) if taught is None else len(taught.base_golden)
        self._labels = () if taught is None else taught.labels
        self._rows = rows_of(pair.content, len(self._labels), self._name)
        base = without_rows(pair.content, self._old, self._name)
        self._base = renamed(base, self._spec.labels[: self._old])
        self._places = find_tokens(self._base, self._name)
        self._tokens = self._places[0]

    @classmethod
    def of(
        cls,
        path: Path,
        *,
        providers: Sequence[str] | None = None,
        report: Report = lambda _what, _done: None,
    ) -> Teacher:
        """Open the engine at `path`, with all its checks.

        Args:
            path: The .onnx file or its folder.
            providers: In which old scores must keep their bits; None: all that are installed here.
            report: Told what is done.

        Raises:
            EngineError: It cannot be opened, or cannot be taught.
            SpecError: The spec is missing or malformed.
        """
        path = model_path(path)
        if path.suffix == ".engine":
            raise EngineError(
                f"{path.name} is machine code for a GPU and cannot be taught: teach the .onnx that it "
                "was built of, and build it again (--rebuild); its old scores then keep the golden "
                "sample's tolerance, not their bits"
            )
        opening = Opening.of(path, "cpu")
        opening.require()
        opening.close()
        if opening.spec.adopted is not None:
            raise EngineError(
                f"{path.name} was trained elsewhere and adopted, and does not say where its tokens are: "
                "only engines of export/build_engine.py can be taught"
            )
        return cls(opening.pair, providers or _providers_here(opening.pair), report)

    @property
    def taught(self) -> tuple[str, ...]:
        """Labels that were added, in their order."""
        return tuple(label.name for label in self._labels)

    @property
    def spec(self) -> ModelSpec:
        """Of the engine as it is."""
        return self._spec

    def teach(
        self,
        label: str,
        positives: Pictures,
        negatives: Pictures,
        frames: Iterable[Frame] = (),
    ) -> Lesson:
        """Add a label, or improve one that was added: pictures of earlier lessons count too.

        Args:
            label: Its name.
            positives: With it.
            negatives: Without it.
            frames: To be compared besides, as the model sees them.

        Raises:
            TooFewError: There are too few pictures, or they do not tell the label from others.
            DataError: The name is no label that may be added, or a picture is said to be both.
            EngineError: An old score would move.
        """
        self._require_free(label, improved=label in self.taught)
        if both := sorted(positives.frames.keys() & negatives.frames.keys()):
            raise DataError(
                f"{positives.names[both[0]]} is given with {label} and without, as {len(both)} "
                "pictures are: take them out of one of the folders"
            )
        examples = self._examples_with(label, positives, negatives)
        bags, present = examples.of(label)
        _require_enough(label, int(present.sum()), int((~present).sum()))
        judgement = judge(bags, present, fit_row)
        _require_told(label, judgement)
        row = fit_row(bags, present).folded(examples.basis)
        self._report("fitting", 1)
        names = [*self.taught]
        place = names.index(label) if label in names else len(names)
        rows, labels = [*self._rows], [*self._labels]
        rows[place : place + 1] = [row]
        labels[place : place + 1] = [judgement.described(label)]
        thresholds = [*self._spec.thresholds]
        thresholds[self._old + place : self._old + place + 1] = [judgement.threshold]
        seen = [*positives.frames.values(), *negatives.frames.values(), *frames]
        lesson = self._lesson(rows, labels, thresholds, seen, but=label)
        return replace(lesson, examples=examples, judgement=judgement)

    def rename(self, label: str, name: str) -> Lesson:
        """Call a label that was added otherwise; every score stays.

        Raises:
            DataError: The name is taken or none.
            SpecError: No such label was added.
        """
        require_taught(label, self.taught)
        self._require_free(name, improved=False)
        place = self.taught.index(label)
        labels = [*self._labels]
        labels[place] = replace(labels[place], name=name)
        examples = self._stored()
        if examples is not None and label in examples.labels:
            examples = examples.renamed(label, name)
        lesson = self._lesson(self._rows, labels, self._spec.thresholds, (), but=label)
        rules = self._spec.stability
        of_labels = {name if key == label else key: v for key, v in rules.labels.items()}
        spec = replace(lesson.spec, stability=replace(rules, labels=of_labels))
        return replace(lesson, spec=spec, examples=examples)

    def forget(self, label: str) -> Lesson:
        """Take away a label that was added, and what it was taught from; without any the base is left.

        Raises:
            SpecError: No such label was added.
        """
        require_taught(label, self.taught)
        place = self.taught.index(label)
        rows, labels, thresholds = [*self._rows], [*self._labels], [*self._spec.thresholds]
        del rows[place], labels[place], thresholds[self._old + place]
        examples = self._stored()
        if examples is not None and label in examples.labels:
            examples = examples.without_label(label)
            examples = examples if examples.digests else None  # nothing is left to teach from
        lesson = self._lesson(rows, labels, thresholds, (), but=label)
        return replace(lesson, examples=examples)

    def _require_free(self, label: str, *, improved: bool) -> None:
        if not label or label != label.strip() or not label.isprintable():
            raise DataError(f"{label!r} is no name of a label: expected one that can be printed")
        if len(label) > _LONGEST_NAME:
            raise DataError(
                f"a label has {len(label)} letters, at most {_LONGEST_NAME} are possible"
            )
        if label in self._spec.labels and not improved:
            raise DataError(
                f"the engine knows {label!r}: only labels that were taught can be taught again"
            )

    def _examples_with(self, label: str, positives: Pictures, negatives: Pictures) -> Examples:
        groups = [(pictures, [*self._look(pictures)]) for pictures in (positives, negatives)]
        examples = self._stored()
        if examples is None:
            seen = np.concatenate(
                [tokens for _, group in groups for tokens in group]
                or [np.zeros((2, self._tokens.width), np.float32)]
            )
            examples = Examples.empty(Basis.of(seen), self._tokens.number, sha256_of(self._base))
        for (pictures, group), present in zip(groups, (True, False), strict=True):
            examples = examples.add(label, [*pictures.frames], group, present=present)
        return examples

    def _stored(self) -> Examples | None:
        path = examples_path(self._pair.path)
        if not path.exists():
            return None
        tokens, base = self._tokens, sha256_of(self._base)
        found = Examples.load(path, width=tokens.width, number=tokens.number, base=base)
        return replace(found, base=base)

    def _look(self, pictures: Pictures) -> Iterator[Array]:
        """Tokens (T, D) of every picture."""
        content = features_of(self._base, self._tokens, self._name)
        frames = [*pictures.frames.values()]
        with closing(load_backend(self._pair.path, content, provider="cpu")) as backend:
            for start in range(0, len(frames), _FEATURE_BATCH):
                batch = np.stack(frames[start : start + _FEATURE_BATCH])
                yield from self._tokens.of(backend.infer(batch))
                self._report("looking at pictures", len(batch))

    def _lesson(
        self,
        rows: Sequence[Row],
        labels: Sequence[TaughtLabel],
        thresholds: Sequence[float],
        seen: Sequence[Frame],
        *,
        but: str,
    ) -> Lesson:
        """Put the engine together, and prove that all scores but those of one label are as they were."""
        names = (*self._spec.labels[: self._old], *(label.name for label in labels))
        size_hw, built = self._spec.preprocess.size_hw, self._spec.files[self._name]
        patterns = [golden_frames(seed, size_hw)[0] for seed in range(_PATTERNS)]
        golden_frame = golden_frames(built.golden.seed, size_hw)[0]
        by_digest = {digest_of(frame): frame for frame in (golden_frame, *patterns, *seen)}
        frames = [*by_digest.values()]
        first = len(patterns) + 1
        content, equal = self._choose(rows, names, frames[:first], but)
        others = self._compare(content, names, frames[first:], but)
        equal = {provider: count + others[provider] for provider, count in equal.items()}
        require_bit_equal(equal, len(frames))
        base_golden = built.golden.scores[: self._old]
        golden = replace(built.golden, scores=(*base_golden, *self._new_golden(content, frames[0])))
        taught = None
        if labels:
            base = sha256_of(self._base)
            taught = Teaching(base, base_golden, tuple(by_digest), equal, tuple(labels))
        spec = replace(
            self._spec,
            labels=names,
            thresholds=tuple(thresholds),
            stability=self._stability(names),
            files={self._name: replace(built, sha256=sha256_of(content), golden=golden)},
            taught=taught,
        )
        return Lesson(content, spec, None)

    def _choose(
        self, rows: Sequence[Row], names: Sequence[str], frames: Sequence[Frame], but: str
    ) -> tuple[bytes, dict[str, int]]:
        """Read the tokens where no old score minds, else at the last place; with what `_compare` says."""
        content, equal = b"", dict[str, int]()
        for place in self._places:
            added = with_rows(self._base, rows, self._old, self._name, place)
            content = renamed(added, names)
            equal = self._compare(content, names, frames, but)
            if set(equal.values()) == {len(frames)}:
                break
        return content, equal

    def _compare(
        self, content: bytes, names: Sequence[str], frames: Sequence[Frame], but: str
    ) -> dict[str, int]:
        """By provider, on how many frames all scores but those of one label have the same bits."""
        kept = [x for x in self._spec.labels if x != but]
        old = self._pair.content, [self._spec.labels.index(x) for x in kept]
        new = content, [names.index(x) for x in kept]
        equal = {}
        for provider in self._providers:
            told = partial(self._report, f"comparing old scores in {provider}")
            equal[provider] = count_bit_equal(self._pair.path, old, new, frames, provider, told)
        return equal

    def _stability(self, names: Sequence[str]) -> StabilityRules:
        """Rules of the labels that are left."""
        rules = self._spec.stability
        return replace(rules, labels={k: v for k, v in rules.labels.items() if k in names})

    def _new_golden(self, content: bytes, frame: Frame) -> list[float]:
        with closing(load_backend(self._pair.path, content, provider="cpu")) as backend:
            scores = backend.infer(frame[None])[0, self._old :]
        return [round(float(score), 7) for score in scores]


def _providers_here(pair: ModelPair) -> list[str]:
    """Those that can run the engine here; of the others none will."""
    found = []
    for provider in find_providers():
        check = look("provider", partial(_loads, pair, provider))
        if check.error is None:
            found.append(provider)
        else:
            _log.warning("old scores are not compared in %s: %s", provider, check.message)
    return found


def _loads(pair: ModelPair, provider: str) -> str:
    load_backend(pair.path, pair.content, provider=provider).close()
    return provider


def _require_enough(label: str, positives: int, negatives: int) -> None:
    short = [
        f"{count} {how} it"
        for count, how in ((positives, "with"), (negatives, "without"))
        if count < FEWEST
    ]
    if short:
        raise TooFewError(
            f"too few pictures of {label}: {' and '.join(short)}, each counted once; at least {FEWEST} "
            "with it and as many without say anything, 50 are better"
        )


def _require_told(label: str, judgement: Judgement) -> None:
    if judgement.tells:
        return
    recall, alarms = judgement.recall_between, judgement.false_alarms_between
    raise TooFewError(
        f"these pictures do not tell {label} from others: of {judgement.positives} with it "
        f"{judgement.hits} were found ({recall[0]:.0%} to {recall[1]:.0%}), and it was said on "
        f"{judgement.false_alarms} of {judgement.negatives} without ({alarms[0]:.0%} to {alarms[1]:.0%}); "
        "give more of both, taken as the camera sees them"
    )
