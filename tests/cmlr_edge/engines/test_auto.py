"""Which provider runs a model where none is named: measured once, kept, told, and never at the cost of a crash."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmlr_edge import Recognizer
from cmlr_edge.backends import find_providers
from cmlr_edge.engines import auto
from cmlr_edge.engines.auto import Candidate, Choice, _fastest, choose_provider, resolve_provider
from cmlr_edge.engines.measuring import Trial, check_frames, try_provider
from cmlr_edge.errors import EngineError
from cmlr_edge.machine import waiting
from cmlr_edge.model.files import spec_path
from cmlr_edge.model.spec import ModelSpec
from tests.cmlr_edge.cli.command import run
from tests.conftest import SIZE_HW, make_spec, mean_color_model, solid, write_engine


@pytest.fixture(autouse=True)
def unpinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No provider in the environment, an empty home, and every file large enough to be measured."""
    monkeypatch.delenv("CMLR_PROVIDER")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(auto, "_known", {})
    monkeypatch.setattr(auto, "_SMALL_BYTES", 0)


class Trials:
    """Stands in for the child processes: what each provider would answer."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, **answers: float | str) -> None:
        self.answers, self.asked = answers, [""] * 0
        self.scores = np.full((9, 3), 0.25)
        self.scores[:, 0] = 0.75
        monkeypatch.setattr(auto, "find_providers", lambda: [*answers])
        monkeypatch.setattr(auto, "try_provider", self.answer)
        monkeypatch.setattr(auto, "require_golden", lambda *_args, **_keywords: "")

    def answer(self, _path: Path, _sha256: str, provider: str, *_golden: object) -> Trial:
        self.asked.append(provider)
        answer = self.answers[provider]
        if isinstance(answer, str):
            raise EngineError(answer)
        scores = 1 - self.scores if provider.startswith("liar") else self.scores
        return Trial(tuple(tuple(row) for row in scores.tolist()), answer)


def choice_of(engine: Path, provider: str | None = None) -> tuple[str | None, str]:
    spec = ModelSpec.load(spec_path(engine))
    return resolve_provider(engine, engine.read_bytes(), spec, spec.files[engine.name], provider)


@pytest.mark.slow
def test_by_default_the_fastest_is_measured_once_told_and_kept(
    engine: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Recognizer.from_engine(engine) as recognizer:
        assert "auto took" in recognizer.runtime
        assert "cpu 0." in recognizer.runtime
        assert len(recognizer(solid(255, 0, 0)).labels) == 1
        taken = recognizer.runtime
    (told,) = [record for record in caplog.records if "measured once" in record.getMessage()]
    assert told.levelno == logging.INFO
    (file,) = (tmp_path / "home/.cache/cmlr_edge/providers").glob("*.json")
    tried = {item["provider"] for item in json.loads(file.read_text())["candidates"]}
    assert tried == set(find_providers())
    auto._known.clear()  # as another process
    with Recognizer.from_engine(engine) as recognizer:
        assert recognizer.runtime == taken  # times to the microsecond: not measured again
    assert len([r for r in caplog.records if "measured once" in r.getMessage()]) == 1


@pytest.mark.slow
def test_the_command_line_tells_the_choice_in_one_line_of_stderr_once(
    tmp_path: Path, clip: Path
) -> None:
    content = (
        mean_color_model() + bytes([0x32, 0x80, 0x80, 0x40]) + b" " * 2**20
    )  # a long doc_string
    path = write_engine(tmp_path, content, make_spec(content))
    first, second = (run("label", clip, "--engine", path, "--json") for _ in range(2))
    assert first.returncode == second.returncode == 0
    assert (
        first.stderr.count("measured once for model.onnx and its thresholds on this machine") == 1
    )
    assert "measured" not in second.stderr
    assert json.loads(first.stdout)["provider"] == json.loads(second.stdout)["provider"]


def test_a_name_an_environment_and_a_small_file_are_not_measured(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(monkeypatch, cpu=2.0, openvino=1.0)
    assert choice_of(engine, "cpu") == ("cpu", "")
    monkeypatch.setenv("CMLR_PROVIDER", "cuda")
    assert choice_of(engine)[0] == "cuda"
    assert choice_of(engine, "cpu")[0] == "cpu"
    assert choice_of(engine.with_suffix(".engine").with_name(engine.name), "auto")[0] == "openvino"
    monkeypatch.delenv("CMLR_PROVIDER")
    monkeypatch.setattr(auto, "_SMALL_BYTES", 2**20)
    trials.asked.clear()
    assert choice_of(engine) == ("cpu", "")
    assert not trials.asked


def test_the_environment_names_no_provider_of_a_gpu_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMLR_PROVIDER", "cpu")
    content = mean_color_model()
    spec = make_spec(content)
    built = spec.files["model.onnx"]
    assert resolve_provider(Path("model.engine"), content, spec, built, None) == (None, "")


@pytest.mark.parametrize(
    ("answers", "taken"),
    [
        ({"cpu": 10.0, "openvino-bf16": 4.0, "openvino": 8.0}, "openvino-bf16"),
        ({"cpu": 10.0, "openvino-bf16": "bf16 is missing", "openvino": 8.0}, "openvino"),
        ({"cpu": 10.0, "openvino": 9.9}, "cpu"),
        ({"cpu": 10.0, "liar": 1.0, "openvino": 9.0}, "openvino"),
        ({"cpu": "crashed with SIGSEGV", "openvino": 9.0}, "openvino"),
    ],
)
def test_the_fastest_that_decides_alike_is_taken(
    engine: Path,
    monkeypatch: pytest.MonkeyPatch,
    answers: dict[str, float | str],
    taken: str,
) -> None:
    trials = Trials(monkeypatch, **answers)
    assert choice_of(engine)[0] == taken
    assert ("openvino" in trials.asked) == (taken != "openvino-bf16")


def test_where_none_can_be_measured_the_default_says_why_itself_and_auto_refuses(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Trials(monkeypatch, cpu="crashed with SIGSEGV")
    assert choice_of(engine) == ("cpu", "")
    assert "no provider could be measured" in caplog.text
    assert not [*tmp_path.glob("home/.cache/cmlr_edge/providers/*.json")]
    with pytest.raises(EngineError, match=r"no provider can run model\.onnx: cpu crashed"):
        choice_of(engine, "auto")


@pytest.mark.parametrize("place", ["read-only", "none", "a file"])
def test_a_choice_that_cannot_be_kept_is_told_and_measured_once_a_process(
    engine: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    place: str,
) -> None:
    trials = Trials(monkeypatch, cpu=2.0, openvino=1.0)
    if place == "read-only":
        monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")  # root writes to any other
    elif place == "a file":
        (tmp_path / "file").write_text("")
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.setattr(Path, "home", _no_home)
    assert choice_of(engine)[0] == choice_of(engine)[0] == "openvino"
    assert trials.asked == ["cpu", "openvino"]
    assert "measured at every start" in caplog.text
    assert "XDG_CACHE_HOME" in caplog.text


def test_a_choice_without_a_home_is_made_in_optimised_python_too() -> None:
    code = "from cmlr_edge.engines import auto\nwith auto._alone(None): print('made')"
    command = [sys.executable, "-OO", "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("made\n", 0), done.stderr


def test_a_relative_folder_of_caches_is_ignored(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Trials(monkeypatch, cpu=2.0, openvino=1.0)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", "caches")
    assert choice_of(engine)[0] == "openvino"
    assert not (tmp_path / "caches").exists()


def _no_home() -> Path:
    raise RuntimeError("Could not determine home directory.")


def test_a_damaged_record_is_measured_again(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(monkeypatch, cpu=2.0, openvino=1.0)
    choice_of(engine)
    (file,) = tmp_path.glob("home/.cache/cmlr_edge/providers/*.json")
    for text in ("{", "[]", '{"provider": "rm -rf", "candidates": 3}'):
        file.write_text(text)
        auto._known.clear()
        assert choice_of(engine)[0] == "openvino"
    assert len(trials.asked) == 8
    assert json.loads(file.read_text())["provider"] == "openvino"


def test_a_device_that_is_gone_is_measured_again(
    engine: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Trials(monkeypatch, cpu=2.0, cuda=1.0)
    assert choice_of(engine)[0] == "cuda"
    auto._known.clear()
    Trials(monkeypatch, cpu=2.0)
    assert choice_of(engine)[0] == "cpu"
    assert "cuda is not offered here any more" in caplog.text


def test_of_many_that_start_at_once_one_measures(
    engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(monkeypatch, cpu=2.0, openvino=1.0)
    monkeypatch.setattr(auto, "_in_process", _Unlocked())  # as if each were a process

    def slow(*arguments: Any) -> Trial:
        time.sleep(0.05)
        return trials.answer(*arguments)

    monkeypatch.setattr(auto, "try_provider", slow)
    found: list[str | None] = []
    threads = [threading.Thread(target=lambda: found.append(choice_of(engine)[0])) for _ in "12345"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == ["openvino"] * 5
    assert trials.asked == ["cpu", "openvino"]


@pytest.mark.parametrize("lives", [True, False])
def test_another_process_that_measures_is_waited_for_while_it_lives(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lives: bool
) -> None:
    trials = Trials(monkeypatch, cpu=1.0)
    choice_of(engine, "auto")  # so that there is the lock
    (file,) = tmp_path.glob("home/.cache/cmlr_edge/providers/*.json")
    file.unlink()
    auto._known.clear()
    monkeypatch.setattr(auto, "_SILENCE_S", 0.3)
    with file.with_suffix(".lock").open("r+") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        found: list[str | None] = []
        thread = threading.Thread(target=lambda: found.append(choice_of(engine, "auto")[0]))
        start_s = time.monotonic()
        thread.start()
        while lives and time.monotonic() < start_s + 0.9:
            auto._show_life(other)
            time.sleep(0.02)
        assert len(trials.asked) == 1 or not lives
        if not lives:
            thread.join(timeout=5)
            assert found == ["cpu"]
    thread.join(timeout=5)
    assert found == ["cpu"]
    assert time.monotonic() - start_s < 3


def test_whoever_measures_shows_that_it_lives(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials, seen = Trials(monkeypatch, cpu=1.0), set[int]()

    def slow(*arguments: Any) -> Trial:
        (lock,) = tmp_path.glob("home/.cache/cmlr_edge/providers/*.lock")
        for _ in range(9):
            waiting.tick()  # as `Child.wait` does
            seen.add(lock.stat().st_mtime_ns)
        return trials.answer(*arguments)

    monkeypatch.setattr(auto, "try_provider", slow)
    choice_of(engine, "auto")
    assert len(seen) > 2


class _Unlocked:
    def __enter__(self) -> None:
        pass

    def __exit__(self, *_error: object) -> None:
        pass


@pytest.mark.slow
def test_a_runtime_that_crashes_hangs_or_talks_costs_its_candidate_alone(
    engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sha256, package = ModelSpec.load(spec_path(engine)).files[engine.name].sha256, tmp_path / "p"
    package.mkdir()
    monkeypatch.setenv("PYTHONPATH", str(package))
    for body, words in (
        ("import os; os.abort()", "crashed with SIGABRT"),
        ("import time; time.sleep(60)", "gave no answer in 3 s"),
        ("import os; os._exit(0)", "gave no answer that can be read"),
        ("raise ImportError('broken')", "cannot be imported"),
    ):
        (package / "onnxruntime.py").write_text(body)
        limit_s = 3.0 if "sleep" in body else 60.0
        monkeypatch.setattr("cmlr_edge.engines.measuring.LIMIT_S", limit_s)
        with pytest.raises(EngineError, match=words):
            try_provider(engine, sha256, "cpu", 7, SIZE_HW)
    assert os.environ["PYTHONPATH"]


@pytest.mark.slow
def test_a_file_that_was_replaced_meanwhile_is_not_measured(engine: Path) -> None:
    with pytest.raises(EngineError, match="the file was changed"):
        try_provider(engine, "0" * 64, "cpu", 7, SIZE_HW)


def test_a_file_that_no_export_wrote_is_refused_before_a_child_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trials = Trials(monkeypatch, cpu=1.0)
    path = write_engine(tmp_path, b"\xff" * 99, make_spec(b"\xff" * 99))
    with pytest.raises(EngineError):
        choice_of(path, "auto")
    assert not trials.asked


@pytest.mark.slow
def test_a_provider_that_fails_the_self_test_is_never_chosen(tmp_path: Path) -> None:
    content = mean_color_model()
    spec = make_spec(content)
    built = spec.files["model.onnx"]
    wrong = replace(built, golden=replace(built.golden, scores=(0.9, 0.1, 0.9)))
    path = write_engine(tmp_path, content, spec)
    choice = choose_provider(path, content, spec, wrong, cache=tmp_path)
    assert not choice.provider
    assert "golden self-test failed" in choice.reason


def test_the_fastest_wins_and_a_tie_stays_with_the_first() -> None:
    times = [("cpu", 10.0), ("openvino", 9.9), ("broken", None), ("openvino-bf16", 5.0)]
    candidates = [Candidate(name, ms, "" if ms else "cannot load") for name, ms in times]
    assert _fastest(candidates) == "openvino-bf16"
    assert _fastest(candidates[:3]) == "cpu"
    assert "broken cannot load" in Choice("cpu", tuple(candidates)).reason
    assert "less than 5% faster counts as equal" in Choice("cpu", tuple(candidates[:3])).reason
    assert "equal" not in Choice("openvino-bf16", tuple(candidates)).reason


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 7), (24, 32), (33, 5)])
def test_the_frames_of_the_check_vary_and_are_the_same_each_time(size_hw: tuple[int, int]) -> None:
    frames = check_frames(0, size_hw)
    assert frames.shape == (9, *size_hw, 3)
    assert frames.dtype == np.uint8
    np.testing.assert_array_equal(frames, check_frames(0, size_hw))
    if size_hw > (1, 7):
        assert all(frame.std() > 5 for frame in frames)
