"""What a run consists of: filled by flags, or by a TOML file; docs/service.md shows all of it."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cmlr_edge.capture import Policy, beside
from cmlr_edge.errors import SpecError
from cmlr_edge.machine.needed import needed
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.label_names import UnknownLabelError
from cmlr_edge.model.stability import StabilityRules, stability_from_thresholds
from cmlr_edge.model.strict_json import MismatchError, from_json, read_bounded
from cmlr_edge.pipeline.intake import IntakeSettings, Polygon
from cmlr_edge.pipeline.settings import StreamsSettings
from cmlr_edge.place.settings import PlaceSettings
from cmlr_edge.redaction import redact
from cmlr_edge.service.settings import UpdateSettings
from cmlr_edge.service.toml_lines import line_of, line_of_reference, line_with
from cmlr_edge.session.secrets import SecretError, has_reference
from cmlr_edge.sinks.collect import CollectSettings
from cmlr_edge.sinks.opening import SinkSettings
from cmlr_edge.why import Explain


@dataclass(frozen=True)
class EngineSettings:
    """Which model recognises, and where."""

    store: str = ""  # folder of the engines that can be replaced while the service runs
    path: str = ""  # instead of a store: one model file or folder; neither: the bundled model
    provider: str | None = None  # of an ONNX file "auto", of an engine the GPU
    rebuild: bool = False  # an .engine that is missing, or of another machine; takes minutes
    require_signature: str = ""  # PEM of a public key whose owner has to have signed the model
    update: UpdateSettings = field(
        default_factory=UpdateSettings
    )  # how a store's model is replaced

    def public_key(self, folder: Path) -> Path | None:
        """The key that has to have signed the model; a relative one starts from `folder`."""
        return folder / self.require_signature if self.require_signature else None

    def __post_init__(self) -> None:
        """Refuse two homes; take the bundled model where none is named."""
        if self.store and self.path:
            raise SpecError("give either store, a folder for engines, or path, one model")
        if not self.store and not self.path:
            object.__setattr__(self, "path", str(demo_engine()))


@dataclass(frozen=True)
class SourceSettings:
    """One source."""

    uri: str  # file, folder, glob, camera or stream
    name: str = ""  # in results, events and status; what the uri says by default
    policy: Policy | None = None  # every frame of a file, the newest of a camera, unless told
    loop: bool = False  # a video file under the policy "newest" starts again at its end
    max_frames: int | None = None  # stop after so many
    skip_unchanged_s: float | None = None  # run the model so seldom while the scene stays the same
    give_up_after_s: float | None = None  # a camera that never gave a frame; None: try for ever
    frozen_after_s: float = 10.0  # a live picture that stays the same is invalid; 0: never
    labels: tuple[str, ...] = ()  # that may be said; () for all
    thresholds: dict[str, float] = field(default_factory=dict)  # instead of the run's, by label
    stability: StabilityRules | None = None  # instead of the run's, for this source
    masks: tuple[Polygon, ...] = ()  # painted over before anything sees the picture
    region: Polygon = ()  # all that the model sees
    tiles: str = ""  # "2x2": look at parts of it, too, for small things
    every: int = 1  # look at each n-th frame
    max_fps: float | None = None  # look at no more frames a second
    active: tuple[str, ...] = ()  # hours, as "mon-fri 08:00-18:30"

    def __post_init__(self) -> None:
        """Refuse what could not be meant."""
        if not self.uri:
            raise SpecError("uri must not be empty")
        if self.max_frames is not None and self.max_frames < 1:
            raise SpecError(f"max_frames is {self.max_frames}: expected at least 1")
        if self.skip_unchanged_s is not None and not self.skip_unchanged_s > 0:
            raise SpecError(
                f"skip_unchanged_s is {self.skip_unchanged_s}: expected seconds above 0"
            )
        if self.give_up_after_s is not None and not self.give_up_after_s > 0:
            raise SpecError(f"give_up_after_s is {self.give_up_after_s}: expected seconds above 0")
        if self.frozen_after_s < 0:
            raise SpecError(f"frozen_after_s is {self.frozen_after_s}: expected at least 0")
        self.intake()

    def intake(self) -> IntakeSettings:
        """What of it is looked at.

        Raises:
            SpecError: That could not be meant.
        """
        names = [item.name for item in fields(IntakeSettings)]
        return IntakeSettings(**{name: getattr(self, name) for name in names})


@dataclass(frozen=True)
class LimitSettings:
    """Bounds of a run; see `StreamsSettings`."""

    max_batch: int = 8  # frames that the model takes at once
    latency_budget_s: float = 0.2  # batches are kept so small that they take no longer
    stuck_after_s: float = 60.0  # one run of the model; then the watchdog restarts the service
    drain_s: float = 10.0  # for frames under way and outputs, once the end is asked for

    def __post_init__(self) -> None:
        """Refuse what could not be meant."""
        self.for_streams(None)
        if not self.stuck_after_s > 0:
            raise SpecError(f"stuck_after_s is {self.stuck_after_s}: expected seconds above 0")

    def for_streams(self, explain: Explain | None) -> StreamsSettings:
        """What `Streams` takes of it."""
        budget_s, drain_s = self.latency_budget_s, self.drain_s
        return StreamsSettings(self.max_batch, budget_s, explain=explain, drain_s=drain_s)


@dataclass(frozen=True)
class MetricsSettings:
    """Where Prometheus reads."""

    port: int = 0  # 0 for no metrics
    host: str = "127.0.0.1"  # address that listens; 0.0.0.0 for others on the network

    def __post_init__(self) -> None:
        """Refuse what is no port."""
        _check_port(self.port)


@dataclass(frozen=True)
class PageSettings:
    """Where the live page is."""

    port: int | None = None  # None for no page, 0 for any free port
    host: str = "127.0.0.1"  # address that listens; 0.0.0.0 for others on the network
    token: str | None = None  # visitors must know it; needed wherever others can reach the page
    source_folder: str = ""  # whose files visitors may add as sources; "": cameras alone

    def __post_init__(self) -> None:
        """Refuse what is no port."""
        _check_port(self.port or 0)


def _check_port(port: int) -> None:
    if port not in range(2**16):
        raise SpecError(f"port is {port}: expected 0 to 65535")


@dataclass(frozen=True)
class SessionConfig:
    """Everything that a run consists of; flags and TOML both fill it."""

    engine: EngineSettings = field(default_factory=EngineSettings)  # which model
    sources: tuple[SourceSettings, ...] = ()  # what it looks at
    sinks: tuple[SinkSettings, ...] = ()  # where results go
    threshold: float | None = None  # one for all labels instead of the model's
    thresholds: dict[str, float] = field(default_factory=dict)  # instead of the model's, by label
    stability: StabilityRules = field(default_factory=StabilityRules)  # when a label comes and goes
    explain: bool = False  # say why a label is said; the engine has to be able to
    explain_margin: float = 0.0  # logits, of what is said because of its surroundings
    collect: CollectSettings = field(default_factory=CollectSettings)  # frames kept to be labelled
    place: str = ""  # folder where the surroundings of every source are counted; "": they are not
    place_block_s: float = 600.0  # frames within it count as one look at the place
    place_false_alarms: float = 0.03  # a day, of a place that is like what training saw
    place_average: bool = False  # average scores over the place's surroundings, not training's
    limits: LimitSettings = field(default_factory=LimitSettings)  # of time and batches
    metrics: MetricsSettings = field(default_factory=MetricsSettings)  # for Prometheus
    page: PageSettings = field(default_factory=PageSettings)  # the live page

    @property
    def outputs(self) -> tuple[SinkSettings, ...]:
        """Everything that results go to."""
        if not self.collect.folder:
            return self.sinks
        return (
            *self.sinks,
            SinkSettings("collect", path=self.collect.folder, collect=self.collect),
        )

    @property
    def explanation(self) -> Explain | None:
        """How predictions are to be explained; None where they are not.

        Raises:
            SpecError: The margin is none, or given without `explain`.
        """
        settings = Explain(self.explain_margin)
        if self.explain_margin and not self.explain:
            raise SpecError(
                "explain_margin is given, and nothing is explained: say explain = true, or --explain"
            )
        return settings if self.explain else None

    @property
    def watched_place(self) -> PlaceSettings | None:
        """How places are watched; None where they are not.

        Raises:
            SpecError: A setting is none, or given without `place`.
        """
        given = PlaceSettings(self.place_block_s, self.place_false_alarms, self.place_average)
        if given != PlaceSettings() and not self.place:
            raise SpecError(
                'settings of a place are given, and no place is watched: say place = "FOLDER", or '
                "--place FOLDER"
            )
        return given if self.place else None


def load_config(path: Path) -> SessionConfig:
    """Read a configuration. Relative paths in it mean files beside it.

    Raises:
        SpecError: It cannot be read, or is not a configuration; the message names file and line.
        DependencyError: Python 3.10 has no TOML reader, and tomli is not installed.
    """
    try:
        text = read_bounded(path).decode("utf-8-sig")  # editors of Windows put a mark first
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise SpecError(f"cannot read the configuration {path}: {why}") from error
    toml = toml_reader()
    try:
        value = toml.loads(text)
    except ValueError as error:  # numbers of thousands of digits are one of its own
        raise SpecError(f"{path} is not TOML: {error}") from error
    except RecursionError as error:
        raise SpecError(f"{path} is not TOML: it is nested too deeply") from error
    try:
        config = _read(value)
    except MismatchError as error:
        where = f"{path}, line {line_of(text, error.where)}"
        raise SpecError(f"{where}: {redact(str(error))}") from error
    sources = tuple(
        item if has_reference(item.uri) else replace(item, uri=beside(path, item.uri))
        for item in config.sources
    )
    return replace(config, sources=sources)


@contextmanager
def naming_line(path: Path | None) -> Iterator[None]:
    """Say where a configuration names unknown labels, or a secret that is not there: only a run finds out."""
    try:
        yield
    except (UnknownLabelError, SecretError) as error:
        text = ""
        with suppress(OSError):  # somebody took it away meanwhile
            text = path.read_text("utf-8", "replace") if path is not None else ""
        if isinstance(error, SecretError):
            line = line_of_reference(text, error.reference)
        else:
            line = line_with(text, error.unknown)
        if not line:  # a flag named them
            raise
        hint = ""
        if path is not None and isinstance(error, SecretError) and not error.is_file:
            environment = path.with_suffix(".env")  # of the unit
            hint = f"; a service also reads {environment.name} beside this file"
            if environment.exists():
                hint = f"; the service takes it from {environment}: set -a; . {environment}; set +a"
        raise SpecError(f"{path}, line {line}: {error}{hint}") from error


def _read(value: dict[str, Any]) -> SessionConfig:
    _check_parts(value)
    config = from_json(SessionConfig, value)
    names = Counter(source.name for source in config.sources)
    for index, source in enumerate(config.sources):
        if not source.name:
            where = f"sources[{index}]"
            raise MismatchError(where, f"{where}: name and uri must not be empty")
        if names[source.name] > 1:
            raise MismatchError(f"sources[{index}].name", f"two sources are called {source.name}")
    if config.threshold is not None and config.thresholds:
        raise MismatchError("threshold", "give either threshold, for all labels, or [thresholds]")
    thresholds = {f"thresholds.{label}": value for label, value in config.thresholds.items()}
    for where, threshold in (thresholds | {"threshold": config.threshold or 0.0}).items():
        if not 0 <= threshold <= 1:
            raise MismatchError(where, f"{where} is {threshold}: expected 0 to 1")
    try:  # a threshold of 1 leaves room for any `leave`; the model's own come later
        stability_from_thresholds(
            dict.fromkeys(config.stability.labels or ["any"], 1.0), config.stability
        )
    except SpecError as error:
        raise MismatchError("stability", str(error)) from error
    try:
        config.explanation  # noqa: B018 (fails here and now, if it does)
    except SpecError as error:
        raise MismatchError("explain_margin", str(error)) from error
    try:
        config.watched_place  # noqa: B018 (likewise)
    except SpecError as error:
        where = str(error).partition(" ")[0]
        raise MismatchError(where if where in value else "place", str(error)) from error
    if not config.sources:
        raise MismatchError("sources", "sources is empty: give at least one [[sources]]")
    return config


def _check_parts(value: dict[str, Any]) -> None:
    """Look at each by itself, so that what a part itself refuses has a place too."""
    parts = {
        "engine.update": UpdateSettings,
        "engine": EngineSettings,
        "collect": CollectSettings,
        "limits": LimitSettings,
        "metrics": MetricsSettings,
        "page": PageSettings,
    }
    for name, kind in parts.items():
        found: Any = value
        for key in name.split("."):
            found = found.get(key) if isinstance(found, dict) else None
        if found is not None:
            _placed(kind, found, name)
    for name, kind in {"sources": SourceSettings, "sinks": SinkSettings}.items():
        items = value.get(name, [])
        for index, item in enumerate(items if isinstance(items, list) else []):
            _placed(kind, item, f"{name}[{index}]")


def _placed(kind: type, value: object, where: str) -> None:
    try:
        from_json(kind, value, where)
    except SpecError as error:
        raise MismatchError(where, f"{where}: {error}") from error


def toml_reader() -> Any:
    """The module that reads TOML: Python's own, or tomli.

    Raises:
        DependencyError: Python 3.10 has none, and tomli is not installed.
    """
    if sys.version_info >= (3, 11):
        import tomllib

        return tomllib
    with needed("reading TOML on Python 3.10 needs tomli", "pip install tomli"):
        import tomli
    return tomli
