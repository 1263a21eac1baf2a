"""Options that several commands share, so that they mean and say the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

Engine: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Model that build_engine.py or `cmlr-edge adopt` wrote, its folder, or the store of a "
        "service. Default: the bundled."
    ),
]
Provider: TypeAlias = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda, cuda-graph, openvino, openvino-bf16: no other takes its place; cpu is the same "
        "everywhere. Default: auto, the fastest here that decides alike, and the GPU for an .engine."
    ),
]
Rebuild: TypeAlias = Annotated[
    bool | None,
    typer.Option(
        help="Build an .engine again, from the .onnx beside it, where it is missing or was built for "
        "another machine. Takes minutes."
    ),
]
RequireSignature: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="PEM file of a public key, whose owner has to have signed model and spec; SECURITY.md."
    ),
]
Threshold: TypeAlias = Annotated[
    float | None, typer.Option(help="One threshold for all labels instead of the model's own.")
]
Events: TypeAlias = Annotated[
    Path | None, typer.Option(help="JSON lines: when each label comes, stays and goes.")
]
Mqtt: TypeAlias = Annotated[
    str | None, typer.Option(help="Events to mqtt://user:password@host:1883/topic.")
]
Webhook: TypeAlias = Annotated[str | None, typer.Option(help="Events as HTTP POST to this URL.")]
RotateMb: TypeAlias = Annotated[
    float | None,
    typer.Option(
        min=0, help="Start new files at this size; the last five are kept. Default: 0, never."
    ),
]
Stability: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        help="A setting of the events for all labels (min_gap_s=2) or one (person.enter=0.7); "
        "may be given again. Others: leave, smoothing_s, min_duration_s, update_every_s."
    ),
]
ExplainMargin: TypeAlias = Annotated[
    float | None,
    typer.Option(
        help="Logits: flag what would reach its threshold by less in average surroundings. Default: 0."
    ),
]
SkipUnchanged: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--skip-unchanged",
        "--skip-unchanged-s",
        help="While the scene does not change, run the model every so many seconds.",
    ),
]
Place: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        help="Folder: count the surroundings that each source shows, and tell when they become unlike "
        "what training saw; docs/place.md."
    ),
]
PlaceBlock: TypeAlias = Annotated[
    float | None,
    typer.Option(
        "--place-block",
        "--place-block-s",
        help="Seconds that count as one look at the place. Default: 600.",
    ),
]
PlaceFalseAlarms: TypeAlias = Annotated[
    float | None,
    typer.Option(help="A day, of a place that is like what training saw. Default: 0.03."),
]
PlaceAverage: TypeAlias = Annotated[
    bool | None,
    typer.Option(help="Average scores over the place's surroundings instead of training's."),
]
