"""Models whose origin is asked for: a pair that somebody replaced, hash and all, is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cmlr_edge import Recognizer
from cmlr_edge.engines.signature import sign
from cmlr_edge.errors import EngineError, SpecError
from cmlr_edge.model.files import sha256_of, signature_path, spec_path
from cmlr_edge.model.pair import ModelPair
from cmlr_edge.model.spec import ModelSpec
from cmlr_edge.service.store import EngineStore
from tests.cmlr_edge.cli.command import run
from tests.cmlr_edge.engines.keys import make_key


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, Path]:
    private, public = tmp_path / "private.pem", tmp_path / "public.pem"
    make_key(private, public)
    return private, public


@pytest.fixture
def signed(engine: Path, keys: tuple[Path, Path]) -> Path:
    signature_path(engine).write_bytes(sign(ModelPair.read(engine), keys[0]))
    return engine


def test_a_signed_pair_is_taken_and_an_unsigned_one_only_where_nobody_asks(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    Recognizer.from_engine(signed, require_signature=keys[1]).close()
    Recognizer.from_engine(signed.parent, require_signature=str(keys[1])).close()
    signature_path(signed).unlink()
    Recognizer.from_engine(signed).close()
    with pytest.raises(EngineError, match=r"has no signature: model.onnx.sig"):
        Recognizer.from_engine(signed, require_signature=keys[1])


def both_replaced(engine: Path, other: Path) -> None:
    shutil.copy(other, engine)
    shutil.copy(spec_path(other), spec_path(engine))


def model_replaced(engine: Path, _other: Path) -> None:
    engine.write_bytes(engine.read_bytes() + b"more")
    spec = ModelSpec.load(spec_path(engine))
    built = replace(spec.files[engine.name], sha256=sha256_of(engine.read_bytes()))  # which fits
    replace(spec, files={engine.name: built}).save(spec_path(engine))


def threshold_moved(engine: Path, _other: Path) -> None:
    spec = ModelSpec.load(spec_path(engine))
    replace(spec, thresholds=(0.9,) * len(spec.labels)).save(spec_path(engine))


def signed_by_another(engine: Path, _other: Path) -> None:
    make_key(engine.with_name("p.pem"), engine.with_name("q.pem"))
    signature_path(engine).write_bytes(sign(ModelPair.read(engine), engine.with_name("p.pem")))


def of_another_model(engine: Path, other: Path) -> None:
    private = engine.parents[1] / "private.pem"
    signature_path(engine).write_bytes(sign(ModelPair.read(other), private))


def empty(engine: Path, _other: Path) -> None:
    signature_path(engine).write_bytes(b"")


def no_json(engine: Path, _other: Path) -> None:
    signature_path(engine).write_bytes(b"\xff\x00 no signature")


def nested(engine: Path, _other: Path) -> None:
    signature_path(engine).write_bytes(b"[" * 200_000)


def endless(engine: Path, _other: Path) -> None:
    signature_path(engine).write_bytes(b" " * 3 * 2**20)


def cut_short(engine: Path, _other: Path) -> None:
    text = signature_path(engine).read_bytes()
    signature_path(engine).write_bytes(text[: len(text) // 2])


def without_signatures(engine: Path, _other: Path) -> None:
    record = json.loads(signature_path(engine).read_bytes())
    record["dsseEnvelope"]["signatures"] = []
    signature_path(engine).write_text(json.dumps(record))


@pytest.mark.parametrize(
    "attack",
    [both_replaced, model_replaced, threshold_moved, signed_by_another, of_another_model, empty,
     no_json, nested, endless, cut_short, without_signatures],
    ids=lambda attack: attack.__name__,
)  # fmt: skip
def test_whatever_is_replaced_is_refused_before_it_is_loaded(
    signed: Path, color_engine: Path, keys: tuple[Path, Path], attack: Callable[[Path, Path], None]
) -> None:
    attack(signed, color_engine)
    with pytest.raises(EngineError, match=r"are not what public.pem has signed") as caught:
        Recognizer.from_engine(signed, require_signature=keys[1])
    assert "\n" not in str(caught.value)
    assert "copy model, spec" in str(caught.value)


def test_a_missing_key_is_named_before_a_missing_signature(
    color_engine: Path, tmp_path: Path
) -> None:
    with pytest.raises(EngineError, match=r"no public key at .*gone"):
        Recognizer.from_engine(color_engine, require_signature=tmp_path / "gone.pem")


@pytest.mark.parametrize("content", [None, b"", b"no PEM", "private", "RSA"])
def test_a_key_that_is_none_is_one_line(
    signed: Path, keys: tuple[Path, Path], tmp_path: Path, content: bytes | str | None
) -> None:
    key = tmp_path / "key.pem"
    said = "is a private key: it stays" if content == "private" else r"are not what key\.pem"
    if isinstance(content, bytes):
        key.write_bytes(content)
    elif content == "private":
        shutil.copy(keys[0], key)
    elif content == "RSA":
        rsa = tmp_path / "rsa.pem"
        subprocess.run(["openssl", "genrsa", "-out", str(rsa)], check=True, capture_output=True)
        make = ["openssl", "rsa", "-in", str(rsa), "-pubout", "-out", str(key)]
        subprocess.run(make, check=True, capture_output=True)
    with pytest.raises(EngineError, match=f"no public key at|{said}") as caught:
        Recognizer.from_engine(signed, require_signature=key)
    assert "\n" not in str(caught.value)
    with pytest.raises(EngineError, match=r"cannot sign with .*expected a private key") as caught:
        sign(ModelPair.read(signed), keys[1])
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo], ids=["folder", "pipe"])
def test_what_lies_in_the_place_of_a_signature_is_named(
    color_engine: Path, make: Callable[[Path], None]
) -> None:
    make(signature_path(color_engine))
    with pytest.raises(EngineError, match=r"model\.onnx\.sig cannot be read: "):
        ModelPair.read(color_engine)


def test_an_engine_that_lies_there_is_signed_as_it_is(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    threshold_moved(signed, signed)
    with pytest.raises(EngineError, match="or sign them again"):
        Recognizer.from_engine(signed, require_signature=keys[1])
    done = run("sign", signed.parent, "--key", keys[0])
    assert done.stdout == f"wrote {signature_path(signed)}\n"
    Recognizer.from_engine(signed, require_signature=keys[1]).close()
    signature_path(signed).unlink()
    signed.write_bytes(signed.read_bytes() + b"more")  # whoever signs says that it is whole
    done = run("sign", signed, "--key", keys[0])
    assert (done.returncode, "was changed or cut short" in done.stderr) == (2, True)
    assert not signature_path(signed).exists()


@pytest.mark.parametrize("curve", ["secp384r1", "secp521r1"])
def test_larger_curves_sign_too(engine: Path, tmp_path: Path, curve: str) -> None:
    make_key(tmp_path / "p", tmp_path / "q", curve=curve)
    signature_path(engine).write_bytes(sign(ModelPair.read(engine), tmp_path / "p"))
    Recognizer.from_engine(engine, require_signature=tmp_path / "q").close()


def test_what_is_verified_is_what_is_loaded(
    signed: Path, color_engine: Path, keys: tuple[Path, Path]
) -> None:
    pair = ModelPair.read(signed)
    both_replaced(signed, color_engine)
    with Recognizer.from_pair(pair, require_signature=keys[1]) as recognizer:
        assert recognizer.labels == pair.spec.labels


def test_building_here_and_a_signature_exclude_each_other(
    signed: Path, keys: tuple[Path, Path]
) -> None:
    with pytest.raises(SpecError, match="exclude each other"):
        Recognizer.from_engine(signed, rebuild=True, require_signature=keys[1])


@pytest.mark.slow
def test_commands_and_the_service_ask_for_the_signature(
    signed: Path, color_engine: Path, keys: tuple[Path, Path], tmp_path: Path
) -> None:
    ask = ("--require-signature", str(keys[1]))
    assert run("verify", signed, *ask).returncode == 0
    source = ("test://?fps=0&frames=3", "--policy", "every")
    assert run("label", *source, "--engine", signed, *ask).returncode == 0
    done = run("label", *source, "--engine", color_engine, *ask)
    assert (done.returncode, "has no signature" in " ".join(done.stderr.split())) == (2, True)
    config = tmp_path / "door.toml"
    config.write_text(
        '[engine]\nstore = "engines"\nrequire_signature = "public.pem"\n'
        '[[sources]]\nname = "door"\nuri = "test://"\n'
    )
    done = run("service", "update", config, color_engine)
    assert done.returncode == 2
    assert "has no signature" in " ".join(done.stderr.split())
    assert EngineStore(tmp_path / "engines").state.serving is None
    assert run("service", "update", config, signed).returncode == 0
    store = EngineStore(tmp_path / "engines")
    assert store.state.serving is not None
    kept = store.path(store.state.serving)
    assert signature_path(kept).read_bytes() == signature_path(signed).read_bytes()


def test_an_engine_that_was_added_without_a_signature_gets_it_when_it_is_added_with_one(
    signed: Path, tmp_path: Path
) -> None:
    text = signature_path(signed).read_bytes()
    signature_path(signed).unlink()
    store = EngineStore(tmp_path / "store")
    added = store.add(signed)
    assert store.checked(added).signature is None
    signature_path(signed).write_bytes(text)
    assert store.add(signed) == added
    assert store.checked(added).signature == text
