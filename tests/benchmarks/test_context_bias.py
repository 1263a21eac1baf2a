"""The comparison on ContextScenes: its statistics, its tokens and its heads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from benchmarks.context_bias import __main__ as main
from benchmarks.context_bias import runs
from benchmarks.context_bias.__main__ import take_over, write_report
from benchmarks.context_bias.features import COMPONENTS, fit_reduction, load_tokens
from benchmarks.context_bias.methods import (
    BASE,
    DECODER,
    DEFAULT,
    JTT,
    METHODS,
    POOLED_EXPERTS,
    RECIPE,
)
from benchmarks.context_bias.report import (
    gains_table,
    markdown_table,
    plot_gains,
    references_table,
    summarize,
)
from benchmarks.context_bias.runs import Job, exclusive_examples, finished_keys
from benchmarks.heads import fit_head, prepare_tokens, score_tokens
from cmlr_edge.errors import DataError
from train.data.context_scenes import SceneConfig, SceneTruth
from train.data.context_scenes.graph import CONTEXTS, LABELS, draw_graph
from train.fitting.frozen import TokenSet
from train.judging.metrics import average_precisions
from train.network.model import CausalHead


def run(method: str, world: str, seed: int, value: float) -> dict[str, Any]:
    read_outs = ("prior", "own") if method == DEFAULT else ("deployed",)
    measures = {"exclusive": value, "co_occur": 1.0, "all": 2.0, "causal_effects": 3.0, "nll": 0.1}
    part = dict.fromkeys(read_outs, measures)
    return {
        "method": method,
        "scenes": world,
        "seed": seed,
        "parts": {"do": part, "iid": part, "cross": part, "val": part},
        "links": {"co-occurrence": {"auc": 1.0, "causal": 0.5, "spurious": 0.5}},
        "seconds": 1.0,
    }


def test_gains_are_taken_against_the_same_world_and_seed(tmp_path: Path) -> None:
    runs = []
    for w, world in enumerate(("a", "b")):
        for seed in range(3):
            base = 100.0 * w + 10 * seed
            runs += [run(DECODER, world, seed, base), run(DEFAULT, world, seed, base + 5)]
    report = summarize(runs)
    row = next(row for row in report["rows"] if row["method"] == DEFAULT)
    assert row["gains"][DECODER]["do exclusive"] == {"median": 5.0, "low": 5.0, "high": 5.0}
    interval = row["values"]["do exclusive"]
    assert interval["low"] < 20  # worlds differ far more than seeds
    assert interval["high"] > 105
    assert "5.0" in markdown_table(report, "main")
    assert f"| {DEFAULT}, own context | 6 | +5.0 (5.0 - 5.0) |" in gains_table(report, "main")
    assert f"| {DECODER} | +5.0 (5.0 - 5.0) |" in references_table(report, DEFAULT)
    plot_gains(report, tmp_path / "gains.png")
    assert (tmp_path / "gains.png").stat().st_size > 1000


def test_reduced_tokens_are_principal_components_of_standardised_channels() -> None:
    rng = np.random.default_rng(0)
    finer, last = 300, 160
    mixing = rng.standard_normal((finer + last, finer + last))
    tokens = (rng.standard_normal((40, 20, finer + last)) @ mixing + 3).astype(np.float16)
    reduced = fit_reduction(tokens, finer)(tokens)
    assert reduced.shape == (40, 20, sum(COMPONENTS))
    flat = tokens.reshape(-1, finer + last)[:, :finer].astype(np.float32)
    expected = PCA(COMPONENTS[0], svd_solver="covariance_eigh").fit_transform(
        StandardScaler().fit_transform(flat)
    )
    found = reduced.reshape(-1, sum(COMPONENTS))[:, : COMPONENTS[0]].astype(np.float64)
    for component in range(5):  # a component has no sign of its own
        cosine = np.corrcoef(found[:, component], expected[:, component])[0, 1]
        assert abs(cosine) == pytest.approx(1, abs=1e-2)


def test_an_interrupted_extraction_goes_on_and_gives_the_same_tokens(tmp_path: Path) -> None:
    scenes, cache = tmp_path / "scenes", tmp_path / "tokens"
    scenes.mkdir()
    rng, images = np.random.default_rng(0), []
    for index, split in enumerate(["train"] * 8 + ["val"] * 2):
        picture = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
        cv2.imwrite(str(scenes / f"{index}.png"), picture)
        images.append({"file": f"{index}.png", "split": split, "labels": ["a"]})
    (scenes / "labels.json").write_text(json.dumps({"classes": ["a", "b"], "images": images}))
    (scenes / "graph.json").write_text("{}")
    whole = {
        split: np.array(part.tokens) for split, part in load_tokens(scenes, cache, BASE).items()
    }
    (folder,) = cache.iterdir()
    (folder / "whole").unlink()
    (folder / "val.npy").unlink()
    written = (folder / "train.npy").stat().st_mtime_ns
    again = load_tokens(scenes, cache, BASE)
    assert (folder / "train.npy").stat().st_mtime_ns == written  # not computed a second time
    for split, tokens in whole.items():
        np.testing.assert_array_equal(again[split].tokens, tokens)


def test_runs_of_an_earlier_report_are_kept_once_and_only_of_the_same_worlds(
    tmp_path: Path,
) -> None:
    out, finished = tmp_path / "out", tmp_path / "runs.jsonl"
    runs = [{"key": f"{seed}"} | run(DECODER, "a", seed, 1.0) for seed in range(3)]
    write_report(runs, out, "1-1-0.4")
    finished.write_text(json.dumps(runs[1]) + "\n")
    take_over(out, "1-1-0.4", finished)
    assert sorted(finished_keys(finished)) == ["0", "1", "2"]
    assert len(finished.read_text().splitlines()) == 3
    with pytest.raises(DataError, match=r"on worlds 1-1-0\.4, not mixed-1-1-0\.4"):
        take_over(out, "mixed-1-1-0.4", finished)
    with pytest.raises(DataError, match="no runs to keep"):
        take_over(tmp_path, "1-1-0.4", finished)


def test_a_report_of_kept_runs_draws_no_world_and_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    methods = [DECODER, DEFAULT]
    runs = [
        {"key": f"{method} | world-{world} | 0"} | run(method, f"world-{world}", 0, world)
        for method in methods
        for world in (0, 1)
    ]
    write_report(runs, out, "1-1-1")
    prepared: list[str] = []
    monkeypatch.setattr(
        main, "_prepare_world", lambda world, *_arguments: prepared.append(world.name)
    )
    monkeypatch.setattr(main, "run_all", lambda *_arguments, **_options: None)
    options: dict[str, Any] = {"work": tmp_path / "work", "seeds": 1, "only": methods}
    main.compare(out=out, first_world=0, data_seeds=2, keep_runs=True, **options)
    assert prepared == []
    main.compare(out=out, first_world=0, data_seeds=3, keep_runs=True, **options)
    assert prepared == ["world-2"]  # the only one that heads are left for


def test_exclusive_examples_are_spurious_effects_without_their_cause() -> None:
    truth = SceneTruth(SceneConfig(), LABELS, CONTEXTS, draw_graph(1), {})
    targets = (np.random.default_rng(0).random((50, len(LABELS))) < 0.3).astype(np.float32)
    alone = exclusive_examples(truth, targets)
    for pair in truth.graph.pairs:
        wanted = (targets[:, pair.effect] == 1) & (targets[:, pair.cause] == 0)
        spurious = pair.kind == "spurious"
        np.testing.assert_array_equal(alone[:, pair.effect], wanted if spurious else False)


@pytest.fixture
def tiny_world(monkeypatch: pytest.MonkeyPatch) -> Iterator[TokenSet]:
    """80 scenes of noise, read in place of any folder's."""
    rng = np.random.default_rng(0)
    tokens = rng.standard_normal((80, 4, sum(COMPONENTS))).astype(np.float16)
    targets = (rng.random((80, len(LABELS))) < 0.4).astype(np.float32)
    part, truth = (
        TokenSet(tokens, targets, COMPONENTS[0]),
        SceneTruth(SceneConfig(), LABELS, CONTEXTS, draw_graph(0), {}),
    )
    parts = dict.fromkeys(("train", "val", "iid", "do", "cross"), part)
    monkeypatch.setattr(runs, "_open", lambda *_: (truth, parts))
    yield part
    runs._prepared.cache_clear()


def test_jtt_weighs_what_its_first_head_gets_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_world: TokenSet
) -> None:
    heads: list[CausalHead] = []
    options: list[dict[str, Any]] = []

    def fit(*arguments: Any, **keywords: Any) -> CausalHead:
        heads.append(fit_head(*arguments, **keywords))
        options.append({"epochs": arguments[0].epochs, **keywords})
        return heads[-1]

    monkeypatch.setattr(runs, "fit_head", fit)
    record = runs.run(Job(JTT, "world-0", 0, batch_size=40), tmp_path)
    assert [option["epochs"] for option in options] == [5, 10]
    wrong = (score_tokens(heads[0], tiny_world).deployed > 0.5) != (tiny_world.targets > 0)
    np.testing.assert_array_equal(options[1]["exclusive"], wrong)
    assert options[1]["exclusive_weight"] == 5
    assert 0 < record["parts"]["do"]["deployed"]["all"] <= 100


def test_a_head_beside_logits_that_know_the_answer_learns_nothing(tiny_world: TokenSet) -> None:
    method = next(method for method in METHODS if method.name == POOLED_EXPERTS)
    assert method.pooled_bias
    config = replace(RECIPE, model=method.model, epochs=40, batch_size=20)
    prepared = prepare_tokens(config, tiny_world)
    known = torch.from_numpy(40 * (2 * tiny_world.targets - 1))
    fits = {
        name: average_precisions(
            score_tokens(
                fit_head(config, tiny_world, prepared, beside=beside), tiny_world
            ).deployed,
            tiny_world.targets,
        ).mean()
        for name, beside in (("alone", None), ("beside", known))
    }
    assert fits["alone"] > 0.95
    assert fits["beside"] < 0.7


def test_link_recovery_counts_pairs_that_are_ranked_rightly() -> None:
    effects = np.zeros((4, 4), np.float32)
    effects[0, 1], effects[1, 2], effects[2, 3], effects[3, 0] = 0.4, -0.2, 0.2, 0.1
    found = runs.link_recovery(effects, direct=[(0, 1), (1, 2)], spurious=[(2, 3), (3, 0)])
    assert found["auc"] == pytest.approx((2 + 1.5) / 4)  # 0.4 beats both; 0.2 ties one, beats one
    assert found["causal"] == pytest.approx(0.3)
    assert found["spurious"] == pytest.approx(0.15)
