"""A run of one source, for `Recognizer.stream`."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from pathlib import Path

from cmlr_edge.capture import Policy, open_source
from cmlr_edge.model.stability import LabelStability, StabilityRules
from cmlr_edge.pipeline.streams import Streams
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks.base import Result


def stream_one(
    recognizer: Recognizer,
    uri: str | Path | int,
    *,
    policy: Policy | None = None,
    stability: Mapping[str, LabelStability] | StabilityRules | None = None,
) -> Generator[Result, None, None]:
    """Run a single source; see `Recognizer.stream`."""
    streams = Streams(recognizer)
    with open_source(uri, policy=policy) as source:
        streams.add(source, stability=stability)
        yield from streams.results()
        if (error := streams.error(source.name)) is not None:
            raise error
