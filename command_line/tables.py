"""Rows of text as a table with columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def format_table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Lay rows out in columns: text to the left, numbers to the right.

    Args:
        rows: One mapping from column to text for each row; columns are those of all rows, in order of appearance.

    Returns:
        A head line and one line for each row; nothing for no rows.
    """
    columns = list(dict.fromkeys(column for row in rows for column in row))
    cells = [[str(row.get(column, "")) for column in columns] for row in rows]
    widths = [max(len(column), *(len(line[at]) for line in cells)) for at, column in enumerate(columns)]
    numeric = [all(_is_number(line[at]) for line in cells) for at in range(len(columns))]

    def lay_out(line: Sequence[str]) -> str:
        parts = [text.rjust(width) if right else text.ljust(width) for text, width, right in zip(line, widths, numeric)]
        return "  ".join(parts).rstrip()

    return [lay_out(line) for line in [columns, *cells]] if rows else []


def _is_number(text: str) -> bool:
    try:
        float(text.rstrip("%").split(" ")[0] or "0")
    except ValueError:
        return text in {"", "-"}
    return True
