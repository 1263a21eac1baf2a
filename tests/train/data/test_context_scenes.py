"""ContextScenes against the probabilities of its own structural causal model, on made-up assets."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmlr_edge.errors import DataError
from tests.train.data.scene_assets import write_assets
from train.data import read_dataset
from train.data.context_scenes import SceneConfig, cutouts, generate, read_truth
from train.data.context_scenes.cutouts import load_cutouts
from train.data.context_scenes.graph import (
    CAUSES,
    CONTEXTS,
    EFFECTS,
    LABELS,
    SceneGraph,
    draw_graph,
    draw_scene_labels,
)

SMALL = {"train": 6, "val": 2, "iid": 2, "do": 3, "cross": 2}


def draw_many(graph: SceneGraph, *, do_context: bool, count: int = 6000) -> tuple[Any, Any]:
    rng = np.random.default_rng(5)
    present, contexts = np.zeros((count, len(LABELS)), bool), np.zeros(count, int)
    for i in range(count):
        where, labels = draw_scene_labels(graph, rng, do_context=do_context)
        present[i, list(labels)] = True
        contexts[i] = where[0]
    return present, contexts


def test_every_effect_and_cause_is_in_one_pair_and_every_context_is_one_home() -> None:
    graph = draw_graph(3)
    assert sorted(pair.effect for pair in graph.pairs) == list(range(len(EFFECTS)))
    assert sorted(pair.cause for pair in graph.pairs) == list(
        range(len(EFFECTS), len(EFFECTS) + len(CAUSES))
    )
    assert sorted(home for pair in graph.pairs for home in pair.homes) == list(range(len(CONTEXTS)))
    assert draw_graph(3) == graph
    assert draw_graph(4) != graph


def test_spurious_pairs_depend_on_each_other_only_through_the_context() -> None:
    graph = draw_graph(0)
    present, contexts = draw_many(graph, do_context=False)
    for effect, cause in graph.links("spurious"):
        together = np.corrcoef(present[:, effect], present[:, cause])[0, 1]
        assert together > 0.5
        pair = next(p for p in graph.pairs if p.effect == effect)
        home = np.isin(contexts, pair.homes)
        within = np.corrcoef(present[home, effect], present[home, cause])[0, 1]
        assert abs(within) < 4 / np.sqrt(home.sum())


def test_setting_the_context_cuts_spurious_pairs_and_keeps_causal_ones() -> None:
    graph = draw_graph(0)
    present, contexts = draw_many(graph, do_context=True)
    for effect, cause in graph.links("spurious"):
        assert abs(np.corrcoef(present[:, effect], present[:, cause])[0, 1]) < 4 / np.sqrt(6000)
        home = np.isin(contexts, graph.pairs[0].homes)
        assert present[home, effect].mean() == pytest.approx(
            present[~home, effect].mean(), abs=0.04
        )
    for effect, cause in graph.links("causal"):
        assert present[present[:, cause], effect].mean() == pytest.approx(0.6, abs=0.06)
        assert present[~present[:, cause], effect].mean() == pytest.approx(0.01, abs=0.01)


def test_without_bias_contexts_say_nothing_and_rates_stay() -> None:
    biased, _ = draw_many(draw_graph(0), do_context=False)
    present, contexts = draw_many(draw_graph(0, bias_strength=0), do_context=False)
    np.testing.assert_allclose(present.mean(0), biased.mean(0), atol=0.04)
    for pair in draw_graph(0).pairs:
        home = np.isin(contexts, pair.homes)
        if pair.kind == "spurious":
            assert present[home, pair.effect].mean() == pytest.approx(
                present[~home, pair.effect].mean(), abs=0.05
            )


def test_with_two_contexts_a_pair_is_at_home_in_either() -> None:
    graph = draw_graph(0, contexts_per_scene=2)
    rng, pair = np.random.default_rng(1), graph.pairs[0]
    at_home = []
    for _ in range(3000):
        contexts, labels = draw_scene_labels(graph, rng, do_context=False)
        assert len(set(contexts)) == 2
        if not set(contexts).isdisjoint(pair.homes):
            at_home.append(pair.cause in labels)
    assert np.mean(at_home) == pytest.approx(0.92, abs=0.03)


def test_a_mixed_world_gives_spurious_effects_a_direct_cause_too() -> None:
    graph = draw_graph(0, mixed=True)
    assert len(graph.links("causal")) == 8
    present, _ = draw_many(graph, do_context=True)
    for effect, cause in graph.links("causal")[4:]:
        assert present[present[:, cause], effect].mean() == pytest.approx(
            1 - (1 - 0.12) * (1 - 0.6), abs=0.06
        )


@pytest.fixture
def assets(tmp_path: Path) -> Path:
    return write_assets(tmp_path / "assets")


def test_the_same_seed_draws_the_same_pictures_with_any_number_of_workers(
    tmp_path: Path, assets: Path
) -> None:
    config = SceneConfig(seed=2, counts=SMALL)
    for name, workers in (("one", 1), ("two", 2)):
        generate(tmp_path / name, config, assets, workers=workers)
    first, second = (read_dataset(tmp_path / name) for name in ("one", "two"))
    assert [image.labels for image in first.images] == [image.labels for image in second.images]
    for a, b in zip(first.images, second.images, strict=True):
        assert a.path.read_bytes() == b.path.read_bytes()
    assert {s: len(first.split(s).images) for s in first.splits} == SMALL
    truth = read_truth(tmp_path / "one")
    assert truth.graph == draw_graph(2)
    assert len(truth.contexts) == sum(SMALL.values())


def test_no_background_photo_is_shared_by_training_validation_and_test(
    tmp_path: Path, assets: Path
) -> None:
    generate(tmp_path / "s", SceneConfig(counts=SMALL), assets)
    used: dict[str, set[int]] = {}
    for image in read_dataset(tmp_path / "s").images:
        picture = cv2.imread(str(image.path))
        assert picture is not None
        blue, green = (picture[..., i].astype(float).ravel() for i in (0, 1))
        ratio = green / np.maximum(blue, 1)
        photo = round(float(np.median(ratio[ratio < 0.85])) / 0.15)
        used.setdefault(image.split, set()).add(photo)
    assert used["train"] <= {0, 1, 2}
    assert used["val"] == {3}
    assert used["iid"] | used["do"] | used["cross"] <= {4, 5}


def test_the_box_of_every_label_holds_its_object(tmp_path: Path, assets: Path) -> None:
    generate(tmp_path / "s", SceneConfig(counts=SMALL), assets)
    truth, checked = read_truth(tmp_path / "s"), 0
    for image in read_dataset(tmp_path / "s").images:
        boxes = truth.boxes[str(image.path.relative_to(tmp_path / "s"))]
        assert {truth.labels[i] for i in image.labels} == {*boxes}
        picture = cv2.imread(str(image.path))
        assert picture is not None
        for left, top, right, bottom in boxes.values():
            assert 0 <= left < right <= 224
            assert 0 <= top < bottom <= 224
            # The sprites are white squares, more or less; most photos have little red.
            assert np.median(picture[top:bottom, left:right, 2]) > 140
            checked += 1
    assert checked > 10


def test_a_folder_with_scenes_is_not_drawn_over(tmp_path: Path, assets: Path) -> None:
    generate(tmp_path / "s", SceneConfig(counts=SMALL), assets)
    with pytest.raises(DataError, match="holds scenes already"):
        generate(tmp_path / "s", SceneConfig(counts=SMALL), assets)


def test_a_folder_without_scenes_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not hold ContextScenes"):
        read_truth(tmp_path)


@pytest.fixture
def cutout_assets(tmp_path: Path) -> Path:
    """Objects of world 1 as opaque squares: red where it trains on them, blue where it holds them out."""
    folder = tmp_path / "cutouts"
    folder.mkdir()

    def save(paint: Callable[[str, int], Any]) -> None:
        stamps: dict[str, Any] = {
            f"{label}|{i}": paint(label, i) for label in (*cutouts.LABELS, "") for i in range(5)
        }
        np.savez(folder / "cutouts.npz", **stamps)

    save(lambda _label, i: np.full((1, 1, 4), i, np.uint8))
    held_out = {
        (label, int(stamp[0, 0, 0]))
        for label, found in load_cutouts(folder_with_photos(folder), 1).sprites["held out"].items()
        for stamp in found
    }
    colours = {True: (255, 0, 0, 255), False: (0, 0, 255, 255)}
    save(lambda label, i: np.full((120, 120, 4), colours[(label, i) in held_out], np.uint8))
    return folder


def folder_with_photos(folder: Path) -> Path:
    photos: dict[str, Any] = {
        f"{context}|{i}": np.full((420, 430, 3), (0, 20 * c, 0), np.uint8) + np.uint8(i)
        for c, context in enumerate(cutouts.CONTEXTS)
        for i in range(5)
    }
    np.savez(folder / "photos.npz", **photos)
    return folder


def test_objects_of_the_cut_out_tests_are_in_no_training_picture(
    tmp_path: Path, cutout_assets: Path
) -> None:
    scenes, config = tmp_path / "s", SceneConfig(seed=1, counts=SMALL, source="cutouts")
    generate(scenes, config, cutout_assets)
    seen = set()
    for image in read_dataset(scenes).images:
        picture = cv2.imread(str(image.path))
        assert picture is not None
        blue, red = ((picture[..., channel] > 120).sum() for channel in (0, 2))
        assert (blue if image.split in {"train", "val", "cross"} else red) == 0
        seen |= {"blue"} if blue > 100 else {"red"} if red > 100 else set()
    assert seen == {"blue", "red"}
    assert read_truth(scenes).labels == read_dataset(scenes).classes == cutouts.LABELS


def test_every_world_of_cut_outs_holds_out_others(cutout_assets: Path) -> None:
    photos = [load_cutouts(cutout_assets, seed).backgrounds for seed in range(6)]
    tests = {int(world["sky"][4][0, 0, 0]) for world in photos}
    assert len(tests) > 1
    for world in photos:
        assert sorted(int(photo[0, 0, 0]) for photo in world["sky"]) == [0, 1, 2, 3, 4]
    assets = load_cutouts(cutout_assets, 0)
    parts = [assets.photos(0, part) for part in ("train", "val", "test")]
    assert [len(part) for part in parts] == [3, 1, 1]


@pytest.mark.parametrize(
    ("channels", "reason"), [(None, "has no 001.png"), (3, "001.png has no transparent background")]
)
def test_a_package_without_a_wanted_stamp_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, channels: int | None, reason: str
) -> None:
    coins = tmp_path / "tuxpaint-stamps-default/usr/share/tuxpaint/stamps/symbols/money/euro/coins"
    coins.mkdir(parents=True)
    if channels:
        cv2.imwrite(str(coins / "001.png"), np.zeros((9, 9, channels), np.uint8))
    monkeypatch.setattr(cutouts, "unpacked_packages", lambda *_: nullcontext(tmp_path))
    with pytest.raises(DataError, match=reason):
        load_cutouts(tmp_path / "assets", 0)
    assert not (tmp_path / "assets").exists()


def test_an_unknown_source_of_pictures_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no source 'photos' of pictures: drawn, cutouts"):
        generate(tmp_path / "s", SceneConfig(source="photos"), tmp_path)
    assert not (tmp_path / "s").exists()
