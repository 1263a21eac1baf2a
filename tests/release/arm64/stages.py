"""What each stage gives on this machine: a decoded frame, a resized picture, scores. Runs on both machines."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from cmlr_edge import Recognizer, demo_engine, open_source
from cmlr_edge.backends.golden import golden_frames
from cmlr_edge.preprocess import preprocess


def main(clip: str, out: Path) -> None:
    """Write the results of every stage for the same input as one .npz."""
    with open_source(clip) as frames:
        decoded = next(iter(frames)).image_bgr
    drawn = np.random.RandomState(0).randint(0, 256, (270, 480, 3)).astype(np.uint8)
    drawn = drawn.repeat(4, axis=0).repeat(4, axis=1)  # the same everywhere, without a decoder
    with Recognizer.from_engine(demo_engine()) as recognizer:
        resized = preprocess(drawn, recognizer.spec.preprocess)
        pixels = golden_frames(7, recognizer.spec.preprocess.size_hw)[0]
        scores = recognizer(pixels, color="rgb").scores  # of that size already: nothing is resized
    np.savez(out, decoded=decoded, resized=resized, scores=scores)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
