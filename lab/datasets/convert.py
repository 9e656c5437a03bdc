"""Any format -> rows that every stage reads: a tiny common part under the formats."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Optional

import numpy as np

from lab.datasets.box_reading import AUTO, BAD_SHARE, ReadBoxes, read_boxes
from lab.datasets.expressions import Expression
from lab.datasets.formats.base import Format, Inputs
from lab.datasets.formats.registry import FORMATS, find_format
from lab.datasets.masks import to_rle
from lab.datasets.pictures import FoundPicture, PictureFinder
from lab.datasets.report import ConversionReport, make_report
from lab.storage.files import atomic_write


@dataclass(frozen=True)
class ConversionOptions:
    """How to convert.

    Attributes:
        format_name: Name of the format, or `auto`.
        images: Directories of pictures.
        box_format: How boxes are read, or `auto`.
        masks: Whether masks are kept, which needs pycocotools.
        allow_merged: Take a file in which two splits seem to be merged.
    """

    format_name: str = AUTO
    images: tuple[Path, ...] = ()
    box_format: str = AUTO
    masks: bool = True
    allow_merged: bool = False


def convert(inputs: Inputs, output: Path, options: ConversionOptions) -> ConversionReport:
    """Convert a data set.

    Args:
        inputs: What it is read from.
        output: JSON lines to write; the report goes beside it, as `<output>.report.json`, and pictures that the data
            set carries go to `<output without suffix>_images/`.
        options: How.

    Returns:
        What was read.

    Raises:
        ValueError: The format or the reading of the boxes cannot be told, the file contradicts its format, two splits
            are merged in it, or it holds no expression.
        FileNotFoundError: There is no such file.
    """
    form, why = _choose_format(inputs.path, options.format_name)
    read = list(form.read(inputs))
    expressions = [expression for expression in read if expression.prompt.strip()]
    if not expressions:
        asked = "" if inputs.split is None else f" of the split {inputs.split!r}"
        raise ValueError(f"Expected {inputs.path} to hold expressions{asked}, but got none. Check --input and --split.")
    own_directory = inputs.path if inputs.path.is_dir() else inputs.path.parent
    finder = PictureFinder((*options.images, own_directory), output.parent / f"{output.stem}_images")
    pictures = [finder.find(expression.picture) for expression in expressions]
    boxes = _read_all_boxes(form, expressions, pictures, options, inputs.path)
    ids = _unique_ids(expressions)
    report = make_report(form, why, expressions, pictures, boxes, len(read) - len(expressions))
    if report.merged and not options.allow_merged:
        raise ValueError(
            f"Expected {inputs.path} to hold one split, but got what looks like two merged: {report.merged} "
            "A score on it is no score of either. Say --allow-merged to convert it all the same."
        )
    rows = _rows(ids, expressions, pictures, boxes, output, options)
    atomic_write(output, "".join(json.dumps(row, ensure_ascii=True) + "\n" for row in rows))
    atomic_write(report_path(output), json.dumps(report.to_dict(), indent=2, ensure_ascii=True) + "\n")
    return report


def report_path(output: Path) -> Path:
    """Where the report of a conversion lies."""
    return output.with_name(f"{output.name}.report.json")


def _choose_format(path: Path, name: str) -> tuple[Format, str]:
    if name == AUTO:
        form = find_format(path)
        return form, f"told by its first record ({form.title})"
    if name not in FORMATS:
        raise ValueError(f"Expected --format to be auto or one of {', '.join(FORMATS)}, but got {name[:40]!r}.")
    return FORMATS[name], "as given"


def _read_all_boxes(
    form: Format,
    expressions: Sequence[Expression],
    pictures: Sequence[FoundPicture],
    options: ConversionOptions,
    path: Path,
) -> Optional[ReadBoxes]:
    """The boxes of all expressions, one after the other, in one reading; None where there are none."""
    numbers = np.array([box for expression in expressions for box in expression.boxes], dtype=np.float64).reshape(-1, 4)
    if not len(numbers):
        return None
    unknown = (np.nan, np.nan)
    sizes = [found.size_wh or unknown for expression, found in zip(expressions, pictures) for _ in expression.boxes]
    candidates = _candidates(form, expressions)
    fixed = options.box_format == AUTO and len(candidates) == 1
    read = read_boxes(
        numbers,
        np.array(sizes, dtype=np.float64),
        field="bbox",
        where=str(path),
        box_format=candidates[0] if fixed else options.box_format,
        candidates=candidates,
    )
    if not fixed:
        return read
    _check_fixed_reading(read, numbers, form, path)
    return replace(read, why=f"as the format {form.name} has them")


def _check_fixed_reading(read: ReadBoxes, numbers: np.ndarray, form: Format, path: Path) -> None:
    """Refuse boxes that contradict their format: shares where pixels are expected, corners where sizes are."""
    wrong = len(read.outside) + len(read.unreadable)
    contradicted = wrong > BAD_SHARE * len(numbers) and (wrong > 1 or wrong > len(numbers) / 2)
    if contradicted or (read.reading.scale == "pixels" and numbers.max() <= 1.0):
        raise ValueError(
            f"Expected the boxes of {path} to be {read.reading.description}, as the format {form.name} has them, but "
            f"got {wrong} of {len(numbers)} without extent or outside their pictures, and no number above "
            f"{numbers.max():g}. Say how they are meant with --box-format."
        )


def _candidates(form: Format, expressions: Sequence[Expression]) -> tuple[str, ...]:
    """Readings that the format allows, less those that the file's own names rule out."""
    corners = {expression.corners for expression in expressions}
    if len(corners) == 1 and corners != {""}:
        (only,) = corners
        return tuple(name for name in form.box_formats if name.startswith(only))
    return form.box_formats


def _unique_ids(expressions: Sequence[Expression]) -> list[str]:
    """Ids of data set, split, reference and sentence; where these repeat, a number tells them apart."""
    names = [_name(expression) for expression in expressions]
    counts, seen = Counter(names), Counter[str]()
    ids = []
    for name in names:
        seen[name] += 1
        ids.append(name if counts[name] == 1 else f"{name}_{seen[name]}")
    return ids


def _name(expression: Expression) -> str:
    parts = (expression.dataset, expression.split_by, expression.split, expression.ref_id, expression.sent_id)
    return (
        "_".join(str(part) for part in parts if part not in (None, "")).replace("+", "plus").replace(" ", "-") or "row"
    )


def _rows(
    ids: Sequence[str],
    expressions: Sequence[Expression],
    pictures: Sequence[FoundPicture],
    boxes: Optional[ReadBoxes],
    output: Path,
    options: ConversionOptions,
) -> Iterator[dict[str, Any]]:
    start = 0
    for row_id, expression, found in zip(ids, expressions, pictures):
        stop = start + len(expression.boxes)
        own = [] if boxes is None else boxes.boxes_xyxy[start:stop].tolist()
        start = stop
        yield _row(row_id, expression, found, own, output, options)


def _row(
    row_id: str,
    expression: Expression,
    found: FoundPicture,
    boxes_xyxy: list[list[float]],
    output: Path,
    options: ConversionOptions,
) -> dict[str, Any]:
    usable = [box for box in boxes_xyxy if all(np.isfinite(box))]
    row: dict[str, Any] = {
        "id": row_id,
        "prompt": expression.prompt,
        "image_path": _relative(found.path, output.parent),
        "bbox_xyxy": usable[0] if len(usable) == 1 else None,
        "image_size": None if found.size_wh is None else list(found.size_wh),
    }
    if len(usable) > 1:
        row["boxes_xyxy"] = usable
    if expression.no_target:
        row["no_target"] = True
    for key in ("dataset", "split", "split_by", "ref_id", "sent_id", "ann_id", "category_id"):
        value = getattr(expression, key)
        if value not in (None, ""):
            row[key] = value
    if expression.picture.image_id is not None:
        row["image_id"] = expression.picture.image_id
    if options.masks:
        row.update(_masks(expression, found))
    return {**row, **expression.extra}


def _masks(expression: Expression, found: FoundPicture) -> dict[str, Any]:
    mask = to_rle(expression.segmentation, found.size_wh)
    ignored = to_rle(list(expression.ignored), found.size_wh)
    return {key: value for key, value in (("mask", mask), ("ignore_mask", ignored)) if value is not None}


def _relative(path: Path, directory: Path) -> str:
    """From the rows' own directory where it lies below it, so that a data set can be moved; else absolute."""
    try:
        return path.resolve().relative_to(directory.resolve()).as_posix()
    except ValueError:
        return str(path.resolve())
