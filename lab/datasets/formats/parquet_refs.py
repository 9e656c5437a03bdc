"""References in parquet: lmms-lab's, with pictures inside, and jxu124's, with the original records as JSON text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from lab.datasets.expressions import Expression, Picture
from lab.datasets.formats.base import Format, Inputs, four_numbers, has_keys, need, stated_size
from lab.datasets.formats.coco_names import coco_names

_JXU124_SPLITS = {"validation": "val", "test": "testA"}


def is_lmms_lab(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """lmms-lab: the expressions stand in `answer`."""
    return has_keys(record, "question_id", "answer", "bbox", "file_name")


def is_jxu124(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """jxu124: `raw_anns` beside `bbox`."""
    return has_keys(record, "raw_anns", "bbox", "sentences")


def read_lmms_lab(inputs: Inputs) -> Iterator[Expression]:
    """One expression an answer; `question_id` is the annotation, and repeats where two splits were merged."""
    dataset, split = _named(inputs)
    for number, row in enumerate(inputs.records()):
        what = f"row {number + 1}"
        image: Any = row.get("image")
        content = image.get("bytes") if isinstance(image, Mapping) else None
        names = coco_names(str(need(row, "file_name", what)))
        segmentation = _flat_polygon(row.get("segmentation"))
        for sent_id, answer in enumerate(need(row, "answer", what)):
            yield Expression(
                prompt=str(answer),
                picture=Picture(names, None, stated_size(row), content if isinstance(content, bytes) else None),
                boxes=(four_numbers(need(row, "bbox", what), what),),
                dataset=dataset,
                split=split,
                ref_id=number,
                sent_id=sent_id,
                ann_id=str(row["question_id"]),
                segmentation=segmentation,
            )


def read_jxu124(inputs: Inputs) -> Iterator[Expression]:
    """One expression a sentence; `bbox` has corners, `raw_anns` width and height; the split `test` is testA."""
    dataset, named = _named(inputs)
    for number, row in enumerate(inputs.records()):
        what = f"row {number + 1}"
        annotation = _decoded(need(row, "raw_anns", what), what)
        image = _decoded(row.get("raw_image_info") or "{}", what)
        image_id = int(need(row, "image_id", what))
        split = str(row.get("split") or named)
        if dataset != "refcocog":
            split = _JXU124_SPLITS.get(split, split)
        if inputs.split is not None and split != inputs.split:
            continue
        names = coco_names(str(image.get("file_name") or row.get("image_path") or ""), image_id)
        for sentence in need(row, "sentences", what):
            yield Expression(
                prompt=str(sentence["sent"]),
                picture=Picture(names, image_id, stated_size(image)),
                boxes=(four_numbers(need(row, "bbox", what), what),),
                dataset=dataset,
                split=split,
                ref_id=row.get("ref_id"),
                sent_id=sentence.get("sent_id"),
                ann_id=row.get("ann_id"),
                category_id=row.get("category_id"),
                segmentation=annotation.get("segmentation") or None,
            )


def _named(inputs: Inputs) -> tuple[str, str]:
    """Data set and split by the path, such as `RefCOCOplus/data/testA-00000-of-00001.parquet`."""
    text = str(inputs.path).lower()
    found = next((name for name in ("refcocoplus", "refcoco+", "refcocog", "refcoco") if name in text), "")
    stem = inputs.path.name.split("-")[0].split(".")[0]
    split = stem if stem in {"train", "val", "validation", "test", "testA", "testB"} else ""
    return inputs.dataset or found.replace("plus", "+"), inputs.split or split


def _decoded(text: Any, what: str) -> Mapping[str, Any]:
    if isinstance(text, Mapping):
        return text
    try:
        value = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        value = None
    if not isinstance(value, Mapping):
        raise ValueError(f"Expected {what} to hold its original record as JSON text, but got {str(text)[:40]!r}.")
    return value


def _flat_polygon(value: Any) -> Any:
    """lmms-lab keeps one polygon as a flat list of numbers; whatever else stands there is no mask."""
    if isinstance(value, (list, tuple)) and len(value) >= 6 and all(isinstance(n, (int, float)) for n in value):
        return [[float(number) for number in value]]
    return None


LMMS_LAB = Format("lmms_lab", "lmms-lab parquet, pictures inside", ("xywh",), is_lmms_lab, read_lmms_lab)
JXU124 = Format("jxu124", "jxu124 parquet", ("xyxy",), is_jxu124, read_jxu124)
