"""Checks a file of rows before a model sees it: ids, pictures, boxes, and counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lab.datasets.box_reading import AUTO, box_numbers, read_boxes, row_size
from lab.datasets.pictures import read_size
from lab.storage.files import read_jsonl

NAMED = 5


@dataclass(frozen=True)
class Verification:
    """What was found in a file of rows.

    Attributes:
        lines: Readable summary.
        problems: One sentence each; none where the file can be used as it is.
    """

    lines: tuple[str, ...]
    problems: tuple[str, ...]


def verify(path: Path, *, box_format: str = AUTO) -> Verification:
    """Check a file of rows.

    Args:
        path: JSON lines with `id`, `prompt`, `image_path`, and boxes where there are any.
        box_format: How boxes are read, or `auto`.

    Returns:
        What was found.

    Raises:
        FileNotFoundError: There is no such file.
    """
    problems: list[str] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    for line in read_jsonl(path):
        if line.row is None:
            problems.append(line.error)
        else:
            rows.append((line.number, line.row))
    problems += _check_texts(rows)
    sizes, missing = _check_pictures(rows, path.parent)
    problems += missing
    lines = [f"rows     {len(rows):,} about {len({row.get('image_path') for _, row in rows}):,} pictures"]
    for field in ("bbox_xyxy", "bbox"):
        told, found = _check_boxes(rows, sizes, field, path, box_format)
        lines += told
        problems += found
    return Verification(tuple(lines), tuple(problems))


def _check_texts(rows: Sequence[tuple[int, dict[str, Any]]]) -> list[str]:
    problems = []
    for key in ("id", "prompt", "image_path"):
        absent = [number for number, row in rows if not str(row.get(key) if row.get(key) is not None else "").strip()]
        problems += _at_lines(absent, f"have no {key!r}")
    ids = Counter(str(row.get("id")) for _, row in rows)
    repeated = {name for name, count in ids.items() if count > 1}
    return problems + _at_lines([number for number, row in rows if str(row.get("id")) in repeated], "share their id")


def _check_pictures(
    rows: Sequence[tuple[int, dict[str, Any]]], directory: Path
) -> tuple[list[tuple[float, float]], list[str]]:
    """Sizes for reading boxes, each picture opened once, and sentences on pictures that are missing or differ."""
    known: dict[str, Optional[tuple[int, int]]] = {}
    sizes, missing, differing = [], [], []
    for number, row in rows:
        name = str(row.get("image_path") or "")
        if name not in known:
            known[name] = next((read_size(p) for p in (Path(name), directory / name) if name and p.is_file()), None)
        size, stated = known[name], row_size(row)
        if size is None:
            missing.append(number)
        elif np.isfinite(stated).all() and stated != size:
            differing.append(number)
        sizes.append((float(size[0]), float(size[1])) if size is not None else stated)
    problems = _at_lines(missing, "have no readable picture")
    return sizes, problems + _at_lines(differing, "state another size than their picture has")


def _check_boxes(
    rows: Sequence[tuple[int, dict[str, Any]]],
    sizes: Sequence[tuple[float, float]],
    field: str,
    path: Path,
    box_format: str,
) -> tuple[list[str], list[str]]:
    numbers, owners, problems = [], [], []
    for (number, row), size in zip(rows, sizes):
        try:
            found = box_numbers(row)
        except ValueError as error:
            problems += [f"line {number}: {error}"] if row.get(field) is not None else []
            continue
        if found is not None and found[0] == field:
            numbers.append(found[1])
            owners.append((number, size))
    if not numbers:
        return [], problems
    try:
        read = read_boxes(
            np.array(numbers, dtype=np.float64),
            np.array([size for _, size in owners], dtype=np.float64),
            field=field,
            where=str(path),
            box_format=box_format,
        )
    except ValueError as error:
        return [], [*problems, str(error)]
    told = f"boxes    {len(numbers):,} under {field!r}, read as {read.reading.description}, {read.why}"
    problems += _at_lines([owners[index][0] for index in read.outside], "have a box that leaves its picture")
    return [told], problems + _at_lines([owners[index][0] for index in read.unreadable], "have a box without extent")


def _at_lines(numbers: Sequence[int], what: str) -> list[str]:
    if not numbers:
        return []
    shown = ", ".join(map(str, numbers[:NAMED])) + (", ..." if len(numbers) > NAMED else "")
    return [f"{len(numbers)} rows {what}: line {shown}"]
