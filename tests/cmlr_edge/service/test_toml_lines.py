"""An error names the line of a configuration where a label stands, and no other that holds the word."""

from __future__ import annotations

import pytest

from cmlr_edge.service.toml_lines import line_with


@pytest.mark.parametrize(
    ("text", "label", "line"),
    [
        ('[[sources]]\nname = "door"\nuri = "door.mp4"\nlabels = ["cat", "door"]', "door", 4),
        ("labels = [\n 'hot dog',  # dog\n 'dog',\n]", "dog", 3),
        ("x = 1\nthresholds = {dog = 0.5}", "dog", 2),
        ("[stability]\nconfirm = 2\n[stability.labels.dog]\nconfirm = 1", "dog", 3),
        ('[collect]\nwithout = ["#1 \\"a\\""]', '#1 "a"', 2),
        ("[page]\ndog = 1\n[thresholds]\n# dog = 1", "dog", 0),
    ],
)
def test_only_where_labels_are_named_a_word_is_one(text: str, label: str, line: int) -> None:
    assert line_with(text, [label]) == line
