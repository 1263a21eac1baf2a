"""Recipe files: what a table trains, on which data, and what it shows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cmlr_edge.errors import DataError
from cmlr_edge.session.config import toml_reader
from train.config import TrainConfig
from train.recipes import NO_RECIPE
from train.settings import build_config

FOLDER = Path(__file__).parent
_GPUS = (1, 8)
_SCALING = 0.9  # of what eight GPUs could do
_MEASURES = {"mean_ap", "exclusive", "co_occur", "all_labels", "non_biased"}


@dataclass(frozen=True)
class Table:
    """One recipe file."""

    name: str
    title: str
    download: str
    test: str  # split
    train_pictures: int
    images_per_second: float  # of one GPU in training, estimated
    measures: tuple[str, ...]
    arms: dict[str, dict[str, Any]]  # settings of each, the recipe's name among them

    def config(self, arm: str, seed: int, settings: list[str]) -> TrainConfig:
        """What one run trains with.

        Args:
            arm: Its name.
            seed: Of the run.
            settings: "key=value" each, over the file's.
        """
        given = {**self.arms[arm], "seed": seed}
        return build_config(given, settings, given.pop("recipe", NO_RECIPE))

    def hours(self, arm: str) -> list[float]:
        """Expected hours of one run, on one GPU and on eight."""
        pictures = self.config(arm, 0, []).epochs * self.train_pictures
        alone = pictures / self.images_per_second / 3600
        return [alone if gpus == 1 else alone / gpus / _SCALING for gpus in _GPUS]


def names() -> list[str]:
    """The tables there are."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def load(name: str) -> Table:
    """Read a recipe file.

    Raises:
        DataError: There is none of this name, or it is not one.
    """
    path = FOLDER / f"{name}.toml"
    if name not in names():
        raise DataError(f"there is no table {name!r}: {', '.join(names())}")
    record = toml_reader().loads(path.read_text())
    common = record.pop("settings", {})
    arms = {}
    for arm in record.pop("arms"):
        name_of_arm, like = arm.pop("name"), record.get(arm.pop("like", ""), {})
        arms[name_of_arm] = {**common, **like, **arm}
    known = {key: record[key] for key in Table.__dataclass_fields__ if key in record}
    table = Table(name=name, **{**known, "measures": tuple(record["measures"]), "arms": arms})
    if unknown := set(table.measures) - _MEASURES:
        raise DataError(f"{path} has the measures {sorted(unknown)}: there are {sorted(_MEASURES)}")
    return table
