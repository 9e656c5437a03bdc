"""Rows with a ground truth -> checked boxes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.boxes import Box, xywh_to_xyxy
from lab.storage.files import JsonlLine, read_jsonl


@dataclass(frozen=True)
class Truth:
    """The ground truth of one row: its id, its line, its half-open box in pixels, and the row itself."""

    id: str
    line_number: int
    box_xyxy: Box
    row: Mapping[str, Any]


def read_truths(dataset_jsonl: str | os.PathLike[str], id_field: str) -> tuple[list[Truth], tuple[str, ...]]:
    """The rows with a ground truth, and a sentence for each row that is broken."""
    truths, broken = [], []
    for line in read_jsonl(dataset_jsonl):
        try:
            truths.append(_parse_truth(line, id_field))
        except ValueError as error:
            broken.append(str(error))
    if not truths:
        reason = f"but none of its {len(broken)} rows has them: {broken[0]}" if broken else "but it is empty."
        raise ValueError(f"Expected {dataset_jsonl} to hold rows with an id and a ground-truth box, {reason}")
    _check_no_duplicates(truths, id_field)
    return truths, tuple(broken)


def _parse_truth(line: JsonlLine, id_field: str) -> Truth:
    if line.row is None:
        raise ValueError(line.error)
    row, where = line.row, f"line {line.number}"
    sample_id = row.get(id_field)
    if isinstance(sample_id, bool) or not isinstance(sample_id, (str, int)) or not str(sample_id).strip():
        raise ValueError(
            f"Expected {where} to have an id, text or a whole number, in the field {id_field!r}, "
            f"but got {sample_id!r}. Its fields are {', '.join(map(repr, row))}: choose one with --id-field."
        )
    return Truth(str(sample_id), line.number, _parse_box(row, where), row)


def _parse_box(row: Mapping[str, Any], where: str) -> Box:
    """The ground-truth box of a row; `bbox_xyxy` goes before `bbox`."""
    field = "bbox_xyxy" if row.get("bbox_xyxy") is not None else "bbox"
    form = "[x0, y0, x1, y1] with x0 < x1 and y0 < y1" if field == "bbox_xyxy" else "[x, y, width, height]"
    value: Any = row.get(field)
    try:
        x0, y0, x1, y1 = (float(number) for number in value) if field == "bbox_xyxy" else xywh_to_xyxy(value)
        usable = all(map(math.isfinite, (x0, y0, x1, y1))) and x0 < x1 and y0 < y1
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ValueError(f"Expected {where} to have a ground-truth box {field!r} as {form}, but got {value!r}.")
    return x0, y0, x1, y1


def _check_no_duplicates(truths: Sequence[Truth], id_field: str) -> None:
    first_line: dict[str, int] = {}
    for truth in truths:
        if truth.id in first_line:
            raise ValueError(
                f"Expected every {id_field!r} to be there once, but got {truth.id!r} in line {first_line[truth.id]} "
                f"and again in line {truth.line_number}. Choose another --id-field, or take one of the rows out."
            )
        first_line[truth.id] = truth.line_number
