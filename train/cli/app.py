"""All commands of `python -m train`."""

from __future__ import annotations

import typer

from train.cli.biased_pairs import biased_pairs
from train.cli.check import check
from train.cli.evaluate import evaluate
from train.cli.explain import explain
from train.cli.fit import fit
from train.cli.plot import plot
from train.cli.refit import refit
from train.cli.search import search

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train a multi-label recognizer by causal intervention, evaluate it, look at its log.",
)
app.command()(fit)
app.command()(check)
app.command()(evaluate)
app.command()(plot)
app.command()(explain)
app.command()(search)
app.command("refit-thresholds")(refit)
app.command("biased-pairs")(biased_pairs)
