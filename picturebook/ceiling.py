"""What a grid of patches allows at best: ``python -m picturebook.ceiling --dataset-jsonl FILE``, without a model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Optional

import numpy as np

from lab.records import Grid
from lab.statistics.ceiling import best_cell_box, pointing_reachable
from picturebook.shards import GRID_SIDE
from scores.truths import read_truths


def padded_grid(image_size_wh: tuple[int, int], cells: int = GRID_SIDE) -> Grid:
    """The grid over the square that a picture is pasted into, as the model's image processor lays it: whole pixels.

    Args:
        image_size_wh: Width and height of the picture.
        cells: Cells along a side of the grid.

    Returns:
        The grid, in pixels of the picture.
    """
    side = max(image_size_wh)
    x0, y0 = (-float((side - length) // 2) for length in image_size_wh)
    return Grid(cells, cells, x0, y0, side / cells, side / cells)


def ceiling_ious(boxes_xyxy: np.ndarray, sizes_wh: np.ndarray, cells: int = GRID_SIDE) -> np.ndarray:
    """IoU of each box with the best box made of whole cells of the padded square's grid.

    Args:
        boxes_xyxy: `[n, 4]` half-open boxes, in pixels.
        sizes_wh: `[n, 2]` sizes of the pictures, in pixels.
        cells: Cells along a side of the grid.

    Returns:
        `[n]`.
    """
    sizes = [(int(width), int(height)) for width, height in sizes_wh]
    return np.array([best_cell_box(box, padded_grid(size, cells), size)[0] for box, size in zip(boxes_xyxy, sizes)])


def main(arguments: Optional[Sequence[str]] = None) -> None:
    """Read the command line and print the ceiling."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset-jsonl", type=Path, required=True, help="what picturebook.export wrote")
    truths = read_truths(parser.parse_args(arguments).dataset_jsonl, "id").rows
    boxes = np.array([truth.box_xyxy for truth in truths])
    sizes = [tuple(truth.row["image_size"]) for truth in truths]
    ious = ceiling_ious(boxes, np.array(sizes))
    reachable = np.mean([pointing_reachable(box, padded_grid(size)) for box, size in zip(boxes, sizes)])
    rates = ", ".join(f"Acc@{threshold:g} {(ious >= threshold).mean():.4f}" for threshold in (0.25, 0.5, 0.75))
    print(
        f"ceiling: the best boxes of whole cells reach mean IoU {ious.mean():.4f}, {rates}, and a cell's centre hits "
        f"{reachable:.4f} of the targets ({len(truths)} rows)."
    )


if __name__ == "__main__":
    main()
