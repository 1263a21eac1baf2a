"""`cmlr-edge serve SOURCE...`: the live page in a browser."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.markup import escape

from cmlr_edge.bundled import demo_engine
from cmlr_edge.capture import Policy, open_source
from cmlr_edge.cli.console import stderr
from cmlr_edge.errors import DependencyError
from cmlr_edge.model_spec import model_path
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.sinks import EventSink
from cmlr_edge.sinks.isolation import IsolatedEventSink
from cmlr_edge.sinks.jsonl import EventLines
from cmlr_edge.sinks.mqtt import MqttEvents
from cmlr_edge.sinks.sharing import SharedEventSink
from cmlr_edge.sinks.webhook import Webhook

if TYPE_CHECKING:
    from cmlr_edge.server.state import LiveState

_NAMED = re.compile(r"([\w .-]{1,40})=(.+)", re.DOTALL)
_LOOK_S = 0.1  # between looks at whether a signal came


def serve(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE...",
            help="As for `label`, several at once; door=rtsp://... gives one a name.",
        ),
    ],
    engine: Annotated[
        Path | None, typer.Option(help="Model that build_engine.py wrote. Default: the bundled.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to serve at; other than this machine needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="CMLR_TOKEN", help="Visitors must know it. Or set CMLR_TOKEN."),
    ] = None,
    events: Annotated[
        Path | None, typer.Option(help="JSON lines: when each label comes, stays and goes.")
    ] = None,
    mqtt: Annotated[
        str | None, typer.Option(help="Events to mqtt://user:password@host:1883/topic.")
    ] = None,
    webhook: Annotated[str | None, typer.Option(help="Events as HTTP POST to this URL.")] = None,
    threshold: Annotated[
        float | None, typer.Option(help="One threshold for all labels instead of the model's own.")
    ] = None,
    policy: Annotated[
        str, typer.Option(help="newest plays files at their own pace; every takes each frame.")
    ] = "newest",
    provider: Annotated[str, typer.Option(help="Device: cpu or cuda; never another.")] = "cpu",
) -> None:
    """Show cameras, streams and files with their labels on a live page.

    Exit code 0: ended by SIGINT or SIGTERM. 2: it could not start, or the model failed.

    \b
    cmlr-edge serve 0
    cmlr-edge serve door=rtsp://user:password@10.0.0.7/1 yard=rtsp://user:password@10.0.0.8/1
    cmlr-edge serve 0 --host 0.0.0.0 --token $(openssl rand -hex 16)
    """  # noqa: D301
    try:
        from cmlr_edge.server.gate import check_exposure
        from cmlr_edge.server.running import LiveServer
        from cmlr_edge.server.state import LiveState
        from cmlr_edge.streams import Streams
    except ImportError as error:
        raise DependencyError(
            f"the live page needs more packages ({error}): pip install 'cmlr-edge[serve]'"
        ) from error
    check_exposure(host, token)  # before anything is opened
    with ExitStack() as cleanup:
        path = model_path(engine or demo_engine())
        recognizer = Recognizer.from_engine(path, provider=provider, thresholds=threshold)
        cleanup.enter_context(recognizer)
        outputs = _open_outputs(events, mqtt, webhook)
        for output in outputs:
            cleanup.callback(output.close)
        streams = cleanup.enter_context(Streams(recognizer))
        live = LiveState(streams, recognizer)
        for source in sources:
            _add(live, source, cast("Policy", policy), outputs)
        received = cleanup.enter_context(_noted_signals())
        server = LiveServer(live, host=host, port=port, token=token)
        cleanup.callback(server.close)
        streams.start()
        server.start()
        _print_welcome(server.url, recognizer, needs_token=token is not None)
        while not received:
            streams.wait(0)  # raises if the model failed
            time.sleep(_LOOK_S)


def _add(live: LiveState, text: str, policy: Policy, outputs: Sequence[EventSink]) -> None:
    """Open a source, perhaps with a name of its own."""
    named = None if Path(text).exists() else _NAMED.fullmatch(text)
    source = open_source(named[2] if named else text, policy=policy)
    try:
        live.add(source, name=named[1].strip() if named else source.name, event_sinks=outputs)
    except BaseException:
        source.close()
        raise


def _open_outputs(events: Path | None, mqtt: str | None, webhook: str | None) -> list[EventSink]:
    """Open what all sources share; a broken output is told and left out."""
    sinks: list[EventSink] = []
    if events is not None:
        sinks.append(IsolatedEventSink(EventLines(events), str(events)))
    if mqtt is not None:
        broker = MqttEvents(mqtt)
        sinks.append(IsolatedEventSink(broker, broker.name))
    if webhook is not None:
        receiver = Webhook(webhook)
        sinks.append(IsolatedEventSink(receiver, receiver.name))
    return [SharedEventSink(sink) for sink in sinks]


@contextmanager
def _noted_signals() -> Iterator[list[int]]:
    """Note SIGINT and SIGTERM instead of raising; the second one ends the process at once."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        if received:
            raise KeyboardInterrupt
        received.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _print_welcome(url: str, recognizer: Recognizer, *, needs_token: bool) -> None:
    how = " (visitors need the token)" if needs_token else ""
    stderr.print(f"live page at [bold]{escape(url)}[/bold]{how}", soft_wrap=True, highlight=False)
    stderr.print(
        f"{escape(recognizer.spec.name)} runs on {escape(recognizer.runtime)}; Ctrl-C ends",
        soft_wrap=True,
        highlight=False,
    )
