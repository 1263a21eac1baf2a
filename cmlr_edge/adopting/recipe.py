"""What a foreign model wants done to a picture: `--preprocess imagenet,crop=256,pillow-bilinear`."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeAlias, get_args

from cmlr_edge.errors import SpecError
from cmlr_edge.model.spec import Interpolation, PreprocessSpec, Resize

Triple: TypeAlias = tuple[float, float, float]
Color: TypeAlias = Literal["rgb", "bgr"]
Layout: TypeAlias = Literal["nchw", "nhwc"]
Activation: TypeAlias = Literal["none", "softmax", "sigmoid"]

_CAFFE_BGR = (103.939 / 255, 116.779 / 255, 123.68 / 255)
_ONES: Triple = (1.0, 1.0, 1.0)
_BYTES: Triple = (1 / 255, 1 / 255, 1 / 255)


@dataclass(frozen=True)
class Recipe:
    """Settings of a foreign model's input; None where nobody told."""

    # Of pixels scaled to [0, 1], in the order of the model's channels: (x / 255 - mean) / std.
    mean: Triple | None = None
    std: Triple | None = None
    color: Color | None = None  # order of the channels
    layout: Layout | None = None
    size_hw: tuple[int, int] | None = None
    resize: Resize | None = None
    short_side: int | None = None
    interpolation: Interpolation | None = None
    fill: int | None = None

    def over(self, other: Recipe) -> Recipe:
        """Fill what is None here from another."""
        own = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(other, **{name: value for name, value in own.items() if value is not None})

    @property
    def scale(self) -> tuple[Triple, Triple]:
        """Mean and std, once they are known."""
        assert self.mean is not None
        assert self.std is not None
        return self.mean, self.std

    @property
    def size(self) -> tuple[int, int]:
        """Height and width, once they are known."""
        assert self.size_hw is not None
        return self.size_hw

    def spec(self) -> PreprocessSpec:
        """Return what is done before the graph; needs all but layout."""
        (m0, m1, m2), (s0, s1, s2) = self.scale
        if self.color == "bgr":
            m0, m2, s0, s2 = m2, m0, s2, s0
        assert self.resize is not None
        assert self.interpolation is not None
        return PreprocessSpec(
            size_hw=self.size,
            mean=(m0, m1, m2),
            std=(s0, s1, s2),
            resize=self.resize,
            interpolation=self.interpolation,
            short_side=self.short_side or 0,
            fill=self.fill or 0,
        )

    def words(self) -> str:
        """As `parse_recipe` reads it."""
        scales = [name for name, s in SCALES.items() if (s.mean, s.std) == (self.mean, self.std)]
        said: list[str] = scales[:1]
        if not scales and self.mean and self.std:
            said += [f"{n}={_numbers(v)}" for n, v in (("mean", self.mean), ("std", self.std))]
        if self.color is not None:
            said.append(self.color)
        if self.resize is not None:
            said.append(f"crop={self.short_side}" if self.short_side else self.resize)
        if self.interpolation is not None:
            said.append(self.interpolation)
        if self.fill:
            said.append(f"fill={self.fill}")
        return ",".join(said)


# Ways to scale a pixel, by the names that people know.
SCALES = {
    "imagenet": Recipe((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "0..1": Recipe((0.0, 0.0, 0.0), _ONES),
    "-1..1": Recipe((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "0..255": Recipe((0.0, 0.0, 0.0), _BYTES),
    "caffe": Recipe(_CAFFE_BGR, _BYTES, "bgr"),
    "clip": Recipe((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}
# What whole tools do.
_TOOLS = {
    "ultralytics": SCALES["0..1"].over(
        Recipe(color="rgb", resize="crop", interpolation="pillow-bilinear")
    ),
}
_WORDS: dict[str, Recipe] = (
    SCALES
    | _TOOLS
    | {name: Recipe(color=name) for name in get_args(Color)}
    | {name: Recipe(layout=name) for name in get_args(Layout)}
    | {name: Recipe(resize=name) for name in get_args(Resize)}
    | {name: Recipe(interpolation=name) for name in get_args(Interpolation)}
)
_VALUES = ("mean", "std", "size", "crop", "fill")


def parse_recipe(text: str) -> Recipe:
    """Read words with commas between them; a later one counts more.

    Raises:
        SpecError: A word is unknown, or its value is none.
    """
    recipe = Recipe()
    for word in filter(None, (part.strip().casefold() for part in text.split(","))):
        key, equals, value = word.partition("=")
        if equals and key in _VALUES:
            recipe = _with_value(recipe, key, value)
        elif word in _WORDS:
            recipe = _WORDS[word].over(recipe)
        else:
            known = [*_WORDS, *(f"{name}=" for name in _VALUES)]
            near = get_close_matches(word, known, 1)
            meant = f"did you mean {near[0]!r}? " if near else ""
            raise SpecError(
                f"--preprocess: {word[:60]!r} is not known: {meant}expected {', '.join(known)}"
            )
    return recipe


def _with_value(recipe: Recipe, key: str, value: str) -> Recipe:
    if key == "crop":
        return replace(recipe, resize="crop", short_side=_whole(key, value))
    if key == "fill":
        return replace(recipe, fill=_whole(key, value))
    if key == "size":
        height, _, width = value.partition("x")
        return replace(recipe, size_hw=(_whole(key, height), _whole(key, width or height)))
    triple = _triple(key, value)
    in_bytes = max(map(abs, triple)) > 1
    # With pixels of 0 to 255, as a mean of 104/117/123 says, a deviation of 1 is one step of them.
    in_bytes |= key == "std" and triple == _ONES and recipe.std == _BYTES
    scaled = tuple(number / 255 for number in triple) if in_bytes else triple
    changed: dict[str, Any] = {key: scaled}
    if key == "mean" and in_bytes and recipe.std in {None, _ONES}:
        changed["std"] = _BYTES
    result = replace(recipe, **changed)
    return replace(result, std=result.std or _ONES, mean=result.mean or (0.0, 0.0, 0.0))


def _whole(key: str, text: str) -> int:
    if not text.isascii() or not text.isdecimal() or len(text) > 5:
        raise SpecError(
            f"--preprocess: {key}={text[:60]} should be a number of pixels, as size=224, "
            "size=224x320 (height, width), crop=256, or fill=114"
        )
    return int(text)


def _triple(key: str, text: str) -> Triple:
    parts = text.split("/")
    try:
        numbers = [float(part) for part in (parts if len(parts) == 3 else parts * 3)]
    except ValueError:
        numbers = []
    if len(numbers) != 3 or not all(abs(number) <= 1e6 for number in numbers):
        raise SpecError(
            f"--preprocess: {key}={text[:60]} should be one number or three, one per channel in the "
            "model's order, as mean=0.485/0.456/0.406 or mean=123.7/116.3/103.5"
        )
    if key == "std" and min(numbers) <= 0:
        raise SpecError(f"--preprocess: std={text[:60]} should be above 0")
    return numbers[0], numbers[1], numbers[2]


def _numbers(values: Triple) -> str:
    return "/".join(f"{value:.6g}" for value in values)
