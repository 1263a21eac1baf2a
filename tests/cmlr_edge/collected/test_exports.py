"""Kept frames go to every tool with what the model said, and `train` reads what comes back."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from cmlr_edge.capture.images import read_image
from cmlr_edge.cli.app import app
from cmlr_edge.collected import exports
from cmlr_edge.collected.exports import EXPORTS, export
from cmlr_edge.collected.frames import Kept, chosen, classes_of, read_kept
from cmlr_edge.collected.sheet import draw_kept
from cmlr_edge.errors import CaptureError, DataError, OutputError, SpecError
from cmlr_edge.sinks.collect_record import SUFFIX, FrameRecord, KeptDoubt, KeptName
from cmlr_edge.sinks.jpeg_record import with_record
from tests.conftest import solid
from train.data import read_dataset

LABELS = ("person", 'traffic "light" & co', "chien <été>", "never")
SAID = (LABELS[:1], LABELS[:2], (), LABELS[2:3], LABELS[:3])
# A Python with the tools' own readers; they want older packages than we have.
TOOLS = os.environ.get("CMLR_ANNOTATION_TOOLS", sys.executable)


def record(number: int, said: tuple[str, ...]) -> FrameRecord:
    scores = dict.fromkeys(LABELS, 0.1) | dict.fromkeys(said, 0.8)
    return FrameRecord(
        source="door", index=number, time_s=None, captured_at=1.7e9, width=64, height=48,
        kind="near" if number else "random", label="person" if number else "", worth=0.4 - number / 50,
        explained=False, doubts=(KeptDoubt("near", "person", 0.4),), why=(),
        said=dict.fromkeys(said, 0.8), scores=scores,
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "kept" / "door").mkdir(parents=True)
    for number, said in enumerate(SAID):
        image = solid(40 * number + 20, 9, 9, (48, 64))
        jpeg = bytes(cv2.imencode(".jpg", image)[1])
        about = record(number, said)
        name = KeptName(about.label or "any", about.kind, "04000", f"{number:032x}")
        path = tmp_path / "kept" / "door" / ("_".join(name) + SUFFIX)
        path.write_bytes(with_record(jpeg, asdict(about)))
    return tmp_path / "kept"


def as_it_is(_folder: Path) -> None:
    """The tool writes the layout that it reads."""


def annotated(folder: Path) -> None:
    """What Label Studio exports once a person accepted all predictions."""
    tasks = json.loads((folder / "tasks.json").read_text())
    for number, task in enumerate(tasks, 1):
        result = [
            {"id": "x", "origin": "prediction", **r} for r in task["predictions"][0]["result"]
        ]
        task |= {"id": number, "annotations": [{"id": 1, "was_cancelled": False, "result": result}]}
        name = task["data"]["image"].rpartition("/")[2]
        if number % 2:  # uploaded rather than served from a folder
            task["data"]["image"] = f"/data/upload/1/0a1b2c3d-{name}"
    (folder / "tasks.json").write_text(json.dumps(tasks))


CAME_BACK: dict[str, Callable[[Path], None]] = {
    "labels.json": as_it_is,
    "coco": as_it_is,
    "cvat": as_it_is,
    "fiftyone": as_it_is,
    "label-studio": annotated,
}


@pytest.mark.parametrize("kind", EXPORTS)
def test_what_comes_back_is_read_for_training(folder: Path, tmp_path: Path, kind: str) -> None:
    frames = read_kept(folder)
    export(frames, kind, tmp_path / "out")
    CAME_BACK[kind](tmp_path / "out")
    data = read_dataset(tmp_path / "out")
    found = {image.path.name: {data.classes[i] for i in image.labels} for image in data.images}
    assert found == {kept.name: {*kept.record.said} for kept in frames}
    if kind != "label-studio":  # whose export names only labels that were given
        assert data.classes == LABELS
    for image in data.images:
        assert read_image(image.path).shape == (48, 64, 3)
    assert data.splits == ["train"]


def test_tasks_that_nobody_answered_are_no_labels(folder: Path, tmp_path: Path) -> None:
    export(read_kept(folder), "label-studio", tmp_path / "out")
    with pytest.raises(DataError, match=r"tasks\.json: none of its 5 tasks is annotated"):
        read_dataset(tmp_path / "out")


def told_by(code: str, package: str) -> Any:
    """What a reader of another tool makes of an export."""
    done = subprocess.run(
        [TOOLS, "-W", "ignore", "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if f"No module named '{package}'" in done.stderr:
        pytest.skip(
            f"{package} is not installed, so its reader is NOT TESTED: CMLR_ANNOTATION_TOOLS"
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["coco", "cvat"])
def test_datumaro_reads_what_cvat_and_coco_get(folder: Path, tmp_path: Path, kind: str) -> None:
    frames = read_kept(folder)
    export(frames, kind, tmp_path / "out")
    code = f"""
import json
from datumaro import Dataset
data = Dataset.import_from({str(tmp_path / "out")!r}, {kind!r})
names = [category.name for category in data.categories()[next(iter(data.categories()))]]
print(json.dumps([names, {{i.id: sorted({{names[a.label] for a in i.annotations}}) for i in data}}]))
"""
    names, found = told_by(code, "datumaro")
    assert [*names] == [*LABELS]
    assert found == {Path(kept.name).stem: sorted(kept.record.said) for kept in frames}


@pytest.mark.slow
def test_label_studio_accepts_tasks_and_predictions(folder: Path, tmp_path: Path) -> None:
    export(read_kept(folder), "label-studio", tmp_path / "out")
    code = f"""
import json
from pathlib import Path
from label_studio_sdk.label_interface import LabelInterface
folder = Path({str(tmp_path / "out")!r})
interface = LabelInterface((folder / "label_config.xml").read_text())
interface.validate()
tasks = json.loads((folder / "tasks.json").read_text())
good = [
    interface.validate_task({{"data": t["data"]}})  # with predictions this call of theirs fails by itself
    and all(map(interface.validate_prediction, t["predictions"])) for t in tasks]
labels = [*interface.get_control("labels").labels]
print(json.dumps([labels, good]))
"""
    labels, good = told_by(code, "label_studio_sdk")
    assert labels == [*LABELS]
    assert good == [True] * len(SAID)


def test_fiftyone_gets_its_documented_form(folder: Path, tmp_path: Path) -> None:
    """FiftyOne brings a database along and is not installed: the form is that of its documentation."""
    export(read_kept(folder), "fiftyone", tmp_path / "out")
    labels = json.loads((tmp_path / "out" / "labels.json").read_text())
    assert labels["classes"] == [*LABELS]
    assert {*labels["labels"]} == {path.stem for path in (tmp_path / "out" / "data").iterdir()}
    every = [item for items in labels["labels"].values() for item in items]
    assert all(
        {*item} == {"label", "confidence"} and 0 <= item["confidence"] <= 1 for item in every
    )


def test_an_export_is_whole_or_not_there(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frames = read_kept(folder)

    def full(*_args: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(exports, "_write", full)
        with pytest.raises(OutputError, match="No space left"):
            export(frames, "coco", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    (tmp_path / ".out.part").mkdir()  # of one that was killed
    export(frames, "coco", tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["kept", "out"]
    with pytest.raises(OutputError, match="there already"):
        export(frames, "coco", tmp_path / "out")
    with pytest.raises(OutputError, match="no folder"):
        export(frames, "coco", tmp_path / "gone" / "out")


def test_frames_without_a_record_are_said_and_left_out(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    good = sorted(folder.glob("*/*"))
    content = good[0].read_bytes()
    wrong = asdict(record(0, ())) | {"scores": {"a\x1b[31m": 0.5}}
    hostile = {
        "empty": b"",
        "cut": content[:30],
        "plain": bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1]),
        "deep": with_record(content[:20] + b"\xff\xd9", {}).replace(b"{}", b"[" * 2),
        "odd": with_record(b"\xff\xd8\xff\xd9", wrong),
        "huge": with_record(b"\xff\xd8\xff\xd9", asdict(record(0, ())) | {"width": 10**9}),
    }
    for number, (name, text) in enumerate(hostile.items()):
        (good[0].parent / f"{name}_near_04000_{number + 99:032x}{SUFFIX}").write_bytes(text)
    (good[0].parent / f".{good[0].name}.77.part").write_bytes(content[:50])
    assert [kept.path for kept in read_kept(folder)] == sorted(
        good, key=lambda path: int(path.name[-42:-10], 16) or 99
    )
    assert "6 frames have no record" in caplog.text
    for missing in (folder / "door", folder / "none"):
        with pytest.raises(CaptureError):
            read_kept(missing)


@pytest.mark.parametrize(
    "change",
    [
        {"label": "nobody"},
        {"scores": dict.fromkeys(LABELS, 1e308)},
        {"index": 2**70},
        {"said": {"person": -0.1}},
    ],
)
def test_a_record_that_no_model_can_have_said_is_left_out(
    folder: Path, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = next(iter(folder.glob("*/*near*")))
    jpeg = bytes(cv2.imencode(".jpg", solid(9, 9, 9, (48, 64)))[1])
    path.write_bytes(with_record(jpeg, asdict(record(1, ())) | change))
    frames = read_kept(folder)
    assert len(frames) == len(SAID) - 1
    assert draw_kept(frames, tmp_path / "sheet.png") == len(frames)


def test_frames_are_chosen_by_kind_label_and_source(folder: Path) -> None:
    frames = read_kept(folder)
    assert len(chosen(frames, kinds=["random"])) == 1
    assert len(chosen(frames, labels=["person"], sources=["door"])) == 4
    with pytest.raises(SpecError, match=r"kind \['nir'\], but of \['near', 'random'\]"):
        chosen(frames, kinds=["nir"])
    with pytest.raises(SpecError, match="at once"):
        chosen(frames, kinds=["random"], labels=["person"])
    unlike = replace(frames[0].record, label="new", scores={"new": 0.1}, said={})
    other = replace(frames[0], record=unlike)
    assert classes_of([*frames, other]) == (*LABELS, "new")


def test_the_command_lists_draws_and_exports(folder: Path, tmp_path: Path) -> None:
    sheet, out = tmp_path / "s.png", tmp_path / "out"
    given = ["collected", str(folder), "--most", "3", "--sheet", str(sheet), "--to", "cvat"]
    done = CliRunner().invoke(app, [*given, "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "worth" not in done.output  # the list of frames, which nobody asked for
    assert "3 of 5 frames: 3 near" in done.output  # those that were drawn come last
    assert "uncertainty and flicker alone" in done.output
    assert read_image(sheet).size
    assert len([*ET.parse(out / "annotations.xml").iterfind("image")]) == 3
    told = CliRunner().invoke(app, ["collected", str(folder), "--json"])
    assert len(json.loads(told.stdout)) == 5
    for wrong in (["--to", "coco"], ["--out", str(out)], ["--to", "kaggle", "--out", "x"]):
        assert isinstance(
            CliRunner().invoke(app, ["collected", str(folder), *wrong]).exception, SpecError
        )


def test_the_list_names_each_source_whole_to_be_copied(folder: Path) -> None:
    films = [f"/{'recordings of the yard/' * 9}{name}.mp4" for name in "ab"]
    jpeg = bytes(cv2.imencode(".jpg", solid(1, 2, 3, (48, 64)))[1])
    for number, source in enumerate(films):
        about = replace(record(1, SAID[0]), source=source)
        path = (
            folder
            / "door"
            / ("_".join(("person", "near", "04000", f"{number + 50:032x}")) + SUFFIX)
        )
        path.write_bytes(with_record(jpeg, asdict(about)))
    lines = CliRunner().invoke(app, ["collected", str(folder)], env={"COLUMNS": "60"}).output
    assert [line for line in lines.splitlines() if line in {*films, "door"}].count("door") == 1
    assert set(films) <= {*lines.splitlines()}


def test_names_of_exports_are_short_and_apart(folder: Path) -> None:
    frames: list[Kept] = read_kept(folder)
    assert len({kept.name for kept in frames}) == len(frames)
    assert all(kept.name.startswith("door_") and len(kept.name) < 50 for kept in frames)
