"""A classifier of your own, from its ONNX file: `python examples/own_model.py model.onnx labels.txt photos`.

Needs `pip install '.[cpu,adopt]'`. What the model was trained with stands in PREPROCESS; docs/adopt.md has all words.
"""

from __future__ import annotations

import sys
from pathlib import Path

from cmlr_edge import Recognizer
from cmlr_edge.adopting.adopt import Adoption, Wishes
from cmlr_edge.adopting.labels import read_labels
from cmlr_edge.adopting.recipe import parse_recipe
from cmlr_edge.sinks.contact_sheet import ContactSheet

PREPROCESS = "imagenet,crop=256,pillow-bilinear"  # as torchvision's classifiers
THRESHOLD = 0.2  # of a softmax over many classes


def main(model: str, labels: str, source: str) -> None:
    """Make an engine of the model, label pictures or a film with it, and draw what it said."""
    names = read_labels(Path(labels))  # of which each class needs its own
    wishes = Wishes(parse_recipe(PREPROCESS), labels=names, threshold=THRESHOLD)
    engine = Adoption(Path(model), wishes).finish().write(Path("own_engine"))
    with Recognizer.from_engine(engine) as recognizer:
        sheet = ContactSheet(Path("own_model.png"))
        for result in recognizer.stream(source):
            said = ", ".join(f"{item.label} {item.score:.2f}" for item in result.prediction.labels)
            print(f"{Path(result.frame.source).name}: {said or 'nothing'}")
            sheet.write(result)
        sheet.close()


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
