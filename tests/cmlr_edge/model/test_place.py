"""An engine is written where it costs nobody anything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cmlr_edge.model.place import refuse_run
from cmlr_edge.model.spec import ModelSpec
from tests.cmlr_edge.cli.command import run


def test_a_run_is_not_written_over_by_an_engine(engine: Path, tmp_path: Path) -> None:
    spec = replace(ModelSpec.load(engine.with_suffix(".json")), files={})
    spec.save(tmp_path / "model.json")
    before = (tmp_path / "model.json").read_bytes()
    for command in (
        ("adopt", engine, "--labels", "red,green,blue"),
        ("teach", engine, "--rename", "red=rot"),
    ):
        done = run(*command, "--out", tmp_path)
        assert (done.returncode, done.stdout) == (2, "")
        assert (
            "holds a run, whose model.json would be written over: give another place" in done.stderr
        )
    assert (tmp_path / "model.json").read_bytes() == before


def test_an_engine_and_a_spec_that_is_none_are_written_over(engine: Path, tmp_path: Path) -> None:
    (tmp_path / "model.json").write_text("{}")
    for path in (engine, tmp_path / "model.onnx", tmp_path / "none" / "model.onnx"):
        refuse_run(path)
