"""Who made a model: signatures over a model file and its spec, by the OpenSSF's model-signing.

The hash in a spec tells that a file is whole, not whose it is: who replaces both files replaces the hash.
A signature is a file beside the model, `model.onnx.sig`, made with a private key that the device has not.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.machine.needed import needed
from cmlr_edge.model.files import (
    read_file,
    require_unchanged,
    signature_path,
    spec_path,
    write_atomically,
)
from cmlr_edge.model.pair import ModelPair

_MEMORY = Path("/dev/shm")  # no wear of a card, where there is such a place
_MOST_BYTES = 2**16  # of a key that is looked at


def sign(pair: ModelPair, private_key: Path) -> bytes:
    """Sign a model and its spec, both together.

    Args:
        pair: As they were read.
        private_key: PEM, elliptic curve (P-256, P-384 or P-521), without a passphrase.

    Returns:
        What is to lie beside the model, see `signature_path`.

    Raises:
        EngineError: The key cannot be used.
        DependencyError: model-signing is not installed.
    """
    signing = _import("signing")
    with _laid_out(pair) as (folder, place):
        try:
            config = signing.Config().use_elliptic_key_signer(private_key=private_key)
            config.sign(folder, place)
            return place.read_bytes()
        except Exception as error:  # whatever the packages below raise
            raise EngineError(
                f"cannot sign with {private_key}: {_line(error)}; expected a private key of P-256, P-384 "
                "or P-521 in PEM, without a passphrase"
            ) from error


def sign_beside(path: Path, private_key: Path) -> Path:
    """Sign the model file at `path` and its spec as they lie there; return where the signature is.

    Raises:
        EngineError: The model is not the one that its spec describes, or the key cannot be used.
        SpecError: The spec is missing or malformed, or of other files.
        DependencyError: model-signing is not installed.
    """
    pair = ModelPair.read(path)
    if path.name not in pair.spec.files:
        raise SpecError(
            f"{spec_path(path)} has no file named {path.name}: sign those that it names"
        )
    require_unchanged(path, pair.content, pair.spec.files[path.name].sha256)
    place = signature_path(path)
    write_atomically(place, sign(pair, private_key))
    return place


def require_signature(pair: ModelPair, public_key: Path) -> str:
    """Compare a model and its spec, as they were read, with the signature beside them.

    Args:
        pair: As they were read.
        public_key: PEM, of the private key that has to have signed them.

    Raises:
        EngineError: There is no signature, it is of another key, or of other files.
        DependencyError: model-signing is not installed.
    """
    if not public_key.is_file():
        raise EngineError(f"no public key at {public_key}, which is to tell who signed the model")
    _refuse_private(public_key)
    signature = signature_path(pair.path)
    if pair.signature is None:
        raise EngineError(
            f"{pair.path} has no signature: {signature.name} is to lie beside it; "
            "`cmlr-edge sign` writes it, where the private key is"
        )
    verifying = _import("verifying")
    with _laid_out(pair) as (folder, place):
        place.write_bytes(pair.signature)
        try:
            verifying.Config().use_elliptic_key_verifier(public_key=public_key).verify(
                folder, place
            )
        except Exception as error:  # likewise; what is no signature may break a parser anywhere
            raise EngineError(
                f"{pair.path} and its spec are not what {public_key.name} has signed: "
                f"{_line(error)}; copy model, spec and {signature.name} again, all together, or "
                "sign them again (`cmlr-edge sign`) if they were changed on purpose"
            ) from error
    return f"signed by the key of {public_key.name}"


def refuse_signed_rebuild(public_key: str | Path | None) -> None:
    """Refuse a key that is to have signed what is built here.

    Raises:
        SpecError: There is one.
    """
    if public_key is not None:
        raise SpecError(
            "rebuild and require_signature exclude each other: what is built here is signed by "
            "nobody; build the engine, sign it with its spec, and leave out rebuild"
        )


def _refuse_private(key: Path) -> None:
    """A private key in the place of the public one is a slip that gives the secret away."""
    try:
        text = read_file(key, _MOST_BYTES)
    except OSError as error:
        raise EngineError(f"the public key {key} cannot be read: {error.strerror}") from error
    if b"PRIVATE KEY-----" in text:
        raise EngineError(
            f"{key} is a private key: it stays where models are made; give the public one, which "
            f"`openssl ec -in {key.name} -pubout -out public.pem` takes from it"
        )


@contextmanager
def _laid_out(pair: ModelPair) -> Iterator[tuple[Path, Path]]:
    """The pair in a folder of its own, for the files may change; and a place for the signature."""
    from tempfile import TemporaryDirectory  # it takes its time to import

    shared = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="cmlr_edge-", dir=shared) as name:
        folder = Path(name) / "model"
        folder.mkdir()
        (folder / pair.path.name).write_bytes(pair.content)
        (folder / spec_path(pair.path).name).write_bytes(pair.spec_text)
        yield folder, Path(name) / "signature"


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


def _import(name: str) -> ModuleType:
    with needed("signatures need model-signing", "pip install 'cmlr-edge[signing]'"):
        from model_signing import signing, verifying
    logging.getLogger("model_signing").setLevel(logging.ERROR)
    modules: dict[str, ModuleType] = {"signing": signing, "verifying": verifying}
    return modules[name]
