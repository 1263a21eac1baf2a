"""Opening a model: every check in its order, in one list.

`Recognizer.from_engine` raises at the first that fails; `cmlr-edge verify` and `doctor` tell all.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.base import Backend
from cmlr_edge.backends.golden import check_golden
from cmlr_edge.backends.onnx_rows import without_rows
from cmlr_edge.engines.check import Check, look
from cmlr_edge.engines.preflight import machine_checks
from cmlr_edge.engines.signature import require_signature
from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.machine.memory_bound import memory_for
from cmlr_edge.model.embedded import renamed
from cmlr_edge.model.files import model_path, require_unchanged, sha256_of, spec_path
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import BuiltFile, ModelSpec, Teaching
from cmlr_edge.wording import counted

_LOOK = "see the runtimes and the CUDA driver in `cmlr-edge doctor`"
_COPY = "copy both files together"
_log = logging.getLogger(__name__)


@dataclass
class Opening:
    """One try at a model. Close it, or take its backend over."""

    pair: ModelPair
    provider: str | None  # as asked for, until `checks` has resolved "auto"
    backend: Backend | None = None  # loaded by `checks`
    why: str = ""  # this provider was chosen
    public_key: Path | None = None  # of who has to have signed it; None: anybody's is taken

    @classmethod
    def of(cls, path: Path, provider: str | None) -> Opening:
        """Read model and spec; nothing is loaded yet.

        Args:
            path: The model file or its folder.
            provider: As for `Recognizer.from_engine`.

        Raises:
            EngineError: There is no such file.
            SpecError: The spec is missing or malformed.
        """
        return cls.of_pair(ModelPair.read(model_path(path)), provider)

    @classmethod
    def of_pair(cls, pair: ModelPair, provider: str | None) -> Opening:
        """Take what was read already; raises as `of` does."""
        pair.spec  # noqa: B018 (fails here and now, if it does)
        return cls(pair, provider)

    @property
    def path(self) -> Path:
        """Of the model file."""
        return self.pair.path

    @property
    def spec(self) -> ModelSpec:
        """What the model was trained for."""
        return self.pair.spec

    def close(self) -> None:
        """Free the runtime, if it was loaded."""
        if self.backend is not None:
            self.backend.close()

    def require(self) -> Backend:
        """Make the checks, log what is doubtful, and return the runtime.

        Raises:
            CmlrError: The first that failed.
        """
        try:
            for check in self.checks():
                check.require()
                if check.state == "warning":
                    _log.warning("%s: %s", self.path.name, check.message)
        except BaseException:
            self.close()
            raise
        assert self.backend is not None
        return self.backend

    def checks(self) -> Iterator[Check]:
        """Make the checks in order; after one that failed comes none that builds on it."""
        fits = True
        for check in self.file_checks():
            fits &= check.state != "failed"
            yield check
        if fits:
            content, built = self.pair.content, self.spec.files[self.path.name]
            loaded = look("runtime", lambda: self._load(content, built), remedy=_LOOK)
            yield loaded
            if self.backend is not None:
                yield from self._runtime_checks(self.backend, built)

    def file_checks(self) -> Iterator[Check]:
        """Make those of them that load nothing."""
        if (key := self.public_key) is not None:
            signed = look("signature", lambda: require_signature(self.pair, key))
            yield signed
            if signed.state == "failed":
                return
        described = look("spec", self._described, remedy="keep the names that export gave")
        yield described
        if described.state == "failed":
            return
        yield from fit_checks(self.path, self.pair.content, self.spec.files[self.path.name])
        if (taught := self.spec.taught) is not None:
            yield look("teaching", lambda: self._require_base(taught), remedy=_COPY)

    def _described(self) -> str:
        spec, name = self.spec, self.path.name
        if name not in spec.files:
            raise SpecError(
                f"{spec_path(self.path)} describes {sorted(spec.files) or 'no file'}, not {name}: "
                "keep the names that export/build_engine.py gave, and copy engine and spec together"
            )
        return f"{spec.name}, {counted(len(spec.labels), 'label')}, {spec.files[name].precision}"

    def _require_base(self, taught: Teaching) -> str:
        """The file holds its base byte for byte: what was added is taken away, and the rest hashed."""
        if self.path.suffix != ".onnx":
            return (
                "built of a taught engine: old scores keep the golden sample's tolerance, not bits"
            )
        number = len(taught.base_golden)
        base = without_rows(self.pair.content, number, self.path.name)
        if sha256_of(renamed(base, self.spec.labels[:number])) != taught.base_sha256:
            raise EngineError(
                f"{self.path} without its taught labels is not the engine that they were taught to "
                f"({taught.base_sha256[:12]}...): teach them again from that"
            )
        added = ", ".join(label.name for label in taught.labels)
        frames = " and ".join(
            f"{counted(n, 'frame')} in {name}" for name, n in taught.bit_equal.items()
        )
        return f"{added} added; every old score had the same bits on {frames}"

    def _load(self, content: bytes, built: BuiltFile) -> str:
        from cmlr_edge.engines.auto import resolve_provider  # it takes its time to import

        self.provider, self.why = resolve_provider(
            self.path, content, self.spec, built, self.provider
        )
        self.backend = load_backend(self.path, content, provider=self.provider, engine=built.engine)
        return self.backend.description

    def _runtime_checks(self, backend: Backend, built: BuiltFile) -> Iterator[Check]:
        yield look("provider", lambda: self._compare_provider(backend), remedy=_LOOK)
        labels = self._count_labels(backend)
        yield labels
        if labels.state == "ok":
            golden, size_hw = built.golden, self.spec.preprocess.size_hw
            yield look(
                "golden sample",
                lambda: check_golden(backend, golden, size_hw, provider=self.provider),
                remedy=_LOOK,
            )

    def _compare_provider(self, backend: Backend) -> str:
        asked = f"asked for {self.provider}, " if self.provider else ""
        found = f"{asked}runs on {backend.provider}"
        if self.provider not in {None, backend.provider}:
            raise EngineError(f"{self.path.name}: {found}")
        return found

    def _count_labels(self, backend: Backend) -> Check:
        known, given = len(self.spec.labels), backend.num_labels
        counts = f"{given} scores for {known} labels"
        if given == known:
            return Check("labels", "ok", counts)
        error = SpecError(
            f"{spec_path(self.path)} lists {known} labels but {self.path.name} returns {given}: "
            f"they come from different builds; {_COPY}"
        )
        return Check("labels", "failed", counts, _COPY, error)


def memory_to_load(path: Path) -> int:
    """Bytes that a process may hold which loads an engine; a file of a few bytes may ask for all.

    Args:
        path: The model file or its folder.
    """
    path = model_path(path)
    size = path.stat().st_size if path.is_file() else 0
    return memory_for(size)


def fit_checks(path: Path, content: bytes, built: BuiltFile) -> Iterator[Check]:
    """Compare a file, and for a TensorRT engine the machine, with the spec.

    Creates nothing of NVIDIA's, so it is safe on any machine.

    Args:
        path: Of the model file, for messages.
        content: Its bytes.
        built: What the spec says of it.
    """

    def compare() -> str:
        require_unchanged(path, content, built.sha256)
        return f"{path.name} is the file that its spec describes"

    yield look("file", compare)
    if built.engine is not None:
        yield from machine_checks(built.engine)


def examine(
    path: Path, *, provider: str | None = None, public_key: Path | None = None
) -> list[Check]:
    """Check a model against its spec and this machine, and run its golden sample.

    Args:
        path: The model file or its folder.
        provider: The device to run on, as for `Recognizer.from_engine`.
        public_key: Of who has to have signed it, likewise.

    Raises:
        EngineError: There is no such file.
        SpecError: The spec is missing or malformed.
    """
    with closing(Opening.of(path, provider)) as opening:
        opening.public_key = public_key
        return [*opening.checks()]
