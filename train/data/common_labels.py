"""MS-COCO and NUS-WIDE labels with the same meaning, for training on one and testing on the other.

The choice is ours, one to one; the publications do not list theirs.
"""

from __future__ import annotations

from cmlr_edge.errors import DataError

# COCO's name -> NUS-WIDE's.
COCO_TO_NUS_WIDE = {
    "bear": "bear",
    "bird": "birds",
    "boat": "boats",
    "book": "book",
    "car": "cars",
    "cat": "cat",
    "cow": "cow",
    "dog": "dog",
    "horse": "horses",
    "person": "person",
    "airplane": "plane",
    "train": "train",
    "zebra": "zebra",
}


def common_labels(source: tuple[str, ...], target: tuple[str, ...]) -> tuple[tuple[int, int], ...]:
    """Pair the indices of labels that COCO and NUS-WIDE share, in COCO's order.

    Args:
        source: Labels that the model was trained on, of either data set.
        target: Labels of the other data set.

    Returns:
        13 pairs (index into `source`, index into `target`).

    Raises:
        DataError: The two are not COCO and NUS-WIDE.
    """
    coco_names, nus_names = set(COCO_TO_NUS_WIDE), set(COCO_TO_NUS_WIDE.values())
    pairs = tuple(COCO_TO_NUS_WIDE.items())
    if coco_names <= set(source) and nus_names <= set(target):
        return tuple((source.index(a), target.index(b)) for a, b in pairs)
    if nus_names <= set(source) and coco_names <= set(target):
        return tuple((source.index(b), target.index(a)) for a, b in pairs)
    raise DataError(
        f"no common labels are known for {len(source)} labels ({', '.join(source[:3])}, ...) and "
        f"{len(target)} labels ({', '.join(target[:3])}, ...): only for MS-COCO and NUS-WIDE"
    )
