"""What goes wrong on a site, as settings of a test source; docs/faults.md lists the same."""

from __future__ import annotations

FAULTS = {
    "read hangs": "hang=30:1.5",
    "read returns nothing, and nobody answers": "none=30:0.5",
    "frozen picture": "frozen=30:40",
    "another size": "resize=30:640x480",
    "burst": "burst=30:20",
    "clock jumps back": "clock=30:-3600",
    "clock jumps ahead": "clock=30:86400",
    "frames are missing": "drop=30:40",
}
