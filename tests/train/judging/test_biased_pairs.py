from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from cmlr_edge.errors import DataError
from tests.train.data import official_trees
from train.cli.app import app
from train.data import read_dataset
from train.data.transforms import ImageTensors
from train.fitting.lone import read_pairs
from train.judging.biased_pairs import find_biased_pairs, read_scores, score_part
from train.judging.inference import score_images
from train.network.checkpoint import load_model

RNG = np.random.default_rng(0)
TARGETS = (RNG.random((60, 5)) < [0.6, 0.5, 0.4, 0.3, 0.0]).astype(np.float32)
SCORES = RNG.random((60, 5)).astype(np.float32)
LABELS = tuple("abcde")


def biases_by_definition(min_share: float) -> dict[tuple[int, int], float]:
    """bias(b, z) of all allowed pairs, image by image."""
    result = {}
    for b in range(5):
        for z in range(5):
            both = [i for i in range(60) if TARGETS[i, b] and TARGETS[i, z]]
            alone = [i for i in range(60) if TARGETS[i, b] and not TARGETS[i, z]]
            share = len(both) / max(1, len(both) + len(alone))
            if b != z and both and alone and share >= min_share:
                result[b, z] = float(SCORES[both, b].mean() / SCORES[alone, b].mean())
    return result


@pytest.mark.parametrize("min_share", [0.0, 0.2, 0.5])
def test_every_label_gets_the_context_with_its_highest_bias(min_share: float) -> None:
    expected = biases_by_definition(min_share)
    pairs = find_biased_pairs(SCORES, TARGETS, LABELS, min_share=min_share)
    assert [pair.bias for pair in pairs] == sorted((p.bias for p in pairs), reverse=True)
    found = {(LABELS.index(p.label), LABELS.index(p.context)): p.bias for p in pairs}
    assert sorted(b for b, _ in found) == sorted({b for (b, _), v in expected.items() if v > 1})
    for (b, z), bias in found.items():
        assert bias == pytest.approx(expected[b, z], rel=1e-5)
        assert bias == pytest.approx(max(v for k, v in expected.items() if k[0] == b), rel=1e-5)
    assert len(find_biased_pairs(SCORES, TARGETS, LABELS, min_share=min_share, count=2)) == 2


def test_a_model_that_needs_the_context_is_found_out() -> None:
    # Cup is seen only on tables by this model; dog is seen anywhere.
    targets = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 0], [1, 0, 0], [0, 1, 1]], np.float32)
    scores = np.array([[0.9, 0, 0.7], [0.1, 0, 0.7], [0.9, 0, 0], [0.1, 0, 0], [0, 0, 0.7]])
    labels = ("cup", "table", "dog")
    first = find_biased_pairs(scores.astype(np.float32), targets, labels)[0]
    assert (first.label, first.context) == ("cup", "table")
    assert first.bias == pytest.approx(9)
    assert (first.num_together, first.num_apart) == (2, 2)
    assert (first.mean_together, first.mean_apart) == pytest.approx((0.9, 0.1))


def test_a_label_that_scores_no_lower_alone_is_no_biased_pair(
    tmp_path: Path, tiny_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    targets = np.array([[1, 1], [1, 1], [1, 0], [1, 0]], np.float32)
    for together in (0.09, 0.1):  # below, and as high
        scores = np.array([[together, 0], [together, 0], [0.1, 0], [0.1, 0]], np.float32)
        assert find_biased_pairs(scores, targets, ("cup", "table")) == ()
    table, out = tmp_path / "scores.csv", tmp_path / "pairs.json"
    write_scores(table, tiny_data, np.full((len(read_dataset(tiny_data).images), 3), 0.25))
    call("biased-pairs", "--data", tiny_data, "--scores", table, "--json", out)
    assert "no bias above 1" in capsys.readouterr().out
    assert json.loads(out.read_text())["pairs"] == []
    with pytest.raises(DataError, match="lists no pair"):
        read_pairs(out)


def test_scores_of_nothing_keep_the_bias_finite() -> None:
    scores = np.zeros((4, 2), np.float32)
    scores[:2] = 0.5
    targets = np.array([[1, 1], [1, 1], [1, 0], [0, 1]], np.float32)
    assert np.isfinite(find_biased_pairs(scores, targets, ("a", "b"))[0].bias)


def test_labels_that_are_never_apart_are_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match="both with and without a companion"):
        find_biased_pairs(SCORES, np.ones((60, 5), np.float32), LABELS)
    with pytest.raises(DataError, match="50 images each"):
        find_biased_pairs(SCORES, TARGETS, LABELS, min_images=50)


def call(*arguments: object) -> None:
    app([str(argument) for argument in arguments], standalone_mode=False)


def test_a_run_is_searched_on_the_images_it_held_out(
    tiny_data: Path, tiny_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pairs.json"
    call("biased-pairs", "--data", tiny_data, "--checkpoint", tiny_run, "--json", out)
    part, scores = score_part(tiny_data, "val", run=tiny_run)
    report = json.loads(out.read_text())
    assert report["num_images"] == len(part.images)
    for pair in report["pairs"]:
        b, c = part.classes.index(pair["label"]), part.classes.index(pair["context"])
        rows = (part.targets()[:, b] > 0) & (part.targets()[:, c] > 0)
        assert pair["num_together"] == rows.sum()
        assert pair["mean_together"] == pytest.approx(scores[rows, b].mean(), rel=1e-4)
    shown = capsys.readouterr().out
    assert all(f"{pair['bias']:.2f}" in shown for pair in report["pairs"])


def write_scores(path: Path, root: Path, scores: np.ndarray) -> None:
    data = read_dataset(root)
    order = sorted(range(len(data.classes)), key=lambda k: data.classes[k])
    lines = [",".join(["file", *(data.classes[k] for k in order)])]
    for image, row in zip(data.images, scores, strict=True):
        cells = [image.path.relative_to(root).as_posix(), *(f"{row[k]:.9g}" for k in order)]
        lines.append(",".join(cells))
    path.write_text("\n".join(lines[:1] + lines[:0:-1]) + "\n")


def test_scores_from_elsewhere_are_matched_by_name(tmp_path: Path) -> None:
    root, table, out = tmp_path / "stuff", tmp_path / "scores.csv", tmp_path / "pairs.json"
    data = read_dataset(official_trees.write_coco_stuff(root))
    scores = RNG.random((30, 171)).astype(np.float32)
    write_scores(table, root, scores)
    np.testing.assert_array_equal(read_scores(table, root, data), scores)
    call("biased-pairs", "--data", root, "--scores", table, "--split", "train", "--json", out)
    assert json.loads(out.read_text())["num_images"] == 16  # 4 of 20 are held out


@pytest.mark.parametrize(
    ("old", "new", "word"),
    [
        ("file,", "name,", "should have the heading file,red"),
        (",green", ",grey", "should have the heading"),
        ("0.png,0.25", "x.png,0.25", r"no scores of 0\.png"),
        ("0.png,0.25", "0.png,high", r"the line of 0\.png should have 3 numbers"),
        ("0.png,0.25", "0.png,1.25", "1.25: scores are probabilities"),
        ("0.png,0.25", "0.png,nan", "nan: scores are probabilities"),
        ("1.png,", "0.png,", r"scores of '0\.png' twice"),
    ],
)
def test_a_wrong_table_of_scores_is_one_error(
    tiny_data: Path, tmp_path: Path, old: str, new: str, word: str
) -> None:
    data = read_dataset(tiny_data)
    table = tmp_path / "scores.csv"
    write_scores(table, tiny_data, np.full((len(data.images), 3), 0.25, np.float32))
    content = table.read_text()
    assert f"\n{old}" in content or old in content.partition("\n")[0]
    lines = [
        line.replace(old, new) if line.startswith((old, "file")) else line
        for line in content.splitlines()
    ]
    table.write_text("\n".join(lines))
    with pytest.raises(DataError, match=word):
        read_scores(table, tiny_data, data)


def test_a_table_with_a_field_of_megabytes_is_one_error(tiny_data: Path, tmp_path: Path) -> None:
    (tmp_path / "scores.csv").write_text(f"file,{'x' * 200_000}\n")
    with pytest.raises(DataError, match="cannot be read as a table: field larger"):
        read_scores(tmp_path / "scores.csv", tiny_data, read_dataset(tiny_data))


def test_no_model_or_two_are_refused(tiny_data: Path, tiny_run: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--checkpoint RUN or --scores FILE"):
        call("biased-pairs", "--data", tiny_data)
    both = ("--checkpoint", tiny_run, "--scores", tmp_path / "scores.csv")
    with pytest.raises(DataError, match="one of them"):
        call("biased-pairs", "--data", tiny_data, *both)
    with pytest.raises(DataError, match="in another order"):
        score_part(official_trees.write_coco(tmp_path / "coco"), "val", run=tiny_run)


def test_own_data_that_names_a_biased_pair_is_scored_with_and_without_the_context(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = tmp_path / "data", tmp_path / "report.json"
    shutil.copytree(tiny_data, root)
    record = json.loads((root / "labels.json").read_text())
    record["biased_pairs"] = [["red", "blue"]]
    (root / "labels.json").write_text(json.dumps(record))
    arguments = ["evaluate", "--checkpoint", tiny_run, "--data", root, "--json", out]
    app([str(argument) for argument in arguments], standalone_mode=False)
    printed = capsys.readouterr().out
    assert "exclusive" in printed
    assert "co-occur" in printed
    model, spec = load_model(tiny_run)
    part = read_dataset(root).split("val")
    scores = score_images(model, ImageTensors(part, spec.preprocess), spec.preprocess).deployed
    red, blue = part.targets()[:, 0] > 0, part.targets()[:, 2] > 0
    found = json.loads(out.read_text())["read_outs"]["deployed"]["context_bias"]
    for name, company in (("exclusive", ~blue), ("co_occur", blue)):
        kept = ~red | company
        expected = average_precision_score(red[kept], scores[kept, 0])
        assert found[name]["value"] == pytest.approx(expected)


def test_a_share_that_is_just_reached_counts() -> None:
    # 0.07 * 100 is 7.000000000000001.
    targets = np.ones((100, 2), np.float32)
    targets[7:, 1] = 0
    scores = np.full((100, 2), 0.5, np.float32)
    scores[7:] = 0.4
    assert len(find_biased_pairs(scores, targets, ("a", "b"), min_share=0.07)) == 1
