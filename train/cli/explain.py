"""`python -m train explain`: what a model takes for a cause."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cmlr_edge.cli.tables import stdout, table
from train.cli.options import CheckpointOption, DataOption, SkipDamagedOption
from train.reporting import say

_LEAST_TOLD = 0.0005  # less is 0.000
_log = logging.getLogger(__name__)


def explain(
    checkpoint: CheckpointOption,
    data: DataOption,
    cause: Annotated[str, typer.Option(help="Label whose influence is drawn as bars.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures and explanation.json.")],
    split: Annotated[str, typer.Option(help="Split to look at.")] = "val",
    beside: Annotated[
        Path | None, typer.Option(help="Another run to compare with, as one without intervention.")
    ] = None,
    absent: Annotated[
        str | None,
        typer.Option(help="Label to look for where it is not; each picture's surest without it."),
    ] = None,
    skip_damaged: SkipDamagedOption = False,
) -> None:
    """Show what a model takes for a cause: do-swaps, the map of links, heat maps, label features.

    Example: python -m train explain --checkpoint runs/first --data photos --cause person --out why
    """
    from train.data import read_dataset
    from train.data.damaged import whole_pictures
    from train.explaining.explain import explain as run_explain
    from train.explaining.explain import write_explanation
    from train.network.checkpoint import held_out_by, load_model

    model, spec = load_model(checkpoint)
    part = held_out_by(checkpoint, read_dataset(data)).split(split)
    record = run_explain(
        model,
        spec,
        whole_pictures(part, skip_damaged=skip_damaged),
        cause,
        out,
        beside=None if beside is None else load_model(beside),
        absent=absent,
        names=_names(checkpoint, beside),
        report=_log.info,
    )
    write_explanation(record, out)
    _print_record(record)
    say(f"wrote the figures and explanation.json into {out}")


def _names(checkpoint: Path, beside: Path | None) -> tuple[str, str]:
    """What both runs are called: their folders, with those above where these are alike."""
    if beside is None or checkpoint.name != beside.name:
        return checkpoint.name, "" if beside is None else beside.name
    return str(checkpoint), str(beside)


def _print_record(record: dict[str, Any]) -> None:
    """Links where they say something, scores of absent labels, and which figures there are not."""
    if record["readable"]:
        _print_links(record)
    else:
        say(
            f"the links are too weak to read: setting a label moves no probability by more than "
            f"{record['strongest_effect']:.0e}; do.png and links.png show nothing"
        )
    _print_absent(record["absent"])
    for name, why in record["not_written"].items():
        say(f"{name} is not written: {why}")


def _print_links(record: dict[str, Any]) -> None:
    titles = {
        "strongest": ("strongest links", "causal"),
        "most_suppressed": ("together or apart in the data, not linked", "cooccurrence"),
    }
    for key, (title, told) in titles.items():
        links = table("cause", "effect", right=("causal", "co-occurrence"), title=title)
        for link in record[key]:
            if abs(link[told]) < _LEAST_TOLD:
                continue
            numbers = (f"{link[name]:+.3f}" for name in ("causal", "cooccurrence"))
            links.add_row(escape(link["cause"]), escape(link["effect"]), *numbers)
        if links.row_count:
            stdout().print(links)


def _print_absent(absent: dict[str, list[dict[str, Any]]]) -> None:
    """Mean scores of labels that are not there, with their company and without."""
    for name, found in absent.items():
        numbers = ("score with it", "without it", "pictures with / without")
        scored = table("label that is not there", "company", right=numbers, title=escape(name))
        for item in found:
            scores = (f"{item[key]:.3f}" for key in ("with_company", "without_company"))
            pictures = " / ".join(map(str, item["pictures"]))
            scored.add_row(escape(item["label"]), escape(item["company"]), *scores, pictures)
        if found:
            stdout().print(scored)
