"""One run: everything that a `SessionConfig` names, built, put together, changed and closed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from cmlr_edge.capture.live import LiveSource, SourceState
from cmlr_edge.errors import CaptureError, SpecError
from cmlr_edge.machine.claim import IN_USE, Claim
from cmlr_edge.machine.closing import Closing
from cmlr_edge.model.files import model_path
from cmlr_edge.pipeline import SourceStatus, Streams
from cmlr_edge.pipeline.outlet import judge_by
from cmlr_edge.place.asking import check_folder
from cmlr_edge.place.watch import PlaceWatch
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.service.store import EngineStore
from cmlr_edge.session.config import SessionConfig, SourceSettings, naming_line
from cmlr_edge.session.engines import check_able, load_serving, start_of, store_of
from cmlr_edge.session.lateness import Lateness
from cmlr_edge.session.places import (
    Given,
    Place,
    check_times,
    note_without_clips,
    open_place,
    require_given,
)
from cmlr_edge.session.run_outputs import RunOutputs
from cmlr_edge.session.watching import Watching
from cmlr_edge.sinks.base import OutputStatus, Result, Sink, SourceHealth
from cmlr_edge.sinks.guarded import GuardedSink
from cmlr_edge.sinks.outputs import Outputs
from cmlr_edge.why import Explain

if TYPE_CHECKING:
    from cmlr_edge.page.sources import SourceControl

# What a reload leaves as it is.
_FIXED = (
    *("limits", "metrics", "page", "explain", "explain_margin"),
    *("place", "place_block_s", "place_false_alarms", "place_average"),
)
_SHARE_OF_DRAIN = 0.8  # until outputs are left behind: the rest of the end takes time too
_LEAST_CLOSE_S = 1.0
_log = logging.getLogger(__name__)


class Session(Closing):
    """Sources, engine, outputs, page and metrics of one run; use it in a `with` block.

    Example:
        >>> with Session(load_config(path), folder=path.parent) as session:
        ...     session.streams.start()
        ...     session.streams.wait()
    """

    def __init__(
        self,
        config: SessionConfig,
        *,
        folder: Path | None = None,
        watchers: Sequence[Sink] = (),
        file: Path | None = None,
    ) -> None:
        """Plan a run; nothing is opened yet.

        Args:
            config: What is wanted.
            folder: What relative paths in it start from; the current one by default.
            watchers: Take the results of all sources besides the outputs, inline and trusted.
            file: That `config` was read from, and that no output may write.
        """
        self.config, self.folder = config, folder or Path()
        self._first = config  # what a reload leaves as it is counts as it is here
        self._opened, self._file = RunOutputs(self.folder, file), file
        self._watchers = [GuardedSink(sink) for sink in watchers]
        self._places: list[Place] = []
        self._num_places = 0  # that there ever were
        self._lost_before = 0  # by outputs of single sources that are gone
        self.live = False  # whether a source goes on for ever
        self.page_url = ""
        self.recognizer: Recognizer
        self.engine_id: str  # in the store; "" without one
        self.streams: Streams
        self.outputs: Outputs
        self.store: EngineStore | None = None
        self.on_trial = False  # whether the engine has yet to prove itself in service
        self.watching: Watching
        self._lateness = Lateness()
        self._end_asked_s: float | None = None
        self._cleanup = ExitStack()

    def __enter__(self) -> Session:
        """Open everything; `streams.start` begins.

        Raises:
            CmlrError: Something cannot be opened; nothing stays open then.
        """
        with ExitStack() as cleanup, naming_line(self._file):
            self._open(cleanup)
            self._cleanup = cleanup.pop_all()
        return self

    def close(self) -> None:
        """Close; what hangs is left behind."""
        self._cleanup.close()

    @property
    def lost(self) -> int:
        """Results and events that outputs did not take."""
        return self.outputs.lost + self._lost_before + sum(guard.lost for guard in self._own())

    def status(self) -> tuple[SourceStatus, ...]:
        """How each source is doing."""
        return self.streams.status()

    def output_status(self) -> tuple[OutputStatus, ...]:
        """How each output is doing."""
        guards = (*self.outputs.guards, *self._own())
        return tuple(guard.status() for guard in guards if guard not in self._watchers)

    def names(self) -> dict[str, SourceSettings]:
        """The settings of each source that there is, by its name."""
        return {place.name: place.settings for place in self._places}

    def take_changes(self, control: SourceControl) -> None:
        """Let visitors of the page change the sources by this, if there is a page."""
        if self.watching.page is not None:
            self.watching.page.control = control

    def tell_health(self, status: Sequence[SourceStatus]) -> None:
        """Let outputs know how the sources are; called several times a second."""
        labels = {place.name: place.settings.labels for place in self._places}
        newest = {item.name: self._newest(item.name) for item in status}
        behind, known = self._lateness.behind(newest), self.recognizer.labels
        well = {i.name: i.state is SourceState.OK and i.name not in behind for i in status}
        self.outputs.watch(
            [SourceHealth(n, ok, labels.get(n, ()), known, newest[n]) for n, ok in well.items()]
        )

    def _newest(self, name: str) -> Result | None:
        with suppress(CaptureError):  # it has just gone
            return self.streams.latest(name)
        return None

    def num_frames(self) -> int | None:
        """How many frames are to come, where every source announces them."""
        each = [
            min(
                (n for n in (item.source.num_frames, item.settings.max_frames) if n is not None),
                default=None,
            )
            for item in self._places
        ]
        return None if None in each else sum(n for n in each if n is not None)

    def files(self) -> list[Path]:
        """Every file that outputs write, renamed older ones aside."""
        return self._opened.files(self.config, self._places)

    def folders(self) -> list[Path]:
        """Every folder that outputs keep files in, older ones of theirs too."""
        return self._opened.folders(self.config)

    def has_times(self, name: str) -> bool:
        """Whether the frames of a source have times; pictures have none."""
        return any(place.fps is not None for place in self._places if place.name == name)

    def engine_path(self) -> Path:
        """The model file, or the store that it comes from."""
        engine = self.config.engine
        return self.folder / engine.store if engine.store else model_path(self.folder / engine.path)

    def request_end(self) -> None:
        """Let no more frames be taken. A signal handler may call it."""
        self._end_asked_s = time.monotonic()
        self.streams.request_end()

    def waited_enough(self) -> bool:
        """Whether the end was asked for so long ago that what still hangs is left behind."""
        asked_s, granted_s = self._end_asked_s, self.config.limits.drain_s
        return asked_s is not None and time.monotonic() > asked_s + granted_s

    @property
    def in_force(self) -> SessionConfig:
        """The configuration, with what a reload leaves as it was at the start."""
        return replace(self.config, **{name: getattr(self._first, name) for name in _FIXED})

    def swap(self, recognizer: Recognizer, engine_id: str) -> Recognizer:
        """Let another recognizer go on between two batches; return the former one, to be closed."""
        [former] = self.streams.swap(recognizer)
        if engine_id != self.engine_id:
            _log.info("engine %s serves, in the place of %s", engine_id, self.engine_id)
        self.recognizer, self.engine_id = recognizer, engine_id
        self.watching.use(recognizer)
        return former

    def apply(
        self, config: SessionConfig, fresh: tuple[Recognizer, str] | None, undo: ExitStack
    ) -> None:
        """Take a changed configuration over as a whole, or not at all.

        Args:
            config: The new one.
            fresh: The engine it needs and its id, where that is another one.
            undo: Closes `fresh` if anything fails.

        Raises:
            CmlrError: Something cannot be opened; the run goes on as it was.
        """
        former = self.config
        self._check_change(config, fresh)
        places = self._planned(config, undo)
        files = [Path(file) for place in places for file in place.source.files]
        self._opened.check_files(config, self._opened.files(config, places), files)
        check_times(config, [place.source for place in places])
        self._check_labels(config, fresh[0] if fresh else self.recognizer)
        own = {
            place: self._opened.open_own(config, self.recognizer.labels, place, undo)
            for place in places
        }
        shared = self._opened.open_shared(config, self.recognizer.labels)
        undo.pop_all()
        if changed := [n for n in _FIXED if getattr(config, n) != getattr(former, n)]:
            _log.warning("changes of %s count from the next start on", ", ".join(changed))
        self.config = config
        self.outputs.change([*shared, *self._watchers])
        if fresh is not None:
            self.swap(*fresh).close()
        before, self._places = self._places, places
        for gone in (place for place in before if place not in places):
            if gone.name in {place.name for place in places}:  # its end is not the last word
                _log.info("%s: opened anew, as the configuration says", gone.name)
            self.watching.end(gone.name)
            self.streams.remove(gone.name)
            self._lost_before += sum(guard.lost for _, guard in gone.outputs)
        wanted = dict(zip(places, config.sources, strict=True))
        for place in places:
            if place in before:
                self._change_outputs(place, own[place])
                if bool(wanted[place].masks) > bool(place.settings.masks):
                    note_without_clips(config, wanted[place], place.name, place.address)
                place.settings = wanted[place]
                self.streams.change_rules(place.name, config.stability, place.settings.intake())
            else:
                place.outputs = own[place]
                self._add(place)

    def _open(self, cleanup: ExitStack) -> None:
        config = self.config
        self.watching = Watching(config, self.folder)
        self._opened.check_files(config, self._opened.files(config), [])
        if config.place:
            places = check_folder(self.folder / config.place)
            cleanup.enter_context(Claim(places / IN_USE, f"the folder {places}"))
        require_given(config, self.folder)
        config = self._load(config, cleanup)
        self._places = self._planned(config, cleanup)
        sources = [place.source for place in self._places]
        inputs = [Path(file) for source in sources for file in source.files]
        self._opened.check_files(config, self._opened.files(config), inputs)
        check_times(config, sources)
        self.live = any(isinstance(source, LiveSource) for source in sources)
        self.outputs = Outputs(
            [*self._opened.open_shared(config, self.recognizer.labels), *self._watchers]
        )
        cleanup.callback(self._close_outputs)
        explain = config.explanation or (Explain() if config.place else None)
        settings = config.limits.for_streams(explain)
        self.streams = cleanup.enter_context(Streams(self.recognizer, settings))
        self.watching.open(self.streams, self.recognizer, self.output_status, cleanup)
        if self.watching.visits is not None:
            self._watchers.append(self.watching.visits)
            self.outputs.change([*self.outputs.guards, self.watching.visits])
        with ExitStack() as undo:
            for place in self._places:
                place.outputs = self._opened.open_own(config, self.recognizer.labels, place, undo)
            undo.pop_all()  # from here on their sources close them
        for place in self._places:
            self._add(place)
        self.page_url = self.watching.serve(cleanup)

    def _load(self, config: SessionConfig, cleanup: ExitStack) -> SessionConfig:
        """Load what serves; return what it is to do, which is less after a roll-back to what can less."""
        self.store, state = store_of(config, self.folder), None
        if self.store is not None:
            cleanup.enter_context(self.store.served())
            state = start_of(self.store)
            self.on_trial = state.on_trial
            self.store.clean()
        self.recognizer, self.engine_id, config = load_serving(config, self.folder, state)
        cleanup.callback(self._close_recognizer)
        if config != self.config:
            self.config = self._first = config
            self.watching = Watching(config, self.folder)
        self._check_labels(config, self.recognizer)
        return config

    def _close_outputs(self) -> None:
        """Wait for what takes long, but at the end that a signal wants no longer than it grants."""
        left_s = math.inf
        if self._end_asked_s is not None:
            granted_s = _SHARE_OF_DRAIN * self.config.limits.drain_s
            left_s = max(_LEAST_CLOSE_S, self._end_asked_s + granted_s - time.monotonic())
        self.outputs.close(left_s)

    def _close_recognizer(self) -> None:
        self.recognizer.close()  # which may be another one by then

    def _own(self) -> list[GuardedSink]:
        return [guard for place in self._places for _, guard in place.outputs]

    def _planned(self, config: SessionConfig, undo: ExitStack) -> list[Place]:
        """The sources that a configuration names, opened; those that do not change are the same."""
        failed = self._failed()
        left, kept = [place for place in self._places if place.name not in failed], []
        for settings in config.sources:
            same = next((p for p in left if p.can_go_on(config, settings, self.folder)), None)
            if same is not None:
                left.remove(same)
            kept.append(same)
        names = [place.name for place in kept if place is not None]
        places = []
        for settings, same in zip(config.sources, kept, strict=True):
            if same is not None:
                places.append(same)
                continue
            number = self._num_places
            self._num_places += 1  # also where the plan comes to nothing: there are enough
            numbers = number, max(number + 1, len(kept))
            place = open_place(config, settings, self.folder, names, numbers)
            undo.enter_context(place.source)
            names.append(place.name)
            places.append(place)
        return places

    @staticmethod
    def _check_labels(config: SessionConfig, recognizer: Recognizer) -> None:
        """Refuse labels that the model does not know, before anything is changed."""
        for source in config.sources:
            judge_by(recognizer, config.stability, source.intake())

    def _failed(self) -> set[str]:
        """Names of the sources that a reload opens anew, though their settings are the same."""
        if not self._places:
            return set()
        return {item.name for item in self.status() if item.state is SourceState.FAILED}

    def _check_change(self, config: SessionConfig, fresh: tuple[Recognizer, str] | None) -> None:
        """Refuse what a run cannot change, or the next start would refuse, before anything is changed."""
        if config.engine.store != self.config.engine.store:
            raise SpecError("another store counts from the next start on: start it again")
        if fresh is not None and fresh[0].labels != self.recognizer.labels:
            raise SpecError("the labels of the other engine differ: start it again")
        recognizer = fresh[0] if fresh else self.recognizer
        for wanted in (self._first, config):  # what counts now, and from the next start on
            check_able(recognizer, wanted)
        Watching(config, self.folder)  # refuses what shows cameras to everybody, as a start does
        if config.place:
            check_folder(self.folder / config.place)

    def _change_outputs(self, place: Place, own: list[tuple[Given, GuardedSink]]) -> None:
        before, place.outputs = place.outputs, own
        guards = [guard for _, guard in own]
        self.streams.change_outputs(place.name, [*guards, *place.metrics])
        self._lost_before += sum(guard.lost for _, guard in before if guard not in guards)

    def _watch_of(self, name: str) -> PlaceWatch | None:
        """What watches the place of a source; as at the start, for a reload does not change it."""
        config = self._first
        if (settings := config.watched_place) is None:
            return None
        return PlaceWatch(
            name,
            settings,
            self.folder / config.place,
            self.recognizer.spec,
            tell_why=config.explain,
        )

    def _add(self, place: Place) -> None:
        place.metrics = self.watching.begin(place.name)
        self.streams.add(
            place.source,
            name=place.name,
            sinks=[*(guard for _, guard in place.outputs), *place.metrics],
            outputs=self.outputs,
            stability=self.config.stability,
            skip_unchanged_s=place.settings.skip_unchanged_s,
            max_frames=place.settings.max_frames,
            intake=place.settings.intake(),
            watch=self._watch_of(place.name),
        )
