"""`cmlr-edge verify`: every check that opening an engine makes, made one by one and told.

`Recognizer.from_engine` makes the same checks and stops at the first that fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from cmlr_edge.backends import load_backend
from cmlr_edge.backends.base import Backend
from cmlr_edge.backends.golden import allowed_difference, golden_difference
from cmlr_edge.engines.auto import resolve_provider
from cmlr_edge.engines.preflight import preflight
from cmlr_edge.errors import CmlrError, EngineError
from cmlr_edge.model.spec import BuiltFile, ModelSpec, model_path, spec_path

_LOOK = "see the runtimes and the CUDA driver in `cmlr-edge doctor`"
_COPY = "copy engine and spec from where they were built, both together"


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    passed: bool
    found: str
    remedy: str = ""  # empty if it passed, or if what was found says it


def verify_engine(path: Path, *, provider: str | None = None) -> list[Check]:
    """Check an engine against its spec and this machine, and run its golden sample.

    Args:
        path: The model file or its folder.
        provider: The device to run on, as for `Recognizer.from_engine`.

    Returns:
        The checks in order; what fails to fit is not loaded, and there are no more.

    Raises:
        EngineError: There is no such file.
        SpecError: The spec is missing or malformed.
    """
    path = model_path(path)
    if not path.is_file():
        raise EngineError(f"no engine at {path}: give the model file or the folder with model.onnx")
    spec = ModelSpec.load(spec_path(path))
    return list(_checks(path, spec, provider))


def _checks(path: Path, spec: ModelSpec, provider: str | None) -> Iterator[Check]:
    built = spec.files.get(path.name)
    if built is None:
        known = ", ".join(sorted(spec.files)) or "no file"
        found = f"{spec_path(path).name} describes {known}, not {path.name}"
        yield Check("spec", False, found, "keep the names that export/build_engine.py gave")
        return
    yield Check("spec", True, f"{spec.name}, {len(spec.labels)} labels, {built.precision}")
    content = path.read_bytes()
    findings = preflight(path, content, built)
    for finding in findings:
        yield Check(finding.what, finding.state != "failed", finding.message)
    if any(finding.state == "failed" for finding in findings):
        return
    try:
        provider, _ = resolve_provider(path, content, spec, built, provider)
        backend = load_backend(path, content, provider=provider, engine=built.engine)
    except CmlrError as error:
        yield Check("runtime", False, str(error), _LOOK)
        return
    with closing(backend):
        yield from _runtime_checks(backend, spec, built, provider)


def _runtime_checks(
    backend: Backend, spec: ModelSpec, built: BuiltFile, provider: str | None
) -> Iterator[Check]:
    yield Check("runtime", True, backend.description)
    as_asked = provider in {None, backend.provider}
    asked = f"asked for {provider}, " if provider else ""
    found = f"{asked}runs on {backend.provider}"
    yield Check("provider", as_asked, found, "" if as_asked else _LOOK)
    counts = f"{backend.num_labels} scores for {len(spec.labels)} labels"
    fits = backend.num_labels == len(spec.labels)
    yield Check("labels", fits, counts, "" if fits else _COPY)
    if not fits:
        return
    golden = built.golden
    try:
        difference = golden_difference(backend, golden, spec.preprocess.size_hw)
    except CmlrError as error:
        yield Check("golden sample", False, str(error), _LOOK)
        return
    allowed = allowed_difference(golden, backend.provider)
    passed = difference <= allowed  # a NaN fails too
    found = f"scores differ by {difference:.3g} from the stored ones, {allowed:.3g} allowed"
    remedy = "" if passed else "try another provider, or export the model again for this machine"
    yield Check("golden sample", passed, found, remedy)
