from __future__ import annotations

import fcntl
import hashlib
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import onnx
import pytest
import torch

import export.build_engine as command
from cmlr_edge import Recognizer, open_source
from cmlr_edge.capture.images import read_image
from cmlr_edge.errors import CaptureError, DataError, EngineError, OutputError
from cmlr_edge.model.card import CARD, card_of
from cmlr_edge.model.files import signature_path
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.thresholds import ThresholdRule
from cmlr_edge.preprocess import preprocess
from export.building import _calibration_frames, build_engine
from export.deploy import DeployModel
from export.onnx_graph import export_fused, export_onnx, store_as_float16
from export.verify import synthetic_frames, verify
from tests.cmlr_edge.engines.keys import make_key
from tests.tiny_training import IMAGENET, tiny_config
from train.data import read_dataset
from train.data.transforms import normalize
from train.fitting.loop import fit
from train.judging.refit import refit_thresholds
from train.network.checkpoint import load_model

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def engine(tiny_run: Path, tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("engine")
    build_engine(tiny_run, out, data=tiny_data)
    return out / "model.onnx"


def pictures(folder: Path) -> list[Path]:
    """Odd, grey, portrait and 1x1 pictures, as files without loss."""
    rng = np.random.default_rng(0)
    shapes = [(1, 1, 3), (37, 61, 3), (200, 50, 3), (64, 64, 3), (45, 80), (3, 500, 3)]
    paths = []
    for i, shape in enumerate(shapes):
        paths.append(folder / f"{i}.png")
        cv2.imwrite(str(paths[-1]), rng.integers(0, 256, shape, np.uint8))
    return paths


def test_training_model_onnx_and_sdk_give_the_same_scores(
    tiny_run: Path, engine: Path, tmp_path: Path
) -> None:
    model, spec = load_model(tiny_run)
    paths = pictures(tmp_path)
    with Recognizer.from_engine(engine) as recognizer, open_source(tmp_path) as frames:
        from_files = np.stack([recognizer(frame).scores for frame in frames])
        from_arrays = np.stack([recognizer(read_image(path)).scores for path in paths])
    inputs = np.stack([preprocess(read_image(path), spec.preprocess) for path in paths])
    with torch.inference_mode():
        images = normalize(torch.from_numpy(inputs).permute(0, 3, 1, 2), spec.preprocess)
        trained = model.scores(model(images)).numpy()
    np.testing.assert_array_equal(from_files, from_arrays)
    np.testing.assert_allclose(from_files, trained, atol=1e-4)


def test_the_onnx_file_keeps_the_documented_contract(engine: Path) -> None:
    model = onnx.load(engine)
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props} == {
        "names": "{0: 'red', 1: 'green', 2: 'blue'}"
    }
    (frames,), (scores,) = model.graph.input, model.graph.output
    assert (frames.name, scores.name) == ("frames", "scores")
    assert frames.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert frames.type.tensor_type.shape.dim[0].dim_param
    assert scores.type.tensor_type.shape.dim[1].dim_value == 3
    assert str(ROOT).encode() not in engine.read_bytes()


def test_the_spec_describes_the_file_beside_it(engine: Path) -> None:
    built = ModelSpec.load(engine.with_suffix(".json")).files["model.onnx"]
    assert built.sha256 == hashlib.sha256(engine.read_bytes()).hexdigest()
    assert built.parity.num_images == 1 + 8 + 12
    assert built.parity.max_score_difference < 1e-4


# All that a checkpoint of another network needs to be read again; test_fold_network.py has every option.
@pytest.mark.parametrize(
    "settings",
    [
        ["model.intervention=expectation", "model.self_attention=true"],
        [
            "model.label_links=attention", "model.inference_context=own",
            "model.pooled_skip=false", "weight_storage=float16",
        ],
    ],
    ids=lambda settings: settings[0],
)  # fmt: skip
def test_trained_options_export_within_tolerance(
    tiny_data: Path, tmp_path: Path, settings: list[str]
) -> None:
    config = tiny_config("epochs=1", *settings)
    fit(read_dataset(tiny_data), tmp_path / "run", config)
    spec = build_engine(tmp_path / "run", tmp_path / "out")
    assert spec.files["model.onnx"].parity.max_score_difference < 1e-4


def test_float16_storage_halves_the_file_and_changes_no_score(
    tiny_data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = (*IMAGENET, "epochs=1", "weight_storage=float16", "backbone_lr=0")
    fit(read_dataset(tiny_data), tmp_path / "run", tiny_config(*settings))
    model, spec = load_model(tmp_path / "run")
    deploy = DeployModel(model, spec.preprocess).eval()
    plain, _ = export_fused(model, spec.preprocess, norms=False)
    stored = store_as_float16(plain)
    assert stored.ByteSize() < 0.55 * plain.ByteSize()
    frames = synthetic_frames(spec.preprocess.size_hw, 4)
    with caplog.at_level("INFO", logger="export.verify"):
        reports = [
            verify(Path("m.onnx"), m.SerializeToString(), deploy, spec, frames, precision="float32")
            for m in (plain, stored)
        ]
    assert {report.num_images for report, _ in reports} == {5}
    assert caplog.text.count("on 5 pictures, seeded patterns among them") == 2
    assert reports[0][1].scores == pytest.approx(reports[1][1].scores, abs=1e-6)


def test_an_export_that_disagrees_is_refused(tiny_run: Path) -> None:
    model, spec = load_model(tiny_run)
    deploy = DeployModel(model, spec.preprocess).eval()
    content = export_onnx(deploy, spec.preprocess.size_hw).SerializeToString()
    assert model.readout is not None
    with torch.no_grad():
        model.readout.bias.add_(0.01)
    frames = synthetic_frames(spec.preprocess.size_hw, 4)
    with pytest.raises(EngineError, match="not written"):
        verify(Path("m.onnx"), content, deploy, spec, frames, precision="float32")


def test_the_command_fails_in_one_line_and_writes_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "export/build_engine.py", "--checkpoint", str(tmp_path / "none")]
    command += ["--out", str(tmp_path / "out")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    # It may take a minute until the second is there.
    loading, step, error = done.stderr.splitlines()
    assert loading == "loading PyTorch"
    assert step.endswith(f"loading the run {tmp_path / 'none'}")
    assert error.startswith("error: ")
    assert not (tmp_path / "out").exists()


def test_a_place_that_would_cost_a_run_or_cannot_be_written_is_refused_first(
    tiny_run: Path, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match=r"holds a run, whose model\.json would be written over"):
        build_engine(tmp_path / "gone", tiny_run)
    with pytest.raises(OutputError, match="file cannot be written: Not a directory"):
        build_engine(tmp_path / "gone", tmp_path / "file")


def test_a_second_export_to_one_place_is_refused_before_it_begins(
    tiny_run: Path, tmp_path: Path
) -> None:
    with (tmp_path / ".model.onnx.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(OutputError, match=r"model\.onnx is in use by another program"):
            command.main(checkpoint=tiny_run, out=tmp_path)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="train fit"):
        build_engine(tmp_path, tmp_path / "out")


def test_refitting_thresholds_changes_decisions_and_nothing_else(
    engine: Path, tiny_data: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "model.onnx"
    for path in (engine, engine.with_suffix(".json"), engine.with_name(CARD)):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    before = ModelSpec.load(copy.with_suffix(".json"))
    data = read_dataset(tiny_data).split("val")
    signature_path(copy).write_bytes(b"of the thresholds before")
    expected = refit_thresholds(tmp_path, data, ThresholdRule("precision", 1.0), shrinkage=0)
    assert not signature_path(copy).exists()
    after = ModelSpec.load(copy.with_suffix(".json"))
    assert replace(before, thresholds=after.thresholds, threshold_fit=after.threshold_fit) == after
    assert after.threshold_fit.rule == "precision=1"
    assert copy.with_name(CARD).read_text() == card_of(after)
    with Recognizer.from_engine(copy) as recognizer:
        for image in data.images:
            named = {item.label for item in recognizer(read_image(image.path)).labels}
            assert named <= {data.classes[i] for i in image.labels}
    assert all(item.precision in {None, 1.0} for item in expected.values())
    other = replace(data, classes=tuple(reversed(data.classes)))
    with pytest.raises(DataError, match="in another order"):
        refit_thresholds(copy, other, ThresholdRule(), shrinkage=0)
    assert ModelSpec.load(copy.with_suffix(".json")) == after


def test_an_export_is_signed_with_its_spec_and_a_key_that_cannot_sign_is_told_first(
    tiny_run: Path, tmp_path: Path
) -> None:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    make_key(private, public)
    build_engine(tiny_run, tmp_path / "out", sign_with=private)
    model = tmp_path / "out" / "model.onnx"
    Recognizer.from_engine(model, require_signature=public).close()
    build_engine(tiny_run, tmp_path / "out")  # unsigned: the former signature is gone
    with pytest.raises(EngineError, match="has no signature"):
        Recognizer.from_engine(model, require_signature=public)
    with pytest.raises(EngineError, match="cannot sign with"):
        build_engine(tiny_run, tmp_path / "none", sign_with=public)
    assert not (tmp_path / "none").exists()


def test_int8_is_measured_on_the_pictures_trained_on_where_no_folder_is_given(
    tiny_data: Path, tiny_run: Path
) -> None:
    data, (_, spec) = read_dataset(tiny_data), load_model(tiny_run)
    frames = _calibration_frames(None, data, spec.preprocess)
    assert len(frames) == min(100, len(data.split("train").images))
    with pytest.raises(DataError, match="--calibration DIR, or --data with a split train"):
        _calibration_frames(None, data.split("val"), spec.preprocess)


def test_a_damaged_picture_is_left_out_of_an_export_only_on_request(
    tiny_data: Path, tiny_run: Path, tmp_path: Path
) -> None:
    shown, spec = tmp_path / "pictures", load_model(tiny_run)[1].preprocess
    shown.mkdir()
    for name in ("0.png", "1.png"):
        (shown / name).write_bytes((tiny_data / name).read_bytes())
    (shown / "1.png").write_bytes(b"cut off")
    with pytest.raises(CaptureError, match=r"1\.png.*--skip-damaged leaves such pictures out"):
        _calibration_frames(shown, None, spec)
    assert len(_calibration_frames(shown, None, spec, skip_damaged=True)) == 1
    (shown / "0.png").unlink()
    with pytest.raises(DataError, match="none of 1 pictures"):
        _calibration_frames(shown, None, spec, skip_damaged=True)


def test_the_time_that_is_left_counts_from_the_first_picture_and_not_from_the_export(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [1000.0]

    def measure(*_run: Path, report: Callable[[int, int], None], **_flags: object) -> object:
        clock[0] += 120  # the export
        for _ in range(20):
            report(1, 100)
            clock[0] += 2
        return SimpleNamespace(files={})

    monkeypatch.setattr("cmlr_edge.cli.progress.time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr("export.build_engine.build_engine", measure)
    with caplog.at_level("INFO"):
        command.main(checkpoint=Path("run"), out=Path("engine"))
    told = [int(line.split("some ")[1].split()[0]) for line in caplog.messages]
    assert told
    assert max(told) <= 200  # 100 pictures of 2 s
