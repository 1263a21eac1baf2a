"""The page about a model, from what its spec says: for the hub, and beside an export."""

from __future__ import annotations

from pathlib import Path

from cmlr_edge.errors import SpecError
from cmlr_edge.model.files import read_file
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.wording import counted

CARD = "MODEL_CARD.md"
_HEADER = (
    "---",
    "library_name: cmlr_edge",
    "pipeline_tag: image-classification",
    "tags: [multi-label, onnx, edge]",
    "---",
)
_FILES = (
    "- **Files**: `model.onnx` is the network, `model.json` its labels, thresholds and input, and both go to the "
    "device. `fusion.json` tells what the export computed beforehand: of each part of the network the operations, "
    "multiply-adds and bytes before and after. No program reads it."
)


def card_beside(spec_file: Path, spec: ModelSpec) -> dict[Path, bytes]:
    """The card to write beside a spec; none where somebody wrote words of their own into the one there.

    Args:
        spec_file: As it is before `spec` takes its place.
        spec: To be written.
    """
    path = spec_file.with_name(CARD)
    if path.exists() and not (spec_file.exists() and _is_ours(path, spec_file)):
        return {}
    return {path: card_of(spec).encode()}


def _is_ours(card: Path, spec_file: Path) -> bool:
    try:
        return read_file(card) == card_of(ModelSpec.load(spec_file)).encode()
    except SpecError:  # of another version: nobody knows
        return False


def card_of(spec: ModelSpec, repository: str | None = None) -> str:
    """Markdown: what the model is, how to run it, how good it was.

    Args:
        spec: Of the model.
        repository: "owner/name", for the command that fetches it, and with the hub's header; None: for who
            has the files.
    """
    name = "THIS_FOLDER" if repository is None else repository.rpartition("/")[2]
    pull = [] if repository is None else [f"    cmlr-edge hub pull {repository} --out {name}"]
    made = spec.provenance
    height, width = spec.preprocess.size_hw
    metrics = [f"| {name} | {value:.3f} |" for name, value in made.metrics.items()]
    table = (
        ["| metric | value |", "|---|---|", *metrics]
        if metrics
        else ["None is stored in the spec."]
    )
    labels = ", ".join(spec.labels[:100]) + (", ..." if len(spec.labels) > 100 else "")
    return "\n".join(
        [
            *(() if repository is None else _HEADER),
            f"# {spec.name}",
            "",
            f"Which of {counted(len(spec.labels), 'label')} are in a picture. Run it with cmlr_edge:",
            "",
            *pull,
            f"    cmlr-edge label street.mp4 --engine {name}",
            "",
            f"- **Labels**: {labels}",
            f"- **Input**: {width} x {height}, by {spec.preprocess.resize}; the spec has mean and deviation.",
            *_origin(spec),
            _thresholds(spec),
            *((_FILES,) if repository is None else ()),
            "",
            "## Measured on validation pictures",
            "",
            *table,
            "",
            *_judged_twice(spec),
            "Add what it is good for, what it confuses, and the licence of data and weights.",
            "",
        ]
    )


def _thresholds(spec: ModelSpec) -> str:
    """What they were fitted to, which says how many pictures that were; or that they were to nothing."""
    fit = spec.threshold_fit
    if not fit.num_images:
        return "- **Thresholds**: as given, fitted to no pictures."
    return f"- **Thresholds**: by {fit.rule} on {fit.data}."


def _judged_twice(spec: ModelSpec) -> list[str]:
    """A warning where the pictures that measured a trained model chose something of it before."""
    if spec.adopted is not None or not spec.provenance.metrics:
        return []
    text = (
        "These pictures also chose the epoch and the read-out, and the thresholds where the line above names "
        "them. So new pictures will show less: measure it on some that chose nothing, a split `test`."
    )
    return [text, ""]


def _origin(spec: ModelSpec) -> list[str]:
    """Lines on how the model was trained, or where it came from."""
    made, method, about = spec.provenance, spec.method, spec.adopted
    if about is not None:
        kind = "shares of one whole" if about.exclusive else "of each label by itself"
        return [
            f"- **Origin**: trained elsewhere and adopted, from {about.source}, {about.input}.",
            f"- **Scores**: {kind}.",
        ]
    return [
        f"- **Network**: {method.backbone}; {counted(method.decoder_layers, 'decoder layer')}, {method.embed_dim} wide.",
        f"- **Intervention**: {method.intervention}, read-out {method.read_out}.",
        f"- **Data**: {made.data}, {counted(made.num_train_images, 'picture')}, {counted(made.epochs, 'epoch')}, seed {made.seed}.",
    ]
