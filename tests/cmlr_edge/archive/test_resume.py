"""Whatever is killed, and when: each picture and frame has one row, and a run that is started again goes on."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image as Pillow

from cmlr_edge import EngineError, OutputError, SpecError
from cmlr_edge.archive import ray_crew
from cmlr_edge.archive.dataset import MODEL
from cmlr_edge.archive.inputs import list_items
from cmlr_edge.archive.plan import Cutting, Unit, cut
from cmlr_edge.archive.run import Archive, ArchiveSettings, Summary
from cmlr_edge.archive.show import choose_rows
from cmlr_edge.archive.stores import open_store, temporary_folder
from cmlr_edge.archive.worker import Worker, WorkerSettings
from cmlr_edge.errors import DataError
from cmlr_edge.model.embedded import SPEC_KEY, UNSEALED, seal
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import ModelSpec
from tests.cmlr_edge.archive.archives import rows_of, write_pictures
from tests.cmlr_edge.capture.films import write_film
from tests.cmlr_edge.cli.command import COMMAND
from tests.conftest import free_port, make_spec, mean_color_model, solid, write_engine

_PICTURES, _FRAMES = 60, 40


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Pictures, one that is none, and a film that is cut in four."""
    folder = tmp_path / "in"
    write_pictures(folder, _PICTURES - 1)
    (folder / "bad.jpg").write_text("bad")
    frames = [solid(5 * i, 250 - 5 * i, 100, (48, 64)) for i in range(_FRAMES)]
    write_film(folder / "film.mp4", frames, options={"x264-params": "keyint=5:scenecut=0"})
    return folder


def cutting_of(source: Path) -> Cutting:
    return Cutting(6, (source / "film.mp4").stat().st_size / 4 / 2**20)


def flags_of(source: Path, out: Path, engine: Path) -> list[str]:
    cutting = cutting_of(source)
    return [
        *("archive", str(source), "--out", str(out), "--engine", str(engine), "--workers", "1"),
        *("--chunk", str(cutting.chunk), "--part-mb", str(cutting.part_mb), "--provider", "cpu"),
    ]


def once_each(out: Path) -> None:
    """Every picture and frame has its row, and only one."""
    rows = rows_of(out)
    keys = [(row["path"], row["frame"]) for row in rows]
    assert len(keys) == len({*keys}) == _PICTURES + _FRAMES
    assert [row["error_kind"] for row in rows if row["error"]] == ["no picture"]
    frames = [row["frame"] for row in rows if row["frame"] is not None]
    assert frames == [*range(_FRAMES)]


@pytest.mark.slow
def test_a_run_that_is_killed_goes_on(source: Path, tmp_path: Path, engine: Path) -> None:
    out, flags = tmp_path / "out", flags_of(source, tmp_path / "out", engine)
    with subprocess.Popen([*COMMAND, *flags], stderr=subprocess.DEVNULL) as killed:
        await_files(out, 8, killed)
        killed.kill()
    assert not (out / "_manifest.parquet").exists()
    settings = ArchiveSettings((), str(out), engine, workers=1)
    summary = archived(settings)
    once_each(out)
    found = (summary.total.rows, summary.total.failures, summary.units_left)
    assert found == (_PICTURES + _FRAMES - 1, {"no picture": 1}, 0)
    assert 0 < summary.rows_now < summary.total.rows
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/**/*.parquet")}
    assert archived(settings).rows_now == 0
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert list(out.glob(".scratch/*")) == list(out.glob("_parts/*")) == []


def await_files(out: Path, count: int, process: subprocess.Popen[Any]) -> None:
    deadline_s = time.monotonic() + 60
    while len([*out.glob("rows/*/*"), *out.glob("_parts/*")]) < count and process.poll() is None:
        assert time.monotonic() < deadline_s
        time.sleep(0.005)
    assert process.poll() is None, "it was over before it could be killed"


def children() -> list[int]:
    """Workers of this process."""
    tasks = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    pids = [int(pid) for task in tasks for pid in task.read_text().split()]
    return [pid for pid in pids if b"archive.worker" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def archived(settings: ArchiveSettings, on_unit: Any = None) -> Summary:
    with Archive(settings) as archive:
        return archive.run(on_unit)


@pytest.mark.slow
def test_workers_that_are_killed_lose_nothing(source: Path, tmp_path: Path, engine: Path) -> None:
    kills = iter([4])

    def kill_sometimes(_unit: Unit, _counts: object) -> None:
        if number[0] == next_kill[0]:
            for pid in children():
                os.kill(pid, signal.SIGKILL)
            next_kill[0] = next(kills, -1)
        number[0] += 1

    number, next_kill = [0], [next(kills)]
    out = tmp_path / "out"
    settings = ArchiveSettings(
        (str(source),), str(out), engine, "cpu", cutting=cutting_of(source), workers=1
    )
    summary = archived(settings, kill_sometimes)
    assert next_kill == [-1]
    assert (summary.units_left, summary.undone) == (0, [])
    once_each(out)


@pytest.mark.slow
def test_a_picture_that_ends_its_reader_is_a_row_with_that_error(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pictures(tmp_path / "in", 3)
    Pillow.new("1", (10000, 10000)).save(tmp_path / "in" / "0001b.png")
    monkeypatch.setattr("cmlr_edge.archive.run.available_memory", lambda: 500 * 2**20)
    monkeypatch.setattr("cmlr_edge.archive.worker._DEATHS", 2)
    settings = ArchiveSettings(
        (str(tmp_path / "in"),), str(tmp_path / "out"), engine, "cpu", workers=1
    )
    summary = archived(settings)
    assert summary.total.failures == {"too large": 1}
    assert [row["error_kind"] for row in rows_of(tmp_path / "out")] == [
        None,
        None,
        "too large",
        None,
    ]


def test_a_dataset_is_gone_on_with_as_it_was_begun(
    source: Path, tmp_path: Path, engine: Path, color_engine: Path
) -> None:
    out = str(tmp_path / "out")
    settings = ArchiveSettings((str(source),), out, engine, "cpu", workers=1)
    with Archive(settings), pytest.raises(OutputError, match="another run writes"):
        archived(settings)
    with pytest.raises(SpecError, match="begun with other settings, thresholds"):
        archived(ArchiveSettings((), out, engine, "cpu", 0.3))
    with pytest.raises(SpecError, match="begun with other settings, model"):
        archived(ArchiveSettings((), out, color_engine, "cpu"))
    with pytest.raises(SpecError, match="begun with other settings, inputs"):
        archived(ArchiveSettings((str(tmp_path),), out, engine, "cpu"))
    with pytest.raises(SpecError, match="no dataset"):
        archived(ArchiveSettings((), str(tmp_path / "none"), engine, "cpu"))
    assert not (tmp_path / "none").exists()


def test_a_damaged_file_of_the_dataset_is_one_line_and_its_unit_is_done_again(
    source: Path, tmp_path: Path, engine: Path
) -> None:
    out = tmp_path / "out"
    (source / "film.mp4").unlink()
    settings = ArchiveSettings((str(source),), str(out), engine, "cpu", workers=1)
    archived(settings)
    rows = rows_of(out)
    [unit] = out.glob("rows/kind=picture/*.parquet")
    for damaged, content in ((out / "_plan.parquet", b"PAR1"), (unit, b""), (unit, b"x" * 999)):
        damaged.write_bytes(content)
        with pytest.raises(DataError, match=f"{damaged.name} is damaged.* delete it"):
            archived(settings)
        if damaged == unit:
            with pytest.raises(DataError, match="rows is damaged"):
                choose_rows(open_store(str(out)), ("red",), "true")
        damaged.unlink()
        archived(settings)
        assert rows_of(out) == rows
    (out / "_plan.parquet").unlink()
    (source / "0000.png").unlink()  # so that a new plan has other units
    for _ in range(2):
        with pytest.raises(
            DataError, match=r"not those of its rows \(1 files\): give another --out"
        ):
            archived(settings)
        assert rows_of(out) == rows


def test_rows_without_a_header_are_not_mixed_with_those_of_another_model(
    source: Path, tmp_path: Path, engine: Path, color_engine: Path
) -> None:
    out = tmp_path / "out"
    picture = str(source / "0000.png")
    archived(ArchiveSettings((picture,), str(out), engine, "cpu", workers=1))
    (out / "_archive.json").unlink()
    rows = rows_of(out)
    with pytest.raises(DataError, match=r"holds rows, and its _archive.json is gone.*--out"):
        archived(ArchiveSettings((picture,), str(out), color_engine, "cpu", workers=1))
    assert rows_of(out) == rows


def test_a_run_that_ended_while_the_model_was_opened_is_gone_on_with(
    source: Path, tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = (
        ArchiveSettings((str(source / name),), str(tmp_path / "out"), engine, "cpu", workers=1)
        for name in ("0000.png", "0001.png")
    )
    lock = Archive._lock

    def late(self: Archive) -> None:
        monkeypatch.undo()
        archived(first)
        lock(self)

    monkeypatch.setattr(Archive, "_lock", late)
    with pytest.raises(SpecError, match="begun with other settings, inputs"):
        archived(second)
    assert [Path(row["path"]).name for row in rows_of(tmp_path / "out")] == ["0000.png"]


def test_a_full_disk_ends_the_run_and_does_no_harm(
    source: Path, tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    monkeypatch.setattr("cmlr_edge.archive.worker._TRIES", 1)
    settings = ArchiveSettings((str(source / "0000.png"),), str(out), engine, "cpu", workers=1)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))  # not even the plan
    try:
        with pytest.raises(OutputError, match=r"^cannot write into .*out: File too large$"):
            archived(settings)
        assert not out.exists()
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))  # the plan fits, rows do not
        summary = archived(settings)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (summary.units_left, len(summary.undone)) == (1, 1)
    assert "File too large" in summary.undone[0]
    assert rows_of(out) == []
    assert list(out.glob(".scratch")) == []


@pytest.mark.slow
def test_a_worker_that_hangs_is_ended_and_its_unit_done(
    source: Path, tmp_path: Path, engine: Path
) -> None:
    settings = WorkerSettings(
        str(engine), "cpu", {"red": 0.5, "green": 0.5, "blue": 0.5}, str(tmp_path / "out"), {}, 1
    )
    worker = Worker(replace(settings, hang_s=2.0), lambda: False)
    units = [*cut(list_items([str(source)]), Cutting(50))]
    worker.do("label", units[0])
    [pid] = children()
    os.kill(pid, signal.SIGSTOP)
    assert worker.do("label", units[1]).units == 1
    assert children() != [pid]
    worker.close()


@pytest.mark.slow
def test_a_model_that_is_replaced_meanwhile_labels_no_picture(
    source: Path, tmp_path: Path, engine: Path
) -> None:
    settings = ArchiveSettings(
        (str(source),), str(tmp_path / "out"), engine, "cpu", cutting=cutting_of(source), workers=1
    )
    content = mean_color_model()
    other = replace(make_spec(content), name="another", thresholds=(0.2, 0.6, 0.4))
    with Archive(settings) as archive:
        write_engine(engine.parent, content, other)
        with pytest.raises(EngineError, match="was changed: put back the model"):
            archive.run()
    assert rows_of(tmp_path / "out") == []


def test_a_cluster_gets_the_spec_that_is_inside_a_model(
    tmp_path: Path, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray_crew, "_require_answer", lambda _: _stop())
    model, spec = onnx.load(str(engine)), ModelSpec.load(spec_path(engine))
    unsealed = {engine.name: replace(spec.files[engine.name], sha256=UNSEALED)}
    text = replace(spec, files=unsealed).to_json().decode()
    model.metadata_props.add(key=SPEC_KEY, value=text)
    engine.write_bytes(seal(model.SerializeToString()))
    spec_path(engine).unlink()
    settings = WorkerSettings(str(engine), "cpu", {}, str(tmp_path / "out"), {}, 1)
    with pytest.raises(InterruptedError):
        ray_crew.RayCrew(settings, None, "127.0.0.1:1")
    assert ModelPair.read(tmp_path / "out" / MODEL / engine.name).spec.labels == spec.labels


def _stop() -> None:
    raise InterruptedError


def test_an_actor_of_a_cluster_does_the_same(source: Path, tmp_path: Path, engine: Path) -> None:
    settings = ArchiveSettings((str(source),), str(tmp_path / "out"), engine, "cpu", workers=1)
    with Archive(settings) as archive:
        header = archive.header
        thresholds = dict(zip(header.model.labels, header.model.thresholds, strict=True))
        about = WorkerSettings(
            engine.name, "cpu", thresholds, archive.store.root, header.about(), 1
        )
        for path in (engine, spec_path(engine)):
            archive.store.put_bytes(f"{MODEL}/{path.name}", path.read_bytes())
        actor = ray_crew._Actor(about, "label")
        told = actor({"unit": np.array([1])})  # behind the film
        actor.close()
    assert (json.loads(told["counts"][0])["rows"], told["failed"][0]) == (_PICTURES - 1, "")
    assert len(rows_of(tmp_path / "out")) == _PICTURES


@pytest.mark.parametrize(
    "address", ["127.0.0.1:{port}", "ray://127.0.0.1:{port}", "127.0.0.1:99999"]
)
def test_a_cluster_that_is_not_there_is_told_at_once(
    tmp_path: Path, engine: Path, address: str
) -> None:
    settings = WorkerSettings(str(engine), "cpu", {}, str(tmp_path / "out"), {}, 1)
    with pytest.raises(EngineError, match="cannot reach the Ray cluster"):
        ray_crew.RayCrew(settings, None, address.format(port=free_port()))


def test_what_a_killed_process_left_is_removed_a_day_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    dead, old = 2**22 + 1, time.time() - 90_000  # beyond the largest number of a process
    for name, age in ((f"{dead}-a", old), (f"{dead}-b", time.time()), (f"{os.getpid()}-c", old)):
        folder = tmp_path / f"cmlr-archive-{name}"
        folder.mkdir()
        os.utime(folder, (age, age))
    owner = Cutting()
    ours = temporary_folder(owner)
    left = {path.name.split("-", 2)[2] for path in tmp_path.glob("cmlr-archive-*")}
    assert {f"{dead}-b", f"{os.getpid()}-c"} < left
    assert f"{dead}-a" not in left
    assert ours.exists()
    del owner  # without a word: what it warned of while rubbish is collected would be nobody's
    assert not ours.exists()
