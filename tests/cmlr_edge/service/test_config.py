from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cmlr_edge.errors import SpecError
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.session.config import load_config
from tests.cmlr_edge.cli.command import run
from tests.cmlr_edge.engines.keys import make_key
from tests.cmlr_edge.service.whole_config import WHOLE


def test_a_whole_configuration_is_read(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(WHOLE)
    config = load_config(path)
    assert [source.name for source in config.sources] == ["door", "yard"]
    assert config.thresholds == {"person": 0.4, "traffic light": 0.3}
    assert config.engine.update.max_flip_share == 0.1
    assert config.stability.all_labels.min_duration_s == 1.5


@pytest.mark.parametrize(
    ("before", "after", "word"),
    [
        ('provider = "cpu"', 'povider = "cpu"', "povider"),
        ("max_flip_share = 0.1", 'max_flip_share = "much"', "float"),
        ("person = 0.4", "person = true", "float"),
        ("person = 0.4", "person = 1.4", "0 to 1"),
        ('policy = "every"', 'policy = "sometimes"', "newest"),
        ('name = "yard"', 'name = "door"', "two sources"),
        ('name = "yard"', "name = yard", "line"),
        ("min_duration_s = 1.5", 'min_duration_s = "long"', "float"),
    ],
)
def test_an_error_names_the_line_of_the_setting(
    tmp_path: Path, before: str, after: str, word: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(WHOLE.replace(before, after))
    line = path.read_text().splitlines().index(after) + 1
    if word == "two sources":  # the first of both is named
        line = path.read_text().splitlines().index('name = "door"') + 1
    with pytest.raises(SpecError, match=rf"(?s)line {line}\b.*{word}|{word}.*line {line}\b"):
        load_config(path)


@pytest.mark.parametrize(
    ("header", "before", "after", "word"),
    [
        ("[[sinks]]", 'url = "mqtt://broker/topic"', 'path = "x"', "give it a url"),
        ("[engine]", 'store = "engines"', 'store = "engines"\npath = "x"', "store"),
        ("[engine.update]", "max_flip_share = 0.1", "max_flip_share = 2", "max_flip_share"),
        ("[stability.all_labels]", "min_duration_s = 1.5", "min_duration_s = -1", "min_duration_s"),
        ("[[sources]]", 'uri = "rtsp://camera/1"', "", "lacks"),
    ],
)
def test_an_error_of_a_table_names_the_line_of_its_header(
    tmp_path: Path, header: str, before: str, after: str, word: str
) -> None:
    path = tmp_path / "c.toml"
    path.write_text(WHOLE.replace(before, after))
    line = path.read_text().splitlines().index(header) + 1
    with pytest.raises(SpecError, match=rf"line {line}: .*{word}"):
        load_config(path)


def test_the_bundled_model_serves_where_no_engine_is_named(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    for engine in ("", '[engine]\nprovider = "cpu"\n'):
        path.write_text(f'{engine}[[sources]]\nname = "door"\nuri = "rtsp://camera/1"\n')
        assert load_config(path).engine.path == str(demo_engine())


def test_a_file_without_sources_or_without_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('sources = []\n[engine]\npath = "x"\n')
    with pytest.raises(SpecError, match=r"line 1: .*at least one"):
        load_config(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SpecError, match="cannot read"):
        load_config(path)
    with pytest.raises(SpecError, match="cannot read"):
        load_config(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "text",
    ["a = " + "[" * 100_000, "a = " + "9" * 5000, "a" * 2**27],
    ids=["deep", "long", "large"],
)
def test_a_file_that_no_reader_bears_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "c.toml"
    path.write_text(text)
    with pytest.raises(SpecError):
        load_config(path)


def test_a_pipe_or_a_device_is_no_configuration(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(SpecError, match="not a file"):
            load_config(path)


def test_a_mark_of_the_byte_order_is_no_fault(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text(WHOLE, encoding="utf-8-sig")
    marked = load_config(path)
    path.write_text(WHOLE)
    assert marked == load_config(path)


def test_a_relative_source_is_beside_the_file(tmp_path: Path) -> None:
    folder = tmp_path / "odd [1]"
    folder.mkdir()
    (folder / "b[2].mp4").touch()
    path = folder / "c.toml"
    kept = ("/a/b.mp4", "0", "rtsp://camera/1", "test://?fps=5", "mine://place")
    moved = ("a/b c.mp4", "b[2].mp4")
    uris = (*kept, *moved, "p/*.png")
    path.write_text(
        '[engine]\npath = "m"\n'
        + "".join(f'[[sources]]\nname = "{i}"\nuri = "{uri}"\n' for i, uri in enumerate(uris))
    )
    found = [source.uri for source in load_config(path).sources]
    assert found[: len(kept)] == [*kept]
    assert found[len(kept) : -1] == [str(folder / uri) for uri in moved]
    assert found[-1] == str(tmp_path / "odd [[]1]" / "p" / "*.png")


def test_a_configuration_is_checked_as_a_start_would_and_nothing_is_opened(tmp_path: Path) -> None:
    path = tmp_path / "door.toml"
    text = '[[sources]]\nname = "door"\nuri = "rtsp://u:${DOOR_PW}@127.0.0.1:9/1"\n'
    path.write_text(text)
    check: list[str | Path] = ["service", "check", path]
    done = run(*check)
    assert (done.returncode, "line 3: ${DOOR_PW}" in done.stderr) == (2, True)
    assert done.stderr.endswith("set it; a service also reads door.env beside this file\n")
    (tmp_path / "door.env").write_text("")
    assert f"set -a; . {tmp_path}/door.env; set +a" in run(*check).stderr
    (tmp_path / "door.env").write_text("# DOOR_PW=no\n\nDOOR_PW='p@ss'\n")
    done = run(*check)
    assert done.returncode == 0, done.stderr
    assert "1 source, 0 outputs; no camera was asked" in done.stdout
    path.write_text(text + 'labels = ["perosn"]\n')
    assert (
        "line 4: labels name unknown labels ['perosn']; did you mean person?" in run(*check).stderr
    )
    path.write_text(text + '[engine]\nstore = "engines"\n')
    assert "holds no engine in service" in run(*check).stderr
    path.write_text(text + '[[sinks]]\nkind = "jsonl"\npath = "door.toml"\n')
    assert run(*check).returncode == 2
    (tmp_path / "door.env").write_bytes(b"\xff=\xff")
    assert "it is no text" in run(*check).stderr
    (tmp_path / "door.env").write_text("\nexport DOOR_PW=p@ss\n")
    said = run(*check).stderr
    assert "door.env, line 2: systemd passes over it, for 'export DOOR_PW' is no name" in said
    assert "p@ss" not in said
    (tmp_path / "door.env").unlink()
    os.mkfifo(tmp_path / "door.env")
    assert "not a file" in run(*check).stderr


def no_key(key: Path) -> None:
    """Nothing lies there."""


def key_of_somebody(key: Path) -> None:
    make_key(key.with_name("private.pem"), key)


def changed_model(key: Path) -> None:
    model = key.with_name("engine") / "model.onnx"
    model.write_bytes(model.read_bytes() + b"more")
    key.with_name("door.toml").write_text(CHECKED.partition("require_")[0] + SOURCE)


def built_here(key: Path) -> None:
    key.with_name("door.toml").write_text(CHECKED + "rebuild = true\n" + SOURCE)


SOURCE = '[[sources]]\nname = "door"\nuri = "test://"\n'
CHECKED = '[engine]\npath = "engine"\nrequire_signature = "key.pem"\n'


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (no_key, "no public key at"),
        (Path.mkdir, "no public key at"),
        (os.mkfifo, "no public key at"),
        (lambda key: key.symlink_to("/dev/zero"), "no public key at"),
        (key_of_somebody, "has no signature"),
        (changed_model, "was changed or cut short"),
        (built_here, "exclude each other"),
    ],
)
def test_a_model_whose_files_a_start_refuses_does_not_fit(
    engine: Path, tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    assert engine.parent == tmp_path / "engine"
    (tmp_path / "door.toml").write_text(CHECKED + SOURCE)
    make(tmp_path / "key.pem")
    done = run("service", "check", tmp_path / "door.toml")
    assert (done.returncode, said in done.stderr) == (2, True), done.stdout + done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("uri", ["*.jpg", "empty", "a.mp4", "pipe"])
def test_files_of_sources_that_a_start_refuses_do_not_fit(tmp_path: Path, uri: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.mp4").write_bytes(b"no film")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "door.toml").write_text(SOURCE.replace("test://", uri))
    done = run("service", "check", tmp_path / "door.toml")
    assert (done.returncode, done.stderr[:7]) == (2, "error: "), done.stdout
    assert done.stderr.count("\n") == 1
