"""What a person types wrong is one line that says what and where the help is, with exit code 2."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from cmlr_edge import cli
from cmlr_edge.cli.app import app
from cmlr_edge.cli.usage import run_app
from cmlr_edge.errors import OutputError
from cmlr_edge.pipeline import lane
from train.cli.app import app as train_app

PROGRAMS = {"cmlr-edge": app, "python -m train": train_app}
WRONG = {
    "lable x.mp4": ("No such command 'lable'. Did you mean 'label'", "cmlr-edge"),
    "service updaet a b": ("No such command 'updaet'", "cmlr-edge service"),
    "--bogus": ("--bogus", "cmlr-edge"),
    "label --bogus x.mp4": ("--bogus", "cmlr-edge label"),
    "label -Z": ("-Z", "cmlr-edge label"),
    "label x.mp4 --policy": ("'--policy' requires an argument", "cmlr-edge"),
    "label --max-frames abc x.mp4": ("--max-frames", "cmlr-edge label"),
    "label --max-frames -3 x.mp4": ("--max-frames", "cmlr-edge label"),
    "serve --port 99999999 x.mp4": ("--port", "cmlr-edge serve"),
    "run": ("Missing argument", "cmlr-edge run"),
    "service update": ("Missing argument", "cmlr-edge service update"),
    "verify a b c": ("unexpected extra argument", "cmlr-edge verify"),
    "verify --engine a": ("give it without --engine, `cmlr-edge verify ENGINE`", "cmlr-edge"),
    "inspect --engine a": ("give it without --engine", "cmlr-edge inspect ENGINE"),
    "bench --engine a": ("give it without --engine", "cmlr-edge bench ENGINE"),
    "inspect a b": ("unexpected extra argument", "cmlr-edge inspect"),
    "doctor --foo": ("--foo", "cmlr-edge doctor"),
    "bench --duration abc": ("--duration", "cmlr-edge bench"),
    "hub pull": ("Missing", "cmlr-edge hub pull"),
}


def test_ctrl_c_before_a_command_has_begun_is_no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cmlr_edge.cli.usage.run_app", interrupted)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 130


@pytest.mark.parametrize("typed", WRONG)
def test_what_is_typed_wrong_is_one_line(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words, command = WRONG[typed]
    monkeypatch.setattr(sys, "argv", ["cmlr-edge", *typed.split()])
    monkeypatch.setattr(sys.stdout, "close", lambda: None)  # the test's own
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith("error: ")
    assert said.err.count("\n") == 1
    assert words in said.err
    assert command in said.err


def test_a_file_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = typer.Typer()
    blocked = tmp_path / "file"
    blocked.touch()

    @program.command()
    def write() -> None:
        (blocked / "out").mkdir()

    monkeypatch.setattr(sys, "argv", ["program"])
    with pytest.raises(OutputError, match=r"cannot use .*file/out: Not a directory"):
        run_app(program, "program")


@pytest.mark.parametrize(
    "typed",
    [
        "verify a rtsp://u:hunter2@cam/hunter2",
        "verify s3://u:a/hunter2@bucket/x",
        "run s3://bucket/x.toml?X-Amz-Signature=hunter2",
        "label test:// --overlay gs://bucket/x.mp4#hunter2",
    ],
)
def test_a_secret_in_it_is_not_repeated(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cmlr-edge", *typed.split()])
    monkeypatch.setattr(sys.stdout, "close", lambda: None)
    with pytest.raises(SystemExit):
        cli.main()
    said = capsys.readouterr().err
    assert "://" in said
    assert "hunter2" not in said
    assert lane._log.level == logging.NOTSET  # a program around the command hears of its sources


@pytest.mark.parametrize("typed", ["", "service"])
def test_nothing_typed_is_answered_with_the_help(
    typed: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cmlr-edge", *typed.split()])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    said = capsys.readouterr()
    assert ended.value.code in {0, 2}
    assert "Usage:" in said.out + said.err
    assert "error" not in said.err


@pytest.mark.slow
@pytest.mark.parametrize("program", [["-m", "train"], ["-m", "train.data.context_scenes"]])
def test_programs_beside_it_do_likewise(program: list[str]) -> None:
    pytest.importorskip("torch")
    command = [sys.executable, *program, "--bogus"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "--bogus" in done.stderr
    assert done.stderr.count("\n") == 1


def _commands(command: Any, *words: str) -> Iterator[tuple[Any, tuple[str, ...]]]:
    yield command, words
    for name, inner in getattr(command, "commands", {}).items():
        yield from _commands(inner, *words, name)


@pytest.mark.parametrize("program", PROGRAMS)
def test_no_help_cuts_a_word_on_a_narrow_terminal(
    program: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    found = [*_commands(typer.main.get_command(PROGRAMS[program]))]
    for command, words in found:
        monkeypatch.setattr(sys, "argv", [program, *words, "--help"])
        run_app(PROGRAMS[program], program)
        said = capsys.readouterr().out
        shown = "".join(said.split())
        assert "…" not in said
        assert not re.search(r"\w\.\.\.$", said, re.MULTILINE)
        for item in command.params:
            flags = [*item.opts, *item.secondary_opts] if hasattr(item, "is_flag") else []
            for text in (*flags, getattr(item, "help", None) or ""):
                assert "".join(text.split()) in shown
    assert len(found) >= 9
