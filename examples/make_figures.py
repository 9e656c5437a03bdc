"""Draw the README's figures again, from the results of its commands: ``python -m examples.make_figures``."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bbox import xywh_to_xyxy
from lab.storage.files import load_bbox_json
from viz import GalleryEntry, draw_gallery
from vlm.images import load_image

FIGURES = Path("examples/figures")
DATASET = Path("outputs/picturebook-data/test.jsonl")
RESULTS = Path("outputs/test/picturebook-llava")
COPIED = {
    "bird_top3.png": Path("outputs/fixed/picturebook-llava/bird_2_top3.png"),
    "head_audit.png": Path("outputs/test-audit/head_audit.png"),
}
SHOWN = 12


def main() -> None:
    """Copy what the commands drew, and draw the gallery: every so-manieth test row, good or bad."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    FIGURES.mkdir(parents=True, exist_ok=True)
    for name, source in COPIED.items():
        shutil.copyfile(source, FIGURES / name)
    rows = [json.loads(line) for line in DATASET.read_text(encoding="utf-8").splitlines()]
    draw_gallery(FIGURES / "gallery.png", [_entry(row) for row in _evenly(rows, SHOWN)])
    logging.getLogger(__name__).info("Wrote %s", ", ".join(str(path) for path in sorted(FIGURES.iterdir())))


def _evenly(rows: Sequence[dict[str, Any]], count: int) -> list[dict[str, Any]]:
    """Rows at even distances, so that nobody picks the pretty ones."""
    step = max(1, len(rows) // count)
    return list(rows[::step][:count])


def _entry(row: dict[str, Any]) -> GalleryEntry:
    box_xyxy = load_bbox_json(RESULTS / f"{row['id']}_bbox.json")["bbox_xyxy"]
    image = load_image(DATASET.parent / row["image_path"])
    return GalleryEntry(image, row["prompt"], box_xyxy, xywh_to_xyxy(row["bbox"]))


if __name__ == "__main__":
    main()
