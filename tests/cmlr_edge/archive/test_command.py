"""`cmlr-edge archive`, as a person types it, and the guide's examples."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet
import pytest

from cmlr_edge import Explain
from cmlr_edge.archive.dataset import PICTURES, Counts, Row, Tables, writing
from cmlr_edge.archive.plan import Cutting, PlanSize
from cmlr_edge.archive.run import Archive, ArchiveSettings, Summary
from cmlr_edge.archive.show import choose_rows, draw_sheet
from cmlr_edge.archive.stores import open_store
from cmlr_edge.capture.images import read_image
from cmlr_edge.cli.archive import _print_summary, label_archive, show
from cmlr_edge.errors import CaptureError, EngineError, SpecError
from tests.cmlr_edge.archive.archives import events_of, rows_of, write_pictures
from tests.cmlr_edge.cli.command import read_lines, run
from tests.conftest import make_spec, mean_color_model, solid, write_engine, write_video
from tests.explained_engine import write_explained_engine

PAGE = Path(__file__).parents[3] / "docs/archives.md"
QUERIES = re.findall(r"```sql\n(.*?)```", PAGE.read_text(), re.DOTALL)
_EVENT = {"kind": None, "label": None, "time_s": 4, "start_s": 4, "end_s": 4, "score": 5}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, pictures, a film of a second red and a second blue, and their dataset."""
    folder = tmp_path_factory.mktemp("archive")
    content = mean_color_model()
    engine = write_engine(folder, content, make_spec(content))
    write_pictures(folder / "in", 5)
    colors = [solid(250, 5, 5)] * 10 + [solid(5, 5, 250)] * 10
    write_video(folder / "in" / "film.avi", colors)
    settings = ArchiveSettings(
        (str(folder / "in"),), str(folder / "labels"), engine, "cpu", workers=1
    )
    with Archive(settings) as archive:
        archive.run()
    return folder


def test_a_film_has_the_lines_and_events_of_label(made: Path, tmp_path: Path) -> None:
    lines, events = tmp_path / "lines.jsonl", tmp_path / "events.jsonl"
    model = ["--engine", str(made / "model.onnx"), "--provider", "cpu"]
    assert (
        run(
            "label", made / "in" / "film.avi", "--out", lines, "--events", events, *model
        ).returncode
        == 0
    )
    rows = [row for row in rows_of(made / "labels") if row["frame"] is not None]
    said = read_lines(lines)
    assert [(r["frame"], round(r["time_s"], 4)) for r in rows] == [
        (line["frame"], line["time_s"]) for line in said
    ]
    for row, line in zip(rows, said, strict=True):
        labels: object = line["labels"]
        assert isinstance(labels, list)
        assert row["labels"] == [item["label"] for item in labels]
    told = [{k: e[k] for k in _EVENT} for e in read_lines(events) if e["kind"] != "begin"]
    found = [
        {k: e[k] if d is None or e[k] is None else round(e[k], d) for k, d in _EVENT.items()}
        for e in events_of(made / "labels")
    ]
    assert len(found) >= 4
    assert found == told


def test_every_file_says_which_model_it_is_of(made: Path) -> None:
    dataset = made / "labels"
    for path in [*dataset.glob("rows/*/*.parquet"), *dataset.glob("events/*.parquet")]:
        about = json.loads(pyarrow.parquet.read_schema(path).metadata[b"cmlr_edge"])
        assert about["model"]["labels"] == ["red", "green", "blue"]
        assert len(about["model"]["sha256"]) == 64
        assert about["model"]["provider"] == "cpu"
        assert {"cmlr-edge", "numpy", "pyarrow"} <= {*about["versions"]}
    [path] = dataset.glob("rows/kind=picture/*.parquet")
    assert (
        str(pyarrow.parquet.read_schema(path).field("scores").type)
        == "fixed_size_list<element: float>[3]"
    )
    manifest = pyarrow.parquet.read_table(dataset / "_manifest.parquet").to_pylist()
    assert sum(row["rows"] for row in manifest) == len(rows_of(dataset))


def test_rows_are_shown_by_a_condition(made: Path, tmp_path: Path) -> None:
    dataset, film = made / "labels", made / "in" / "film.avi"
    sheet = tmp_path / "sheet.png"
    assert draw_sheet(str(dataset), "has('red') AND kind = 'frame' -- all", sheet) == (10, 10)
    height, width = read_image(sheet).shape[:2]
    assert (height > 600, width > 1000) == (True, True)
    for wrong, said in {
        "nothing = 1": "cannot read the condition",
        "has('purple')": "unknown labels",
        "labels IS NULL": "no row fulfils",
        "path IN (SELECT content FROM read_text('/etc/hostname'))": "cannot read the condition",
        "true); DROP VIEW dataset; SELECT (true": "cannot read the condition",
        "true); SELECT ('x'": "it is several statements",
        "true); SELECT (1), (2": "it is several statements",
    }.items():
        with pytest.raises(SpecError, match=said):
            draw_sheet(str(dataset), wrong, sheet)
    with pytest.raises(SpecError, match="is no dataset"):
        draw_sheet(str(tmp_path), "true", sheet)
    film.rename(made / "away.avi")
    with pytest.raises(CaptureError, match="none of the chosen pictures"):
        draw_sheet(str(dataset), "kind = 'frame'", sheet)
    (made / "away.avi").rename(film)


@pytest.mark.parametrize("count", [12, 13, 23, 35])
def test_as_many_rows_as_a_sheet_holds_are_spread_over_all(tmp_path: Path, count: int) -> None:
    store, tables = open_store(str(tmp_path)), Tables(("red",), {})
    with writing(store, f"{PICTURES}/unit.parquet", tables) as part:
        for n in range(count):
            part.add(Row(str(n), scores=np.zeros(1, np.float32), labels=()))
        part.add(Row("bad", error_kind="unreadable", error="it is"))
    found, rows = choose_rows(store, ("red",), "dataset.path IS NULL) OR (true")
    places = [int(row["path"]) for row in rows]
    assert (found, len(places), places[0]) == (count, 12, 0)
    steps = np.diff([*places, count])
    assert steps.max() - steps.min() <= 1


def test_a_summary_counts_all_rows_of_the_dataset(capsys: pytest.CaptureFixture[str]) -> None:
    total = Counts(rows=10, failures={"no picture": 4})
    _print_summary(Summary(total, PlanSize(), [], 0, 10, 2.0, "cpu"))
    assert (
        "10 rows with scores, 4 without, 0 events; 10 with scores in this run"
        in capsys.readouterr().out
    )


def test_pictures_are_shown_whatever_characters_their_names_hold(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in" / "caf\udce9\n"
    names = ("b\x1b[31m.png", "c\u202e.png", "d\udcff.png", "plain\\x41.png")
    folder.mkdir(parents=True)
    for picture, name in zip(write_pictures(tmp_path / "p", len(names)), names, strict=True):
        picture.rename(folder / name)
    settings = ArchiveSettings(
        (str(folder.parent),), str(tmp_path / "labels"), made / "model.onnx", "cpu", workers=1
    )
    with Archive(settings) as archive:
        archive.run()
    show(str(tmp_path / "labels"), where="true", out=tmp_path / "she\x1bet.png")
    assert capsys.readouterr().out.endswith(
        "4 rows, 4 of them drawn in " + str(tmp_path) + "/she\\x1bet.png\n"
    )


def test_the_right_frame_of_a_film_is_shown(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []
    monkeypatch.setattr(
        "cmlr_edge.archive.show.ContactSheet.write", lambda _self, result: shown.append(result)
    )
    draw_sheet(
        str(made / "labels"), "kind = 'frame' AND frame IN (0, 9, 10, 19)", tmp_path / "sheet.png"
    )
    colors = [np.asarray(result.frame.image_bgr).mean(axis=(0, 1)) for result in shown]
    assert [color.argmax() for color in colors] == [2, 2, 0, 0]  # red, then blue


@pytest.mark.parametrize("number", range(5))
def test_a_query_of_the_guide_runs(
    made: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    monkeypatch.chdir(made)
    queries = [query for query in QUERIES if "unnest(why)" not in query]
    assert len(queries) == 5
    query = queries[number].replace("'dog'", "'red'").replace("'person'", "'blue'")
    found = duckdb.sql(query)
    assert found is not None
    assert found.fetchall() or "error IS NOT NULL" in query


def test_what_is_typed_wrong_leaves_no_dataset(made: Path, tmp_path: Path) -> None:
    out, engine = tmp_path / "a" / "out", made / "model.onnx"
    with pytest.raises(CaptureError, match="there is no"):
        label_archive(inputs=[str(tmp_path / "gone")], out=str(out), engine=engine, provider="cpu")
    assert [*tmp_path.iterdir()] == []


def test_a_word_that_is_neither_a_command_nor_an_input_is_named() -> None:
    done = run("archive", "search", "labels", "dog")
    assert done.returncode == 2
    assert "No such command 'search'" in done.stderr


def test_a_dry_run_says_what_is_there_and_writes_nothing(
    made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label_archive(inputs=[str(made / "in")], out=str(tmp_path / "out"), dry_run=True)
    assert capsys.readouterr().out.startswith("5 pictures, 1 film: ")
    assert not (tmp_path / "out").exists()


def test_parts_of_a_film_too_small_to_list_are_refused() -> None:
    for part_mb in (1e-300, 0.0, float("inf"), float("nan")):
        with pytest.raises(SpecError, match=r"--part-mb .*0\.0001 megabytes"):
            Cutting(part_mb=part_mb)


@pytest.mark.parametrize(
    ("inputs", "out", "message"),
    [
        ("in", "in", "would become a dataset"),
        ("in/*.png", "in", "would become a dataset"),
        ("in", "other/..", "would become a dataset"),
        ("in\udcff", "labels", "no printable name"),
        ("in", "la\nbels", "no printable name"),
    ],
)
def test_places_that_would_make_a_dataset_useless_are_refused(
    inputs: str, out: str, message: str, made: Path, tmp_path: Path
) -> None:
    [picture] = write_pictures(tmp_path / "in", 1)
    model = made / "model.onnx"
    settings = ArchiveSettings((str(tmp_path / inputs),), str(tmp_path / out), model, "cpu")
    with pytest.raises(SpecError, match=message), Archive(settings):
        pass
    assert [*tmp_path.glob("*/*")] == [picture]


def test_rows_say_why_as_label_does_also_of_films_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = write_explained_engine(tmp_path / "explained")
    model = ["--engine", str(engine), "--provider", "cpu", "--threshold", "0.05", "--explain"]
    frames = [solid(30 * i % 256, 90, 250 - 20 * i % 250, (48, 64)) for i in range(24)]
    write_pictures(tmp_path / "in", 3)
    write_video(tmp_path / "in" / "film.avi", frames)
    more = ["--part-mb", "0.004", "--workers", "1", "--explain-margin", "1.5"]
    done = run("archive", tmp_path / "in", "--out", tmp_path / "labels", *model, *more, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["plan"]["units"] >= 3  # the pictures, and two parts or more
    out = tmp_path / "out.jsonl"
    told = run("label", *sorted((tmp_path / "in").iterdir()), "--out", out, *model, *more[-2:])
    assert told.returncode == 0, told.stderr
    rows = rows_of(tmp_path / "labels")
    lines = {(str(line["source"]), line["frame"]): line["why"] for line in read_lines(out)}
    assert len(rows) == 27
    for row in rows:
        said = lines[row["path"], row["frame"] or 0]
        assert isinstance(said, dict)
        assert [item["label"] for item in row["why"]] == row["labels"] == [*said]
        for item in row["why"]:
            wanted = said[item["label"]]
            assert {o["label"]: o["amount"] for o in item["others"]} == pytest.approx(
                wanted["others"]
            )
            for name in ("own", "surroundings", "bias", "logit", "others_rest"):
                assert item[name] == pytest.approx(wanted[name])
            assert item["because_of_surroundings"] == wanted["because_of_surroundings"]
            np.testing.assert_allclose(item["map"], wanted["map"], atol=1e-6)
    [query] = [query for query in QUERIES if "unnest(why)" in query]
    monkeypatch.chdir(tmp_path)
    with duckdb.connect() as database:
        assert database.execute(query).fetchall()


def test_an_archive_that_says_why_goes_on_so_and_an_engine_that_cannot_is_refused(
    made: Path, tmp_path: Path
) -> None:
    write_pictures(tmp_path / "in", 2)
    inputs, out = (str(tmp_path / "in"),), str(tmp_path / "labels")
    engine = write_explained_engine(tmp_path / "explained")
    asked = ArchiveSettings(inputs, out, engine, "cpu", explain=Explain(), workers=1)
    with (
        pytest.raises(EngineError, match="--explain"),
        Archive(replace(asked, engine=made / "model.onnx")),
    ):
        pass
    with Archive(asked):
        pass
    with (
        pytest.raises(SpecError, match="other settings, --explain"),
        Archive(replace(asked, explain=Explain(1))),
    ):
        pass
    with Archive(replace(asked, inputs=(), explain=None)) as archive:
        archive.run()
    assert all(row["why"] is not None for row in rows_of(tmp_path / "labels"))
