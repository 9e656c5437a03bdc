"""REFER's pickles, `refs(unc).p` and the like, with COCO's `instances.json`; and gRefCOCO, which has their form."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Optional

from lab.datasets.expressions import Expression, Picture
from lab.datasets.formats.base import Format, Inputs, four_numbers, has_keys, need, stated_size
from lab.datasets.formats.coco_names import coco_names
from lab.datasets.sources import read_any, read_json

_SPLIT_BY = re.compile(r"\((unc|umd|google)\)")


def is_refer(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """REFER: one target each, `ref_id` with `sentences` and `ann_id`."""
    if record is None:
        return path.is_dir() and any(path.glob("refs(*).p"))
    plain = has_keys(record, "ref_id", "sentences", "ann_id") and "raw_anns" not in record
    return plain and not isinstance(record["ann_id"], list)


def is_grefcoco(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """gRefCOCO: `ann_id` is a list."""
    if record is None:
        return path.is_dir() and any(path.glob("grefs(*).*"))
    return has_keys(record, "ref_id", "sentences", "ann_id") and isinstance(record["ann_id"], list)


def read_refer(inputs: Inputs) -> Iterator[Expression]:
    """Join references, annotations and pictures; one expression a sentence.

    Raises:
        ValueError: There is no `instances.json`, or a reference points to nothing in it.
    """
    path = _references_file(inputs)
    split_by = (_SPLIT_BY.search(path.name) or ("", ""))[1]
    dataset = inputs.dataset or _dataset_of(path)
    annotations, pictures = _read_instances(inputs, path)
    for ref in read_any(path):
        if inputs.split is not None and ref.get("split") != inputs.split:
            continue
        yield from _expressions(ref, annotations, pictures, dataset, split_by)


def _expressions(
    ref: Mapping[str, Any],
    annotations: Mapping[int, Mapping[str, Any]],
    pictures: Mapping[int, Mapping[str, Any]],
    dataset: str,
    split_by: str,
) -> Iterator[Expression]:
    what = f"reference {ref.get('ref_id')}"
    targets = _targets(ref, annotations, what)
    image_id = int(need(ref, "image_id", what))
    entry = pictures.get(image_id, {})
    # The picture's name stands in instances.json; that of a reference is no file.
    names = coco_names(str(entry.get("file_name") or ref.get("file_name") or ""), image_id)
    picture = Picture(names, image_id, stated_size(entry))
    several = isinstance(ref["ann_id"], list)
    for sentence in need(ref, "sentences", what):
        yield Expression(
            prompt=str(sentence.get("sent") or sentence.get("raw") or ""),
            picture=picture,
            boxes=tuple(four_numbers(target["bbox"], f"annotation {target.get('id')}") for target in targets),
            dataset=dataset,
            split=str(ref.get("split", "")),
            split_by=split_by,
            ref_id=ref["ref_id"],
            sent_id=sentence.get("sent_id"),
            ann_id=None if several else ref["ann_id"],
            category_id=None if several else ref.get("category_id"),
            segmentation=_segmentation(targets),
            no_target=several and not targets,
            extra={"ann_ids": list(ref["ann_id"])} if several else {},
        )


def _targets(
    ref: Mapping[str, Any], annotations: Mapping[int, Mapping[str, Any]], what: str
) -> list[Mapping[str, Any]]:
    """The annotations that a reference means; -1 means none."""
    ids = ref["ann_id"] if isinstance(ref["ann_id"], list) else [ref["ann_id"]]
    wanted = [ann_id for ann_id in ids if ann_id != -1]
    absent = [ann_id for ann_id in wanted if ann_id not in annotations]
    if absent:
        raise ValueError(
            f"Expected annotation {absent[0]} of {what} in instances.json, but it is not there. Take the "
            "instances.json of the same data set."
        )
    return [annotations[ann_id] for ann_id in wanted]


def _segmentation(targets: Sequence[Mapping[str, Any]]) -> Any:
    """Polygons of all targets together, the code of a single one, or None."""
    found = [target["segmentation"] for target in targets if target.get("segmentation")]
    if len(found) != len(targets) or not found:
        return None
    if len(found) == 1:
        return found[0]
    return found if any(isinstance(entry, Mapping) for entry in found) else [part for entry in found for part in entry]


def _references_file(inputs: Inputs) -> Path:
    if not inputs.path.is_dir():
        return inputs.path
    found = sorted([*inputs.path.glob("refs(*).p"), *inputs.path.glob("grefs(*).*")])
    if len(found) != 1:
        names = ", ".join(path.name for path in found) or "none"
        raise ValueError(f"Expected one file of references in {inputs.path}, but got {names}. Name one with --input.")
    return found[0]


def _dataset_of(path: Path) -> str:
    """The data set by its directory, as REFER lays them out."""
    if path.name.startswith("grefs"):
        return "grefcoco"
    name = path.resolve().parent.name.lower()
    return name if name in {"refcoco", "refcoco+", "refcocog", "refclef"} else ""


def _read_instances(
    inputs: Inputs, path: Path
) -> tuple[Mapping[int, Mapping[str, Any]], Mapping[int, Mapping[str, Any]]]:
    """Annotations and pictures by their numbers."""
    file = inputs.instances or path.parent / "instances.json"
    if not file.is_file():
        raise ValueError(
            f"Expected COCO's annotations beside the references, at {file}, but found none: boxes stand there only. "
            "Say where they are with --instances."
        )
    content = read_json(file)
    if not has_keys(content if isinstance(content, Mapping) else None, "annotations", "images"):
        raise ValueError(f"Expected {file} to hold 'images' and 'annotations', but got something else.")
    annotations = {int(entry["id"]): entry for entry in content["annotations"]}
    return annotations, {int(entry["id"]): entry for entry in content["images"]}


REFER = Format(
    "refer", "REFER pickle with instances.json (RefCOCO, RefCOCO+, RefCOCOg)", ("xywh",), is_refer, read_refer
)
GREFCOCO = Format("grefcoco", "gRefCOCO with instances.json", ("xywh",), is_grefcoco, read_refer)
