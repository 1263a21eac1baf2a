"""The structural causal model that scenes are drawn from, and the truth about every link.

    context -> background
    context -> spurious cause, context -> spurious effect   (independent given the context)
    cause   -> effect                                       (causal pairs: a direct mechanism)
    neutral labels depend on nothing

A spurious pair occurs together only because both live in the same contexts; a causal pair does so
because one label places the other. do(context) cuts the first kind and leaves the second.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

# What each role can be played by: small effects, larger causes, neutral labels.
EFFECTS = ("mouse", "cup", "ball", "fish", "flower", "hat", "key", "bicycle")
CAUSES = ("computer", "furniture", "dog", "boat", "tree", "person", "house", "car")
NEUTRAL = ("fruit", "clock", "cat", "airplane", "guitar", "umbrella", "bird", "elephant")
LABELS = EFFECTS + CAUSES + NEUTRAL
CONTEXTS = ("plants", "wood", "stone", "water", "sky", "forest", "sand", "wall")
NUM_PAIRS = 4  # of each kind
_HOMES = 2  # contexts that a spurious pair lives in

_CAUSE_AT_HOME, _CAUSE_AWAY = 0.92, 0.015
_EFFECT_AT_HOME, _EFFECT_AWAY = 0.6, 0.01
_CAUSE_DONE, _EFFECT_DONE = 0.15, 0.12  # rates under do(context)
_CAUSE_RATE, _EFFECT_GIVEN, _EFFECT_WITHOUT = 0.2, 0.6, 0.01  # of causal pairs, everywhere
_NEUTRAL_RATE = 0.12
Role = Literal["effect", "cause", "neutral"]


def role_of(label: int) -> Role:
    """What an index into the labels is played by, whatever it is called; -1, no label, is neutral."""
    if 0 <= label < len(EFFECTS):
        return "effect"
    return "cause" if len(EFFECTS) <= label < len(EFFECTS) + len(CAUSES) else "neutral"


@dataclass(frozen=True)
class Pair:
    """Two labels that occur together, by index into LABELS, and why."""

    effect: int
    cause: int
    kind: Literal["spurious", "causal"]
    homes: tuple[int, ...] = ()  # contexts, of spurious pairs


@dataclass(frozen=True)
class SceneGraph:
    """One world: who is paired with whom, and how strongly contexts decide.

    Attributes:
        pairs: Four spurious and four causal ones, disjoint; a `mixed` world has four more causal
            links, into the effects of the spurious pairs.
        bias_strength: 1 as above, 0: contexts say nothing about labels (same rates on average).
        contexts_per_scene: 1, or 2 side by side; a pair is at home if either is its home.
    """

    pairs: tuple[Pair, ...]
    bias_strength: float = 1.0
    contexts_per_scene: int = 1

    def links(self, kind: str) -> list[tuple[int, int]]:
        """(effect, cause) of every pair of a kind."""
        return [(pair.effect, pair.cause) for pair in self.pairs if pair.kind == kind]


def draw_graph(
    seed: int,
    *,
    bias_strength: float = 1.0,
    mixed: bool = False,
    contexts_per_scene: int = 1,
) -> SceneGraph:
    """Draw which effect goes with which cause, why, and where.

    Args:
        seed: Of the pairing.
        bias_strength: In [0, 1].
        mixed: Give every spurious effect a direct cause as well, itself the cause of another pair.
        contexts_per_scene: 1 or 2.

    Raises:
        ValueError: A parameter out of range.
    """
    if not 0 <= bias_strength <= 1 or contexts_per_scene not in {1, 2}:
        raise ValueError(
            f"bias_strength {bias_strength} should be in [0, 1] and contexts_per_scene "
            f"{contexts_per_scene} 1 or 2"
        )
    rng = np.random.default_rng((seed, 0x5CE9E))
    effects = rng.permutation(len(EFFECTS))
    causes = len(EFFECTS) + rng.permutation(len(CAUSES))
    contexts = rng.permutation(len(CONTEXTS))
    spurious = [
        Pair(int(e), int(c), "spurious", tuple(int(h) for h in contexts[_HOMES * i :][:_HOMES]))
        for i, (e, c) in enumerate(zip(effects[:NUM_PAIRS], causes[:NUM_PAIRS], strict=True))
    ]
    causal = [
        Pair(int(e), int(c), "causal")
        for e, c in zip(effects[NUM_PAIRS:], causes[NUM_PAIRS:], strict=True)
    ]
    if mixed:
        causal += [
            Pair(pair.effect, other.cause, "causal")
            for pair, other in zip(spurious, causal, strict=True)
        ]
    return SceneGraph((*spurious, *causal), bias_strength, contexts_per_scene)


def draw_scene_labels(
    graph: SceneGraph, rng: np.random.Generator, *, do_context: bool
) -> tuple[tuple[int, ...], frozenset[int]]:
    """Draw one scene's contexts and labels.

    Args:
        graph: The world.
        rng: Drawn from.
        do_context: Set the context from outside: it keeps its background, but no longer decides
            which labels are there.

    Returns:
        Context indices (one per part of the scene), and the indices of the labels present.
    """
    chosen = rng.choice(len(CONTEXTS), graph.contexts_per_scene, replace=False)
    contexts = tuple(int(c) for c in chosen)
    present = np.zeros(len(LABELS), bool)
    for pair in graph.pairs:
        if pair.kind == "spurious":
            at_home = None if do_context else not set(contexts).isdisjoint(pair.homes)
            cause, effect = _spurious_rates(graph, at_home)
            present[pair.cause] |= rng.random() < cause
            present[pair.effect] |= rng.random() < effect
    decided = np.zeros(len(LABELS), bool)
    for pair in graph.pairs:
        if pair.kind == "causal":
            if not decided[pair.cause]:
                present[pair.cause] = rng.random() < _CAUSE_RATE
                decided[pair.cause] = True
            rate = _EFFECT_GIVEN if present[pair.cause] else _EFFECT_WITHOUT
            present[pair.effect] |= rng.random() < rate
    first_neutral = len(EFFECTS) + len(CAUSES)
    present[first_neutral:] = rng.random(len(NEUTRAL)) < _NEUTRAL_RATE
    return contexts, frozenset(int(i) for i in np.flatnonzero(present))


def _spurious_rates(graph: SceneGraph, at_home: bool | None) -> tuple[float, float]:
    """P(cause), P(effect) at home, away, or (None) where the context was set from outside."""
    if at_home is None:
        return _CAUSE_DONE, _EFFECT_DONE
    parts = graph.contexts_per_scene
    # Probability that at least one part of a scene is a home.
    away = np.prod([(len(CONTEXTS) - _HOMES - i) / (len(CONTEXTS) - i) for i in range(parts)])
    rates = []
    for home_rate, away_rate in ((_CAUSE_AT_HOME, _CAUSE_AWAY), (_EFFECT_AT_HOME, _EFFECT_AWAY)):
        mean = (1 - away) * home_rate + away * away_rate
        rate = home_rate if at_home else away_rate
        rates.append(float(mean + graph.bias_strength * (rate - mean)))
    return rates[0], rates[1]
