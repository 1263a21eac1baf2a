"""`python -m train`: fit a model, evaluate it, plot its log, find what it leans on."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cmlr_edge.errors import DataError
from cmlr_edge.strict_json import from_json
from train.config import TrainConfig
from train.reporting import exit_on_error

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from train.biased_pairs import BiasedPair

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Train a multi-label recognizer by causal intervention, evaluate it, look at its log.",
)
DataOption = Annotated[
    Path,
    typer.Option(
        "--data",
        help="Data folder: labels.json, labels.csv, COCO or another layout of docs/datasets.md.",
    ),
]


@app.command()
def fit(
    data: DataOption,
    out: Annotated[Path, typer.Option(help="Run folder to write.")],
    backbone: Annotated[str, typer.Option(help="Any timm model.")] = "tf_efficientnet_lite0",
    image_size: Annotated[int, typer.Option(help="Side of the square input, in pixels.")] = 320,
    epochs: Annotated[int, typer.Option(help="Passes over the training pictures.")] = 20,
    batch_size: Annotated[int, typer.Option(help="Pictures per step.")] = 32,
    lr: Annotated[float, typer.Option(help="Highest learning rate of the head.")] = 1e-3,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="Any other setting of train/config.py, for example model.embed_dim=512."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Continue a run that was stopped.")] = False,
) -> None:
    """Train a model and write a run folder: weights, spec, configuration and log.

    Example: python -m train fit --data photos --epochs 20 --out runs/first
    """
    from train.datasets import read_dataset
    from train.loop import fit as run_fit
    from train.metrics import MIN_POSITIVES

    given = {
        "model.backbone": backbone,
        "model.image_size": image_size,
        "epochs": epochs,
        "batch_size": batch_size,
        "lr": lr,
        "seed": seed,
    }
    config = build_config(given, settings or [])
    try:
        spec = run_fit(read_dataset(data), out, config, resume=resume)
    except KeyboardInterrupt:
        Console(stderr=True).print(
            f"whole epochs are kept in {out}: go on with the same command and --resume"
        )
        raise
    val_map = spec.provenance.metrics.get("val_map")
    measured = (
        f"not measurable, no label has {MIN_POSITIVES} positives"
        if val_map is None
        else f"{val_map:.3f} over labels with at least {MIN_POSITIVES} positives"
    )
    Console(stderr=True).print(
        f"wrote {out}: validation mAP {measured}. "
        f"Next: python export/build_engine.py --checkpoint {out} --out DIR"
    )


@app.command()
def evaluate(
    checkpoint: Annotated[Path, typer.Option(help="Run folder that `fit` wrote.")],
    data: DataOption,
    split: Annotated[str, typer.Option(help="Split to score.")] = "val",
    min_positives: Annotated[
        int, typer.Option(min=1, help="Labels with fewer positives are left out of the averages.")
    ] = 3,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all numbers, per-label AP too.")
    ] = None,
) -> None:
    """Score a run: mAP, CF1 and OF1 of every read-out, and per-label AP.

    Example: python -m train evaluate --checkpoint runs/first --data photos --json first.json
    """
    from cmlr_edge.strict_json import write_atomically
    from train.datasets import read_dataset
    from train.evaluate import evaluate_run

    report = evaluate_run(checkpoint, read_dataset(data), split, min_positives=min_positives)
    if json_file is not None:
        text = json.dumps(report, indent=2, allow_nan=False) + "\n"
        write_atomically(json_file, text.encode())
    Console().print(_read_out_table(report))


def _read_out_table(report: dict[str, Any]) -> Table:
    """One row per read-out; Exclusive and Co-occur where the data names biased pairs."""
    read_outs = report["read_outs"]
    first = next(iter(read_outs.values()))
    table = Table(
        "read-out",
        title=f"{report['num_images']} images of {report['split']}",
        caption=f"mAP, CF1, OF1 over the {first['num_labels_scored']} of {len(first['ap'])} labels "
        f"with at least {report['min_positives']} positives",
    )
    biased = "context_bias" in first
    for heading in ("mAP", "CF1", "OF1", *(("exclusive", "co-occur") if biased else ())):
        table.add_column(heading, justify="right")
    for name, metrics in read_outs.items():
        cells = [f"{metrics[key]:.3f}" for key in ("mean_ap", "cf1", "of1")]
        if biased:
            found = (metrics["context_bias"][key]["value"] for key in ("exclusive", "co_occur"))
            cells += ["-" if value is None else f"{value:.3f}" for value in found]
        table.add_row(name, *cells)
    return table


@app.command()
def plot(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("log.png"),
) -> None:
    """Draw the loss and the validation mAP of a run over its epochs.

    Example: python -m train plot runs/first --out first.png
    """
    from train.plot import plot_log

    plot_log(run, out)


@app.command()
def explain(
    checkpoint: Annotated[Path, typer.Option(help="Run folder that `fit` wrote.")],
    data: DataOption,
    cause: Annotated[str, typer.Option(help="Label whose influence is drawn as bars.")],
    out: Annotated[Path, typer.Option(help="Folder for the figures and explanation.json.")],
    split: Annotated[str, typer.Option(help="Split to look at.")] = "val",
) -> None:
    """Show what a model takes for a cause: do-swaps, the map of links, heat maps, label features.

    Example: python -m train explain --checkpoint runs/first --data photos --cause person --out why
    """
    from train.checkpoint import load_model
    from train.datasets import read_dataset
    from train.explain import explain as run_explain
    from train.explain import write_explanation

    model, spec = load_model(checkpoint)
    with Console(stderr=True).status("loading") as status:
        record = run_explain(
            model, spec, read_dataset(data).split(split), cause, out, report=status.update
        )
    write_explanation(record, out)
    for title, key in (("strongest links", "strongest"), ("suppressed", "most_suppressed")):
        table = Table("cause", "effect", title=title)
        table.add_column("causal", justify="right")
        table.add_column("co-occurrence", justify="right")
        for link in record[key]:
            numbers = (f"{link[name]:+.3f}" for name in ("causal", "cooccurrence"))
            table.add_row(escape(link["cause"]), escape(link["effect"]), *numbers)
        Console().print(table)
    Console(stderr=True).print(f"wrote the figures and explanation.json into {out}")


@app.command("refit-thresholds")
def refit(
    data: DataOption,
    engine: Annotated[Path, typer.Option(help="Exported model, or the folder it is in.")],
    split: Annotated[str, typer.Option(help="Split to fit on.")] = "val",
    rule: Annotated[
        str,
        typer.Option(
            help="f1; precision=P: most recall with that precision; cost=C: a missed label costs "
            "C times a wrong one."
        ),
    ] = "f1",
    shrinkage: Annotated[
        float, typer.Option(min=0, help="Pull of the common threshold on rare labels, positives.")
    ] = 5.0,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write what to expect of every label.")
    ] = None,
) -> None:
    """Fit an exported engine's thresholds again, on labelled pictures of your own.

    Example: python -m train refit-thresholds --engine models/first --data photos --rule precision=0.9
    """
    from rich.progress import Progress

    from cmlr_edge.strict_json import write_atomically
    from train.datasets import read_dataset
    from train.refit import refit_thresholds
    from train.thresholds import ThresholdRule

    part = read_dataset(data).split(split)
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("scoring", total=len(part.images))
        expected = refit_thresholds(
            engine,
            part,
            ThresholdRule.parse(rule),
            shrinkage=shrinkage,
            report=lambda done: progress.advance(task, done),
        )
    if json_file is not None:
        record = {name: dataclasses.asdict(item) for name, item in expected.items()}
        write_atomically(json_file, (json.dumps(record, indent=2, allow_nan=False) + "\n").encode())
    table = Table("label", title=f"thresholds for {rule} on {len(part.images)} pictures")
    for heading in ("threshold", "precision", "recall", "positives"):
        table.add_column(heading, justify="right")
    for name, item in expected.items():
        shares = ["-" if v is None else f"{v:.2f}" for v in (item.precision, item.recall)]
        table.add_row(escape(name), f"{item.threshold:.3f}", *shares, str(item.positives))
    Console().print(table)


@app.command("biased-pairs")
def biased_pairs(
    data: DataOption,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Run folder that scores the pictures.")
    ] = None,
    scores: Annotated[
        Path | None, typer.Option(help="CSV file,<label>,... of scores from elsewhere.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Split to search; without a val split, the part held out of train.")
    ] = "val",
    min_share: Annotated[
        float,
        typer.Option(min=0, max=1, help="A context is on at least this share of its pictures."),
    ] = 0.2,
    min_images: Annotated[
        int, typer.Option(min=1, help="Least pictures with both labels, and with one alone.")
    ] = 1,
    count: Annotated[int, typer.Option(min=1, help="Pairs to list.")] = 20,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the pairs.")] = None,
) -> None:
    """Find labels that a model recognises by their company: b scores low where c is missing.

    Example: python -m train biased-pairs --data photos --checkpoint runs/first --json pairs.json
    """
    from cmlr_edge.strict_json import write_atomically
    from train.biased_pairs import find_biased_pairs, score_part

    part, values = score_part(data, split, run=checkpoint, table=scores)
    pairs = find_biased_pairs(
        values,
        part.targets(),
        part.classes,
        min_share=min_share,
        min_images=min_images,
        count=count,
    )
    if json_file is not None:
        record = {"data": part.name, "split": split, "num_images": len(part.images)}
        report = {**record, "pairs": [dataclasses.asdict(pair) for pair in pairs]}
        write_atomically(json_file, (json.dumps(report, indent=2, allow_nan=False) + "\n").encode())
    Console().print(_pairs_table(pairs, f"{len(part.images)} images of {split}"))


def _pairs_table(pairs: tuple[BiasedPair, ...], title: str) -> Table:
    table = Table("label", "context", title=title, caption="score: mean over its pictures")
    for heading in ("bias", "score with", "score without", "pictures with", "without"):
        table.add_column(heading, justify="right")
    for pair in pairs:
        table.add_row(
            escape(pair.label),
            escape(pair.context),
            f"{pair.bias:.2f}",
            f"{pair.mean_together:.3f}",
            f"{pair.mean_apart:.3f}",
            str(pair.num_together),
            str(pair.num_apart),
        )
    return table


def build_config(given: dict[str, Any], settings: list[str]) -> TrainConfig:
    """Put options and `key=value` settings over the defaults.

    Args:
        given: Dotted key -> value.
        settings: "dotted.key=value" each; the value is read as JSON where it is JSON.

    Raises:
        DataError: A key does not exist or a value has the wrong type.
    """
    record = dataclasses.asdict(TrainConfig())
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise DataError(f"--set {setting!r} should read key=value")
        try:
            given[key] = json.loads(value)
        except ValueError:
            given[key] = value
    for key, value in given.items():
        *parents, leaf = key.split(".")
        place: Any = record
        for parent in parents:
            place = place.get(parent, {})
        if not isinstance(place, dict) or leaf not in place:
            raise DataError(f"there is no setting {key!r}: see train/config.py for all of them")
        place[leaf] = value
    try:
        return from_json(TrainConfig, record)
    except ValueError as error:
        raise DataError(f"settings: {error}") from error


def main() -> None:
    """Run the command line; every deliberate error is one line and exit code 2."""
    with exit_on_error():
        app()


if __name__ == "__main__":
    main()
