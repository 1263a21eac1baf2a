"""Link effects against models whose links are known, and the explanation of a tiny run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import cv2
import numpy as np
import pytest
import torch

from cmlr_edge.errors import DataError
from tests.tiny_training import tiny_config
from tests.train.stored_tokens import FEATURES, LABELS, small_config, tokens
from train.cli.explain import _print_record
from train.data import read_dataset
from train.explaining.explain import explain, write_explanation
from train.explaining.figures import draw_bars, draw_link_map, draw_scatter
from train.explaining.link_effects import cooccurrence, swap_effects
from train.explaining.views import choose, see, token_grid, view_all
from train.fitting.loop import fit
from train.network.checkpoint import load_model
from train.network.intervention import MatrixLinks
from train.network.model import CausalHead


def head_with_links(*settings: str) -> CausalHead:
    torch.manual_seed(0)
    return CausalHead(small_config(*settings).model, LABELS, FEATURES).eval()


def test_swaps_find_the_only_link_of_a_model_and_its_sign() -> None:
    head = head_with_links("model.confounders.kind=none")
    assert isinstance(head.links, MatrixLinks)
    assert head.readout is not None
    with torch.no_grad():
        head.readout.weight.mul_(5)  # so that labels differ from picture to picture
        head.links.strength[3, 1] = -0.1
    effects = swap_effects(head, tokens(300))
    linked = np.zeros_like(effects, bool)
    linked[3, 1] = True
    assert not effects[~linked].any()
    donors = tokens(300)
    with torch.no_grad():
        p = head.head(next(donors.batches())).decoupled_logits[:, 1].sigmoid().numpy()
    higher = p[donors.targets[: len(p), 1] > 0].mean() > p[donors.targets[: len(p), 1] == 0].mean()
    assert np.sign(effects[3, 1]) == (-1 if higher else 1)


def test_a_model_without_links_has_nothing_to_swap() -> None:
    head = head_with_links("model.intervention=none")
    with pytest.raises(ValueError, match="no causal branch"):
        swap_effects(head, tokens(50))


def test_cooccurrence_is_a_difference_of_conditional_shares() -> None:
    targets = np.array([[1, 1], [1, 0], [0, 1], [0, 0], [0, 0], [1, 1]], np.float32)
    expected = 2 / 3 - 1 / 3
    assert cooccurrence(targets)[1, 0] == pytest.approx(expected)
    assert cooccurrence(targets)[0, 0] == 0
    ends = np.zeros_like(targets[:, :2]) + np.array([0, 1], np.float32)  # on no picture, and on all
    assert not cooccurrence(np.concatenate([targets, ends], axis=1))[:, -2:].any()


def test_an_explanation_of_a_run_has_its_numbers_and_figures(
    tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    model, spec = load_model(tiny_run)
    data = read_dataset(tiny_data).split("val")
    told: list[str] = []
    record = explain(model, spec, data, "red", tmp_path / "why", report=told.append)
    assert told == [
        f"reading {record['num_images_looked_at']} pictures",
        "swapping labels",
        "drawing",
    ]
    write_explanation(record, tmp_path / "why")
    stored = json.loads((tmp_path / "why" / "explanation.json").read_text())
    assert stored["p"]["red"] == pytest.approx(float(data.targets()[:, 0].mean()))
    assert stored["p_change_do"]["red"] == 0
    assert stored["points"]["confounders"] == 4
    assert stored["points"]["label_features"] == data.targets().sum() >= 5  # those that are there
    assert {link["cause"] for link in stored["strongest"]} <= set(spec.labels)
    for name in ("do", "links", "heat_maps", "absent", "features", "confounders"):
        picture = cv2.imread(str(tmp_path / "why" / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5
    with pytest.raises(DataError, match="no label 'purple'"):
        explain(model, spec, data, "purple", tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.filterwarnings("error")
def test_figures_take_labels_as_they_are_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = (r"$\frac$", "_hidden", "日本", "long " * 80)
    numbers = np.linspace(0.1, 0.4, 4, dtype=np.float32)
    draw_bars(numbers, numbers, labels, labels[0], tmp_path / "do.png")
    draw_link_map(
        np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32), labels, tmp_path / "l.png"
    )
    features = np.random.default_rng(0).random((8, 5), np.float32)
    draw_scatter(features, [*labels] * 2, features[:0], tmp_path / "features.png")
    for name in ("do", "l", "features"):
        picture = cv2.imread(str(tmp_path / f"{name}.png"))
        assert picture is not None
        assert picture.std() > 5
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "the figures' font lacks letters of some names"
    ]


@pytest.mark.parametrize(
    ("number", "size_hw", "grid"),
    [
        (49, (224, 224), (7, 7)),
        (165, (352, 480), (11, 15)),
        (12, (96, 128), (3, 4)),
        (6, (96, 64), (3, 2)),
    ],
)
def test_tokens_are_laid_out_as_the_picture_is(
    number: int, size_hw: tuple[int, int], grid: tuple[int, int]
) -> None:
    assert token_grid(number, size_hw) == grid


def test_wide_pictures_are_trained_on_and_explained(tiny_data: Path, tmp_path: Path) -> None:
    data, run = read_dataset(tiny_data), tmp_path / "run"
    fit(data, run, tiny_config("epochs=1", "model.image_width=128"))
    model, spec = load_model(run)
    assert spec.preprocess.size_hw == (64, 128)
    assert spec.name.endswith("-64x128")
    record = explain(model, spec, data.split("val"), "red", tmp_path / "why")
    assert record["heat_maps"]
    assert (tmp_path / "why" / "confounders.png").is_file()


@pytest.fixture(scope="module")
def baseline(tiny_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("baseline") / "run"
    fit(read_dataset(tiny_data), run, tiny_config("epochs=1", "model.intervention=none"))
    return run


def test_two_runs_are_compared_on_labels_that_are_there_and_that_are_not(
    tiny_run: Path, tiny_data: Path, baseline: Path, tmp_path: Path
) -> None:
    model, spec = load_model(tiny_run)
    data, other = read_dataset(tiny_data).split("val"), load_model(baseline)
    names = ("method", "baseline")
    record = explain(model, spec, data, "red", tmp_path, beside=other, names=names)
    maps = record["heat_maps"]
    assert {item["by"] for item in maps} == set(names)
    absent = [item for item in maps if not item["there"]]
    assert len(absent) == 2 * len({item["picture"] for item in maps})
    truth = {image.path.name: image.labels for image in data.images}
    for item in maps:
        assert (spec.labels.index(item["label"]) in truth[item["picture"]]) is item["there"]
    scores = {
        name: see(name, *network, data).scores
        for name, network in zip(names, ((model, spec), other), strict=True)
    }
    missing = np.where(data.targets() > 0, -1, np.maximum(*scores.values()))
    surest = int(missing.max(axis=1).argmax())
    assert absent[0]["picture"] == data.images[surest].path.name
    assert absent[0]["label"] == spec.labels[int(missing[surest].argmax())]
    column = spec.labels.index(absent[0]["label"])
    assert absent[0]["score"] == pytest.approx(scores["method"][surest, column], abs=1e-3)
    for name in names:
        for item in record["absent"][name]:
            label, company = (spec.labels.index(item[key]) for key in ("label", "company"))
            there = data.targets() > 0
            rows = ~there[:, label] & there[:, company]
            assert item["pictures"][0] == rows.sum()
            assert item["with_company"] == pytest.approx(scores[name][rows, label].mean(), abs=1e-4)


def test_one_label_is_looked_for_where_it_is_not(
    tiny_run: Path, tiny_data: Path, tmp_path: Path
) -> None:
    model, spec = load_model(tiny_run)
    data = read_dataset(tiny_data).split("val")
    record = explain(model, spec, data, "red", tmp_path, absent="blue")
    absent = {item["label"] for item in record["heat_maps"] if not item["there"]}
    assert absent == {"blue"}
    with pytest.raises(DataError, match="no label 'mauve'"):
        explain(model, spec, data, "red", tmp_path, absent="mauve")


def test_the_cause_is_seen_where_it_is_there() -> None:
    targets = np.zeros((6, 4), np.float32)
    targets[:, 1:3] = 1
    targets[5, 0] = 1
    # The one picture with the cause is that of which it is least sure.
    scores = np.linspace(0.9, 0.1, 24).reshape(6, 4)
    network: Any = SimpleNamespace(scores=scores)
    data: Any = SimpleNamespace(targets=lambda: targets, known=lambda: None)
    assert choose([network], data, None, 0)[-3:] == [(5, 0), (5, 1), (5, 3)]


def test_effects_too_weak_to_read_are_said_first_and_not_listed(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, spec = load_model(tiny_run)
    assert isinstance(model.links, MatrixLinks)
    with torch.no_grad():
        model.links.strength.fill_(1e-5)
    weak = explain(model, spec, read_dataset(tiny_data).split("val"), "red", tmp_path)
    assert 0 < weak["strongest_effect"] < 1e-4
    assert not weak["readable"]
    _print_record(weak)
    said = capsys.readouterr()
    assert said.err.startswith("the links are too weak to read")
    assert "strongest links" not in said.out
    assert "+0.000" not in said.out


def test_a_figure_that_there_is_nothing_for_is_told_and_not_left_from_before(
    tiny_run: Path, tiny_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, spec = load_model(tiny_run)
    data = read_dataset(tiny_data).split("val")
    few = replace(data, images=data.images[:4])
    (tmp_path / "absent.png").write_bytes(b"of an earlier one")
    record = explain(model, spec, few, "red", tmp_path)
    assert list(record["not_written"]) == ["absent.png"]
    assert not (tmp_path / "absent.png").exists()
    _print_record(record)
    said = capsys.readouterr()
    assert (
        "absent.png is not written: on the 4 pictures looked at no label is missing 3 times"
        in said.err
    )
    assert "label that is not there" not in said.out


def test_a_map_of_weak_effects_is_pale_and_one_of_strong_ones_is_not(tmp_path: Path) -> None:
    colored = {}
    for strongest in (6e-6, 0.3):
        effects = np.full((6, 6), strongest, np.float32)
        path = tmp_path / f"{strongest}.png"
        draw_link_map(effects, np.zeros((6, 6), np.float32), tuple("abcdef"), path)
        picture = cv2.imread(str(path))
        assert picture is not None
        height, width = picture.shape[:2]
        middle = picture[height // 3 : height // 2, width // 8 : width // 4].astype(int)
        colored[strongest] = float((middle.max(axis=2) - middle.min(axis=2)).mean())
    assert colored[6e-6] < 10
    assert colored[0.3] > 60


def test_a_run_that_deploys_its_decoder_is_drawn_once_and_another_one_twice(
    tiny_run: Path, tiny_data: Path
) -> None:
    model, spec = load_model(tiny_run)
    data = read_dataset(tiny_data).split("val")
    for read_out, drawn in (("decoder", {"deployed"}), ("prior", {"decoder", "deployed"})):
        model.config = replace(model.config, inference_context=cast("Any", read_out))
        network = see("this run", model, spec, data)
        views = view_all([network], choose([network], data, None, 0), data.targets())
        assert {view.name for view in views} == drawn
