"""ReasonSeg: a directory of pictures, each with a JSON file of polygons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from lab.datasets.expressions import Expression, Picture
from lab.datasets.formats.base import Format, Inputs, has_keys, need
from lab.datasets.sources import read_json

_PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png")


def is_reasonseg(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """A file with `text` and `shapes`, or a directory of them."""
    if record is None:
        first = next(iter(sorted(path.glob("*.json"))), None) if path.is_dir() else None
        content = read_json(first) if first is not None else None
        return isinstance(content, Mapping) and has_keys(content, "text", "shapes")
    return has_keys(record, "text", "shapes")


def read_reasonseg(inputs: Inputs) -> Iterator[Expression]:
    """One expression a file: its first text, as scores use it; ignored shapes are kept apart, flags dropped."""
    files = sorted(inputs.path.glob("*.json")) if inputs.path.is_dir() else [inputs.path]
    for file in files:
        record = read_json(file)
        shapes = need(record, "shapes", file.name)
        targets = [_flat(shape) for shape in shapes if _kind(shape) == "target"]
        texts = need(record, "text", file.name)
        yield Expression(
            prompt=str(texts[0] if isinstance(texts, list) else texts),
            picture=Picture(tuple(f"{file.stem}{suffix}" for suffix in _PICTURE_SUFFIXES), file.stem),
            boxes=(_tight_box(targets),) if targets else (),
            dataset=inputs.dataset or "reasonseg",
            split=inputs.split or file.parent.name,
            ref_id=file.stem,
            segmentation=targets or None,
            ignored=tuple(_flat(shape) for shape in shapes if _kind(shape) == "ignore"),
            no_target=not targets,
            extra={"is_sentence": bool(record.get("is_sentence"))},
        )


def _kind(shape: Mapping[str, Any]) -> str:
    label = str(shape.get("label", "")).lower()
    return "ignore" if "ignore" in label else "flag" if "flag" in label else "target"


def _flat(shape: Mapping[str, Any]) -> list[float]:
    return [float(number) for point in shape["points"] for number in point]


def _tight_box(polygons: list[list[float]]) -> tuple[float, float, float, float]:
    xs = [number for polygon in polygons for number in polygon[::2]]
    ys = [number for polygon in polygons for number in polygon[1::2]]
    return min(xs), min(ys), max(xs), max(ys)


REASONSEG = Format(
    "reasonseg", "ReasonSeg, a directory of pictures and polygons", ("xyxy",), is_reasonseg, read_reasonseg
)
