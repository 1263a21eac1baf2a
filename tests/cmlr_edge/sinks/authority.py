"""A certificate authority of a test's own, made with OpenSSL's command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


class Authority:
    """Makes certificates; `ca` is what to trust."""

    def __init__(self, folder: Path) -> None:
        if shutil.which("openssl") is None:
            pytest.skip("openssl is not installed, so TLS IS NOT TESTED: apt install openssl")
        folder.mkdir()
        self._folder, self.ca = folder, folder / "ca.pem"
        self._run("req", "-x509", *self._key("ca"), "-out", str(self.ca), "-subj", "/CN=test")

    def certificate(
        self, name: str, *, host: str = "127.0.0.1", days: int = 2
    ) -> tuple[Path, Path]:
        """Certificate and key of a server at `host`, or of a client."""
        request, made = self._folder / f"{name}.csr", self._folder / f"{name}.pem"
        kind = "IP" if host[0].isdigit() else "DNS"
        (self._folder / "names").write_text(f"subjectAltName={kind}:{host}\n")
        self._run("req", *self._key(name), "-out", str(request), "-subj", f"/CN={name}")
        self._run(
            "x509", "-req", "-in", str(request), "-CA", str(self.ca), "-CAkey",
            str(self._folder / "ca.key"), "-CAcreateserial", "-days", str(days), "-out", str(made),
            "-extfile", str(self._folder / "names"),
        )  # fmt: skip
        return made, self._folder / f"{name}.key"

    def _key(self, name: str) -> list[str]:
        path = str(self._folder / f"{name}.key")
        return ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", path]

    def _run(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], check=True, capture_output=True)
