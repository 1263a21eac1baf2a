"""Metadata that other tools, or a bad disk, put into an engine's file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmlr_edge.engines.opening import examine
from cmlr_edge.errors import EngineError
from cmlr_edge.model.embedded import metadata, renamed
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.protobuf import write_bytes
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.teaching.lesson import Teacher
from cmlr_edge.teaching.pictures import Pictures
from tests.cmlr_edge.teaching.patches import patch_model, write_patch_engine, write_pictures


@pytest.mark.parametrize("other", [b"\n\x01k\x12\x01\xff", b"\n\x01\xff", b"\n\x09k", b"\x0b"])
def test_metadata_of_others_that_is_no_text_stays_and_harms_nothing(
    tmp_path: Path, other: bytes
) -> None:
    content = patch_model() + write_bytes(14, other)
    engine = write_patch_engine(tmp_path / "base", content)
    assert metadata(content)["names"] == "{0: 'red', 1: 'green', 2: 'blue'}"
    other_names = renamed(content, ("a", "b", "c"))
    assert other in other_names
    assert metadata(other_names)["names"] == "{0: 'a', 1: 'b', 2: 'c'}"
    if other.endswith(b"\xff"):  # what is no entry at all no runtime takes
        assert Teacher.of(engine, providers=["cpu"]).taught == ()


def test_a_taught_engine_whose_names_are_damaged_is_told_as_changed(tmp_path: Path) -> None:
    base = write_patch_engine(tmp_path / "base")
    made = [write_pictures(tmp_path / str(yellow), 20, yellow=yellow) for yellow in (True, False)]
    with_it, without = (
        Pictures.read([path], ModelSpec.load(spec_path(base)).preprocess) for path in made
    )
    taught = (
        Teacher.of(base, providers=["cpu"])
        .teach("yellow", with_it, without)
        .write(tmp_path / "new")
    )
    taught.write_bytes(taught.read_bytes().replace(b"'green'", b"'gr\xffen'"))
    with pytest.raises(EngineError, match="changed or cut short"):
        Teacher.of(taught, providers=["cpu"])
    assert {check.name for check in examine(taught, provider="cpu")} >= {"file", "teaching"}
