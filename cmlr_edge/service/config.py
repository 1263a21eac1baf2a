"""The one file that says what a device does: `cmlr-edge run CONFIG.toml`; docs/service.md shows all of it."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from cmlr_edge.capture import Policy
from cmlr_edge.errors import DependencyError, SpecError
from cmlr_edge.model.stability import StabilityRules, stability_from_thresholds
from cmlr_edge.model.strict_json import MismatchError, from_json
from cmlr_edge.service.toml_lines import line_of


@dataclass(frozen=True)
class UpdateSettings:
    """When a new engine may replace the one in service."""

    shadow_frames: int = 50  # live frames that both engines judge
    shadow_timeout_s: float = 60.0  # an offer that saw fewer frames by then is refused
    max_flip_share: float = 0.05  # of all decisions on those frames that may differ
    trial_s: float = 60.0  # in service without a failure before it is trusted
    check_timeout_s: float = 600.0  # for loading it in a process of its own

    def __post_init__(self) -> None:
        """Refuse what cannot be meant."""
        if self.shadow_frames < 0 or not 0 <= self.max_flip_share <= 1:
            raise SpecError("shadow_frames must be at least 0, and max_flip_share lie in [0, 1]")
        if min(self.shadow_timeout_s, self.trial_s, self.check_timeout_s) < 0:
            raise SpecError("times must not be negative")


@dataclass(frozen=True)
class EngineSettings:
    """Which model recognises, and where."""

    store: str = ""  # folder of the engines that can be replaced while the service runs
    path: str = ""  # instead of a store: one model file or folder
    provider: str | None = None  # of an ONNX file the CPU, of an engine the GPU
    update: UpdateSettings = field(default_factory=UpdateSettings)

    def __post_init__(self) -> None:
        """Refuse two homes, or none."""
        if bool(self.store) == bool(self.path):
            raise SpecError("give either store, a folder for engines, or path, one model")


@dataclass(frozen=True)
class SourceSettings:
    """One source."""

    name: str
    uri: str
    policy: Policy | None = None

    def __post_init__(self) -> None:
        """Refuse what could not be told apart or opened."""
        if not self.name or not self.uri:
            raise SpecError("name and uri must not be empty")


@dataclass(frozen=True)
class SinkSettings:
    """One output of all sources."""

    kind: Literal["jsonl", "events", "mqtt", "webhook"]
    path: str = ""  # of jsonl (a line per frame) and events (a line per event)
    url: str = ""  # of mqtt and webhook
    rotate_mb: float = 100.0

    def __post_init__(self) -> None:
        """Refuse a sink that could not be opened."""
        wanted = "path" if self.kind in {"jsonl", "events"} else "url"
        if not getattr(self, wanted) or getattr(self, {"path": "url", "url": "path"}[wanted]):
            raise SpecError(f"a sink of kind {self.kind} takes {wanted}, and not the other")
        if not self.rotate_mb > 0:
            raise SpecError(f"rotate_mb is {self.rotate_mb}: expected a size above 0")


@dataclass(frozen=True)
class LimitSettings:
    """Bounds of a run; see `StreamsSettings`."""

    max_batch: int = 8
    latency_budget_s: float = 0.2
    stuck_after_s: float = 60.0  # one run of the model; then the watchdog restarts the service


@dataclass(frozen=True)
class MetricsSettings:
    """Where Prometheus reads."""

    port: int = 0  # 0 for no metrics
    host: str = "127.0.0.1"


@dataclass(frozen=True)
class ServiceConfig:
    """Everything."""

    engine: EngineSettings
    sources: tuple[SourceSettings, ...]
    sinks: tuple[SinkSettings, ...] = ()
    thresholds: dict[str, float] = field(default_factory=dict)  # instead of the model's, by label
    stability: StabilityRules = field(default_factory=StabilityRules)
    limits: LimitSettings = field(default_factory=LimitSettings)
    metrics: MetricsSettings = field(default_factory=MetricsSettings)


def load_config(path: Path) -> ServiceConfig:
    """Read a configuration. Relative paths in it mean files beside it.

    Raises:
        SpecError: It cannot be read, or is not a configuration; the message names file and line.
        DependencyError: Python 3.10 has no TOML reader, and tomli is not installed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"cannot read the configuration {path}: {error}") from error
    toml = _toml_reader()
    try:
        value = toml.loads(text)
    except toml.TOMLDecodeError as error:
        raise SpecError(f"{path} is not TOML: {error}") from error
    try:
        return _read(value)
    except MismatchError as error:
        raise SpecError(f"{path}, line {line_of(text, error.where)}: {error}") from error


def _read(value: dict[str, Any]) -> ServiceConfig:
    """Check part by part, so that what a part itself refuses has a place too."""
    for name, kind in {
        "engine.update": UpdateSettings,
        "engine": EngineSettings,
    }.items():
        found: Any = value
        for key in name.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            _placed(kind, found, name)
    for name, kind in {"sources": SourceSettings, "sinks": SinkSettings}.items():
        items = value.get(name, [])
        for index, item in enumerate(items if isinstance(items, list) else []):
            _placed(kind, item, f"{name}[{index}]")
    config = from_json(ServiceConfig, value)
    names = Counter(source.name for source in config.sources)
    for index, source in enumerate(config.sources):
        if names[source.name] > 1:
            raise MismatchError(f"sources[{index}].name", f"two sources are called {source.name}")
    for label, threshold in config.thresholds.items():
        if not 0 <= threshold <= 1:
            where = f"thresholds.{label}"
            raise MismatchError(where, f"{where} is {threshold}: expected 0 to 1")
    try:  # a threshold of 1 leaves room for any `leave`; the model's own come later
        stability_from_thresholds(
            dict.fromkeys(config.stability.labels or ["any"], 1.0), config.stability
        )
    except SpecError as error:
        raise MismatchError("stability", str(error)) from error
    if not config.sources:
        raise MismatchError("sources", "sources is empty: give at least one [[sources]]")
    return config


def _placed(kind: type, value: object, where: str) -> None:
    try:
        from_json(kind, value, where)
    except SpecError as error:
        raise MismatchError(where, f"{where}: {error}") from error


def _toml_reader() -> Any:
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    try:
        import tomli
    except ImportError as error:
        raise DependencyError(
            "reading TOML on Python 3.10 needs tomli: pip install tomli"
        ) from error
    return tomli
