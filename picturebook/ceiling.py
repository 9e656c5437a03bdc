"""What a grid of patches allows at best: ``python -m picturebook.ceiling --dataset-jsonl FILE``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from picturebook.shards import GRID_SIDE


def ceiling_ious(boxes_xywh: np.ndarray, sizes_wh: np.ndarray, cells: int = GRID_SIDE) -> np.ndarray:
    """IoU of each box with the nearest box made of whole cells of the padded square's grid.

    Args:
        boxes_xywh: `[n, 4]` boxes, in pixels.
        sizes_wh: `[n, 2]` sizes of the pictures, in pixels.
        cells: Cells along a side of the grid.

    Returns:
        `[n]`.
    """
    side = sizes_wh.max(axis=1, keepdims=True)
    offset, cell = (side - sizes_wh) / 2, side / cells
    start, length = boxes_xywh[:, :2], boxes_xywh[:, 2:]
    low = np.round((start + offset) / cell)
    high = np.maximum(np.round((start + length + offset) / cell), low + 1)
    low, high = (np.clip(edge * cell - offset, 0, sizes_wh) for edge in (low, high))
    shared = np.clip(np.minimum(high, start + length) - np.maximum(low, start), 0, None).prod(axis=1)
    return shared / ((high - low).prod(axis=1) + length.prod(axis=1) - shared)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Read the command line and print the ceiling."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-jsonl", type=Path, required=True, help="what picturebook.export wrote")
    path = parser.parse_args(arguments).dataset_jsonl
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    ious = ceiling_ious(np.array([row["bbox"] for row in rows], float), np.array([row["image_size"] for row in rows]))
    print(f"{len(ious)} rows: mean IoU {ious.mean():.4f}, IoU>=0.5 {(ious >= 0.5).mean():.4f}")


if __name__ == "__main__":
    main()
