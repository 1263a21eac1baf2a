"""`cmlr-edge fit-events RECORDINGS`: thresholds and seconds that keep a promise about events."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from cmlr_edge.cli.console import print_error
from cmlr_edge.errors import DataError, TooFewError
from cmlr_edge.events.contract import (
    Contract,
    Wish,
    false_a_day_at_most,
    fit_contract,
    found_at_least,
)
from cmlr_edge.events.contract_plot import plot_contract
from cmlr_edge.events.recordings import Recording, read_recordings
from cmlr_edge.model.files import write_atomically
from cmlr_edge.wording import counted

_LONGEST_NAME = 60  # characters of a label in the name of its plot
_UNPROVEN = 3  # exit code
_PER_DAY = {"hour": 24.0, "day": 1.0, "week": 1 / 7}


def fit_events(
    recordings: Annotated[
        Path, typer.Argument(help="Folder with visits.csv and the tables of scores it names.")
    ],
    at_most: Annotated[str, typer.Option(help="False events of a label, as 1/day or 2/week.")],
    at_least: Annotated[float, typer.Option(help="Share of visits that are found, as 0.9.")],
    label: Annotated[
        list[str] | None, typer.Option(help="These alone; may be given again. Default: all.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="TOML of the labels' stability, for a run's configuration.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Folder for an SVG of each label.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, help="Of the division into chosen on and held out.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Fit thresholds and seconds of events to labelled recordings, and prove what they do.

    \b
    cmlr-edge label door1.mp4 --csv recordings/door1.csv
    cmlr-edge fit-events recordings --at-most 1/day --at-least 0.9 --out events.toml --plot plots

    \b
    Exit codes
    0  every label keeps the promise, on recordings that were held out
    2  an error
    3  some do not, or there are too few recordings to say; what it would take is told
    """  # noqa: D301
    wish = Wish(_rate(at_most), at_least)
    found = read_recordings(recordings)
    if label and (unknown := sorted(set(label) - set(found))):
        raise DataError(f"no visit of {unknown} is marked, but of {sorted(found)}")
    names = label or sorted(found)
    contracts, undivided = _fit_all({name: found[name] for name in names}, wish, seed)
    if plot is not None:
        _plot_all(contracts, wish, plot)
    if out is not None and any(contract.proven for contract in contracts):
        write_atomically(out, to_toml(contracts, wish).encode())
    if as_json:
        records = [_record(contract) for contract in contracts]
        records += [
            {"label": name, "proven": False, "needed": why} for name, why in undivided.items()
        ]
        print(json.dumps(records, indent=2, allow_nan=False))  # noqa: T201
    else:
        for contract in contracts:
            _print(contract)
    for why in undivided.values():
        print_error(why)
    if out is not None and not any(contract.proven for contract in contracts):
        print_error(f"nothing is proven, so {out} is not written")
    if undivided or not all(contract.proven for contract in contracts):
        raise typer.Exit(_UNPROVEN)


def _fit_all(
    found: dict[str, list[Recording]], wish: Wish, seed: int
) -> tuple[list[Contract], dict[str, str]]:
    """Contracts by label, and why there is none where recordings are too few to divide."""
    contracts, undivided = [], dict[str, str]()
    for name, recordings in found.items():
        try:
            contracts.append(fit_contract(name, recordings, wish, seed=seed))
        except TooFewError as error:  # noqa: PERF203
            undivided[name] = str(error)
    return contracts, undivided


def _plot_all(contracts: list[Contract], wish: Wish, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    taken: dict[str, str] = {}
    for contract in contracts:
        name = "".join(c if c.isalnum() else "_" for c in contract.label)[:_LONGEST_NAME]
        while taken.setdefault(name.casefold(), contract.label) != contract.label:
            name += "_"  # of another label, "a b" beside "a_b"
        write_atomically(folder / f"{name}.svg", plot_contract(contract, wish).encode())


def to_toml(contracts: list[Contract], wish: Wish) -> str:
    """Settings of the labels that keep the promise, as a run's configuration takes them."""
    lines = [
        f"# At most {wish.false_a_day:g} false events a day and at least {100 * wish.found:g}% of the visits found,",
        "# each with 97.5 % on recordings that were held out.",
    ]
    for contract in contracts:
        if contract.proven:
            lines += ["", f"[stability.labels.{json.dumps(contract.label, ensure_ascii=False)}]"]
            wanted = ("enter", "leave", "smoothing_s", "min_duration_s", "min_gap_s")
            lines += [f"{name} = {getattr(contract.settings, name)}" for name in wanted]
    return "\n".join(lines) + "\n"


def _rate(text: str) -> float:
    number, slash, unit = text.partition("/")
    try:
        rate = float(number) * _PER_DAY[unit.strip()] if slash else -1.0
    except (ValueError, KeyError):
        rate = -1.0
    if not rate > 0:
        raise DataError(
            f"--at-most is {text!r}: expected a number of events as 1/day, 2/week or 3/hour"
        )
    return rate


def _record(contract: Contract) -> dict[str, Any]:
    proof = contract.proof
    bound = false_a_day_at_most(proof)
    return {
        "label": contract.label,
        "proven": contract.proven,
        "needed": contract.needed,
        "settings": asdict(contract.settings),
        "held_out": {
            "hours": round(proof.hours, 3),
            "visits": proof.visits,
            "found": int(proof.found[0]),
            "found_at_least": round(found_at_least(proof), 4),
            "false_events": int(proof.false_events[0]),
            "false_a_day_at_most": round(bound, 4)
            if math.isfinite(bound)
            else None,  # nothing was seen
            "repeats": int(proof.repeats[0]),
            "run_together": int(proof.merged[0]),
        },
    }


def _print(contract: Contract) -> None:
    console, proof, settings = Console(), contract.proof, contract.settings

    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True, highlight=False)

    say(f"{contract.label}: {'proven' if contract.proven else 'NOT PROVEN'}")
    say(
        f"  enter {settings.enter:g}, leave {settings.leave:g}, smoothing {settings.smoothing_s:g} s, "
        f"at least {settings.min_duration_s:g} s, gap {settings.min_gap_s:g} s"
    )
    say(
        f"  held out, {proof.hours:.1f} hours with {counted(proof.visits, 'visit')}: {int(proof.found[0])} found "
        f"(at least {found_at_least(proof):.0%}), {counted(int(proof.false_events[0]), 'false event')} "
        f"(at most {false_a_day_at_most(proof):.3g} a day), {counted(int(proof.repeats[0]), 'repeat')}, {int(proof.merged[0])} run together"
    )
    if contract.needed:
        say(f"  {contract.needed}")
