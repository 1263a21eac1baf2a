"""`cmlr-edge place FOLDER`: which surroundings the sources show, and whether training saw such places."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from cmlr_edge.cli.console import print_error
from cmlr_edge.cli.place_picture import draw_place, png_of
from cmlr_edge.errors import DataError, OutputError, SpecError
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.files import model_path, write_atomically
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.place import store
from cmlr_edge.place.asking import no_place, trained_surroundings
from cmlr_edge.place.words import record_of, sentences_of, speaks_for
from cmlr_edge.redaction import printable

_UNLIKE = 1  # exit code


def place(
    folder: Annotated[
        Path | None, typer.Argument(help="What --place of label, serve or run was given.")
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="One of them, by its name. Default: all.")
    ] = None,
    picture: Annotated[
        Path | None,
        typer.Option(help="PNG of the place, with the frames that are unlike; of one source."),
    ] = None,
    engine: Annotated[
        Path | None,
        typer.Option(
            help="Without FOLDER: what this engine was trained in. Default: the bundled, which does not tell."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show the places of a run: which surroundings they are, and how far from what training saw.

    The run may go on meanwhile. What is counted, and how an alarm comes about, is in docs/place.md.

    \b
    cmlr-edge serve door=rtsp://10.0.0.7/1 --engine models/first --place places
    cmlr-edge place places
    cmlr-edge place places --source door --picture door.png
    cmlr-edge place --engine models/first

    \b
    Exit codes
    0  no place is unlike what training saw
    1  one is
    2  an error
    """  # noqa: D301
    if folder is None:
        _tell_engine(engine, as_json=as_json)
        return
    places = _read(folder, source)
    if picture is not None:
        _draw(folder, places, picture)
    if as_json:
        records = [
            {**record_of(item), "pictures": [*map(str, _pictures(folder, item))]} for item in places
        ]
        print(json.dumps(records, indent=2, allow_nan=False, ensure_ascii=False))  # noqa: T201
    else:
        for item in places:
            _say(sentences_of(item))
            _say([f"  picture: {printable(path)}" for path in _pictures(folder, item)])
    if any(item.unlike_since is not None for item in places):
        raise typer.Exit(_UNLIKE)


def _say(lines: list[str]) -> None:
    for line in lines:
        Console().print(escape(line), soft_wrap=True, highlight=False)


def _read(folder: Path, source: str | None) -> list[store.StoredPlace]:
    """The places that are kept, by name; damaged ones are told and left out.

    Raises:
        DataError: There is none.
    """
    if source is not None:
        wanted = store.path_of(folder, source)
        if not wanted.is_file():
            known = sorted(item.source for item in _read(folder, None))
            raise DataError(f"no place of {source!r} is in {printable(folder)}: there are {known}")
        paths = [wanted]
    else:
        paths = sorted(folder.glob(f"*{store.SUFFIX}")) if folder.is_dir() else []
    found = []
    for path in paths:
        try:
            found.append(store.load(path))
        except (SpecError, OSError) as error:  # noqa: PERF203 (the next one may be whole)
            print_error(error)
    if not found:
        raise DataError(
            f"no place is in {printable(folder)}: run label, serve or run with --place "
            f"{printable(folder)} and an engine that was exported with --explain"
        )
    return found


def _pictures(folder: Path, item: store.StoredPlace) -> list[Path]:
    path = store.path_of(folder, item.source)
    numbers = range(1, item.num_pictures + 1)
    return [file for i in numbers if (file := store.picture_of(path, i)).is_file()]


def _draw(folder: Path, places: list[store.StoredPlace], picture: Path) -> None:
    if len(places) != 1:
        names = [item.source for item in places]
        raise DataError(f"--picture is of one place: give --source, one of {names}")
    if not places[0].blocks:
        raise DataError(f"{places[0].source} has no whole block yet: there is nothing to draw")
    try:
        write_atomically(picture, png_of(draw_place(places[0], _pictures(folder, places[0]))))
    except OSError as error:
        raise OutputError(
            f"cannot write {printable(picture)}: {error.strerror or error}"
        ) from error


def _tell_engine(engine: Path | None, *, as_json: bool) -> None:
    """Say in which surroundings an engine was trained.

    Raises:
        EngineError: It does not tell.
    """
    spec = ModelPair.read(model_path(engine or demo_engine())).spec
    if (training := trained_surroundings(spec)) is None:
        raise no_place(spec)
    names, mean = speaks_for(training, spec.labels), training.mean
    order = (-mean).argsort(kind="stable").tolist()
    if as_json:
        record: list[dict[str, Any]] = [
            {"confounder": i, "speaks_for": names[i], "in_training": round(float(mean[i]), 4)}
            for i in order
        ]
        print(json.dumps(record, indent=2, allow_nan=False, ensure_ascii=False))  # noqa: T201
        return
    _say([f"{spec.name}: trained in {len(mean)} kinds of surroundings"])
    _say([f"  {mean[i]:.0%} surroundings {i} (speaks for {names[i] or 'no label'})" for i in order])
