"""A configuration that asks for more than an engine can do, after a roll-back: the rest of it is served."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any, TypeVar

from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.stability import StabilityRules
from cmlr_edge.place.asking import trained_surroundings
from cmlr_edge.session.config import SessionConfig, SourceSettings
from cmlr_edge.sinks.collect import CollectSettings

T = TypeVar("T")
_log = logging.getLogger(__name__)


def within_reach(config: SessionConfig, pair: ModelPair) -> SessionConfig:
    """Leave out what an engine that was gone back to cannot do, and say so: else nothing would serve.

    Sources that could show no label go. Where no source is left, they stay, for the start to say why.
    """
    known = frozenset(pair.spec.labels)
    seeing = [item for item in config.sources if not item.labels or known & {*item.labels}]
    gone = [f"source {item.name}" for item in config.sources if item not in seeing]
    gone += [f"label {label}" for label in sorted(_named(config) - known)]
    less = replace(
        config,
        thresholds=_only(known, config.thresholds),
        stability=_rules(known, config.stability),
        sources=tuple(_source(known, item) for item in seeing) or config.sources,
    )
    if not known.issuperset(config.collect.without):  # frames that nobody wants kept would be
        less, gone = replace(less, collect=CollectSettings()), [*gone, "collect"]
    if config.explain and pair.spec.explanation is None:
        less, gone = replace(less, **_defaults("explain")), [*gone, "explain"]
    if config.place and trained_surroundings(pair.spec) is None:
        less, gone = replace(less, **_defaults("place")), [*gone, "place"]
    if gone:
        _log.error(
            "engine %s, which was gone back to, cannot do all that the configuration asks for, and "
            "serves without: %s",
            pair.identity,
            ", ".join(gone),
        )
    return less


def _named(config: SessionConfig) -> set[str]:
    """Every label of which the configuration says something."""
    named = {*config.thresholds, *config.stability.labels, *config.collect.without}
    for item in config.sources:
        named |= {*item.labels, *item.thresholds, *(item.stability or StabilityRules()).labels}
    return named


def _source(known: Collection[str], source: SourceSettings) -> SourceSettings:
    return replace(
        source,
        labels=tuple(label for label in source.labels if label in known),
        thresholds=_only(known, source.thresholds),
        stability=source.stability and _rules(known, source.stability),
    )


def _rules(known: Collection[str], rules: StabilityRules) -> StabilityRules:
    return replace(rules, labels=_only(known, rules.labels))


def _only(known: Collection[str], by_label: Mapping[str, T]) -> dict[str, T]:
    return {label: value for label, value in by_label.items() if label in known}


def _defaults(start: str) -> dict[str, Any]:
    """The settings whose names start so, as they are where nothing is asked for."""
    return {
        item.name: item.default for item in fields(SessionConfig) if item.name.startswith(start)
    }
