"""Labels of one picture: `python examples/photo.py street.jpg`."""

from __future__ import annotations

import sys

import cv2

from cmlr_edge import Recognizer, demo_engine


def main(path: str) -> None:
    """Print each label that reaches its own threshold, and the three scores below it."""
    image = cv2.imread(path)  # (H, W, 3), BGR
    if image is None:
        sys.exit(f"{path} is not a picture")
    with Recognizer.from_engine(demo_engine()) as recognizer:
        prediction = recognizer(image)
        said = {item.label for item in prediction.labels}
        for item in prediction.labels:
            print(f"{item.label:15} {item.score:.2f}")
        ranked = sorted(zip(prediction.scores, recognizer.labels, strict=True), reverse=True)
        rest = [(name, score) for score, name in ranked if name not in said]
        print("not said:", ", ".join(f"{name} {score:.2f}" for name, score in rest[:3]))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
