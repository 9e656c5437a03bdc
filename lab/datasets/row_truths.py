"""Ground-truth boxes of an input file's rows, as far as they can be told: for figures, which do without."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Callable

import numpy as np

from lab.datasets.box_reading import AUTO, BOX_FIELDS, Box, box_numbers, has_extent, read_boxes, row_size
from lab.datasets.cells import read_geometry
from lab.datasets.pictures import read_size
from lab.storage.files import JsonlLine

logger = logging.getLogger(__name__)

Size = tuple[float, float]


def read_truth_boxes(
    lines: Iterable[JsonlLine],
    image_field: str,
    find_image: Callable[[str], str],
    *,
    where: str,
    box_format: str,
) -> dict[int, Box]:
    """Read the rows' boxes, all in one way; where that cannot be told, one warning says so, and there are none.

    Args:
        lines: All rows of the file.
        image_field: Key of the picture's path, which is opened for its size where the row does not state that.
        find_image: Gives the path of a picture, or a ValueError.
        where: The file, for messages.
        box_format: `auto`, or how boxes are written (`lab.datasets.box_reading.BOX_FORMATS`).

    Returns:
        Half-open boxes in pixels by line number; rows without a usable box are left out.
    """
    rows_read = [(line.number, read_geometry(line.row)) for line in lines if line.row is not None]
    found = [(number, row, *box) for number, row in rows_read if (box := _numbers(row)) is not None]
    size_of = functools.cache(functools.partial(_picture_size, find_image=find_image))  # many rows share a picture
    boxes: dict[int, Box] = {}
    for field in BOX_FIELDS:
        rows = [(number, row, numbers) for number, row, name, numbers in found if name == field]
        if not rows:
            continue
        sizes = [_size(row, image_field, size_of) for _, row, _ in rows]
        try:
            read = _read(field, [numbers for _, _, numbers in rows], sizes, where, box_format)
        except ValueError as error:
            logger.warning("Figures show no ground truth: %s", error)
            return {}
        boxes.update({number: box for (number, _, _), box in zip(rows, read) if not math.isnan(box[0])})
    return boxes


def _numbers(row: Mapping[str, Any]) -> tuple[str, Box] | None:
    """Field and numbers of a row's one box; None where it has none, several, or something else in its place."""
    try:
        found = None if row.get("boxes_xyxy") else box_numbers(row)
    except ValueError:
        return None
    return found if found is not None and has_extent(found[1], found[0]) else None


def _size(row: Mapping[str, Any], image_field: str, size_of: Callable[[str], Size]) -> Size:
    """Width and height of a row's picture; NaN where nobody says it."""
    stated, name = row_size(row), row.get(image_field)
    return size_of(name) if math.isnan(stated[0]) and isinstance(name, str) else stated


def _picture_size(name: str, find_image: Callable[[str], str]) -> Size:
    try:
        size = read_size(Path(find_image(name)))
    except Exception:  # whatever is odd about a picture, its own rows fail with a reason, and no others
        size = None
    return (math.nan, math.nan) if size is None else (float(size[0]), float(size[1]))


def _read(field: str, numbers: Sequence[Box], sizes: Sequence[Size], where: str, box_format: str) -> list[Box]:
    declared = AUTO if field == "bbox_xyxy" and box_format.startswith("xywh") else box_format
    read = read_boxes(
        np.array(numbers), np.array(sizes), field=field, where=where, box_format=declared, option="data.box_format"
    )
    return [(float(box[0]), float(box[1]), float(box[2]), float(box[3])) for box in read.boxes_xyxy]
