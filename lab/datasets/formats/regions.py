"""Formats with a record a region: Ref-L4, RefCOCO-M and Visual Genome."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

from lab.datasets.expressions import Expression, Picture
from lab.datasets.formats.base import Format, Inputs, four_numbers, has_keys, need, stated_size
from lab.datasets.formats.coco_names import coco_names
from lab.datasets.sources import read_json


def is_ref_l4(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """Ref-L4: `caption` with `bbox_id`."""
    return has_keys(record, "caption", "bbox", "bbox_id")


def is_refcoco_m(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """RefCOCO-M: a picture with `samples` of sentences."""
    samples: Any = None if record is None else record.get("samples")
    return isinstance(samples, list) and bool(samples) and has_keys(samples[0], "sentences", "bbox")


def is_visual_genome(path: Path, record: Optional[Mapping[str, Any]]) -> bool:
    """Visual Genome: a picture with `regions` of phrases."""
    regions: Any = None if record is None else record.get("regions")
    return isinstance(regions, list) and bool(regions) and has_keys(regions[0], "phrase", "x", "y")


def read_ref_l4(inputs: Inputs) -> Iterator[Expression]:
    """One expression a row."""
    for number, row in enumerate(inputs.records()):
        what = f"row {number + 1}"
        if inputs.split is not None and row.get("split") != inputs.split:
            continue
        yield Expression(
            prompt=str(need(row, "caption", what)),
            picture=Picture((str(need(row, "file_name", what)),), row.get("image_id"), stated_size(row)),
            boxes=(four_numbers(need(row, "bbox", what), what),),
            dataset=inputs.dataset or "ref-l4",
            split=str(row.get("split") or ""),
            ref_id=row["bbox_id"],
            sent_id=row.get("id"),
            ann_id=row["bbox_id"],
            category_id=row.get("ori_category_id"),
        )


def read_refcoco_m(inputs: Inputs) -> Iterator[Expression]:
    """One expression a sentence of a sample of a picture."""
    for number, row in enumerate(inputs.records()):
        image: Any = row.get("image")
        content = image.get("bytes") if isinstance(image, Mapping) else None
        names = coco_names(str(row.get("file_name") or ""))
        for sample in need(row, "samples", f"row {number + 1}"):
            what = f"sample {sample.get('id')}"
            size = tuple(reversed((sample.get("mask") or {}).get("size") or ()))
            picture = Picture(
                names, row.get("image_id"), (size[0], size[1]) if len(size) == 2 else stated_size(row), content
            )
            for sent_id, sentence in enumerate(need(sample, "sentences", what)):
                yield Expression(
                    prompt=str(sentence),
                    picture=picture,
                    boxes=(four_numbers(need(sample, "bbox", what), what),),
                    dataset=inputs.dataset or "refcoco-m",
                    split=inputs.split or "validation",
                    ref_id=sample["id"],
                    sent_id=sent_id,
                    segmentation=sample.get("mask"),
                    extra={"category": sample.get("category")},
                )


def read_visual_genome(inputs: Inputs) -> Iterator[Expression]:
    """One expression a region; the sizes of the pictures stand in `image_data.json`, if that lies beside."""
    sizes = _visual_genome_sizes(inputs.path.parent / "image_data.json")
    for entry in inputs.records():
        for region in need(entry, "regions", f"picture {entry.get('id')}"):
            what = f"region {region.get('region_id')}"
            image_id = region.get("image_id", entry.get("id"))
            box = [need(region, key, what) for key in ("x", "y", "width", "height")]
            yield Expression(
                prompt=str(need(region, "phrase", what)).strip(),
                picture=Picture((f"{image_id}.jpg",), image_id, sizes.get(image_id)),
                boxes=(four_numbers(box, what),),
                dataset=inputs.dataset or "visual_genome",
                split=inputs.split or "",
                ref_id=region["region_id"],
            )


def _visual_genome_sizes(path: Path) -> dict[Any, tuple[int, int]]:
    if not path.is_file():
        return {}
    entries = ((entry.get("image_id", entry.get("id")), stated_size(entry)) for entry in read_json(path))
    return {image_id: size for image_id, size in entries if size is not None}


REF_L4 = Format("ref_l4", "Ref-L4", ("xywh",), is_ref_l4, read_ref_l4)
REFCOCO_M = Format("refcoco_m", "RefCOCO-M, one row a picture", ("xywh",), is_refcoco_m, read_refcoco_m)
VISUAL_GENOME = Format("visual_genome", "Visual Genome's regions", ("xywh",), is_visual_genome, read_visual_genome)
