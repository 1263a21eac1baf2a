"""`cmlr-edge inspect ENGINE`: what a model is."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.markup import escape

from cmlr_edge.cli.tables import stdout, table
from cmlr_edge.model.demo import demo_engine
from cmlr_edge.model.files import model_path, sha256_of, spec_path
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.wording import counted

_TOLD_OTHERWISE = {"inference_context"}  # as the read-out
_OF_INTERVENTION = {"num_confounders"}
_SECTIONS = {  # whether it was adopted: what there is to say
    False: ("preprocess", "method", "provenance", "threshold_fit"),
    True: ("adopted", "preprocess", "threshold_fit"),
}


def inspect(
    engine: Annotated[
        Path | None,
        typer.Argument(help="Model file, its folder, or its spec (.json). Default: the bundled."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For programs.")] = False,
) -> None:
    """Show what a model is: labels, thresholds, input format, method, files and their hashes.

    \b
    cmlr-edge inspect model.onnx
    """  # noqa: D301
    path = model_path(engine or demo_engine())
    beside = spec_path(path)
    spec = ModelSpec.load(beside) if beside.exists() else ModelPair.read(path).spec
    files = {
        name: _file_state(path.with_name(name), built.sha256) for name, built in spec.files.items()
    }
    record = _describe(spec, files)
    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False))  # noqa: T201
    else:
        _print_description(record)
    if any(state != "ok" for state in files.values()):
        raise typer.Exit(1)


def _file_state(path: Path, sha256: str) -> str:
    if not path.is_file():
        return "missing"
    return "ok" if sha256_of(path.read_bytes()) == sha256 else "changed"


def _describe(spec: ModelSpec, files: dict[str, str]) -> dict[str, Any]:
    return {
        "name": spec.name,
        "labels": spec.thresholds_by_label,
        "preprocess": vars(spec.preprocess),
        "method": {**vars(spec.method), "read_out": spec.method.read_out},
        "provenance": vars(spec.provenance),
        "threshold_fit": vars(spec.threshold_fit),
        "stability": asdict(spec.stability),
        "taught": spec.taught and asdict(spec.taught),
        "adopted": spec.adopted and vars(spec.adopted),
        "files": {
            name: {
                "state": state,
                "sha256": spec.files[name].sha256,
                "precision": spec.files[name].precision,
                "parity": vars(spec.files[name].parity),
                "engine": spec.files[name].engine and vars(spec.files[name].engine),
            }
            for name, state in files.items()
        },
    }


def _print_description(record: dict[str, Any]) -> None:
    console = stdout()
    console.print(f"[bold]{escape(record['name'])}[/bold]")
    for name, file in record["files"].items():
        color = "green" if file["state"] == "ok" else "red"
        console.print(f"{escape(name)}: [{color}]{file['state']}[/{color}], {file['precision']}")
        console.print(f"  sha256 {file['sha256']}", soft_wrap=True)
        parity = file["parity"]
        console.print(
            f"  against {'the model that came' if record['adopted'] else 'the trained network'} on {counted(parity['num_images'], 'image')}: largest score "
            f"difference {parity['max_score_difference']:.1e}, "
            f"decisions that differ: {parity['decision_flips']}"
        )
        if engine := file["engine"]:
            console.print(
                f"  for {engine['gpu']} ({engine['compute_capability']}), TensorRT "
                f"{engine['tensorrt']}, batches of {engine['batch'][0]} to {engine['batch'][2]}"
            )
    for section in _SECTIONS[record["adopted"] is not None]:
        facts = table("", "", title=section, show_header=False, title_justify="left")
        for key, value in record[section].items():
            without = record["method"]["intervention"] == "none"
            if key in _TOLD_OTHERWISE or (without and key in _OF_INTERVENTION):
                continue
            facts.add_row(key, escape(_text(value)))
        console.print(facts)
    for item in (record["taught"] or {"labels": ()})["labels"]:
        low, high = item["recall_between"]
        console.print(
            f"taught: {escape(item['name'])}, from {counted(item['positives'], 'picture')} with it and "
            f"{item['negatives']} without; finds {low:.0%} to {high:.0%} of it",
            soft_wrap=True,
        )
    labels = table("label", right=("threshold",), title=counted(len(record["labels"]), "label"))
    for name, threshold in record["labels"].items():
        labels.add_row(escape(name), f"{threshold:.3f}")
    console.print(labels)


def _text(value: object) -> str:
    """A value for people: 0.224, where arithmetic left 0.22399999999999998."""
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_text(item)}" for key, item in value.items())
    return f"{value:.6g}" if isinstance(value, float) else str(value)
