"""Pictures wherever they lie become a row each, with the device's decisions; those that cannot be read say why."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image as Pillow

from cmlr_edge import CaptureError, OutputError, Recognizer
from cmlr_edge.archive import pictures, stores
from cmlr_edge.archive.inputs import Item, list_items
from cmlr_edge.archive.pictures import StorageError
from cmlr_edge.archive.plan import Cutting, Plan, cut, write_plan
from cmlr_edge.archive.stores import open_store
from cmlr_edge.capture.images import read_image
from tests.cmlr_edge.archive.archives import encoded, label_here, rows_of, write_pictures
from tests.conftest import solid

Member = tuple[str, bytes]


@pytest.fixture
def recognizer(engine: Path) -> Iterator[Recognizer]:
    with Recognizer.from_engine(engine) as opened:
        yield opened


def write_tar(path: Path, members: list[Member], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name, content in members:
            about = tarfile.TarInfo(name)
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    return path


def samples(count: int) -> list[Member]:
    colors = np.random.default_rng(0).integers(0, 256, (count, 3)).tolist()
    return [(f"{i:04d}.png", encoded(solid(*color))) for i, color in enumerate(colors)]


def test_rows_are_what_the_recognizer_says(recognizer: Recognizer, tmp_path: Path) -> None:
    paths = write_pictures(tmp_path / "in", 21)
    units = label_here(recognizer, [tmp_path / "in"], tmp_path / "out", Cutting(chunk=8))
    assert [len(unit.items) for unit in units] == [8, 8, 5]
    rows = rows_of(tmp_path / "out")
    assert [row["path"] for row in rows] == [str(path) for path in paths]
    for row, path in zip(rows, paths, strict=True):
        expected = recognizer(read_image(path))
        np.testing.assert_array_equal(np.array(row["scores"], np.float32), expected.scores)
        assert row["labels"] == [item.label for item in expected.labels]
        assert (row["width"], row["height"], row["status"], row["error"]) == (40, 30, "ok", None)
        assert abs(row["modified_at"].timestamp() - path.stat().st_mtime) < 1e-3


def test_what_cannot_be_read_is_a_row_that_says_why(recognizer: Recognizer, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    [good] = write_pictures(folder, 1)
    noise = np.random.default_rng(0).integers(0, 256, (90, 90, 3), np.uint8)
    (folder / "cut.png").write_bytes(encoded(noise)[:9000])
    (folder / "text.jpg").write_text("no picture")
    (folder / "empty.webp").touch()
    (folder / "link.jpg").symlink_to(folder / "gone.jpg")
    os.mkfifo(folder / "pipe.png")
    Pillow.new("1", (20000, 9000)).save(folder / "wide.png")
    with (folder / "huge.bmp").open("wb") as file:
        file.truncate(2**28 + 1)
    (folder / "film.mp4").write_bytes(b"no film")
    (folder / os.fsdecode(b"\xff odd\n.png")).write_bytes(good.read_bytes())
    (folder / os.fsdecode(b"\xfe bad.mp4")).write_bytes(b"no film")
    label_here(recognizer, [folder], tmp_path / "out")
    found = {Path(row["path"]).name: row["error_kind"] for row in rows_of(tmp_path / "out")}
    assert found == {
        "0000.png": None,
        "cut.png": "damaged",
        "text.jpg": "no picture",
        "empty.webp": "no picture",
        "link.jpg": "missing",
        "pipe.png": "unreadable",
        "wide.png": "too large",
        "huge.bmp": "too large",
        "film.mp4": "no film",
        "\\xff odd\\x0a.png": None,
        "\\xfe bad.mp4": "no film",
    }
    assert all(row["error"] for row in rows_of(tmp_path / "out") if row["error_kind"])


@pytest.mark.parametrize(
    ("ending", "mode", "parts"),
    [(".tar", "w", 4), (".tar", "w", 1), (".tgz", "w:gz", 1), (".tar.xz", "w:xz", 1)],
)
def test_members_of_a_tar_are_rows(
    recognizer: Recognizer, tmp_path: Path, ending: str, mode: str, parts: int
) -> None:
    members = samples(12)
    odd = [
        ("film.mp4", b"film"),
        ("\udcff.jpg", b"bad"),
        ("a" * 150 + ".png", members[0][1]),
        ("notes.json", b"{}"),
        ("bad.jpg", b"bad"),
    ]
    path = write_tar(tmp_path / f"shard{ending}", [*members, *odd], mode)
    cutting = Cutting(part_mb=path.stat().st_size / parts / 2**20)
    assert len(label_here(recognizer, [path], tmp_path / "out", cutting)) == parts
    rows = {row["member"]: row for row in rows_of(tmp_path / "out")}
    assert sorted(rows) == sorted(
        [*(name for name, _ in members), odd[2][0], "film.mp4", "bad.jpg", "\\xff.jpg"]
    )
    assert rows["bad.jpg"]["error_kind"] == "no picture"
    assert "unpack it" in rows["film.mp4"]["error"]
    for name, content in members:
        image: Any = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        np.testing.assert_array_equal(np.float32(rows[name]["scores"]), recognizer(image).scores)


def test_a_tar_cut_short_gives_what_is_there_and_says_so(
    recognizer: Recognizer, tmp_path: Path
) -> None:
    path = write_tar(tmp_path / "shard.tar", samples(12))
    path.write_bytes(path.read_bytes()[: 512 * 9 + 100])
    label_here(recognizer, [path], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    kinds = [row["error_kind"] for row in rows if row["member"]]
    assert kinds[:-1] == [None] * (len(kinds) - 1)
    assert len(kinds) > 2
    assert "damaged" in {row["error_kind"] for row in rows}


@pytest.mark.parametrize("ending", [".tar", ".tgz"])
@pytest.mark.parametrize("harm", ["a damaged header", "a part of a header", "no mark of the end"])
def test_members_behind_a_header_that_cannot_be_read_are_not_lost_in_silence(
    recognizer: Recognizer, tmp_path: Path, harm: str, ending: str
) -> None:
    content = bytearray(write_tar(tmp_path / "whole", members := samples(6)).read_bytes())
    begin = content.index(members[3][0].encode())
    if harm == "a damaged header":
        content[begin + 148] ^= 1  # its checksum
    else:
        del content[begin + 100 * (harm == "a part of a header") :]
    path = tmp_path / f"shard{ending}"
    path.write_bytes(gzip.compress(content) if ending == ".tgz" else content)
    label_here(recognizer, [path], tmp_path / "out")
    last, *rows = rows_of(tmp_path / "out")
    assert [row["member"] for row in rows] == [name for name, _ in members[:3]]
    assert (last["member"], last["error_kind"]) == (None, "damaged")


@pytest.mark.parametrize("ending", [".tar", ".tgz"])
def test_members_behind_an_end_within_a_tar_are_rows(
    recognizer: Recognizer, tmp_path: Path, ending: str
) -> None:
    members = samples(6)
    halves = [write_tar(tmp_path / f"half{i}", members[3 * i :][:3]).read_bytes() for i in (0, 1)]
    content = b"".join(halves) + bytes(100)  # zeros that fill no block
    path = tmp_path / f"joined{ending}"
    path.write_bytes(gzip.compress(content, 1) if ending == ".tgz" else content)
    label_here(recognizer, [path], tmp_path / "out")
    rows = rows_of(tmp_path / "out")
    assert [(row["member"], row["error"]) for row in rows] == [(name, None) for name, _ in members]
    path.write_bytes(halves[0] + b"rubbish" * 200)
    label_here(recognizer, [path], tmp_path / "again")
    assert [row["error_kind"] for row in rows_of(tmp_path / "again")] == ["damaged"] + [None] * 3


def test_links_in_a_tar_are_rows_that_say_so(recognizer: Recognizer, tmp_path: Path) -> None:
    path = write_tar(tmp_path / "shard.tar", samples(1))
    with tarfile.open(path, "a") as tar:
        for name, kind in (("hard.png", tarfile.LNKTYPE), ("soft.png", tarfile.SYMTYPE)):
            link = tarfile.TarInfo(name)
            link.type, link.linkname = kind, samples(1)[0][0]
            tar.addfile(link)
    label_here(recognizer, [path], tmp_path / "out")
    told = {row["member"]: row["error"] for row in rows_of(tmp_path / "out")}
    assert told.pop(samples(1)[0][0]) is None
    assert all("is a link: unpack it" in error for error in told.values())
    assert sorted(told) == ["hard.png", "soft.png"]


@pytest.mark.parametrize("form", ["binary", "struct", "dictionary", "large dictionary"])
def test_rows_of_parquet_are_rows(recognizer: Recognizer, tmp_path: Path, form: str) -> None:
    members = samples(10)
    contents = [content for _, content in members] + [b"bad", None]
    column: Any = [{"bytes": c, "path": "x"} for c in contents] if form == "struct" else contents
    if "dictionary" in form:
        column = pa.array(contents, pa.large_binary() if "large" in form else pa.binary())
        column = column.dictionary_encode()
    table = pa.table({"image": column, "caption": ["a"] * 12, "embedding": [b"x"] * 12})
    path = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(table, path, row_group_size=5)
    cutting = Cutting(part_mb=path.stat().st_size / 2 / 2**20)
    assert len(label_here(recognizer, [path], tmp_path / "out", cutting)) == 2
    rows = sorted(rows_of(tmp_path / "out"), key=lambda row: int(row["member"]))
    assert [row["member"] for row in rows] == [str(i) for i in range(12)]
    assert [row["error_kind"] for row in rows] == [None] * 10 + ["no picture"] * 2


def test_a_parquet_file_without_pictures_is_one_row(recognizer: Recognizer, tmp_path: Path) -> None:
    pyarrow.parquet.write_table(pa.table({"a": [1]}), tmp_path / "numbers.parquet")
    (tmp_path / "text.parquet").write_text("no Parquet")
    label_here(
        recognizer, [tmp_path / "numbers.parquet", tmp_path / "text.parquet"], tmp_path / "out"
    )
    assert [row["error_kind"] for row in rows_of(tmp_path / "out")] == ["no picture", "damaged"]


def test_when_a_picture_was_taken_is_told(recognizer: Recognizer, tmp_path: Path) -> None:
    exif = Pillow.Exif()
    exif.get_ifd(0x8769)[0x9003] = "2024:05:01 12:30:05"
    Pillow.new("RGB", (40, 30)).save(tmp_path / "a.jpg", exif=exif)
    label_here(recognizer, [tmp_path / "a.jpg"], tmp_path / "out")
    [row] = rows_of(tmp_path / "out")
    assert str(row["taken_at"]) == "2024-05-01 12:30:05"


def test_inputs_are_listed_once_in_a_fixed_order(tmp_path: Path) -> None:
    write_pictures(tmp_path / "b" / "deep", 2)
    write_pictures(tmp_path / "a", 2)
    write_pictures(tmp_path / "b" / ".hidden", 1)
    (tmp_path / "b" / "notes.txt").touch()
    (tmp_path / "b" / "labels").mkdir()
    (tmp_path / "b" / "labels" / "_archive.json").write_text("{}")
    write_pictures(tmp_path / "b" / "labels", 1)
    inputs = [tmp_path, tmp_path / "a" / "0001.png", tmp_path / "b", f"{tmp_path}/*/*.png"]
    found = [str(Path(item.path).relative_to(tmp_path)) for item in list_items(map(str, inputs))]
    assert found == ["a/0000.png", "a/0001.png", "b/deep/0000.png", "b/deep/0001.png"]
    for nothing in (
        tmp_path / "gone",
        tmp_path / "b" / ".hidden" / "*.jpg",
        "bad://x",
        "s3://u:p@b/x",
        "https://b/x.jpg?signature=u:p",
    ):
        with pytest.raises(CaptureError) as refused:
            [*list_items([str(nothing)])]
        assert "u:p" not in str(refused.value)


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    odd = tmp_path / "in" / os.fsdecode(b"\xff.png")
    write_pictures(tmp_path / "in", 40)
    odd.touch()
    (tmp_path / "in" / "film.mp4").write_bytes(b"x" * 2500)
    units = [*cut(list_items([str(tmp_path / "in")]), Cutting(2, 1000 / 2**20))]
    store = open_store(str(tmp_path / "out"))
    size = write_plan(units, store)
    with Plan(store) as plan:
        assert [(u.name, u.items) for u in plan] == [(u.name, u.items) for u in units]
        assert [u.number for u in plan] == [*range(len(units))]
        assert plan.unit(17).name == units[17].name
    assert (size.pictures, size.films, size.units) == (41, 1, 23)
    assert len({unit.name for unit in units}) == 23


@pytest.mark.parametrize("ending", [".tar", ".tgz"])
def test_a_member_that_claims_to_be_huge_costs_nothing(
    recognizer: Recognizer, tmp_path: Path, ending: str
) -> None:
    about = tarfile.TarInfo("huge.png")
    about.size = 2**40
    [(name, content)] = samples(1)
    good = write_tar(tmp_path / "good.tar", [(name, content)]).read_bytes()
    path = tmp_path / f"shard{ending}"
    content_of_tar = good[: 512 + -(-len(content) // 512) * 512] + about.tobuf() + b"x" * 512
    path.write_bytes(gzip.compress(content_of_tar) if ending == ".tgz" else content_of_tar)
    label_here(recognizer, [path], tmp_path / "out")
    kinds = {row["member"]: row["error_kind"] for row in rows_of(tmp_path / "out")}
    assert kinds == {name: None, "huge.png": "too large", None: "damaged"}


@pytest.mark.parametrize(
    ("code", "error"), [("AccessDenied", CaptureError), ("ExpiredToken", StorageError)]
)
def test_credentials_that_end_are_no_fault_of_a_picture(
    monkeypatch: pytest.MonkeyPatch, code: str, error: type[Exception]
) -> None:
    class ClientError(Exception):
        response = {"Error": {"Code": code}}  # noqa: RUF012 (as botocore has it)

    def forbid(_url: str) -> None:
        raise PermissionError("no") from ClientError()

    monkeypatch.setattr(pictures, "opened_address", forbid)
    with pytest.raises(error, match=r"cannot read s3://bucket/a\.jpg: no"):
        pictures.find_again(Item("picture", "s3://bucket/a.jpg", 9), None)


def test_a_dataset_that_may_not_be_read_is_not_called_damaged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Forbidding:
        def cat_file(self, _path: str) -> bytes:
            raise PermissionError("Access Denied")  # without a number, as S3's client does

    monkeypatch.setattr(stores, "opened_address", lambda url: (Forbidding(), url))
    with pytest.raises(PermissionError) as raised, stores.being_read("s3://b/rows", "a"):
        stores.RemoteStore("s3://b/rows").read("a")
    assert (raised.value.filename, raised.value.strerror) == ("s3://b/rows/a", "Access Denied")


def test_a_storage_that_does_not_answer_is_told_in_a_line_without_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Away:
        def info(self, _path: str) -> None:
            raise Exception("cannot connect to http://host/b?sig=hunter2")  # noqa: TRY002

        def invalidate_cache(self) -> None:
            """Nothing is known."""

    monkeypatch.setattr(stores, "opened_address", lambda url: (Away(), url))
    with pytest.raises(OutputError, match=r"^cannot use s3://b/rows\?\*\*\*: cannot ") as raised:
        stores.RemoteStore("s3://b/rows?hunter2").has("a")
    assert "hunter2" not in str(raised.value)


def test_a_picture_that_grew_since_it_was_listed_is_read_whole(tmp_path: Path) -> None:
    fs, url = fsspec.filesystem("memory"), f"memory://{tmp_path.name}/a.png"
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    fs.pipe_file(url, encoded(solid(1, 2, 3)))
    [unit] = cut(list_items([url]), Cutting())
    fs.pipe_file(url, encoded(noise))
    [found] = pictures.find_pictures(unit)
    assert np.array_equal(found.decode()[0], noise)


class _CutShort(io.BytesIO):
    """A file of a storage that says it holds more than comes."""

    size = 1000


def test_an_answer_that_is_cut_is_not_the_end_of_a_file() -> None:
    item = Item("tar", "s3://bucket/a.tar", 1000, None)
    whole = pictures.Watched(_CutShort(bytes(1000)), item)
    assert [len(whole.read(size)) for size in (600, -1, 99)] == [600, 400, 0]
    for asked in (-1, 301):
        file = pictures.Watched(_CutShort(bytes(300)), item)
        with pytest.raises(StorageError, match=r"a\.tar: 300 bytes came, not"):
            file.read(asked)
        assert file.fault is not None


def test_a_part_of_an_archive_that_was_changed_is_not_read_as_if_it_was_not(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "a.tar", samples(9))
    table = tmp_path / "b.parquet"
    for count in (9, 12):
        if count == 12:
            write_tar(tar, samples(count))
        images = pa.table({"image": [content for _, content in samples(count)]})
        pyarrow.parquet.write_table(images, table, row_group_size=3)
        if count == 9:
            units = [*cut(list_items([str(tar), str(table)]), Cutting(part_mb=0.001))]
            assert {unit.kind for unit in units if unit.parts > 1} == {"tar", "parquet"}
            assert sum(len([*pictures.find_pictures(unit)]) for unit in units) == 18
    for unit in units:
        with pytest.raises(CaptureError, match=r"it was changed, from \d+ bytes to \d+"):
            next(pictures.find_pictures(unit))
