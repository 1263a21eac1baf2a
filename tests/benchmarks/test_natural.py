"""The comparison on re-sampled photos: its pairs, its splits, its measures, and one small run of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from benchmarks.natural.__main__ import compare
from benchmarks.natural.batches import Batch, add_surroundings, erase_label, unite
from benchmarks.natural.measures import measure, rank
from benchmarks.natural.methods import CHOSEN, DECODER, METHODS, POOLED
from benchmarks.natural.report import chosen_table, fill_page, markdown_table, summarize
from benchmarks.natural.sampling import PARTS, choose_pairs, draw_split
from cmlr_edge.errors import DataError
from train.config import ModelConfig
from train.data.base import ContextBias
from train.judging.context_bias import score_context_bias
from train.network.model import CausalHead
from train.network.uniting import draw_partners

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "natural"
RNG = np.random.default_rng(0)
TARGETS = (RNG.random((200, 7)) < 0.3).astype(np.float32)


def test_pairs_of_the_two_parts_share_no_label_to_be_left_out_and_are_no_reverses() -> None:
    parts = choose_pairs(TARGETS, min_photos=5, count=3)
    everyone = [pair for part in PARTS for pair in parts[part]]
    assert len({b for b, _ in everyone}) == len(everyone)
    assert not {(c, b) for b, c in everyone} & set(everyone)
    for b, c in everyone:
        assert (
            min((TARGETS[:, b] * TARGETS[:, c]).sum(), (TARGETS[:, b] > TARGETS[:, c]).sum()) >= 5
        )


def test_photos_without_pairs_are_refused_with_a_remedy() -> None:
    with pytest.raises(DataError, match="lower --min-photos"):
        choose_pairs(TARGETS, min_photos=150, count=3)


def test_training_never_shows_a_label_without_its_companion_and_nothing_is_lost() -> None:
    pairs = choose_pairs(TARGETS, min_photos=5, count=3)["development"]
    split = draw_split(TARGETS, pairs, "development", 0)
    train = TARGETS[split.train]
    for b, c in pairs:
        assert not ((train[:, b] == 1) & (train[:, c] == 0)).any()
        alone = (TARGETS[:, b] == 1) & (TARGETS[:, c] == 0)
        assert set(np.flatnonzero(alone)) <= set(split.test)
    assert sorted([*split.train, *split.test]) == list(range(len(TARGETS)))
    other = draw_split(TARGETS, pairs, "reported", 0)
    assert set(other.train) != set(split.train)


def test_measures_are_those_of_the_published_definition() -> None:
    scores = RNG.random(TARGETS.shape).astype(np.float32)
    pairs, names = ((0, 1), (2, 3)), tuple("abcdefg")
    bias = ContextBias(pairs, (), "average precision")
    expected = score_context_bias(scores, TARGETS, names, bias, resamples=1)
    found = measure(rank(scores, TARGETS, pairs), np.ones(len(scores), np.int_))
    assert expected.exclusive.value is not None
    assert expected.co_occur.value is not None
    assert expected.all_labels is not None
    assert found["exclusive"] == pytest.approx(100 * expected.exclusive.value)
    assert found["co_occur"] == pytest.approx(100 * expected.co_occur.value)
    assert found["all"] == pytest.approx(100 * expected.all_labels)


def batch(targets: list[list[float]], start: float = 0.0) -> Batch:
    """Token t of photo i holds the number 10 i + t."""
    wanted = torch.tensor(targets)
    tokens = start + 10 * torch.arange(len(targets))[:, None] + torch.arange(4)
    return Batch(tokens[..., None].float(), wanted, torch.ones_like(wanted))


def test_united_photos_show_the_tokens_and_labels_of_both() -> None:
    both = unite(batch([[1, 0, 0]]), batch([[0, 0, 1]], start=100))
    assert both.tokens[0, :, 0].tolist() == [0, 1, 2, 3, 100, 101, 102, 103]
    assert both.targets.tolist() == [[1, 0, 1]]


def test_an_erased_label_loses_the_tokens_it_looks_at_and_its_loss() -> None:
    looks = torch.tensor([[[0.7, 0.1, 0.1, 0.1], [0.1, 0.1, 0.1, 0.7]]]).repeat(2, 1, 1)
    changed = erase_label(batch([[1, 1], [1, 0]]), looks, 0.25, torch.Generator().manual_seed(0))
    erased = int((changed.weight[0] == 0).nonzero())
    token = 0.0 if erased == 0 else 3.0
    assert token not in changed.tokens[0, :, 0].tolist()
    assert 3.0 - token in changed.tokens[0, :, 0].tolist()
    assert changed.tokens[1, :, 0].tolist() == [10, 11, 12, 13]  # its one label stays
    assert changed.weight[1].tolist() == [1, 1]


def test_added_surroundings_are_what_the_other_photos_labels_look_at_least() -> None:
    looks = torch.tensor([[[0.7, 0.2, 0.05, 0.05], [0.0, 0.0, 0.5, 0.5]]])
    changed = add_surroundings(batch([[0, 1]]), batch([[1, 0]], start=100), looks, 0.5)
    assert sorted(changed.tokens[0, 4:, 0].tolist()) == [102, 103]
    assert changed.targets.tolist() == [[0, 1]]
    assert changed.weight.tolist() == [[0, 1]]  # the other photo's label may still be there


def small_head(**changes: Any) -> CausalHead:
    torch.manual_seed(0)
    sizes = ModelConfig(embed_dim=16, num_heads=2, ffn_dim=16, dropout=0, intervention="none")
    return CausalHead(replace(sizes, **changes), num_labels=3, num_features=8)


def test_every_picture_of_a_batch_is_united_with_another() -> None:
    for seed in range(20):
        torch.manual_seed(seed)
        partners = draw_partners(5, 1.0, torch.device("cpu"))
        assert partners is not None
        assert sorted(partners.tolist()) == list(range(5))
        assert all(i != partner for i, partner in enumerate(partners.tolist()))
    assert draw_partners(1, 1.0, torch.device("cpu")) is None
    assert draw_partners(5, 0.0, torch.device("cpu")) is None


def test_a_united_step_is_that_of_the_joined_tokens_and_targets() -> None:
    head, tokens = small_head(united_share=1.0), torch.randn(4, 6, 8)
    targets = torch.eye(4)[:, :3]
    found = head.train().head(tokens).decoupled_logits
    assert head.partners is not None
    other = head.partners
    joined = torch.cat([tokens, tokens[other]], dim=1)
    torch.testing.assert_close(found, head.eval().head(joined).decoupled_logits)
    torch.testing.assert_close(head.wanted(targets), torch.maximum(targets, targets[other]))


def test_uniting_is_off_by_default_and_never_at_inference() -> None:
    tokens, targets = torch.randn(4, 6, 8), torch.eye(4)[:, :3]
    plain, united = small_head(), small_head(united_share=1.0)
    expected = plain.train().head(tokens).decoupled_logits
    assert plain.wanted(targets) is targets
    torch.testing.assert_close(united.eval().head(tokens).decoupled_logits, expected)


def test_a_share_that_is_none_is_refused() -> None:
    with pytest.raises(DataError, match="from 0 to 1"):
        ModelConfig(united_share=1.5)


def run(method: str, split: int, seed: int, value: float) -> dict[str, Any]:
    values = {"exclusive": value, "co_occur": 1.0, "all": 2.0}
    resampled = {name: [number] * 5 for name, number in values.items()}
    measures = {"values": values, "resampled": resampled}
    return {"method": method, "split": split, "seed": seed, "read_outs": {"deployed": measures}}


def test_gains_are_taken_on_the_same_split_and_seed() -> None:
    runs = []
    for split in range(3):
        for seed in range(2):
            base = 20.0 * split + 5 * seed
            runs += [run(DECODER, split, seed, base), run(POOLED, split, seed, base + 3 + split)]
    row = next(row for row in summarize(runs) if row["method"] == POOLED)
    gain = row["gains"][DECODER]["exclusive"]
    assert gain["mean"] == 4.0
    assert gain["splits"] == pytest.approx([4 - 4.303 / 3**0.5, 4 + 4.303 / 3**0.5], abs=0.01)
    assert gain["worst_run"] == 3.0
    assert "+4.0 (" in markdown_table(summarize(runs), DECODER)


def write_photos(root: Path, number: int) -> None:
    """Pictures of coloured squares, two colours often together, and two others."""
    rng, images = np.random.default_rng(0), []
    root.mkdir()
    for i in range(number):
        present = [i % 4 == 0, i % 8 in (0, 1), i % 5 == 0, i % 10 in (0, 1), i % 7 == 0]
        picture = rng.integers(90, 130, (96, 96, 3), dtype=np.uint8)
        for label in np.flatnonzero(present):
            y, x = rng.integers(0, 60, 2)
            picture[y : y + 30, x : x + 30] = [255 * (label & 1), 255 * (label & 2), 60 * label]
        cv2.imwrite(str(root / f"{i}.png"), picture)
        labels = [f"colour {label}" for label in np.flatnonzero(present)]
        images.append({"file": f"{i}.png", "split": "train", "labels": labels})
    classes = [f"colour {label}" for label in range(5)]
    (root / "labels.json").write_text(json.dumps({"classes": classes, "images": images}))


def test_the_command_runs_on_own_photos_and_goes_on_where_it_was(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 40)
    options: dict[str, Any] = {
        "photos": tmp_path / "photos", "out": tmp_path / "out", "work": tmp_path / "work",
        "splits": 2, "seeds": 1, "min_photos": 2, "max_pairs": 2, "workers": 1,
    }  # fmt: skip
    compare(part="reported", only=["standard (pooled)"], **options)
    first = (tmp_path / "out" / "runs.jsonl").read_text()
    assert len(first.splitlines()) == 2
    compare(part="reported", only=["standard (pooled)"], **options)
    assert (tmp_path / "out" / "runs.jsonl").read_text() == first
    report = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [row["runs"] for row in report["rows"]] == [2]
    assert len(report["pairs"]) >= 1


def test_method_names_are_unique() -> None:
    assert len({method.name for method in METHODS}) == len(METHODS)


def test_the_results_follow_from_the_stored_runs_and_the_page_has_their_tables() -> None:
    for folder in (RESULTS, RESULTS / "development"):
        lines = (folder / "runs.jsonl").read_text().splitlines()
        rows = json.loads((folder / "results.json").read_text())["rows"]
        assert summarize([json.loads(line) for line in lines]) == rows
    page = (ROOT / "docs" / "natural.md").read_text()
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    assert chosen_table(rows) in page
    assert fill_page(page, rows) == page


def test_the_chosen_head_reached_what_the_page_says() -> None:
    rows = json.loads((RESULTS / "results.json").read_text())["rows"]
    gains = next(row["gains"] for row in rows if row["method"] == CHOSEN)
    for reference in (DECODER, POOLED):
        for name in ("exclusive", "all"):
            gain = gains[reference][name]
            assert min(gain["splits"][0], gain["photos"][0]) > 0
    assert min(gain["all"]["worst_run"] for gain in (gains[DECODER], gains[POOLED])) > 0
