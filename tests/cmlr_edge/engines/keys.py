"""Key pairs for signatures, made with OpenSSL's command."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_key(private: Path, public: Path, *, curve: str = "prime256v1") -> None:
    """Write a private key and its public one, as PEM."""
    pytest.importorskip("model_signing")
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed, so SIGNATURES ARE NOT TESTED: apt install openssl")
    make = ["openssl", "ecparam", "-name", curve, "-genkey", "-noout", "-out", str(private)]
    take = ["openssl", "ec", "-in", str(private), "-pubout", "-out", str(public)]
    for command in (make, take):
        subprocess.run(command, check=True, capture_output=True)
