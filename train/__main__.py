"""`python -m train`, alone or several times by `torchrun -m train`."""

from __future__ import annotations

import os

from cmlr_edge.cli.usage import run_app
from train.cli.app import app
from train.reporting import exit_on_error


def main() -> None:
    """Run the command line; every deliberate error is one line and exit code 2."""
    with exit_on_error(process=int(os.environ.get("RANK", "0"))):
        if "WORLD_SIZE" not in os.environ:  # torch takes seconds to import
            run_app(app, "python -m train")
            return
        from train.distributed import join_processes

        with join_processes(os.environ):
            run_app(app, "python -m train")


if __name__ == "__main__":
    main()
