"""What `cmlr-edge label` writes: files, servers, and which source each of them takes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from cmlr_edge.capture import Source
from cmlr_edge.capture.live import LiveSource
from cmlr_edge.errors import CaptureError, OutputError
from cmlr_edge.pipeline import Streams
from cmlr_edge.pipeline.metrics import PrometheusMetrics
from cmlr_edge.sinks import EventSink, Sink
from cmlr_edge.sinks.contact_sheet import ContactSheet
from cmlr_edge.sinks.csv_table import CsvTable
from cmlr_edge.sinks.isolation import IsolatedEventSink, IsolatedSink
from cmlr_edge.sinks.jsonl import EventLines, JsonLines
from cmlr_edge.sinks.mqtt import MqttEvents
from cmlr_edge.sinks.overlay import OverlayVideo
from cmlr_edge.sinks.queueing import QueuedEventSink, QueuedSink
from cmlr_edge.sinks.sharing import SharedEventSink, SharedSink
from cmlr_edge.sinks.webhook import Webhook


@dataclass(frozen=True)
class OutputOptions:
    """What was asked for; None for what was not."""

    out: Path | None = None
    events: Path | None = None
    csv: Path | None = None
    overlay: Path | None = None
    contact_sheet: Path | None = None
    mqtt: str | None = None
    webhook: str | None = None
    metrics_port: int | None = None
    rotate_mb: float | None = None

    def files(self, num_sources: int) -> list[Path]:
        """Every file that will be written, renamed older ones aside."""
        shared = [path for path in (self.out, self.events, self.csv) if path is not None]
        own = [path for path in (self.overlay, self.contact_sheet) if path is not None]
        return shared + [
            _of_source(path, i, num_sources) for path in own for i in range(num_sources)
        ]

    @property
    def rotate_bytes(self) -> int | None:
        """The limit in bytes."""
        return None if self.rotate_mb is None else round(self.rotate_mb * 1e6)


def check_files(outputs: Sequence[Path], inputs: Sequence[Path]) -> None:
    """Refuse to start a run that could not write, or would write over what it reads.

    Raises:
        OutputError: There is no folder, two outputs are one file, or an output is an input.
    """
    known_inputs = {item.resolve() for item in inputs}
    for path in outputs:
        if not path.absolute().parent.is_dir():
            raise OutputError(f"cannot write {path}: there is no folder {path.parent}; create it")
        if path.is_dir():
            raise OutputError(f"cannot write {path}: it is a folder; give a file name")
        if path.resolve() in known_inputs:
            raise OutputError(
                f"{path} belongs to the source or the model: choose another name for the output"
            )
    if len({path.resolve() for path in outputs}) < len(outputs):
        raise OutputError("two outputs have the same name: give each its own")


class Outputs:
    """The sinks of a run, shared by its sources where one file or server takes them all."""

    def __init__(
        self,
        options: OutputOptions,
        sources: Sequence[Source],
        labels: Sequence[str],
        streams: Streams,
    ) -> None:
        """Open what was asked for; files are created by their first line.

        Args:
            options: As given.
            sources: All of the run, opened.
            labels: Of the model.
            streams: Asked by the metrics.

        Raises:
            CaptureError: Events were asked for, and a source has no times.
            OutputError: An address or a name cannot be used.
        """
        self._options, self._sources, self._stack = options, sources, ExitStack()
        self._is_live = any(isinstance(source, LiveSource) for source in sources)
        self._guards: list[IsolatedSink | IsolatedEventSink] = []
        self._metrics: PrometheusMetrics | None = None
        if any((options.events, options.mqtt, options.webhook)):
            self._check_times()
        try:
            self._sinks = [self._share(sink) for sink in self._frame_files(labels)]
            self._event_sinks = [self._share_events(sink) for sink in self._event_places()]
            if options.metrics_port is not None:
                self._metrics = PrometheusMetrics(streams.status)
                self._stack.callback(self._metrics.close)
                self._metrics.serve(options.metrics_port)
        except BaseException:
            self._stack.close()
            raise

    @property
    def lost(self) -> int:
        """Results and events that shared outputs did not take."""
        return sum(guard.lost for guard in self._guards)

    def of_source(self, index: int, name: str) -> tuple[list[Sink], list[EventSink]]:
        """Return the sinks of frames and of events of one source."""
        options, source, count = self._options, self._sources[index], len(self._sources)
        sinks: list[Sink] = [*self._sinks]
        if options.overlay is not None:
            sinks.append(OverlayVideo(_of_source(options.overlay, index, count), source.fps))
        if options.contact_sheet is not None:
            sinks.append(ContactSheet(_of_source(options.contact_sheet, index, count)))
        event_sinks: list[EventSink] = [*self._event_sinks]
        if self._metrics is not None:
            metrics = self._metrics.of_source(name)
            sinks.append(metrics)
            event_sinks.append(metrics)
        return sinks, event_sinks

    def close(self) -> None:
        """Finish what sources share; the run closes the others."""
        self._stack.close()

    def _check_times(self) -> None:
        for source in self._sources:
            if source.fps is None:
                raise CaptureError(
                    f"{source.name} has no times, so there are no events: leave out --events, --mqtt "
                    "and --webhook, or give a video, camera or stream"
                )

    def _frame_files(self, labels: Sequence[str]) -> list[Sink]:
        options, sinks = self._options, list[Sink]()
        limit, several = options.rotate_bytes, len(self._sources) > 1
        if options.out is not None:
            sinks.append(JsonLines(options.out, rotate_bytes=limit, name_source=several))
        if options.csv is not None:
            sinks.append(CsvTable(options.csv, labels, rotate_bytes=limit))
        return sinks

    def _event_places(self) -> list[EventSink]:
        options, sinks = self._options, list[EventSink]()
        if options.events is not None:
            sinks.append(EventLines(options.events, rotate_bytes=options.rotate_bytes))
        if options.mqtt is not None:
            sinks.append(MqttEvents(options.mqtt))
        if options.webhook is not None:
            sinks.append(Webhook(options.webhook))
        return sinks

    def _share(self, sink: Sink) -> SharedSink:
        if self._is_live:
            name = type(sink).__name__
            written = IsolatedSink(sink, name)
            sink = IsolatedSink(QueuedSink(written, name), name)
            self._guards += [written, sink]
        self._stack.callback(sink.close)
        return SharedSink(sink)

    def _share_events(self, sink: EventSink) -> SharedEventSink:
        name = getattr(sink, "name", type(sink).__name__)
        if not isinstance(sink, EventLines):  # it never waits, and being away must not end a file
            sink = IsolatedEventSink(sink, name)
            self._guards.append(sink)
        elif self._is_live:
            written = IsolatedEventSink(sink, name)
            sink = IsolatedEventSink(QueuedEventSink(written, name), name)
            self._guards += [written, sink]
        self._stack.callback(sink.close)
        return SharedEventSink(sink)


def _of_source(path: Path, index: int, count: int) -> Path:
    """`street.mp4` for a single source; `street-1.mp4`, `street-2.mp4` for several."""
    return path if count == 1 else path.with_name(f"{path.stem}-{index + 1}{path.suffix}")
