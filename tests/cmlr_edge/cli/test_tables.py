"""Tables on a narrow terminal, in a pipe, and in a file."""

from __future__ import annotations

import io

import pytest

from cmlr_edge.cli.tables import stdout, table

PATH = f"/{'recordings/' * 20}a.mp4"


@pytest.mark.parametrize("columns", ["20", "40", None])
def test_no_table_cuts_a_word_or_a_path(
    monkeypatch: pytest.MonkeyPatch, columns: str | None
) -> None:
    if columns is None:
        monkeypatch.delenv("COLUMNS", raising=False)
    else:
        monkeypatch.setenv("COLUMNS", columns)
    rows = table("label", "source", right=("frames", "mean score"), title="x")
    rows.add_row("refrigerator", PATH, "149", "12345.51")
    file = io.StringIO()
    stdout(file=file).print(rows)
    said = file.getvalue()
    assert "…" not in said
    assert "149 ┃ 12345.51" in said.replace("│", "┃").replace("   ", " ").replace("  ", " ")
    assert {"frames", "mean score"} <= {
        word.strip() for word in said.replace("┃", "\n").split("\n")
    }
    assert (PATH in said) == (columns is None)
