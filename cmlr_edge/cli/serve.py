"""`cmlr-edge serve SOURCE...`: the live page in a browser."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from cmlr_edge.capture import Source, open_source
from cmlr_edge.cli import options
from cmlr_edge.cli.console import print_device, stderr
from cmlr_edge.cli.label import read_rules
from cmlr_edge.cli.outputs import OutputOptions, Outputs, check_files
from cmlr_edge.cli.signals import noted_signals
from cmlr_edge.errors import DependencyError
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.files import model_path, spec_path
from cmlr_edge.pipeline import Streams
from cmlr_edge.recognizer import Recognizer

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
    engine: options.Engine = None,
    host: Annotated[
        str, typer.Option(help="Address to serve at; other than this machine needs --token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any free one.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option(envvar="CMLR_TOKEN", help="Visitors must know it. Or set CMLR_TOKEN."),
    ] = None,
    events: options.Events = None,
    mqtt: options.Mqtt = None,
    webhook: options.Webhook = None,
    rotate_mb: options.RotateMb = None,
    stability: options.Stability = None,
    skip_unchanged: options.SkipUnchanged = None,
    threshold: options.Threshold = None,
    loop: Annotated[bool, typer.Option(help="Play video files again and again.")] = False,
    provider: options.Provider = None,
    rebuild: options.Rebuild = False,
) -> None:
    """Show cameras, streams and files with their labels on a live page.

    Exit code 0: ended by SIGINT or SIGTERM. 2: it could not start, or the model failed.

    \b
    cmlr-edge serve 0
    cmlr-edge serve door=rtsp://user:password@10.0.0.7/1 yard=rtsp://user:password@10.0.0.8/1
    cmlr-edge serve 0 --host 0.0.0.0 --token $(openssl rand -hex 16)
    """  # noqa: D301
    try:
        from cmlr_edge.page.gate import check_exposure
        from cmlr_edge.page.running import LiveServer
        from cmlr_edge.page.state import LiveState
    except ImportError as error:
        raise DependencyError(
            f"the live page needs more packages ({error}): pip install 'cmlr-edge[serve]'"
        ) from error
    check_exposure(host, token)  # before anything is opened
    path = model_path(engine or demo_engine())
    wanted = OutputOptions(events=events, mqtt=mqtt, webhook=webhook, rotate_mb=rotate_mb)
    check_files(wanted.files(len(sources)), [path, spec_path(path)])
    rules = read_rules(stability or [])
    with noted_signals() as interruption, ExitStack() as stack:
        recognizer = stack.enter_context(
            Recognizer.from_engine(path, provider=provider, rebuild=rebuild, thresholds=threshold)
        )
        names, opened = _open(sources, stack, loop=loop)
        streams = Streams(recognizer)
        outputs = stack.enter_context(closing(Outputs(wanted, opened, recognizer.labels, streams)))
        stack.enter_context(streams)  # ends before the outputs do
        live = LiveState(streams, recognizer)
        for index, (source, name) in enumerate(zip(opened, names, strict=True)):
            (_, event_sinks), (sinks, page_sinks) = outputs.of_source(index, name), live.watch(name)
            streams.add(
                source,
                name=name,
                sinks=sinks,
                event_sinks=[*event_sinks, *page_sinks],
                stability=rules,
                skip_unchanged_s=skip_unchanged,
            )
        server = stack.enter_context(LiveServer(live, host=host, port=port, token=token))
        streams.start()
        how = "" if token is None else " (visitors need the token)"
        stderr.print(
            f"live page at [bold]{escape(server.url)}[/bold]{how}", soft_wrap=True, highlight=False
        )
        print_device(recognizer)
        while not interruption.number:
            streams.wait(0)  # raises if the model failed
            time.sleep(_LOOK_S)


def _open(given: Sequence[str], stack: ExitStack, *, loop: bool) -> tuple[list[str], list[Source]]:
    """Open sources, perhaps with names of their own; files play at their own pace."""
    names, opened = [], []
    for text in given:
        named = None if Path(text).exists() else _NAMED.fullmatch(text)
        uri = named[2] if named else text
        source = stack.enter_context(open_source(uri, policy="newest", loop=loop))
        names.append(named[1].strip() if named else source.name)
        opened.append(source)
    return names, opened
