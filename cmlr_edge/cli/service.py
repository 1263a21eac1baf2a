"""`cmlr-edge service ...`: set a service up under systemd, and replace its engine."""

from __future__ import annotations

import json
import logging
import os
import re
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from cmlr_edge.cli.usage import Commands
from cmlr_edge.errors import CmlrError, EngineError, OutputError, SpecError
from cmlr_edge.model.agreement import threshold_objections
from cmlr_edge.model.files import write_atomically
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.strict_json import read_bounded
from cmlr_edge.service.store import EngineStore, InServiceError, StoredEngine
from cmlr_edge.service.unit import objections_of, unit_text
from cmlr_edge.service.update import reason_of, start_check
from cmlr_edge.session.config import load_config, naming_line
from cmlr_edge.session.engines import check_files, check_fits, serving_pair, store_of
from cmlr_edge.session.places import check_sources, named_files, require_given
from cmlr_edge.session.run_outputs import RunOutputs
from cmlr_edge.wording import counted

service = typer.Typer(
    cls=Commands, no_args_is_help=True, help="Set up a service, and replace its engine."
)
_log = logging.getLogger(__name__)
_LOOK_S = 0.2  # for a report
Config = Annotated[Path, typer.Argument(help="The TOML file that `cmlr-edge run` takes.")]
User = Annotated[str, typer.Option(help="Who it runs as; in the group video.")]
MemoryMax = Annotated[str, typer.Option(help="Bound for systemd, such as 3G.")]


@service.command("print")
def print_unit(config: Config, user: User = "cmlr", memory_max: MemoryMax = "3G") -> None:
    """Print the systemd unit of CONFIG."""
    print(_unit(config, user, memory_max), end="")  # noqa: T201


@service.command("install")
def install_unit(
    config: Config,
    user: User = "cmlr",
    memory_max: MemoryMax = "3G",
    units: Annotated[Path, typer.Option(help="Where units lie.")] = Path("/etc/systemd/system"),
) -> None:
    """Write the systemd unit of CONFIG, called cmlr-edge-NAME after the file, and say how to start it."""
    text = _unit(config, user, memory_max)
    for objection in objections_of(user, _readable(config), _writable(config)):
        _log.warning("the service will not start: %s", objection)
    if not re.fullmatch(r"[\w.:-]{1,200}", config.stem, re.ASCII):
        raise SpecError(
            f"a unit cannot be called cmlr-edge-{config.stem[:200]}: name the file by letters, digits, "
            "- _ . and : alone"
        )
    path = units / f"cmlr-edge-{config.stem}.service"
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise OutputError(f"cannot write {path}: {error.strerror}; use sudo, or --units") from error
    print(  # noqa: T201
        f"wrote {path}; now: systemctl daemon-reload && systemctl enable --now {path.stem}"
    )


@service.command("check")
def check_config(config: Config) -> None:
    """Read CONFIG with its model's labels, files and secrets, as a start would; ask no camera and run nothing.

    Secrets of the environment may also stand in the .env file beside CONFIG, as for the service.
    """
    settings, folder = load_config(config), config.absolute().parent
    known = {**_environment_of(config), **os.environ}
    with naming_line(config):
        require_given(settings, folder, known)
        pair = serving_pair(settings, folder)
        check_files(pair, settings, folder)
        check_fits(pair.spec, settings)
        inputs = check_sources(settings, folder, known)
    outputs = RunOutputs(folder, config)
    outputs.check_files(settings, outputs.files(settings), inputs)
    sources, sinks = (
        counted(len(settings.sources), "source"),
        counted(len(settings.sinks), "output"),
    )
    print(f"{config} fits {pair.path}: {sources}, {sinks}; no camera was asked")  # noqa: T201


def _environment_of(config: Path) -> dict[str, str]:
    """What the unit reads beside the configuration."""
    file, known = config.with_suffix(".env"), dict[str, str]()
    try:
        lines = read_bounded(file).decode().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        is_text = not isinstance(error, UnicodeDecodeError)
        reason = (getattr(error, "strerror", None) or error) if is_text else "it is no text"
        raise SpecError(f"cannot read {file}: {reason}") from error
    for number, line in enumerate(lines, start=1):
        name, is_pair, value = (part.strip() for part in line.partition("="))
        if not is_pair or name[:1] in {"#", ";"}:
            continue
        known[name] = value.strip("\"'")
        if not re.fullmatch(r"[A-Za-z_]\w*", name, re.ASCII):
            _log.warning(
                "%s, line %d: systemd passes over it, for %r is no name: write NAME=value, without export",
                *(file, number, name),
            )
    return known


@service.command("update")
def update_engine(
    config: Config,
    model: Annotated[Path, typer.Argument(help="Engine or its folder, with the spec beside it.")],
    wait_s: Annotated[float, typer.Option(help="For the service's verdict.")] = 900.0,
) -> None:
    """Offer MODEL to the running service, which tries it on live frames before it replaces the old one.

    Where no service runs, hash, golden sample and thresholds are checked, and MODEL serves from the
    next start on.
    """
    store = _store(config)
    engine = store.add(model)
    try:
        with store.served():
            _accept_unserved(config, store, engine)
            return
    except InServiceError:
        pass
    store.offer(engine)
    text = _verdict(store, engine, wait_s)
    print(text, end="")  # noqa: T201
    if not json.loads(text)["accepted"]:
        raise typer.Exit(1)


@service.command("roll-back")
def roll_back(config: Config) -> None:
    """Let the engine before the present one serve again; a running service takes it at a reload."""
    store = _store(config)
    if (former := store.state.fallback) is not None:
        _require_fit(config, store.checked(former))
    store.roll_back()
    status(config)


@service.command()
def status(config: Config) -> None:
    """Print which engine serves, and which would take its place."""
    print(json.dumps(asdict(_store(config).state), indent=2))  # noqa: T201


def _verdict(store: EngineStore, engine: StoredEngine, wait_s: float) -> str:
    """The service's report, as soon as it is there."""
    report = store.report_path(engine)
    deadline_s = time.monotonic() + wait_s
    while True:
        is_served = store.is_served  # asked first: a service may end right after its report
        with suppress(FileNotFoundError):
            return report.read_text()
        if not is_served:
            raise EngineError(
                f"no service is there any more, and it left no verdict on {engine.id}: its log may "
                "say why; run this again"
            )
        if time.monotonic() > deadline_s:
            raise EngineError(f"no verdict on {engine.id} in {wait_s:g} s; it is still to come")
        time.sleep(_LOOK_S)


def _accept_unserved(config: Path, store: EngineStore, engine: StoredEngine) -> None:
    settings = load_config(config).engine
    limit_s = settings.update.check_timeout_s
    pair = store.checked(engine)
    _require_fit(config, pair)
    check = start_check(
        pair.path,
        settings.provider,
        timeout_s=limit_s,
        identity=pair.identity,
        public_key=settings.public_key(config.absolute().parent),
    )
    serving, reason = store.state.serving, reason_of(check)
    if not reason and serving is not None:
        with suppress(EngineError):  # one that is damaged has nothing to compare with
            former, now = store.checked(serving).spec, pair.spec
            objections = threshold_objections(former.thresholds_by_label, now.thresholds_by_label)
            reason = "; ".join(objections)
    if reason:
        raise EngineError(f"engine {engine.id} is refused: {reason}")
    with suppress(EngineError):  # one that nobody can take
        store.take_offer()  # an older one, which would take this engine's place at the start
    store.accept(engine)
    print(f"engine {engine.id} serves from the next start on")  # noqa: T201
    if (before := store.state.fallback) is not None:
        with suppress(EngineError):  # one that is damaged is no way back either
            if misfit := _misfit(config, store.checked(before)):
                print(f"if it fails, {before.id} serves without that of which {misfit}")  # noqa: T201


def _misfit(config: Path, pair: ModelPair) -> str:
    """What the next start would say of an engine; empty if it would start."""
    try:
        with naming_line(config):
            check_fits(pair.spec, load_config(config))
    except CmlrError as error:
        return f"{config} would not start with it: {error}"
    return ""


def _require_fit(config: Path, pair: ModelPair) -> None:
    """Refuse an engine with which the service would not start.

    Raises:
        EngineError: It says what in the configuration the engine does not know.
    """
    if misfit := _misfit(config, pair):
        raise EngineError(f"engine {pair.identity} is refused, for {misfit}; change that first")


def _store(config: Path) -> EngineStore:
    store = store_of(load_config(config), config.absolute().parent)
    if store is None:
        raise SpecError(
            f"{config} names no store, so its engine cannot be replaced: write [engine] and store = "
            '"engines", a folder, into it'
        )
    return store


def _unit(config: Path, user: str, memory_max: str) -> str:
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?[KMGT%]?|infinity", memory_max) is None:
        raise SpecError(f"--memory-max is {memory_max}: expected such as 3G, 800M, 50% or infinity")
    return unit_text(config, user=user, writable=_writable(config), memory_max=memory_max)


def _readable(config: Path) -> list[Path]:
    """The configuration, and files that it names: secrets, certificates, keys and the model."""
    settings, folder = load_config(config), config.absolute().parent
    files = named_files(settings, folder)
    return [config.absolute(), *dict.fromkeys(files)]


def _writable(config: Path) -> list[Path]:
    """Folders that the service writes into."""
    settings, folder = load_config(config), config.absolute().parent
    writable = {(folder / sink.path).parent for sink in settings.outputs if sink.path}
    writable |= {folder / settings.engine.store} if settings.engine.store else set()
    return sorted(writable)
