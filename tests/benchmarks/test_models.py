"""The page of models says what the records say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks.models import RESULTS, networks_table
from cmlr_edge import demo_engine
from cmlr_edge.model.spec import ModelSpec

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/models.md"

pytestmark = pytest.mark.pages


def stored(name: str) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((ROOT / RESULTS / name).read_text())
    return record


def test_networks_are_told_as_they_were_timed() -> None:
    sizes, comparisons = stored("models.json"), stored("latency/peers.json")["comparisons"]
    table = networks_table(sizes, comparisons)
    assert f"<!-- networks -->\n{table}\n<!-- end -->" in PAGE.read_text()


def test_the_bundled_model_is_told_as_it_was_measured() -> None:
    page = " ".join(PAGE.read_text().split())
    engine = demo_engine()
    spec = ModelSpec.load(engine.with_suffix(".json"))
    metrics = json.loads((engine.parent / "metrics.json").read_text())
    found = metrics["read_outs"]["deployed"]
    scored = sum(value is not None for value in found["ap"].values())
    assert f"the {len(spec.labels)} object classes" in page
    assert f"{engine.stat().st_size / 1e6:.1f} MB" in page
    quality = f"mAP {found['mean_ap']:.3f}, CF1 {found['cf1']:.3f}, OF1 {found['of1']:.3f}"
    assert f"{quality} on {metrics['num_images']} photos, over {scored} labels" in page
    clips = stored("clips.json")["clips"]
    told = (
        f"of {clips['said']} labels that it said on {clips['frames']} frames, {clips['wrong']} were"
    )
    assert told in page
    assert f"it found {clips['found']} of {clips['certain']}" in page
    assert f"{stored('archive/rates.json')['core_ms']['recognise']:.1f} ms of one core" in page
    [fit] = [
        row
        for row in stored("photos/fit.json")["rows"]
        if (row["arm"], row["read_out"]) == ("fit's default", "deployed")
    ]
    assert f"a mAP of {fit['mean']:.1f} %" in page
