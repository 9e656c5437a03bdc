"""Tables of text, CSV and TSV: a row an expression, and VLMEvalKit's with pictures as base64 text."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from lab.datasets.expressions import Expression, Picture
from lab.datasets.formats.base import Format, Inputs, four_numbers, need, stated_size
from lab.datasets.formats.coco_names import coco_names

_TEXT_KEYS = ("expression", "prompt", "phrase", "caption", "sent", "text", "query")
_IMAGE_KEYS = ("image_path", "image", "img_path", "file_name", "image_file")
_CORNER_KEYS = (("x1", "y1", "x2", "y2"), ("x0", "y0", "x1", "y1"), ("xmin", "ymin", "xmax", "ymax"))
_SIZE_KEYS = (("x", "y", "width", "height"), ("x", "y", "w", "h"))
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE]-?\d+)?")
_REF = re.compile(r"<ref>(.*?)</ref>", re.S)


def _is_delimited(path: Path) -> bool:
    return path.suffix.lower() in {".csv", ".tsv"}


def is_vlmevalkit(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """VLMEvalKit: `question` and `answer`."""
    return _is_delimited(path) and record is not None and {"question", "answer", "image"} <= set(record)


def is_table(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """Any other table."""
    return _is_delimited(path) and record is not None and not is_vlmevalkit(path, record)


def read_table_rows(inputs: Inputs) -> Iterator[Expression]:
    """One expression a row; columns as people name them: a phrase, a picture, and four columns or one with a box."""
    for number, row in enumerate(inputs.records()):
        what = f"row {number + 2}"  # the header is the first
        image = str(need(row, _known(row, _IMAGE_KEYS, what), what))
        yield Expression(
            prompt=str(need(row, _known(row, _TEXT_KEYS, what), what)),
            picture=Picture(coco_names(image), None, _size(row)),
            boxes=(_box(row, what),),
            corners="" if row.get("bbox") else "xyxy",
            dataset=str(row.get("dataset") or inputs.dataset),
            split=str(row.get("split") or inputs.split or ""),
            sent_id=row.get("id") or number,
        )


def read_vlmevalkit(inputs: Inputs) -> Iterator[Expression]:
    """One expression a row; the picture is base64 text or, where it is short, the number of the row that has it."""
    pictures: dict[str, str] = {}
    for number, row in enumerate(inputs.records()):
        what = f"row {number + 2}"
        index, text = str(row.get("index") or number), str(need(row, "image", what))
        pictures[index] = text if len(text) > 64 else pictures.get(text, text)
        marked = _REF.search(str(need(row, "question", what)))
        if marked is None:
            raise ValueError(f"Expected the question of {what} to hold its phrase in <ref> marks, but got none.")
        yield Expression(
            prompt=marked[1].strip(),
            picture=Picture((), index, None, _decoded(pictures[index], what)),
            boxes=(four_numbers(_NUMBER.findall(str(need(row, "answer", what))), what),),
            dataset=inputs.dataset or str(row.get("category") or "").split(" ")[0].lower(),
            split=inputs.split or str(row.get("category") or "").split(" ")[-1].replace("-", ""),
            sent_id=index,
        )


def _known(row: Mapping[str, Any], names: tuple[str, ...], what: str) -> str:
    found = next((name for name in names if row.get(name)), None)
    if found is None:
        raise ValueError(
            f"Expected {what} to have one of the columns {', '.join(names)}, but got {', '.join(map(str, row))[:120]}."
        )
    return found


def box_columns(row: Mapping[str, Any]) -> Optional[tuple[str, tuple[str, ...]]]:
    """The columns that hold a box and how they are meant: corners, sizes, or one `bbox` that does not tell."""
    for corners, sets in (("xyxy", _CORNER_KEYS), ("xywh", _SIZE_KEYS)):
        for keys in sets:
            if all(row.get(key) not in (None, "") for key in keys):
                return corners, keys
    return ("auto", ("bbox",)) if row.get("bbox") else None


def _box(row: Mapping[str, Any], what: str) -> tuple[float, float, float, float]:
    """Corners; columns that say width and height are added up here, since a table may have either."""
    found = box_columns(row)
    if found is None:
        raise ValueError(f"Expected {what} to have columns for a box, such as x1, y1, x2, y2, but got none.")
    corners, keys = found
    numbers = _NUMBER.findall(str(row["bbox"])) if keys == ("bbox",) else [row[key] for key in keys]
    x, y, third, fourth = four_numbers(numbers, what)
    return (x, y, x + third, y + fourth) if corners == "xywh" else (x, y, third, fourth)


def _size(row: Mapping[str, Any]) -> Optional[tuple[int, int]]:
    """`width` and `height` are the box's where they stand beside x and y."""
    if row.get("image_width"):
        return stated_size({"width": row["image_width"], "height": row.get("image_height")})
    found = box_columns(row)
    return None if found is not None and "width" in found[1] else stated_size(row)


def _decoded(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"Expected the picture of {what} as base64 text, but got {text[:20]!r}.") from None


_TABLE_BOXES = ("xywh", "xyxy", "xywh_unit", "xyxy_unit", "xyxy_thousand")
_ANSWER_BOXES = ("xyxy", "xyxy_unit")
TABLE = Format("table", "CSV or TSV", _TABLE_BOXES, is_table, read_table_rows)
VLMEVALKIT = Format("vlmevalkit", "VLMEvalKit's TSV, pictures inside", _ANSWER_BOXES, is_vlmevalkit, read_vlmevalkit)
