"""JSON lines without ids: Shikra's, and those of Qwen-VL and InternVL."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from lab.datasets.expressions import Expression, Picture
from lab.datasets.formats.base import Format, Inputs, four_numbers, has_keys, need, stated_size
from lab.datasets.formats.coco_names import coco_names

_NAME = re.compile(r"(refcoco[+g]?|refcocoplus)(?:_(unc|umd|google))?_(train|val|validation|testA|testB|test)", re.I)


def names_in(path: Path) -> tuple[str, str, str]:
    """Data set, maker of the split, and split, as far as a file's name tells; empty strings where it does not."""
    match = _NAME.search(path.name)
    if match is None:
        return "", "", ""
    dataset = match[1].lower().replace("plus", "+")
    return dataset, (match[2] or "").lower(), match[3]


def is_shikra(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """Shikra: `img_path` and `expression`."""
    return has_keys(record, "img_path", "expression", "bbox")


def is_qwen(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """Qwen-VL and InternVL: `image` and `sent`."""
    return has_keys(record, "image", "sent", "bbox")


def read_shikra(inputs: Inputs) -> Iterator[Expression]:
    """One expression a line; later files have corners in pixels, early ones the same fields as shares."""
    return _read_lines(inputs, "img_path", "expression")


def read_qwen(inputs: Inputs) -> Iterator[Expression]:
    """One expression a line, corners in pixels."""
    return _read_lines(inputs, "image", "sent")


def _read_lines(inputs: Inputs, image_key: str, text_key: str) -> Iterator[Expression]:
    named, split_by, split = names_in(inputs.path)
    for number, row in enumerate(inputs.records()):
        what = f"row {number + 1}"
        yield Expression(
            prompt=str(need(row, text_key, what)),
            picture=Picture(coco_names(str(need(row, image_key, what))), None, stated_size(row)),
            boxes=(four_numbers(need(row, "bbox", what), what),),
            dataset=str(row.get("dataset_name") or named or inputs.dataset),
            split=split or inputs.split or "",
            split_by=split_by,
            sent_id=number,
        )


SHIKRA = Format("shikra", "Shikra's JSON lines", ("xyxy", "xyxy_unit"), is_shikra, read_shikra)
QWEN = Format("qwen", "JSON lines of Qwen-VL and InternVL", ("xyxy",), is_qwen, read_qwen)
