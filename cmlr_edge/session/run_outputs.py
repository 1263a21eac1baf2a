"""The outputs of a run: the files they write, and which go on where the configuration changes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

from cmlr_edge.errors import OutputError
from cmlr_edge.model.files import followed, model_path, read_file, sha256_of, spec_path
from cmlr_edge.redaction import redact
from cmlr_edge.session.config import SessionConfig
from cmlr_edge.session.places import Given, Place, address_of, named_files
from cmlr_edge.session.secrets import SecretError, put_in
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.mqtt_client import parse_address
from cmlr_edge.sinks.opening import SinkSettings, open_sink
from cmlr_edge.sinks.opening import check_files as refuse_clashes


class RunOutputs:
    """Opens what a configuration names; what does not change from one to the next stays open."""

    def __init__(self, folder: Path, file: Path | None = None) -> None:
        """Start without any.

        Args:
            folder: What relative paths start from.
            file: That the configuration was read from.
        """
        self.folder, self._file = folder, file
        self._shared: list[tuple[Given, GuardedSink]] = []

    def files(self, config: SessionConfig, places: Sequence[Place] | None = None) -> list[Path]:
        """Every file that the outputs of a configuration write.

        Args:
            config: What is wanted.
            places: The sources as they run; else as the configuration numbers them.
        """
        count = len(config.sources)
        numbers = [(i, count) for i in range(count)]
        if places is not None:
            numbers = [(place.number, place.count) for place in places]
        files = [
            sink.file(self.folder, *number)
            for sink in config.outputs
            if not sink.is_folder
            for number in (numbers if sink.per_source else [(0, 1)])
        ]
        return [file for file in files if file is not None]

    def folders(self, config: SessionConfig) -> list[Path]:
        """Every folder that outputs of a configuration keep files in."""
        return [self.folder / sink.path for sink in config.outputs if sink.is_folder]

    def check_files(
        self, config: SessionConfig, outputs: Sequence[Path], inputs: Sequence[Path]
    ) -> None:
        """Refuse outputs that would overwrite each other, the model, the configuration, or what is read.

        Raises:
            OutputError: One would.
        """
        if config.engine.path:
            model = model_path(self.folder / config.engine.path)
            inputs = [*inputs, model, spec_path(model)]
        for source in filter(lambda item: item.uri, config.sources):
            with suppress(SecretError):  # which opening it tells
                inputs = [*inputs, Path(address_of(source.uri, self.folder))]
        inputs = [*inputs, *named_files(config, self.folder)]
        if self._file is not None:
            inputs = [*inputs, self._file]
        refuse_clashes(outputs, inputs)
        self._refuse_shared_topic(config)

    def _refuse_shared_topic(self, config: SessionConfig) -> None:
        seen = set()
        for settings in (sink for sink in config.outputs if sink.kind == "mqtt"):
            with suppress(SecretError):  # which opening it tells
                parts, port, topic = parse_address(self._with_secrets(settings).url)
                place = parts.hostname, port, topic
                if place in seen:
                    raise OutputError(
                        f"two outputs write to {redact(topic)} at {parts.hostname}: leave one out, or "
                        "give it a topic of its own"
                    )
                seen.add(place)

    def open_shared(self, config: SessionConfig, labels: tuple[str, ...]) -> list[GuardedSink]:
        """Open the outputs that all sources share; those that do not change go on."""
        wanted = [self._given(item) for item in config.outputs if not item.per_source]
        kept = _kept(self._shared, wanted)
        gone = [item for item in self._shared if item[1] not in kept]
        with ExitStack() as undo:
            fresh = []
            for given, same in zip(wanted, kept, strict=True):
                guard = same or self._open_shared_one(given, config, labels, gone)
                if same is None:
                    undo.callback(guard.close)
                fresh.append((given, guard))
            undo.pop_all()
        self._shared = fresh
        return [guard for _, guard in fresh]

    def _open_shared_one(
        self,
        given: Given,
        config: SessionConfig,
        labels: tuple[str, ...],
        gone: list[tuple[Given, GuardedSink]],
    ) -> GuardedSink:
        """Open one behind the output of its place that goes, if one does; each goes for one alone."""
        settings = given.settings
        former = next((item for item in gone if item[0].place == given.place is not None), None)
        if former is not None:
            gone.remove(former)
            if former[0].settings.kind == settings.kind:
                settings = replace(settings, append=True)  # what this run wrote stays
        return open_sink(
            self._with_secrets(settings),
            folder=self.folder,
            labels=labels,
            name_source=len(config.sources) > 1 or any(item.name for item in config.sources),
            after=None if former is None else former[1],
        )

    def _with_secrets(self, settings: SinkSettings) -> SinkSettings:
        options = {name: put_in(text, self.folder) for name, text in settings.options.items()}
        url = put_in(settings.url, self.folder)
        is_hidden = url != settings.url and settings.kind in {"mqtt", "webhook"}
        if is_hidden and "://" not in url:  # whoever refused it would tell what it is
            error = SecretError(f"{settings.url} is put in, and is no address such as http://host/")
            error.reference, error.is_file = settings.url, True
            raise error
        return replace(settings, url=url, options=options)

    def _given(self, settings: SinkSettings) -> Given:
        filled, texts = self._with_secrets(settings), []
        for name in filter(None, settings.tls_files):
            with suppress(OSError):  # which opening it tells
                texts.append(read_file(self.folder / name))
        return Given(settings, sha256_of(repr((filled, texts)).encode()), self._place_of(filled))

    def _place_of(self, settings: SinkSettings) -> object:
        """What two outputs cannot have at once, as they are opened: a file, or a topic at a broker."""
        if settings.kind == "mqtt":
            with suppress(OutputError):  # it is no address, which opening it tells
                parts, _, topic = parse_address(settings.url)
                return parts.hostname, topic  # another port may lead to the same broker
        file = settings.file(self.folder)
        return None if file is None else followed(file)

    def open_own(
        self, config: SessionConfig, labels: tuple[str, ...], place: Place, undo: ExitStack
    ) -> list[tuple[Given, GuardedSink]]:
        """Open the outputs of one source alone; those that do not change go on."""
        own = []
        wanted = [self._given(item) for item in config.outputs if item.per_source]
        for given, same in zip(wanted, _kept(place.outputs, wanted), strict=True):
            guard = same or open_sink(
                self._with_secrets(given.settings),
                folder=self.folder,
                labels=labels,
                name_source=False,
                fps=place.fps,
                index=place.number,
                count=place.count,
            )
            if same is None:
                undo.callback(guard.close)
            own.append((given, guard))
        return own


def _kept(
    before: Sequence[tuple[Given, GuardedSink]], wanted: Sequence[Given]
) -> list[GuardedSink | None]:
    """The output that goes on for each that is wanted: for one alone, though others be like it."""
    left, kept = [*before], []
    for given in wanted:
        same = next((item for item in left if item[0] == given), None)
        if same is not None:
            left.remove(same)
        kept.append(None if same is None else same[1])
    return kept
