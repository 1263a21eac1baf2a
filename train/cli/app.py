"""All commands of `python -m train`."""

from __future__ import annotations

import logging
import sys

import typer

from cmlr_edge.cli.usage import Commands
from train.cli.biased_pairs import biased_pairs
from train.cli.check import check
from train.cli.evaluate import evaluate
from train.cli.explain import explain
from train.cli.fit import fit
from train.cli.plot import plot
from train.cli.refit import refit
from train.cli.search import search
from train.cli.settings import settings

app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train a multi-label recognizer by causal intervention, evaluate it, look at its log.",
)
_WITHOUT_PYTORCH = {"check", "plot", "refit-thresholds", "settings"}
_log = logging.getLogger(__name__)


@app.callback()
def start(context: typer.Context) -> None:
    """Say what is waited for: a busy machine loads PyTorch for a minute."""
    asks = {"--help"} & {*sys.argv[1:]}
    if (
        context.invoked_subcommand not in _WITHOUT_PYTORCH
        and "torch" not in sys.modules
        and not asks
    ):
        _log.info("loading PyTorch")


app.command()(fit)
app.command()(check)
app.command()(evaluate)
app.command()(plot)
app.command()(explain)
app.command()(search)
app.command()(settings)
app.command("refit-thresholds")(refit)
app.command("biased-pairs")(biased_pairs)
