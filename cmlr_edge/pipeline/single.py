"""A run of one source, for `Recognizer.stream`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping
from pathlib import Path

from cmlr_edge.capture import Policy, open_source
from cmlr_edge.model.stability import LabelStability, StabilityRules
from cmlr_edge.pipeline.settings import StreamsSettings
from cmlr_edge.pipeline.streams import Streams
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks.base import Result
from cmlr_edge.why import Explain, as_explain


def stream_one(
    recognizer: Recognizer,
    uri: str | Path | int,
    *,
    policy: Policy | None = None,
    stability: Mapping[str, LabelStability] | StabilityRules | None = None,
    explain: bool | Explain = False,
) -> Generator[Result, None, None]:
    """Run a single source; see `Recognizer.stream`."""
    streams = Streams(recognizer, StreamsSettings(explain=as_explain(explain)))
    with open_source(uri, policy=policy) as source:
        streams.add(source, stability=stability)
        yield from streams.results()
        if (error := streams.error(source.name)) is not None:
            raise error


async def stream_one_async(
    recognizer: Recognizer,
    uri: str | Path | int,
    *,
    policy: Policy | None = None,
    stability: Mapping[str, LabelStability] | StabilityRules | None = None,
    explain: bool | Explain = False,
) -> AsyncGenerator[Result, None]:
    """Likewise, without holding up an event loop; see `Recognizer.astream`."""
    import asyncio  # takes its time, and whoever calls this has it

    streams = Streams(recognizer, StreamsSettings(explain=as_explain(explain)))
    source = await asyncio.to_thread(open_source, uri, policy=policy)
    try:
        streams.add(source, stability=stability)
        results = streams.results()
        while (result := await asyncio.to_thread(next, results, None)) is not None:
            yield result
        if (error := streams.error(source.name)) is not None:
            raise error
    finally:  # also where the task is cancelled while a thread waits for the next frame
        await asyncio.to_thread(streams.close)
