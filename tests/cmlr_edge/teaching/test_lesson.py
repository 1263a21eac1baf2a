"""Teaching: what the new label says, what stays as it was, and what few pictures cannot say."""

from __future__ import annotations

import errno
import fcntl
import json
import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from cmlr_edge import Recognizer
from cmlr_edge.backends import find_providers
from cmlr_edge.cli.app import app
from cmlr_edge.engines.opening import examine
from cmlr_edge.errors import DataError, EngineError, OutputError, SpecError, TooFewError
from cmlr_edge.model.embedded import metadata
from cmlr_edge.model.files import sha256_of, signature_path, spec_path
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.stability import StabilityChange, StabilityRules
from cmlr_edge.teaching import lesson as lesson_module
from cmlr_edge.teaching.certificate import count_bit_equal
from cmlr_edge.teaching.examples import Examples, examples_path
from cmlr_edge.teaching.lesson import Lesson, Teacher
from cmlr_edge.teaching.pictures import Pictures
from tests.cmlr_edge.teaching.patches import (
    patch_model,
    picture,
    write_patch_engine,
    write_pictures,
)
from tests.conftest import make_spec, mean_color_model, write_engine


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_patch_engine(tmp_path / "base")


def pictures(folder: Path, count: int, engine: Path, *, yellow: bool, seed: int = 0) -> Pictures:
    where = write_pictures(folder / f"{yellow}{seed}", count, yellow=yellow, seed=seed)
    return Pictures.read([where], ModelSpec.load(spec_path(engine)).preprocess)


def teacher(engine: Path) -> Teacher:
    return Teacher.of(engine, providers=["cpu"])


def teach_yellow(
    engine: Path,
    folder: Path,
    label: str = "yellow",
    seed: int = 0,
    providers: list[str] | None = None,
) -> Lesson:
    with_it = pictures(folder, 20, engine, yellow=True, seed=seed)
    without = pictures(folder, 30, engine, yellow=False, seed=seed)
    return Teacher.of(engine, providers=providers or ["cpu"]).teach(label, with_it, without)


def bits(engine: Path, labels: tuple[str, ...], provider: str = "cpu") -> np.ndarray:
    rng = np.random.default_rng(9)
    with Recognizer.from_engine(engine, provider=provider) as recognizer:
        found = [recognizer(picture(rng, yellow=i % 2 == 0)).scores for i in range(6)]
        columns = [recognizer.labels.index(label) for label in labels]
    return np.stack(found)[:, columns].view(np.uint32)


def test_a_taught_label_is_found_and_every_old_score_keeps_its_bits(
    base: Path, tmp_path: Path
) -> None:
    lesson = teach_yellow(base, tmp_path, providers=find_providers())
    new = lesson.write(tmp_path / "new")
    for provider in ("cpu", "openvino"):
        old = ModelSpec.load(spec_path(base)).labels
        np.testing.assert_array_equal(bits(base, old, provider), bits(new, old, provider))
    rng, hits = np.random.default_rng(5), []
    with Recognizer.from_engine(new) as recognizer:
        for i in range(60):
            said = [item.label for item in recognizer(picture(rng, yellow=i < 30)).labels]
            hits.append(("yellow" in said) == (i < 30))
    assert np.mean(hits) > 0.9
    taught = lesson.spec.taught
    assert taught is not None
    assert taught.base_sha256 == sha256_of(patch_model())
    assert set(taught.bit_equal.values()) == {len(taught.frames)}
    assert {"cpu", "openvino"} <= set(taught.bit_equal)
    assert len(taught.frames) >= 50 + 9 - 1  # every picture, the golden sample and the patterns
    [told] = taught.labels
    assert (told.positives, told.negatives) == (20, 30)
    low, high = told.recall_between
    assert low < told.recall <= high
    [check] = [c for c in examine(new, provider="cpu") if c.name == "teaching"]
    assert check.state == "ok"
    assert "yellow added" in check.message


def test_a_certificate_that_does_not_fit_the_file_is_refused_at_load(
    base: Path, tmp_path: Path
) -> None:
    new = teach_yellow(base, tmp_path).write(tmp_path / "new")
    spec = ModelSpec.load(spec_path(new))
    assert spec.taught is not None
    replace(spec, taught=replace(spec.taught, base_sha256="0" * 64)).save(spec_path(new))
    with pytest.raises(EngineError, match="is not the engine that they were taught to"):
        Recognizer.from_engine(new)
    [built] = spec.files.values()
    moved = replace(built.golden, scores=(0.5, *built.golden.scores[1:]))
    with pytest.raises(SpecError, match="other scores of the old labels"):
        replace(spec, files={"model.onnx": replace(built, golden=moved)})
    with pytest.raises(SpecError, match="an old score was moved"):
        replace(spec.taught, bit_equal={"cpu": len(spec.taught.frames) - 1})
    with pytest.raises(SpecError, match="begin and end with"):
        replace(spec, labels=("red", "green", "blue", "other"))


def test_a_spec_without_lessons_is_written_as_before(base: Path) -> None:
    assert "taught" not in json.loads(spec_path(base).read_bytes())


def test_labels_are_added_improved_renamed_and_taken_away(base: Path, tmp_path: Path) -> None:
    first = teach_yellow(base, tmp_path).write(tmp_path / "1")
    second = teach_yellow(first, tmp_path, "lemon", seed=1).write(tmp_path / "2")
    labels = ModelSpec.load(spec_path(first)).labels
    np.testing.assert_array_equal(bits(first, labels), bits(second, labels))
    more = pictures(tmp_path, 15, base, yellow=True, seed=2)
    none = Pictures({}, {}, 0, 0)
    better = teacher(second).teach("yellow", more, none)
    assert better.judgement is not None
    assert better.judgement.positives == 35
    third = better.write(tmp_path / "3")
    kept = ("red", "green", "blue", "lemon")
    np.testing.assert_array_equal(bits(second, kept), bits(third, kept))
    assert (bits(second, ("yellow",)) != bits(third, ("yellow",))).any()
    fourth = teacher(third).rename("yellow", "warm").write(tmp_path / "4")
    np.testing.assert_array_equal(bits(third, ("yellow",)), bits(fourth, ("warm",)))
    names = "{0: 'red', 1: 'green', 2: 'blue', 3: 'warm', 4: 'lemon'}"
    assert metadata(fourth.read_bytes()) == {"names": names}
    fifth = teacher(fourth).forget("warm").write(tmp_path / "5")
    np.testing.assert_array_equal(bits(second, kept), bits(fifth, kept))
    stored = Examples.load(examples_path(fifth), width=3, number=12, base=sha256_of(patch_model()))
    assert stored.labels == ("lemon",)
    assert len(stored.digests) == 50
    last = teacher(fifth).forget("lemon").write(tmp_path / "6")
    assert last.read_bytes() == base.read_bytes()
    assert spec_path(last).read_bytes() == spec_path(base).read_bytes()
    assert not examples_path(last).exists()  # nothing of the pictures is left


def test_stability_rules_of_a_label_go_with_it(base: Path, tmp_path: Path) -> None:
    new = teach_yellow(base, tmp_path).write(tmp_path / "1")
    rules = StabilityRules(
        labels={"yellow": StabilityChange(min_gap_s=3), "red": StabilityChange()}
    )
    replace(ModelSpec.load(spec_path(new)), stability=rules).save(spec_path(new))
    renamed = teacher(new).rename("yellow", "warm").spec.stability.labels
    assert renamed["warm"].min_gap_s == 3
    assert [*teacher(new).forget("yellow").spec.stability.labels] == ["red"]


def test_only_what_was_taught_is_renamed_or_forgotten(base: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="'red' was not taught to this engine, no label was"):
        teacher(base).forget("red")
    taught = teacher(teach_yellow(base, tmp_path).write(tmp_path / "new"))
    for change in (taught.forget, partial(taught.rename, name="warm")):
        with pytest.raises(SpecError, match="'red' was not taught to this engine, yellow was"):
            change("red")


def test_the_same_picture_counts_once(base: Path, tmp_path: Path) -> None:
    where = write_pictures(tmp_path / "p", 9, yellow=True)
    for i in range(20):
        (where / f"copy{i}.png").write_bytes((where / "0_0.png").read_bytes())
    spec = ModelSpec.load(spec_path(base)).preprocess
    with_it = Pictures.read([where], spec)
    assert (len(with_it), with_it.repeated) == (9, 20)
    with pytest.raises(TooFewError, match="9 with it"):
        teacher(base).teach("yellow", with_it, pictures(tmp_path, 30, base, yellow=False))


def test_pictures_that_do_not_tell_a_label_are_no_label(base: Path, tmp_path: Path) -> None:
    one, other = (pictures(tmp_path, 20, base, yellow=False, seed=seed) for seed in (1, 2))
    with pytest.raises(TooFewError, match="do not tell chance from others"):
        teacher(base).teach("chance", one, other)


def test_a_picture_cannot_be_with_and_without(base: Path, tmp_path: Path) -> None:
    same = pictures(tmp_path, 12, base, yellow=True)
    with pytest.raises(DataError, match="is given with yellow and without, as 12 pictures are"):
        teacher(base).teach("yellow", same, same)


@pytest.mark.parametrize("label", ["red", "", " x", "a\nb", "x" * 65])
def test_names_that_cannot_be_are_refused(base: Path, tmp_path: Path, label: str) -> None:
    with pytest.raises(DataError):
        teach_yellow(base, tmp_path, label)


def test_an_engine_whose_old_scores_would_move_is_not_written(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def equal(
        *args: Any,
    ) -> int:  # one of the pictures, which come behind golden sample and patterns
        return len(args[3]) - (args[4] == "openvino" and len(args[3]) > 9)

    monkeypatch.setattr(lesson_module, "count_bit_equal", equal)
    with pytest.raises(EngineError, match="old scores moved on 1 of 58 frames in openvino:"):
        teach_yellow(base, tmp_path, providers=["cpu", "openvino"])


def test_a_runtime_that_cannot_run_here_is_left_out_and_told(
    base: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(lesson_module, "find_providers", lambda: ["cpu", "nowhere"])
    assert Teacher.of(base)._providers == ["cpu"]
    assert "not compared in nowhere" in caplog.text


def test_engines_that_cannot_be_taught_say_so_in_one_line(tmp_path: Path) -> None:
    content = mean_color_model()
    (tmp_path / "mean").mkdir()
    plain = write_engine(tmp_path / "mean", content, make_spec(content))
    with pytest.raises(EngineError, match="tokens of a picture"):
        Teacher.of(plain)
    with pytest.raises(EngineError, match=r"teach the \.onnx that it was built of"):
        Teacher.of(tmp_path / "model.engine")


@pytest.mark.parametrize("harm", [b"", b"PK\x03\x04", b"no archive", None])
def test_damaged_examples_are_one_line(base: Path, tmp_path: Path, harm: bytes | None) -> None:
    new = teach_yellow(base, tmp_path).write(tmp_path / "new")
    place = examples_path(new)
    content = place.read_bytes()
    place.write_bytes(content[: len(content) // 2] if harm is None else harm)
    with pytest.raises(DataError, match="holds no examples of this engine"):
        teach_yellow(new, tmp_path, "lemon")
    with Recognizer.from_engine(new):
        pass  # an engine runs without them


def test_examples_of_another_engine_or_with_objects_in_them_are_refused(
    base: Path, tmp_path: Path
) -> None:
    new = teach_yellow(base, tmp_path).write(tmp_path / "new")
    place = examples_path(new)
    with pytest.raises(DataError, match="no examples of this engine"):
        Examples.load(place, width=4, number=12, base="")
    with np.load(place) as arrays:
        values = dict(arrays)
    np.savez(place, **{**values, "says": np.array([[print]], object)})
    with pytest.raises(DataError, match="no examples of this engine"):
        Examples.load(place, width=3, number=12, base="")


def test_what_another_network_saw_teaches_this_one_nothing(base: Path, tmp_path: Path) -> None:
    new = teach_yellow(base, tmp_path).write(tmp_path / "new")
    # Trained and exported again into the same folder: of the same shape, and the examples are left.
    model = onnx.load_model_from_string(patch_model())
    model.doc_string = "trained again"
    write_patch_engine(new.parent, model.SerializeToString())
    with pytest.raises(DataError, match="another network saw these pictures; move it away"):
        teach_yellow(new, tmp_path)
    with np.load(examples_path(new)) as arrays:
        values = dict(arrays)
    assert values.pop("base").tobytes().hex() == sha256_of(patch_model())
    np.savez(examples_path(new), **values)  # as it was written before: nobody knows whose it is
    found = Examples.load(examples_path(new), width=3, number=12, base="00")
    assert (found.base, found.labels) == ("", ("yellow",))


def test_examples_are_bounded_and_keep_those_with_a_label(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cmlr_edge.teaching.examples.MOST", 40)
    new = teach_yellow(base, tmp_path)
    assert new.examples is not None
    _, present = new.examples.of("yellow")
    assert (len(present), present.sum()) == (40, 20)


def test_the_command_writes_says_and_refuses(base: Path, tmp_path: Path) -> None:
    with_it = write_pictures(tmp_path / "with", 20, yellow=True)
    without = write_pictures(tmp_path / "without", 30, yellow=False)
    new, few = tmp_path / "new", write_pictures(tmp_path / "few", 3, yellow=True, seed=4)

    def run(*arguments: object) -> tuple[int, str]:
        done = CliRunner().invoke(app, ["teach", *map(str, arguments)], catch_exceptions=True)
        said = done.output if done.exception is None else f"{done.output}{done.exception}"
        return done.exit_code, said

    wanted = ("--label", "yellow", "--positive", with_it, "--negative", without)
    code, said = run(base, *wanted, "--out", new, "--provider", "cpu")
    assert code == 0, said
    assert "every old score has the same bits on 58 of 58 frames in cpu" in said
    assert "yellow: 20 pictures with it, 30 without; threshold 0." in said
    shown = CliRunner().invoke(app, ["inspect", str(new)]).output
    assert (
        "taught: yellow, from 20 pictures with it and 30 without; finds 83% to 100% of it" in shown
    )
    link = tmp_path / "link"
    link.symlink_to(base.parent)
    code, said = run(base, "--label", "x", "--positive", few, "--out", tmp_path / "x")
    assert code == 3
    assert not (tmp_path / "x").exists()
    for wrong in (
        ("--label", "x", "--out", tmp_path / "x"),
        ("--out", tmp_path / "x"),
        ("--label", "x", "--forget", "yellow", "--out", tmp_path / "x"),
        ("--rename", "yellow", "--out", tmp_path / "x"),
        ("--forget", "red", "--out", tmp_path / "x"),
        ("--label", "x", "--positive", tmp_path / "nowhere", "--out", tmp_path / "x"),
        (*wanted, "--out", base.parent),
        (*wanted, "--out", link),
        (*wanted, "--out", tmp_path / "with" / ".." / "base"),
    ):
        code, said = run(new if "--rename" in wrong else base, *wrong)
        assert code not in {0, 3}, (wrong, said)
        assert len(ModelSpec.load(spec_path(base)).labels) == 3
        assert not (tmp_path / "x").exists()
    code, said = run(new, "--forget", "yellow", "--out", tmp_path / "again")
    assert code == 0
    assert "byte for byte" in said


@pytest.mark.parametrize("full_at", [1, 2, 3])
def test_a_disk_that_gets_full_leaves_the_engine_that_lay_there_whole(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, full_at: int
) -> None:
    place = teach_yellow(base, tmp_path, "lemon").write(tmp_path / "new")
    before = {path.name: path.read_bytes() for path in place.parent.iterdir()}
    lesson, flushed = teach_yellow(base, tmp_path), []

    def fsync(_file: int) -> None:
        flushed.append(1)
        if len(flushed) == full_at:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match=r"No space left on device: '.*/model"):
        lesson.write(tmp_path / "new")
    assert {path.name: path.read_bytes() for path in place.parent.iterdir()} == before


def test_a_signature_of_what_lay_there_before_goes(base: Path, tmp_path: Path) -> None:
    signature_path(base).write_bytes(b"of another engine")
    teach_yellow(base, tmp_path).write(base)
    assert not signature_path(base).exists()


def test_no_frame_is_compared_twice(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def counted(*args: Any) -> int:
        seen.append(len(args[3]))
        return count_bit_equal(*args)

    monkeypatch.setattr(lesson_module, "count_bit_equal", counted)
    teach_yellow(base, tmp_path, providers=["cpu"])
    assert sum(seen) == 58


def test_a_second_lesson_for_one_place_is_refused_before_it_begins(
    base: Path, tmp_path: Path
) -> None:
    new = tmp_path / "new"
    new.mkdir()
    with (new / ".model.onnx.lock").open("w") as lock:
        lock.write("process 7 on bench-2")
        lock.flush()
        fcntl.flock(lock, fcntl.LOCK_EX)
        call = ["teach", str(base), "--label", "x", "--positive", str(tmp_path), "--out", str(new)]
        done = CliRunner().invoke(app, call)
    assert isinstance(done.exception, OutputError)
    assert "model.onnx is in use by process 7 on bench-2" in str(done.exception)
