"""The flags that fill a `SessionConfig`: the same names and meanings in `label`, `serve` and `run`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, cast

import typer

from cmlr_edge.capture import Policy
from cmlr_edge.cli import options
from cmlr_edge.cli.output_flags import collect_of, sinks_of
from cmlr_edge.cli.words import read_names, read_rules, split_name
from cmlr_edge.errors import SpecError
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.pipeline.intake import read_polygon
from cmlr_edge.pipeline.tiles import Tiles
from cmlr_edge.service.store import EngineStore
from cmlr_edge.session.config import EngineSettings, SessionConfig, SourceSettings, load_config

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_Out = Annotated[Path | None, typer.Option(help="JSON lines, one object per frame.")]
_Csv = Annotated[Path | None, typer.Option(help="Table of all scores, a row per frame.")]
_Overlay = Annotated[
    Path | None,
    typer.Option(help="MP4 with the labels drawn in; NAME-1.mp4 and so on of several sources."),
]
_ContactSheet = Annotated[
    Path | None,
    typer.Option(help="PNG: frames with labels, and when each was there; likewise per source."),
]
_Sink = Annotated[
    list[str] | None,
    typer.Option(
        help="Any other output, KIND=PATH or KIND=URL; kinds of one's own are entry points."
    ),
]
_CaFile = Annotated[
    Path | None,
    typer.Option(help="PEM: whom mqtts:// and https:// outputs trust instead of the system's CAs."),
]
_CertFile = Annotated[
    Path | None, typer.Option(help="PEM: how these outputs show to the server who they are.")
]
_KeyFile = Annotated[
    Path | None, typer.Option(help="PEM: that certificate's key, if it is not in the same file.")
]
_Policy = Annotated[
    str | None,
    typer.Option(help="every frame, or the newest. Default: every of a file, the newest live."),
]


_Settings = TypeVar("_Settings", bound="DataclassInstance")


@dataclass(frozen=True)
class Flags:
    """What was given; None for what was not."""

    config: Annotated[
        Path | None, typer.Option(help="TOML file of docs/service.md; flags count more.")
    ] = None
    engine: options.Engine = None
    provider: options.Provider = None
    rebuild: options.Rebuild = None
    require_signature: options.RequireSignature = None
    threshold: options.Threshold = None
    out: _Out = None
    events: options.Events = None
    csv: _Csv = None
    overlay: _Overlay = None
    contact_sheet: _ContactSheet = None
    snapshots: Annotated[
        Path | None,
        typer.Option(
            help="Folder for a JPEG of each event's best moment; at most 1 GB and 30 days of them."
        ),
    ] = None
    clips: Annotated[
        Path | None,
        typer.Option(help="Folder for a clip of each event, cut from the stream; kept likewise."),
    ] = None
    clip_before: Annotated[
        float | None, typer.Option(min=0, max=60, help="Seconds before the event. Default: 5.")
    ] = None
    clip_after: Annotated[
        float | None, typer.Option(min=0, max=60, help="Seconds after the event. Default: 5.")
    ] = None
    clip_longest: Annotated[
        float | None, typer.Option(max=600, help="Seconds of a clip at most. Default: 60.")
    ] = None
    collect: Annotated[
        Path | None,
        typer.Option(
            help="Folder for frames that are worth labelling: where the model contradicts itself, and "
            "a random share; kept likewise, and sent nowhere. See `cmlr-edge collected`."
        ),
    ] = None
    collect_every: Annotated[
        float | None,
        typer.Option(min=0, help="Seconds between frames of a source for one reason. Default: 10."),
    ] = None
    collect_random: Annotated[
        float | None,
        typer.Option(
            min=0, max=1, help="Share of such moments kept whatever they show. Default: 0.01."
        ),
    ] = None
    collect_most: Annotated[
        int | None, typer.Option(min=1, help="Frames in the folder. Default: 2000.")
    ] = None
    collect_without: Annotated[
        str | None,
        typer.Option(help="Labels, by commas: no frame is kept in which one is likely."),
    ] = None
    keep_mb: Annotated[
        float | None,
        typer.Option(help="Of snapshots, of clips, of frames, at most. Default: 1000."),
    ] = None
    keep_days: Annotated[
        float | None, typer.Option(help="Days that each of these is kept. Default: 30.")
    ] = None
    mqtt: options.Mqtt = None
    home_assistant: Annotated[
        bool,
        typer.Option(
            "--home-assistant",
            help="Let Home Assistant find each source and label at the --mqtt broker.",
        ),
    ] = False
    webhook: options.Webhook = None
    sink: _Sink = None
    ca_file: _CaFile = None
    cert_file: _CertFile = None
    key_file: _KeyFile = None
    rotate_mb: options.RotateMb = None
    append: Annotated[
        bool | None,
        typer.Option(
            help="Go on behind what is in a file of lines, or rename that to FILE.1 (older ones to "
            ".2 up to .5). Default: as the command."
        ),
    ] = None
    policy: _Policy = None
    loop: Annotated[bool | None, typer.Option(help="Play video files again and again.")] = None
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many, of each source.")
    ] = None
    skip_unchanged: options.SkipUnchanged = None
    frozen_after: Annotated[
        float | None,
        typer.Option(
            "--frozen-after",
            "--frozen-after-s",
            min=0,
            help="Seconds until a live picture that stays the same is invalid; 0: never. Default: 10.",
        ),
    ] = None
    give_up_after: Annotated[
        float | None,
        typer.Option(
            min=0, help="Seconds until a camera that never gave a frame has failed. Default: never."
        ),
    ] = None
    labels: Annotated[
        str | None, typer.Option(help="Labels that may be said, by commas. Default: all.")
    ] = None
    mask: Annotated[
        list[str] | None,
        typer.Option(
            help="Part of every picture to paint over before anything sees it, by its corners as "
            "shares of width and height: '0,0 0.5,0 0.5,1'. May be given again."
        ),
    ] = None
    region: Annotated[
        str | None, typer.Option(help="All that the model sees of a picture, written likewise.")
    ] = None
    tiles: Annotated[
        str | None,
        typer.Option(
            help="COLUMNSxROWS: look at so many parts of each picture, too, for small things. 2x2 runs "
            "the model 5 times a frame."
        ),
    ] = None
    every: Annotated[
        int | None, typer.Option(min=1, help="Look at each n-th frame. Default: 1.")
    ] = None
    max_fps: Annotated[
        float | None, typer.Option(help="Look at no more frames a second of each source.")
    ] = None
    active: Annotated[
        list[str] | None,
        typer.Option(
            help="Hours of local time to look at it, as 'mon-fri 08:00-18:30'; may be given again. "
            "Default: always."
        ),
    ] = None
    stability: options.Stability = None
    explain: Annotated[
        bool | None, typer.Option(help="Say why a label is said, in every output.")
    ] = None
    explain_margin: options.ExplainMargin = None
    place: options.Place = None
    place_block: options.PlaceBlock = None
    place_false_alarms: options.PlaceFalseAlarms = None
    place_average: options.PlaceAverage = None
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, help="Prometheus metrics at 127.0.0.1, while it runs."),
    ] = None
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="Of the live page; 0: any free one.")
    ] = None
    host: Annotated[
        str | None, typer.Option(help="Of the live page; other than this machine needs --token.")
    ] = None
    token: Annotated[
        str | None,
        typer.Option(envvar="CMLR_TOKEN", help="Visitors must know it. Or set CMLR_TOKEN."),
    ] = None
    max_batch: Annotated[
        int | None, typer.Option(min=1, help="Frames in one run of the model. Default: 8.")
    ] = None
    latency_budget_s: Annotated[
        float | None, typer.Option(min=0, help="For waiting and being recognised. Default: 0.2.")
    ] = None
    drain_s: Annotated[
        float | None,
        typer.Option(min=0, help="For frames under way and outputs, at the end. Default: 10."),
    ] = None

    def to_config(
        self,
        sources: Sequence[str],
        *,
        append: bool,
        policy: Policy | None = None,
        port: int | None = None,
        file: Path | None = None,
    ) -> tuple[SessionConfig, Path]:
        """Fill a configuration: a file's, if there is one, changed by what was given.

        Args:
            sources: As given; added to those of the file.
            append: Whether the command adds to files of a run before, unless told.
            policy: Of sources, unless told.
            port: Of the live page, unless told; None for no page.
            file: Read in the place of --config, beside which it lies.

        Returns:
            The configuration, and the folder that relative paths in it start from.

        Raises:
            SpecError: Something cannot be used.
        """
        append = append if self.append is None else self.append
        folder = Path() if self.config is None else self.config.absolute().parent
        base = None if self.config is None else load_config(file or self.config)
        config = base or SessionConfig(EngineSettings(path=str(demo_engine())), ())
        if base is None and not sources:
            raise SpecError("there is no source: give one, or a --config that names some")
        added = tuple(self._source(text, policy) for text in sources)
        rules = self.stability and read_rules(self.stability)
        page = replace(config.page, port=port) if config.page.port is None else config.page
        config = replace(
            config,
            engine=self._engine(config.engine),
            sources=tuple(self._changed(item) for item in config.sources) + added,
            sinks=(*config.sinks, *sinks_of(self, append=append)),
            stability=rules or config.stability,
            collect=collect_of(self, config.collect),
            limits=_changed(config.limits, self, "max_batch", "latency_budget_s", "drain_s"),
            page=_changed(page, self, "port", "host", "token"),
        )
        if self.threshold is not None:
            config = replace(config, threshold=self.threshold, thresholds={})
        if self.explain is False:
            config = replace(config, explain_margin=0.0)  # the file's, of what is not done now
        config = _changed(config, self, "explain", "explain_margin")
        config.explanation  # noqa: B018 (fails here and now, if it does)
        config = self._with_place(config)
        if self.metrics_port is not None:
            config = replace(config, metrics=replace(config.metrics, port=self.metrics_port))
        return config, folder

    def _with_place(self, config: SessionConfig) -> SessionConfig:
        changes: dict[str, Any] = {
            "place": None if self.place is None else str(self.place.absolute()),
            "place_block_s": self.place_block,
            "place_false_alarms": self.place_false_alarms,
            "place_average": self.place_average,
        }
        config = replace(config, **{k: v for k, v in changes.items() if v is not None})
        config.watched_place  # noqa: B018 (fails here and now, if it does)
        return config

    def _engine(self, engine: EngineSettings) -> EngineSettings:
        if self.engine is not None:
            given = str(self.engine.absolute())
            is_store = EngineStore.is_store(self.engine)
            engine = replace(
                engine, store=given if is_store else "", path="" if is_store else given
            )
        if self.require_signature is not None:
            engine = replace(engine, require_signature=str(self.require_signature.absolute()))
        return _changed(engine, self, "provider", "rebuild")

    def _source(self, text: str, policy: Policy | None) -> SourceSettings:
        name, uri = split_name(text)
        return self._changed(SourceSettings(uri, name, policy=policy))

    def _changed(self, source: SourceSettings) -> SourceSettings:
        changes: dict[str, Any] = {
            "policy": cast("Policy | None", self.policy),
            "loop": self.loop,
            "max_frames": self.max_frames,
            "skip_unchanged_s": self.skip_unchanged,
            "frozen_after_s": self.frozen_after,
            "give_up_after_s": self.give_up_after,
            "labels": _if_given(read_names, self.labels),
            "masks": self.mask and tuple(read_polygon(text) for text in self.mask),
            "region": _if_given(read_polygon, self.region),
            "tiles": _if_given(_checked_tiles, self.tiles),
            "every": self.every,
            "max_fps": self.max_fps,
            "active": self.active and tuple(self.active),
        }
        return replace(source, **{k: v for k, v in changes.items() if v is not None})


def _if_given(read: Callable[[str], Any], text: str | None) -> Any:
    return None if text is None else read(text)  # empty is an error of whoever wrote it, not "all"


def _checked_tiles(text: str) -> str:
    Tiles.read(text)
    return text


def _changed(settings: _Settings, flags: Flags, *names: str) -> _Settings:
    given = {name: getattr(flags, name) for name in names}
    return replace(settings, **{name: v for name, v in given.items() if v is not None})
