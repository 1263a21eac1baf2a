"""Many sources, one or several recognizers: capture, preprocessing, inference and outputs overlap.

    streams = Streams(recognizer)
    streams.add(open_source("rtsp://door/1"), name="door", sinks=[EventLines(path)])
    streams.add(open_source("rtsp://yard/1"), name="yard")
    with streams:
        for result in streams.results():
            print(result.source, result.prediction.labels, result.events)

`results()` serves a program that looks at every result; a page or a service calls `start()` instead,
lets sinks do the work, and asks `status()` and `latest(name)` from any thread until `wait()` returns.
`add` and `remove` work before and during the run. `request_end()` may be called by a signal handler:
frames that were taken are answered, open events are ended, sinks and sources are closed.
`swap(recognizer)` puts another model of the same labels in place between two batches.

Each source has two threads of its own, one that takes and prepares its frames and one that hands
results to its sinks. Between them a few frames at most are under way; when a source's sinks or taker
are slow, its own capture waits, so that a live source drops frames there. Recognizers take frames of
all sources in turn, as many as wait, but no more than they answer within half the latency budget: a
frame may have to wait for the batch before its own. A source that fails, or whose sinks raise or
hang, ends or goes on alone; the others never notice.
"""

from __future__ import annotations

from cmlr_edge.pipeline.intake import IntakeSettings
from cmlr_edge.pipeline.settings import StreamsSettings
from cmlr_edge.pipeline.single import stream_one, stream_one_async
from cmlr_edge.pipeline.status import SourceStatus
from cmlr_edge.pipeline.streams import Streams
from cmlr_edge.recognizer import use_streaming

use_streaming(stream_one, stream_one_async)

__all__ = ["IntakeSettings", "SourceStatus", "Streams", "StreamsSettings"]
