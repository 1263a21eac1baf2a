"""Finds the Python interpreters, with headers, that wheels are made for."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_HAS_HEADERS = """
import pathlib, sys, sysconfig
print("%d.%d" % sys.version_info[:2])
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").is_file())
"""


def find_interpreters(versions: list[str]) -> dict[str, str]:
    """Return the interpreter of each version, from PATH or pyenv.

    Args:
        versions: "3.12", or the path of an interpreter.

    Raises:
        SystemExit: One of them is missing or has no headers.
    """
    found = {version: _find(version) for version in versions}
    if missing := [version for version, path in found.items() if path is None]:
        raise SystemExit(
            f"no Python with headers for {', '.join(missing)}: install python3.N-dev or pyenv's, "
            f'or name those to build for: make wheels PYTHONS="3.12 /path/to/python3.10"'
        )
    return {version: path for version, path in found.items() if path is not None}


def _find(version: str) -> str | None:
    if "/" in version:
        candidates = [version]
    else:
        pyenv = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
        on_path = shutil.which(f"python{version}")
        candidates = [*([on_path] if on_path else []), *map(str, pyenv)]
    return next((path for path in candidates if _is_usable(path, version)), None)


def _is_usable(path: str, version: str) -> bool:
    try:
        run = subprocess.run([path, "-c", _HAS_HEADERS], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):  # pyenv has commands that run nothing
        return False
    return "/" in version or run.stdout.strip() == version
