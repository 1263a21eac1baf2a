"""Sprites and background photos of drawn scenes: fetched by package name, never copied into the project.

Sprites come from four emoji families of the npm registry, backgrounds from Debian packages. Both
are reduced to what scenes need and kept in one folder.
"""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import DataError, DependencyError
from cmlr_edge.machine.needed import needed
from cmlr_edge.model.files import write_atomically
from train.data.context_scenes.graph import CONTEXTS, LABELS

Image = NDArray[np.uint8]
TRAINING_FAMILIES = ("fluent", "google", "twemoji")
HELD_OUT_FAMILY = "openmoji"  # of the cross-style part
SPRITE_SIDE = 120  # longer side of a stored sprite, pixels
_BACKGROUND_SIDE = 420  # shorter side of a stored background, pixels

# Unicode code points that play each label; every art family has most of them.
_CODES = {
    "mouse": "1f5b1", "cup": "2615 1f375 1f943", "ball": "26bd 1f3c0 1f3d0",
    "fish": "1f41f 1f420 1f421", "flower": "1f339 1f337 1f33b", "hat": "1f3a9 1f452 1f9e2",
    "key": "1f511 1f5dd", "bicycle": "1f6b2 1f6f4", "computer": "1f5a5 1f4bb",
    "furniture": "1f6cb 1fa91 1f6cf", "dog": "1f415 1f429 1f436", "boat": "26f5 1f6a4 1f6f6",
    "tree": "1f333 1f332 1f334", "person": "1f9cd 1f57a 1f483", "house": "1f3e0 1f3e1 1f3da",
    "car": "1f697 1f699 1f695", "fruit": "1f34c 1f34e 1f34a", "clock": "23f0 231a 1f570",
    "cat": "1f408 1f431", "airplane": "2708 1f6e9", "guitar": "1f3b8 1f3bb",
    "umbrella": "2602 2614 1f302", "bird": "1f426 1f99c 1f989", "elephant": "1f418 1f98f",
    # Things without a label, so that an object alone does not give one away.
    "": "1f344 1f354 1f380 1f381 1f3ba 1f4a1 1f4f7 1f4de 1f528 1f52d 1f577 1f40c 1f422 1f40d "
        "1f98b 1f33d 1f955 1f9c0 1f382 1f369 1f392 1f45f 1f48d 1f50b 1f56f 1f5ff 1f680 1f6f8 "
        "1f9f2 1f9f8 1f988 1f984 1f35f 1f366 1f3ee 1f4bc 1f4ce 1f4cc 2702 26b0",
}  # fmt: skip


@dataclass(frozen=True)
class _SpritePackage:
    npm_name: str
    folder: str  # inside the tarball


_SPRITES = {
    "fluent": _SpritePackage("@lobehub/fluent-emoji-3d@1.1.0", "package/assets/"),
    "google": _SpritePackage("emoji-datasource-google@16.0.0", "package/img/google/64/"),
    "twemoji": _SpritePackage("@twemoji/svg@15.0.0", "package/"),
    "openmoji": _SpritePackage("openmoji@17.0.0", "package/color/svg/"),
}
MATE = "mate-backgrounds:usr/share/backgrounds/mate/nature/"
TUX = "tuxpaint-data:usr/share/tuxpaint/templates/"
GIMP = "gimp-data:usr/share/gimp/2.0/patterns/"
LOMIRI = "lomiri-wallpapers-16.04:usr/share/backgrounds/"
_COLOBOT = "colobot-common-textures:usr/share/games/colobot/textures/"
# Six photos per context: three for training, one for validation, two for the tests.
_BACKGROUNDS = {
    "plants": (
        MATE + "GreenMeadow.jpg", TUX + "corn_maze.jpg", MATE + "Blinds.jpg",
        TUX + "sun_behind_leaves.jpg", MATE + "RainDrops.jpg", _COLOBOT + "green01.png",
    ),
    "wood": (
        GIMP + "Wood/wood1.pat", GIMP + "Wood/wood5.pat", GIMP + "Wood/burlwood.pat",
        GIMP + "Wood/wood2.pat", GIMP + "Wood/walnut.pat", GIMP + "Wood/pine.pat",
    ),
    "stone": (
        TUX + "rocks.jpg", GIMP + "Stone/stone33.pat", GIMP + "Stone/rock.pat",
        TUX + "mudstone.jpg", GIMP + "Stone/slate.pat", TUX + "cliff.jpg",
    ),
    "water": (
        TUX + "ocean_waves.jpg", _COLOBOT + "water16.png", MATE + "Aqua.jpg",
        TUX + "ocean_splash.jpg", _COLOBOT + "water12.png", GIMP + "Water/pool.pat",
    ),
    "sky": (
        TUX + "sun_behind_clouds.jpg", _COLOBOT + "cloud02.png", _COLOBOT + "cloud09.png",
        _COLOBOT + "cloud04.png", _COLOBOT + "cloud03.png", MATE + "Storm.jpg",
    ),
    "forest": (
        TUX + "redwoods_above.jpg", LOMIRI + "life_by_Aitzol_Berasategi.jpg",
        TUX + "trees_at_dusk.jpg", TUX + "mossy_log.jpg", TUX + "trees_above.jpg",
        LOMIRI + "Dragonfly_by_Bolly.jpg",
    ),
    "sand": (
        _COLOBOT + "desert4.png", _COLOBOT + "mars002.png", MATE + "Dune.jpg",
        _COLOBOT + "mars103.png", _COLOBOT + "desert5.png", _COLOBOT + "mars006.png",
    ),
    "wall": (
        _COLOBOT + "chili01.png", _COLOBOT + "dirty04.png", GIMP + "Stone/brick.pat",
        _COLOBOT + "dirty02.png", _COLOBOT + "chili02.png", _COLOBOT + "dirty08.png",
    ),
}  # fmt: skip
_PHOTOS_OF = {"train": slice(0, 3), "val": slice(3, 4), "test": slice(4, None)}


@dataclass(frozen=True)
class Assets:
    """Everything that scenes are composed of."""

    labels: tuple[str, ...]  # by index in the graph
    contexts: tuple[str, ...]
    # family -> label ("" for things without one) -> sprites (h, w, 4), BGRA, premultiplied
    sprites: dict[str, dict[str, list[Image]]]
    backgrounds: dict[str, list[Image]]  # context -> five photos or six (h, w, 3), BGR

    def photos(self, context: int, part: str) -> list[Image]:
        """Background photos of a context for "train", "val" or "test"; no two parts share one."""
        return self.backgrounds[self.contexts[context]][_PHOTOS_OF[part]]


def load_assets(folder: Path) -> Assets:
    """Read the assets from `folder`, and fetch them first where they are not there.

    Args:
        folder: Kept for the next time.

    Raises:
        DependencyError: npm, apt-get or resvg_py is missing.
        DataError: A package has not what it should.
    """
    sprites, backgrounds = folder / "sprites.npz", folder / "backgrounds.npz"
    if not sprites.is_file():
        save_arrays(sprites, _fetch_sprites())
    if not backgrounds.is_file():
        save_arrays(backgrounds, _fetch_backgrounds())
    by_family: dict[str, dict[str, list[Image]]] = {}
    with np.load(sprites) as arrays:
        for key in sorted(arrays):
            family, label, _code = key.split("|")
            by_family.setdefault(family, {}).setdefault(label, []).append(arrays[key])
    with np.load(backgrounds) as arrays:
        photos = {context: [arrays[f"{context}|{i}"] for i in range(6)] for context in CONTEXTS}
    return Assets(LABELS, CONTEXTS, by_family, photos)


def save_arrays(path: Path, arrays: dict[str, Image]) -> None:
    """Write arrays by name into an .npz file, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stubs take keywords for allow_pickle
    write_atomically(path, buffer.getvalue())


def _fetch_sprites() -> dict[str, Image]:
    label_of = {code: label for label, codes in _CODES.items() for code in codes.split()}
    found: dict[str, Image] = {}
    for family, package in _SPRITES.items():
        with tempfile.TemporaryDirectory() as folder:
            _run("npm", "pack", "--silent", package.npm_name, cwd=folder)
            (tarball,) = Path(folder).glob("*.tgz")
            with tarfile.open(tarball) as archive:
                for member in archive:
                    if not member.isfile() or not member.name.startswith(package.folder):
                        continue
                    code = Path(member.name).stem.lower().replace("-fe0f", "")
                    key = f"{family}|{label_of.get(code)}|{code}"
                    content = archive.extractfile(member)
                    if code not in label_of or key in found or content is None:
                        continue
                    sprite = decode_sprite(content.read(), svg=member.name.endswith(".svg"))
                    if sprite is not None:
                        found[key] = sprite
    missing = [
        f"{label} in {family}"
        for family in _SPRITES
        for label in LABELS
        if not any(key.startswith(f"{family}|{label}|") for key in found)
    ]
    if missing:
        raise DataError(f"the sprite packages lack {', '.join(missing)}: other versions than named")
    return found


def decode_sprite(content: bytes, *, svg: bool) -> Image | None:
    """Crop to what is visible, premultiply, and scale; None for a picture without transparency."""
    if svg:
        with needed("drawing SVG sprites needs resvg-py", "pip install resvg-py"):
            import resvg_py
        drawn = resvg_py.svg_to_bytes(svg_string=content.decode(), width=128, height=128)
        content = bytes(drawn)
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None or image.ndim != 3 or image.shape[2] != 4:
        return None
    rows, columns = np.nonzero(image[..., 3] > 16)
    if len(rows) == 0:
        return None
    image = image[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    premultiplied = image.astype(np.float32)
    premultiplied[..., :3] *= premultiplied[..., 3:] / 255
    scale = SPRITE_SIDE / max(image.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    resized = cv2.resize(premultiplied, None, fx=scale, fy=scale, interpolation=how)
    return resized.clip(0, 255).astype(np.uint8)


def _fetch_backgrounds() -> dict[str, Image]:
    packages = {name.split(":")[0] for names in _BACKGROUNDS.values() for name in names}
    with unpacked_packages(packages) as folder:
        return read_backgrounds(_BACKGROUNDS, folder)


@contextmanager
def unpacked_packages(packages: Iterable[str]) -> Iterator[Path]:
    """Fetch packages, and unpack each into a folder of its name inside the one given, for a while.

    Args:
        packages: Debian's, or a wheel of PyPI's as NAME==VERSION.

    Raises:
        DependencyError: apt-get or dpkg is missing.
        DataError: A package cannot be had.
    """
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        folder.chmod(0o755)  # apt-get drops its privileges to download
        for package in sorted(packages):
            name, wheel, _version = package.partition("==")
            if wheel:
                fetch = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", package)
                _run(*fetch, "--only-binary=:all:", cwd=temporary)
                (archive,) = folder.glob(f"{name.replace('-', '_')}-*.whl")
                shutil.unpack_archive(archive, folder / package, "zip")
            else:
                _run("apt-get", "download", "--quiet", package, cwd=temporary)
                (archive,) = folder.glob(f"{package}_*.deb")
                _run("dpkg", "--extract", str(archive), str(folder / package), cwd=temporary)
            archive.unlink()
        yield folder


def read_backgrounds(names: Mapping[str, tuple[str, ...]], folder: Path) -> dict[str, Image]:
    """Read every context's photos, PACKAGE:FILE, from unpacked packages, as CONTEXT|NUMBER."""
    return {
        f"{context}|{i}": _read_background(folder / name.replace(":", "/"))
        for context, files in names.items()
        for i, name in enumerate(files)
    }


def _read_background(path: Path) -> Image:
    if not path.is_file():
        raise DataError(f"the package has no {path.name}: another release than Debian 12's")
    image = _read_pattern(path) if path.suffix == ".pat" else cv2.imread(str(path))
    if image is None:
        raise DataError(f"{path.name} is not an image")
    scale = _BACKGROUND_SIDE / min(image.shape[:2])
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return cv2.resize(image, None, fx=scale, fy=scale, interpolation=how).astype(np.uint8)


def _read_pattern(path: Path) -> Image:
    """Read a GIMP pattern, a small tile, repeated to at least 320 pixels."""
    content = path.read_bytes()
    header, _version, width, height, channels = struct.unpack(">5I", content[:20])
    pixels = np.frombuffer(content[header : header + width * height * channels], np.uint8)
    tile = pixels.reshape(height, width, channels)
    tile = np.repeat(tile, 3, axis=2) if channels == 1 else tile[..., 2::-1]
    return np.tile(tile, (-(-320 // height), -(-320 // width), 1))


def _run(*command: str, cwd: str) -> None:
    if shutil.which(command[0]) is None:
        raise DependencyError(
            f"{command[0]} is not installed: the scenes' pictures come from npm's and Debian's "
            "packages; make the assets on a Debian machine with npm and copy the folder"
        )
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DataError(f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}")
