"""What kind of result a box is: a hit, or which kind of failure, each by a rule that the page tells."""

from __future__ import annotations

from typing import Optional

import numpy as np

from lab.boxes import Box, box_iou
from lab.records import Grid

HIT_IOU = 0.5
OTHER_OBJECT_IOU = 0.1
SINK_SHARE = 0.3

KINDS = (
    ("hit", "hit", f"IoU with the true box of at least {HIT_IOU}."),
    ("nothing", "nothing", "The run gives no box."),
    (
        "sink",
        "sink",
        f"IoU below {HIT_IOU}, and one cell outside the true box holds at least {SINK_SHARE:.0%} of the used heads' "
        "attention on the picture.",
    ),
    (
        "wrong_object",
        "wrong object",
        f"No sink, and IoU below {OTHER_OBJECT_IOU}: the box hardly touches the true one.",
    ),
    (
        "too_large",
        "too large",
        f"IoU from {OTHER_OBJECT_IOU} to {HIT_IOU}, and the box is no smaller than the true one.",
    ),
    ("too_small", "too small", f"IoU from {OTHER_OBJECT_IOU} to {HIT_IOU}, and the box is smaller than the true one."),
)
"""Key, name and rule of each kind; the first rule that holds decides."""

SIZE_LIMITS = (("small", 32.0**2), ("medium", 96.0**2), ("large", float("inf")))
"""Areas of true boxes, in square pixels of the image, below which COCO speaks of small and of medium objects."""


def size_class(truth_xyxy: Box) -> str:
    """`small`, `medium` or `large`, by the area of a true box in pixels, with COCO's limits."""
    return next(name for name, limit in SIZE_LIMITS if area(truth_xyxy) < limit)


def kind_of(box_xyxy: Optional[Box], truth_xyxy: Box, combined: np.ndarray, grid: Grid) -> str:
    """Say which kind of result a box is.

    Args:
        box_xyxy: The box of the run, or None.
        truth_xyxy: The true box.
        combined: `[rows, cols]`, sum of the maps of the heads that were used.
        grid: Where the cells lie in the image.

    Returns:
        A key of `KINDS`.
    """
    if box_xyxy is None:
        return "nothing"
    iou = box_iou(box_xyxy, truth_xyxy)
    if iou >= HIT_IOU:
        return "hit"
    if _has_sink(combined, truth_xyxy, grid):
        return "sink"
    if iou < OTHER_OBJECT_IOU:
        return "wrong_object"
    return "too_small" if area(box_xyxy) < area(truth_xyxy) else "too_large"


def _has_sink(combined: np.ndarray, truth_xyxy: Box, grid: Grid) -> bool:
    row, col = np.unravel_index(int(combined.argmax()), combined.shape)
    x, y = grid.x0 + (col + 0.5) * grid.cell_w, grid.y0 + (row + 0.5) * grid.cell_h
    inside = truth_xyxy[0] <= x < truth_xyxy[2] and truth_xyxy[1] <= y < truth_xyxy[3]
    return not inside and bool(combined.max() >= SINK_SHARE * combined.sum())


def area(box_xyxy: Box) -> float:
    """Area of a box in square pixels."""
    return max(box_xyxy[2] - box_xyxy[0], 0.0) * max(box_xyxy[3] - box_xyxy[1], 0.0)
