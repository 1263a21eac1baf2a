"""From flags to outputs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from cmlr_edge.errors import SpecError
from cmlr_edge.sinks.collect import CollectSettings
from cmlr_edge.sinks.opening import SinkSettings

if TYPE_CHECKING:
    from cmlr_edge.cli.flags import Flags

_FILES = {  # kind by flag
    "out": "jsonl",
    "events": "events",
    "csv": "csv",
    "overlay": "overlay",
    "contact_sheet": "contact_sheet",
    "snapshots": "snapshots",
    "clips": "clips",
}
_KEPT = ("snapshots", "clips")
_TLS = ("ca_file", "cert_file", "key_file")
_SECURE = ("mqtts://", "https://")
_Given: TypeAlias = list[tuple[str, dict[str, Any]]]  # kind, and what is set of it


def sinks_of(flags: Flags, *, append: bool) -> list[SinkSettings]:
    """Read the flags of outputs.

    Args:
        flags: As given.
        append: Whether files of lines are gone on with.

    Raises:
        SpecError: Something of them cannot be meant.
    """
    given: _Given = [
        (kind, {"path": str(path.absolute())})
        for flag, kind in _FILES.items()
        if (path := getattr(flags, flag)) is not None
    ]
    given += [
        (k, {"url": url}) for k in ("mqtt", "webhook") if (url := getattr(flags, k)) is not None
    ]
    given += [_own_kind(text) for text in flags.sink or []]
    _set_kept(flags, given)
    _set_home_assistant(flags, given)
    _set_tls(flags, given)
    return [
        SinkSettings(kind, rotate_mb=flags.rotate_mb, append=append, **place)
        for kind, place in given
    ]


def collect_of(flags: Flags, settings: CollectSettings) -> CollectSettings:
    """What is collected: a file's settings, if there are some, changed by the flags.

    Raises:
        SpecError: There are flags of it, and no folder.
    """
    without = flags.collect_without
    given: dict[str, Any] = {
        "every_s": flags.collect_every,
        "random_share": flags.collect_random,
        "most": flags.collect_most,
        "without": None if without is None else tuple(n.strip() for n in without.split(",")),
    }
    if flags.collect is not None:
        given |= {"folder": str(flags.collect.absolute())}
        given |= {"keep_mb": flags.keep_mb, "keep_days": flags.keep_days}
    changes = {name: value for name, value in given.items() if value is not None}
    if changes and not (settings.folder or flags.collect):
        raise SpecError("--collect-every, -random, -most and -without need --collect FOLDER")
    return replace(settings, **changes)


def _own_kind(text: str) -> tuple[str, dict[str, Any]]:
    kind, found, place = text.partition("=")
    if not found:
        raise SpecError(f"cannot read --sink {text}: expected KIND=PATH or KIND=URL")
    is_file = bool(place) and "://" not in place
    return kind, {"path": str(Path(place).absolute())} if is_file else {"url": place}


def _set_kept(flags: Flags, given: _Given) -> None:
    kept = {"keep_mb": flags.keep_mb, "keep_days": flags.keep_days}
    spans = {
        "before_s": flags.clip_before,
        "after_s": flags.clip_after,
        "longest_s": flags.clip_longest,
    }
    if flags.collect is not None:  # which has them, too
        kept = kept if any(kind in _KEPT for kind, _ in given) else {}
    for names, kinds, said in (
        (kept, _KEPT, "--keep-mb and --keep-days need --snapshots, --clips or --collect"),
        (spans, ("clips",), "--clip-before, --clip-after and --clip-longest need --clips"),
    ):
        known = {name: value for name, value in names.items() if value is not None}
        meant = [where for kind, where in given if kind in kinds]
        if known and not meant:
            raise SpecError(f"{said}: in a file each [[sinks]] has its own")
        for where in meant:
            where.update(known)


def _set_home_assistant(flags: Flags, given: _Given) -> None:
    if not flags.home_assistant:
        return
    if flags.mqtt is None:
        raise SpecError("--home-assistant needs --mqtt: it finds sources at a broker")
    broker = next(where for kind, where in given if kind == "mqtt")
    broker["home_assistant"] = "homeassistant"


def _set_tls(flags: Flags, given: _Given) -> None:
    tls = {name: str(path.absolute()) for name in _TLS if (path := getattr(flags, name))}
    secure = [where for _, where in given if where.get("url", "").startswith(_SECURE)]
    if tls and not secure:
        raise SpecError(f"{', '.join(tls)} given, and no output at mqtts:// or https://")
    for where in secure:
        where.update(tls)
