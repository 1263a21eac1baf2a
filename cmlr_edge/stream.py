"""Source -> recognizer -> sinks: the loop behind `cmlr-edge label`."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack
from itertools import islice

from cmlr_edge.capture import Source
from cmlr_edge.frame import Frame
from cmlr_edge.prediction import Prediction
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks import Sink


def label_frames(
    source: Source,
    recognizer: Recognizer,
    sinks: Sequence[Sink] = (),
    *,
    max_frames: int | None = None,
) -> Generator[tuple[Frame, Prediction], None, None]:
    """Recognise every frame, hand it to every sink, and yield it.

    The sinks are closed when the generator ends, is closed, or an error leaves it.

    Args:
        source: Opened; closing it stays with the caller.
        recognizer: Likewise.
        sinks: Closed here.
        max_frames: Stop after this many.
    """
    with ExitStack() as closing:  # closes every sink, even if one of them fails to
        for sink in sinks:
            closing.callback(sink.close)
        for frame in islice(source, max_frames):
            prediction = recognizer(frame)
            for sink in sinks:
                sink.write(frame, prediction)
            yield frame, prediction
