"""Ground truth of a data set's rows: ids, boxes in one reading for the whole file, masks, pictures."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lab.boxes import Box
from lab.datasets.box_reading import (
    AUTO,
    BOX_FIELDS,
    box_numbers,
    check_box_format,
    has_extent,
    read_boxes,
    row_size,
)
from lab.datasets.cells import read_geometry
from lab.datasets.tables import read_table
from lab.storage.files import JsonlLine

Size = tuple[float, float]


@dataclass(frozen=True)
class Truth:
    """The ground truth of one row.

    Attributes:
        id: Its identifier.
        line_number: 1-based line of the file.
        box_xyxy: Half-open box in pixels; None where the row has several targets or none.
        boxes_xyxy: All its target boxes.
        image_size_wh: Size of its picture, or None where nobody says it.
        row: The row itself.
    """

    id: str
    line_number: int
    box_xyxy: Optional[Box]
    boxes_xyxy: tuple[Box, ...]
    image_size_wh: Optional[Size]
    row: Mapping[str, Any]

    @property
    def target_xyxy(self) -> Box:
        """Its one target.

        Raises:
            ValueError: It has several, or none.
        """
        if self.box_xyxy is None:
            raise ValueError(f"Expected row {self.id!r} to have one target box, but got {len(self.boxes_xyxy)}.")
        return self.box_xyxy

    @property
    def picture(self) -> str:
        """What tells its picture from others: rows of one picture are not independent."""
        for key in ("image_path", "image_file", "image_id", "image", "file_name"):
            value = self.row.get(key)
            if isinstance(value, (str, int)) and not isinstance(value, bool):
                return str(value)
        return f"row {self.id}"

    @property
    def ref(self) -> str:
        """The object that it refers to, as the data set numbers them; itself where it does not."""
        value = self.row.get("ref_id")
        if value is None:
            return f"row {self.id}"
        return "/".join(str(self.row.get(key, "")) for key in ("dataset", "split_by", "split", "ref_id"))


@dataclass(frozen=True)
class Truths:
    """All rows with a ground truth.

    Attributes:
        rows: One for each, in the order of the file.
        broken: Sentences that name rows without a usable id or ground truth.
        reading: How boxes were read, and why; one sentence for each field that holds some.
    """

    rows: tuple[Truth, ...]
    broken: tuple[str, ...]
    reading: tuple[str, ...]


@dataclass(frozen=True)
class ParsedRow:
    """One row before its numbers are read: id, line, field, numbers, and whatever else it says."""

    id: str
    line_number: int
    field: Optional[str]
    numbers: Optional[Box]
    row: Mapping[str, Any]


def parse_rows(dataset_jsonl: str | os.PathLike[str], id_field: str) -> tuple[list[ParsedRow], list[str]]:
    """Read ids and numbers; how these are meant is settled for all rows together, by `settle_truths`.

    Args:
        dataset_jsonl: JSON lines, one JSON array, or a CSV or TSV table (`lab.datasets.tables.read_table`).
        id_field: Field of the rows that holds the id.

    Returns:
        The rows that have both, and a sentence for each row that has not.

    Raises:
        ValueError: No row has them, or an id is there twice.
        FileNotFoundError: There is no such file.
    """
    rows: list[ParsedRow] = []
    broken: list[str] = []
    for line in read_table(dataset_jsonl):
        try:
            rows.append(_parse(line, id_field))
        except ValueError as error:
            broken.append(str(error))
    if not rows:
        reason = f"but none of its {len(broken)} rows has them: {broken[0]}" if broken else "but it is empty."
        raise ValueError(f"Expected {dataset_jsonl} to hold rows with an id and a ground-truth box, {reason}")
    _check_no_duplicates(rows, id_field)
    return rows, broken


def settle_truths(
    parsed: Sequence[ParsedRow],
    broken: Sequence[str],
    where: str | os.PathLike[str],
    *,
    box_format: str = AUTO,
    sizes: Optional[Mapping[str, Size]] = None,
    option: str = "--box-format",
) -> Truths:
    """Read all boxes of a file in one way.

    Args:
        parsed: Its rows.
        broken: Sentences on rows that are none.
        where: The file, for messages and for pictures beside it.
        box_format: `auto`, or how boxes are written (`lab.datasets.box_reading.BOX_FORMATS`).
        sizes: Width and height of pictures by id, as predictions or attention files state them.
        option: How the user declares the format, for messages.

    Returns:
        The truths.

    Raises:
        ValueError: No reading is possible, or two are and disagree.
    """
    check_box_format(box_format, option)
    stated, directory = sizes or {}, Path(where).parent
    known = [_size_of(row, stated, directory) for row in parsed]
    boxes: dict[int, Box] = {}
    unusable: dict[int, str] = {}
    reading = []
    for field in BOX_FIELDS:
        indices = [index for index, row in enumerate(parsed) if row.field == field]
        if not indices:
            continue
        numbers = np.array([parsed[index].numbers for index in indices], dtype=np.float64)
        image_sizes_wh = np.array([known[index] or (np.nan, np.nan) for index in indices], dtype=np.float64)
        declared = AUTO if field == "bbox_xyxy" and box_format.startswith("xywh") else box_format
        found = read_boxes(numbers, image_sizes_wh, field=field, where=str(where), box_format=declared, option=option)
        reading.append(f"{field!r} read as {found.reading.description}, {found.why}")
        boxes.update((index, _as_box(box)) for index, box in zip(indices, found.boxes_xyxy))
        unusable.update((indices[at], found.reading.description) for at in found.unreadable)
    rows = [_truth(row, boxes.get(index), known[index]) for index, row in enumerate(parsed) if index not in unusable]
    sentences = [
        f"Expected line {parsed[index].line_number} to have a ground-truth box {parsed[index].field!r} with x0 < x1 "
        f"and y0 < y1 as {description}, but got {list(parsed[index].numbers or ())}."
        for index, description in unusable.items()
    ]
    return Truths(tuple(rows), (*broken, *sentences), tuple(reading))


def read_truths(
    dataset_jsonl: str | os.PathLike[str],
    id_field: str,
    *,
    box_format: str = AUTO,
    sizes: Optional[Mapping[str, Size]] = None,
    option: str = "--box-format",
) -> Truths:
    """`parse_rows` and `settle_truths` in one."""
    parsed, broken = parse_rows(dataset_jsonl, id_field)
    return settle_truths(parsed, broken, dataset_jsonl, box_format=box_format, sizes=sizes, option=option)


def _parse(line: JsonlLine, id_field: str) -> ParsedRow:
    if line.row is None:
        raise ValueError(line.error)
    row, where = read_geometry(line.row), f"line {line.number}"
    sample_id = row.get(id_field)
    if isinstance(sample_id, bool) or not isinstance(sample_id, (str, int)) or not str(sample_id).strip():
        raise ValueError(
            f"Expected {where} to have an id, text or a whole number, in the field {id_field!r}, "
            f"but got {str(sample_id)[:40]!r}. Its fields are {', '.join(map(repr, row))[:200]}: choose one with "
            "--id-field."
        )
    try:
        found = box_numbers(row)
    except ValueError as error:
        raise ValueError(f"Expected {where} to have a ground-truth box: {error}") from None
    if found is None and not row.get("no_target") and not row.get("boxes_xyxy"):
        raise ValueError(f"Expected {where} to have a ground-truth box 'bbox_xyxy' or 'bbox', but got neither.")
    field, numbers = found if found is not None else (None, None)
    if numbers is not None and not has_extent(numbers, field or ""):
        raise ValueError(
            f"Expected {where} to have a ground-truth box {field!r} with an extent, x0 < x1 and y0 < y1, "
            f"but got {list(numbers)}."
        )
    return ParsedRow(str(sample_id), line.number, field, numbers, row)


def _check_no_duplicates(rows: Sequence[ParsedRow], id_field: str) -> None:
    first_line: dict[str, int] = {}
    for row in rows:
        if row.id in first_line:
            raise ValueError(
                f"Expected every {id_field!r} to be there once, but got {row.id!r} in line {first_line[row.id]} "
                f"and again in line {row.line_number}. Choose another --id-field, or take one of the rows out."
            )
        first_line[row.id] = row.line_number


def _size_of(row: ParsedRow, sizes: Mapping[str, Size], directory: Path) -> Optional[Size]:
    """Size of a row's picture: what a prediction says, since boxes refer to that; the row; the picture itself."""
    if row.id in sizes:
        return sizes[row.id]
    stated = row_size(row.row)
    if np.isfinite(stated).all():
        return stated
    name = row.row.get("image_path")
    if not isinstance(name, str) or not name:
        return None
    from lab.datasets.pictures import read_size

    found = next((path for path in (directory / name, Path(name)) if path.is_file()), None)
    size = None if found is None else read_size(found)
    return None if size is None else (float(size[0]), float(size[1]))


def _truth(row: ParsedRow, box_xyxy: Optional[Box], image_size_wh: Optional[Size]) -> Truth:
    several = tuple(_as_box(box) for box in row.row.get("boxes_xyxy") or ())
    boxes = several or (() if box_xyxy is None else (box_xyxy,))
    return Truth(row.id, row.line_number, box_xyxy, boxes, image_size_wh, row.row)


def _as_box(numbers: Sequence[float] | np.ndarray) -> Box:
    x0, y0, x1, y1 = (float(number) for number in numbers)
    return x0, y0, x1, y1
