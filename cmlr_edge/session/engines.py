"""Which engine a configuration means, and loading it."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import NamedTuple

from cmlr_edge.backends.base import no_explanation
from cmlr_edge.engines.opening import Opening
from cmlr_edge.engines.signature import refuse_signed_rebuild
from cmlr_edge.errors import EngineError
from cmlr_edge.model.files import model_path
from cmlr_edge.model.label_names import merged_thresholds, require_known
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.model.stability import StabilityRules, stability_from_thresholds
from cmlr_edge.place.asking import no_place, trained_surroundings
from cmlr_edge.recognizer import Recognizer
from cmlr_edge.service.store import EngineStore, StoreState
from cmlr_edge.session.config import SessionConfig
from cmlr_edge.session.reach import within_reach

_log = logging.getLogger(__name__)


def store_of(config: SessionConfig, folder: Path) -> EngineStore | None:
    """Return the store that the configuration names, if it does; relative to `folder`."""
    return EngineStore(folder / config.engine.store) if config.engine.store else None


def load(path: Path | ModelPair, config: SessionConfig, folder: Path) -> Recognizer:
    """Load an engine with provider, thresholds and public key of the configuration in `folder`.

    Raises:
        CmlrError: It cannot be loaded, or cannot say why where that is wanted.
    """
    thresholds = config.thresholds or config.threshold
    engine = config.engine
    key = engine.public_key(folder)
    if isinstance(path, ModelPair):
        recognizer = Recognizer.from_pair(
            path, provider=engine.provider, thresholds=thresholds, require_signature=key
        )
    else:
        recognizer = Recognizer.from_engine(
            path,
            provider=engine.provider,
            thresholds=thresholds,
            rebuild=engine.rebuild,
            require_signature=key,
        )
    try:
        check_able(recognizer, config)
    except BaseException:
        recognizer.close()
        raise
    return recognizer


def check_able(recognizer: Recognizer, config: SessionConfig) -> None:
    """Refuse an engine that cannot tell what a configuration asks of it.

    Raises:
        EngineError: It says nothing of why, or of surroundings.
    """
    if config.explanation is not None and not recognizer.explains:
        raise no_explanation(recognizer.spec.name)
    if config.place and not (recognizer.explains and trained_surroundings(recognizer.spec)):
        raise no_place(recognizer.spec)


def check_fits(spec: ModelSpec, config: SessionConfig) -> None:
    """Refuse an engine that the next start by a configuration would refuse; nothing is loaded.

    Raises:
        CmlrError: It lacks a label that is named there, or cannot tell what is asked for.
    """
    if config.explanation is not None and spec.explanation is None:
        raise no_explanation(spec.name)
    if config.place and trained_surroundings(spec) is None:
        raise no_place(spec)
    require_known(config.collect.without, spec.labels, "collect.without names")
    override = config.thresholds or config.threshold
    merged = merged_thresholds(spec.thresholds_by_label, override).tolist()
    thresholds = dict(zip(spec.labels, merged, strict=True))
    for source in config.sources:
        require_known(source.labels, spec.labels, "labels name")
        require_known(source.thresholds, spec.labels, "thresholds name")
        rules = [spec.stability, config.stability, source.stability or StabilityRules()]
        stability_from_thresholds(thresholds | source.thresholds, *rules)


def check_files(pair: ModelPair, config: SessionConfig, folder: Path) -> None:
    """Refuse files of an engine that the next start would refuse: signature, hash, machine; nothing is loaded.

    Raises:
        CmlrError: The first check that failed.
    """
    engine, opening = config.engine, Opening.of_pair(pair, config.engine.provider)
    opening.public_key = engine.public_key(folder)
    if engine.rebuild:
        refuse_signed_rebuild(opening.public_key)
        if not engine.store and pair.path.suffix == ".engine":
            return  # the start builds it again, if it does not fit
    for check in opening.file_checks():
        check.require()


def serving_pair(config: SessionConfig, folder: Path) -> ModelPair:
    """Read the engine that the next start would load; nothing is loaded.

    Raises:
        CmlrError: There is none, or it was changed.
    """
    store = store_of(config, folder)
    if store is None:
        return ModelPair.read(model_path(folder / config.engine.path))
    if store.state.serving is None:
        raise _none_in_service(folder / config.engine.store)
    return store.checked(store.state.serving)


def _none_in_service(store: Path) -> EngineError:
    return EngineError(
        f"{store} holds no engine in service: put one there with cmlr-edge service update CONFIG MODEL"
    )


def start_of(store: EngineStore) -> StoreState:
    """Note a start of the service; what is to serve.

    Where it cannot be noted, an engine on trial might end every start: the one before serves, this time.
    """
    before = store.state
    if before.serving is None or not before.on_trial:
        return before
    try:
        now, why = store.note_start(), "was started too often without passing its trial"
    except OSError as error:
        now = before.rolled_back()
        why = f"is on trial, and its start cannot be counted: {error}"
    if before.serving != now.serving:
        _tell(before.serving.id, why, now)
    return now


def roll_back(engine_id: str, why: str, store: EngineStore) -> None:
    """Let the engine before this one serve, unless it does already, and say so."""
    now = store.state
    if now.serving is not None and now.serving.id == engine_id:
        try:
            now = store.roll_back()
        except OSError as error:  # the next start finds out by itself
            now, why = now.rolled_back(), f"{why}, and that cannot be kept: {error}"
    _tell(engine_id, why, now)


def _tell(engine_id: str, why: str, state: StoreState) -> None:
    """Say what became of an engine, and which one serves now."""
    serving = state.serving
    now = "no engine is left to serve" if serving is None else f"engine {serving.id} serves again"
    _log.error("engine %s %s; %s", engine_id, why, now)


class Serving(NamedTuple):
    """What serves, and by what."""

    recognizer: Recognizer
    engine_id: str  # in the store; "" without one
    config: SessionConfig  # less than what was wanted, after a roll-back to an engine that can less


def load_serving(config: SessionConfig, folder: Path, state: StoreState | None = None) -> Serving:
    """Load what is to serve, or the engine before it if that one is damaged.

    Args:
        config: Names the store, or the engine.
        folder: What its paths start from.
        state: What is to serve; None for what the store says.

    Raises:
        EngineError: No engine can be loaded.
        SpecError: Thresholds of the configuration do not fit the model.
    """
    store = store_of(config, folder)
    if store is None:
        return Serving(load(folder / config.engine.path, config, folder), "", config)
    state = state or store.state
    if state.serving is None:
        raise _none_in_service(folder / config.engine.store)
    try:
        pair = store.checked(state.serving)
        if state.refused:
            config = within_reach(config, pair)
        return Serving(load(pair, config, folder), state.serving.id, config)
    except EngineError as error:
        if state.fallback is None:
            raise
        pair = store.checked(state.fallback)
        config = within_reach(config, pair)
        recognizer = load(pair, config, folder)
        roll_back(state.serving.id, f"cannot be used: {error}", store)
        return Serving(recognizer, state.fallback.id, config)
