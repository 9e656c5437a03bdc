"""COCO-shaped files: MDETR's, whose images are expressions, and plain instances, whose phrases are category names."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from lab.datasets.expressions import Expression, Picture
from lab.datasets.formats.base import Format, Inputs, four_numbers, has_keys, need, stated_size
from lab.datasets.formats.coco_names import coco_names
from lab.datasets.sources import read_json

_MDETR_SPLIT = re.compile(r"_(train|val|testA|testB|test)\b")
_EDITION_SPLIT = re.compile(r"(train|val|test)(?:20\d\d)")


def _first_image(record: Optional[Mapping[str, Any]]) -> Optional[Mapping[str, Any]]:
    images = None if record is None else record.get("images")
    return images[0] if isinstance(images, list) and images and isinstance(images[0], Mapping) else None


def is_mdetr(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """MDETR: every image has a caption."""
    return has_keys(record, "annotations") and has_keys(_first_image(record), "caption")


def is_instances(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """Plain COCO: images without captions."""
    first = _first_image(record)
    return has_keys(record, "annotations") and first is not None and "caption" not in first


def read_mdetr(inputs: Inputs) -> Iterator[Expression]:
    """One expression an image record; its number restarts in every file, so that COCO's own stands in `original_id`."""
    content = read_json(inputs.path)
    targets: dict[Any, list[Mapping[str, Any]]] = {}
    for annotation in content["annotations"]:
        targets.setdefault(annotation["image_id"], []).append(annotation)
    split = (_MDETR_SPLIT.search(inputs.path.name) or ("", ""))[1]
    if inputs.split is not None and split and split != inputs.split:
        raise ValueError(f"Expected {inputs.path.name} to be of split {inputs.split!r}, but its name says {split!r}.")
    for image in content["images"]:
        what = f"image {image.get('id')}"
        found = targets.get(image["id"], [])
        original = need(image, "original_id", what)
        single = found[0] if len(found) == 1 else {}
        yield Expression(
            prompt=str(need(image, "caption", what)),
            picture=Picture(coco_names(str(need(image, "file_name", what)), original), original, stated_size(image)),
            boxes=tuple(four_numbers(entry["bbox"], what) for entry in found),
            dataset=str(image.get("dataset_name") or inputs.dataset),
            split=split or inputs.split or "",
            sent_id=image["id"],
            ann_id=single.get("original_id"),
            category_id=single.get("category_id"),
            segmentation=single.get("segmentation") or None,
            no_target=not found,
        )


def read_instances(inputs: Inputs) -> Iterator[Expression]:
    """One expression for each category of a picture: its name, with the boxes of all its objects that are no crowd."""
    content = read_json(inputs.path)
    names = {category["id"]: str(category["name"]) for category in content.get("categories", [])}
    if not names:
        raise ValueError(f"Expected {inputs.path} to name its categories, which become the phrases, but got none.")
    by_picture: dict[Any, dict[Any, list[Mapping[str, Any]]]] = {}
    for annotation in content["annotations"]:
        if not annotation.get("iscrowd"):
            kinds = by_picture.setdefault(annotation["image_id"], {})
            kinds.setdefault(annotation["category_id"], []).append(annotation)
    split = inputs.split or (_EDITION_SPLIT.search(inputs.path.name) or ("", ""))[1]
    for image in content["images"]:
        picture = Picture(coco_names(str(image["file_name"]), image["id"]), image["id"], stated_size(image))
        for category, found in by_picture.get(image["id"], {}).items():
            yield Expression(
                prompt=names[category],
                picture=picture,
                boxes=tuple(four_numbers(entry["bbox"], f"annotation {entry.get('id')}") for entry in found),
                dataset=inputs.dataset or "coco",
                split=split,
                ref_id=f"{image['id']}-{category}",
                ann_id=found[0].get("id") if len(found) == 1 else None,
                category_id=category,
                segmentation=_polygons(found),
            )


def _polygons(found: list[Mapping[str, Any]]) -> Any:
    parts = [entry.get("segmentation") for entry in found]
    if not all(isinstance(part, list) and part for part in parts):
        return None
    return [polygon for part in parts if isinstance(part, list) for polygon in part]


MDETR = Format("mdetr", "MDETR's COCO-shaped file, one image record an expression", ("xywh",), is_mdetr, read_mdetr)
COCO_INSTANCES = Format(
    "coco_instances", "COCO instances, phrases made of category names", ("xywh",), is_instances, read_instances
)
