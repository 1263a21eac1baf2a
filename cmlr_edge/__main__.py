"""`python -m cmlr_edge` is `cmlr-edge`."""

from __future__ import annotations

from cmlr_edge.cli import main

if __name__ == "__main__":
    main()
