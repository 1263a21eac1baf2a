"""Build the site into build/site/html: `python -m release.site`."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from release.site.stage import ROOT, stage


def build_site(build: Path) -> int:
    """Stage the pages, then let zensical write `build`/html; a warning, a broken link say, is an error."""
    stage(build / "pages")
    here = Path(__file__).parent
    settings = (here / "zensical.toml").read_text().replace("@ROOT@", str(ROOT))
    (build / "zensical.toml").write_text(settings)
    shutil.copyfile(here / "site.css", build / "pages/site.css")
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict"]
    code = subprocess.run(command, cwd=build, check=False).returncode
    if code == 0:
        print(f"open {build / 'html/index.html'}")  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(build_site(ROOT / "build/site"))
