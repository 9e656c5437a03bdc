"""Cells of a table, which are text, as the values that rows of other files hold: numbers, lists, nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

GEOMETRY = ("bbox_xyxy", "bbox", "boxes_xyxy", "image_size", "width", "height")
_LONGEST = 10_000


def read_geometry(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the boxes and sizes of a row that hold them as text: `[1, 2, 3, 4]` is a list, an empty cell is nothing.

    Args:
        row: A row; nothing in it is changed.

    Returns:
        The row with values in place of texts; a text that is neither stays, for others to complain about.
    """
    texts = {key: row[key] for key in GEOMETRY if isinstance(row.get(key), str)}
    return {**row, **{key: _value(text) for key, text in texts.items()}} if texts else row


def _value(text: str) -> Any:
    if not text.strip():
        return None
    try:
        return json.loads(text) if len(text) <= _LONGEST else text
    except (ValueError, RecursionError):
        return text
