"""The page about a model that the hub shows, from what its spec says."""

from __future__ import annotations

from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.wording import counted


def card_of(spec: ModelSpec, repository: str) -> str:
    """Markdown with the hub's header: what the model is, how to run it, how good it was.

    Args:
        spec: Of the model.
        repository: "owner/name", for the command that fetches it.
    """
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
            "---",
            "library_name: cmlr_edge",
            "pipeline_tag: image-classification",
            "tags: [multi-label, onnx, edge]",
            "---",
            f"# {spec.name}",
            "",
            f"Which of {counted(len(spec.labels), 'label')} are in a picture. Run it with cmlr_edge:",
            "",
            f"    cmlr-edge hub pull {repository} --out {repository.rpartition('/')[2]}",
            f"    cmlr-edge label street.mp4 --engine {repository.rpartition('/')[2]}",
            "",
            f"- **Labels**: {labels}",
            f"- **Input**: {width} x {height}, by {spec.preprocess.resize}; the spec has mean and deviation.",
            *_origin(spec),
            _thresholds(spec),
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
