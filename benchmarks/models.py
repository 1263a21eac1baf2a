"""`python -m benchmarks.models`: what docs/models.md says of networks and of the bundled model, from stored records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from benchmarks.records import markdown_table, write_json

RESULTS = Path("benchmarks/results")
_ROUTES = {
    "OpenVINO, bfloat16": "ours-openvino-bf16",
    "OpenVINO": "ours-openvino-f32",
    "ONNX Runtime": "ours-ort-f32",
}


def measure_sizes() -> dict[str, Any]:
    """Parameters of each network's backbone, and what timm says of its weights."""
    import timm

    from benchmarks.peers.models import NETWORKS
    from cmlr_edge import demo_engine

    found = {}
    for network in NETWORKS.values():
        backbone = timm.create_model(network.backbone, pretrained=False, num_classes=0)
        weights: Any = timm.get_pretrained_cfg(network.backbone)
        found[network.name] = {
            "backbone": network.backbone,
            "weights": f"{network.backbone}.{weights.tag}",
            "licence": weights.license,
            "parameters": sum(values.numel() for values in backbone.parameters()),
        }
    return {
        "timm": timm.__version__,
        "bundled_bytes": demo_engine().stat().st_size,
        "networks": found,
    }


def networks_table(sizes: dict[str, Any], comparisons: dict[str, Any]) -> str:
    """Markdown: networks with 80 labels, from a camera's frame to labels."""
    head = ["network", "pre-trained weights, licence", "parameters, million", *_ROUTES]
    rows = []
    for name, about in sizes["networks"].items():
        routes = comparisons[f"{name}-80"]["routes"]
        times = [f"{routes[route]['p50']:.1f}" for route in _ROUTES.values()]
        weights = f"`{about['weights']}`, {about['licence']}"
        rows.append((name, weights, f"{about['parameters'] / 1e6:.1f}", *times))
    return markdown_table(head, rows, numbers=range(2, len(head)))


def main() -> None:
    """Write the record, and print the table."""
    sizes = measure_sizes()
    write_json(RESULTS / "models.json", sizes, indent=2)
    comparisons = json.loads((RESULTS / "latency/peers.json").read_text())["comparisons"]
    typer.echo(networks_table(sizes, comparisons))


if __name__ == "__main__":
    main()
