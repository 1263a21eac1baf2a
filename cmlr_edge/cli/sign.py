"""`cmlr-edge sign ENGINE`: say who made an engine that lies there already."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmlr_edge.engines.signature import sign_beside
from cmlr_edge.model.files import model_path


def sign(
    engine: Annotated[Path, typer.Argument(help="Model file, or its folder.")],
    key: Annotated[Path, typer.Option(help="PEM of the private key; SECURITY.md.")],
) -> None:
    """Sign an engine with its spec: one that was taught or adopted, or has new thresholds.

    \b
    cmlr-edge sign models/second --key signing.pem
    """  # noqa: D301
    print(f"wrote {sign_beside(model_path(engine), key)}")  # noqa: T201
