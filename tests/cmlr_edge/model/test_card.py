"""The card beside an export follows its spec, until somebody writes into it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cmlr_edge.model.card import CARD, card_beside, card_of
from cmlr_edge.model.spec import ModelSpec


def test_the_card_beside_a_spec_is_ours_until_somebody_writes_into_it(engine: Path) -> None:
    place = engine.with_suffix(".json")
    spec, card = ModelSpec.load(place), engine.with_name(CARD)
    (written,) = card_beside(place, spec).items()
    assert written == (card, card_of(spec).encode())
    card.write_bytes(written[1])
    later = replace(spec, threshold_fit=replace(spec.threshold_fit, rule="f1", num_images=9))
    assert b"by f1 on" in card_beside(place, later)[card]
    card.write_text(f"{card.read_text()}It confuses cups and vases.\n")
    assert card_beside(place, later) == {}
    card.write_bytes(written[1])
    place.write_text("{}")  # of a version that nobody reads
    assert card_beside(place, later) == {}
    place.unlink()
    assert card_beside(place, later) == {}


def test_a_card_of_a_folder_explains_its_files_and_one_of_the_hub_how_to_get_it(
    engine: Path,
) -> None:
    spec = ModelSpec.load(engine.with_suffix(".json"))
    here, there = card_of(spec), card_of(spec, "me/colours")
    assert here.startswith(f"# {spec.name}\n")
    assert "`fusion.json` tells" in here
    assert "hub pull" not in here
    assert "cmlr-edge label street.mp4 --engine THIS_FOLDER" in here
    assert there.startswith("---\nlibrary_name: cmlr_edge")
    assert "cmlr-edge hub pull me/colours --out colours" in there
    assert "fusion.json" not in there  # it is not sent
