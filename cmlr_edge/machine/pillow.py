"""The one place that uses Pillow: pictures of any format and mode become the same upright 8-bit pixels."""

from __future__ import annotations

import warnings
from contextlib import suppress
from functools import cache
from importlib import import_module
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from cmlr_edge.errors import FrameError
from cmlr_edge.machine.needed import needed

# What a folder of pictures holds. Pillow reads more, with decoders that are seldom tried.
_FORMATS = {
    "AVIF": "Avif",
    "BMP": "Bmp",
    "JPEG": "Jpeg",
    "PNG": "Png",
    "PPM": "Ppm",
    "TIFF": "Tiff",
    "WEBP": "WebP",
}  # and the modules of Pillow that read them
# What people have, too, and what is not read: first bytes and name.
_HEADER = 32
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1")
HEIC_REMEDY = (
    "convert it to JPEG, with Debian's heif-convert (libheif-examples) or Python's pillow-heif"
)
_UNREAD = {
    b"GIF8": "GIF",
    b"\x00\x00\x00\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"\x00\x00\x00\x0cjP  ": "JPEG 2000",
    b"8BPS": "a document of Photoshop",
    b"%PDF": "PDF",
    b"<svg": "SVG",
}
_EIGHT_BITS, _SIXTEEN_BITS = 2**8, 2**16
_SIXTEEN_AS_I = {"PNG", "PPM"}  # formats of which mode I never means 32
_EXIF_IFD, _TAKEN, _CHANGED = 0x8769, 0x9003, 0x0132  # numbers of EXIF's tags


class TooManyPixelsError(FrameError):
    """A picture is larger than Pillow opens at all."""


def open_picture(file: IO[bytes]) -> Any:
    """Read the header of a picture; pixels are decoded later, by `rgb_pixels`.

    Returns:
        A Pillow image, whose `size` (width, height) can be asked for at once.

    Raises:
        DependencyError: Pillow is not installed.
        FrameError: It is no picture of a known format.
    """
    with needed("Pillow is needed to read pictures and cannot be imported", "pip install pillow"):
        from PIL import Image
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about sizes: whoever calls has a limit of his own
            return Image.open(file, formats=_known_formats())
    except Image.DecompressionBombError as error:
        raise TooManyPixelsError("it has too many pixels") from error
    except Exception as error:  # damaged headers raise whatever a parser raises
        raise FrameError(_what_it_is(file)) from error


def _what_it_is(file: IO[bytes]) -> str:
    """Name a format that is not read, by its first bytes, with what to do about it."""
    with suppress(OSError, ValueError):
        file.seek(0)
        start = file.read(_HEADER)
        brands = start[8:] if start[4:8] == b"ftyp" else b""
        if b"avif" not in brands and any(brand in brands for brand in _HEIC_BRANDS):
            return f"it is HEIC, as phones write it, which is not read: {HEIC_REMEDY}"
        for mark, name in _UNREAD.items():
            if start.startswith(mark):
                return f"it is {name}, which is not read: convert it to JPEG or PNG"
    return "it is no picture of a known format"


@cache
def _known_formats() -> tuple[str, ...]:
    """Those that this Pillow can read, their decoders loaded."""
    known = []
    for name, module in _FORMATS.items():
        with suppress(ImportError):  # AVIF is younger than the rest
            import_module(f"PIL.{module}ImagePlugin")
            known.append(name)
    return tuple(known)


def exif_time(image: Any) -> str:
    """When a picture was taken, as its EXIF says: "2024:05:01 12:30:00", by the camera's clock; or ""."""
    try:
        exif = image.getexif()
        return str(exif.get_ifd(_EXIF_IFD).get(_TAKEN) or exif.get(_CHANGED) or "")
    except Exception:  # noqa: BLE001 (a damaged EXIF says nothing)
        return ""


def rgb_pixels(image: Any) -> NDArray[np.uint8]:
    """Decode an image that Pillow holds: turned upright as its EXIF says, alpha left out.

    Args:
        image: A Pillow image of any mode but floats; 16 bits become 8.

    Returns:
        uint8 (H, W, 3), RGB.

    Raises:
        FrameError: It is damaged, closed, empty, or of a mode that has no colours.
    """
    from PIL import ImageOps

    try:
        image.load()
    except Exception as error:
        raise FrameError(f"the picture cannot be decoded: {_reason(error)}") from error
    if 0 in image.size:
        raise FrameError(f"the picture is empty, its size is {image.size}")
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # noqa: BLE001 (a damaged EXIF says nothing; the picture is there)
        upright = image
    mode = upright.mode
    if mode.startswith("I") or mode == "F":
        return _from_wide(upright, image.format)
    try:
        if mode in {"RGBa", "La"}:  # colours multiplied by alpha
            upright = upright.convert(mode.upper())
        pixels = np.asarray(upright if mode == "RGB" else upright.convert("RGB"))
    except Exception as error:
        raise FrameError(f"a picture of mode {mode} cannot be used: {_reason(error)}") from error
    return pixels


def resize_with_pillow(
    pixels: NDArray[np.uint8], size_wh: tuple[int, int], name: str
) -> NDArray[np.uint8]:
    """Resize as Pillow does, which torchvision and timm are trained with: every pixel counts.

    Args:
        pixels: (H, W, 3).
        size_wh: To be.
        name: nearest, bilinear, bicubic or lanczos.

    Raises:
        DependencyError: Pillow is not installed.
    """
    with needed(
        "this model's pictures are resized with Pillow, which cannot be imported",
        "pip install pillow",
    ):
        from PIL import Image
    filters = Image.Resampling
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size_wh, filters[name.upper()]))


def _from_wide(image: Any, file_format: str | None) -> NDArray[np.uint8]:
    """Grey of more than 8 bits. Older versions of Pillow call 16 bits I, as they do 32."""
    values = np.asarray(image)
    least, most = (values.min(), values.max()) if values.size and image.mode != "F" else (-1, -1)
    if not 0 <= least <= most < _SIXTEEN_BITS:
        raise FrameError(
            f"a picture of mode {image.mode} was given: expected 8 or 16 bits a channel; scale it "
            "and convert it to mode L or RGB"
        )
    # 8 bits in the room of 32 would become black.
    if image.mode == "I" and file_format not in _SIXTEEN_AS_I and 0 < most < _EIGHT_BITS:
        raise FrameError(
            f"a picture of mode I was given whose values are all below {_EIGHT_BITS}: expected 16 bits, "
            "of which these are black; if they are grey of 8 bits, convert it to mode L"
        )
    grey = (values >> 8).astype(np.uint8)
    return np.repeat(grey[..., None], 3, axis=2)


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
