"""Boxes and the cells of a grid: intersection over union, conversions, and how much of each cell a box or mask covers.

Boxes are half-open with continuous edges, ``(x0, y0, x1, y1)`` in pixels of the original image.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab.records import Grid

Box = tuple[float, float, float, float]


def xywh_to_xyxy(box_xywh: Sequence[float]) -> Box:
    """COCO's [x, y, width, height] as a half-open (x0, y0, x1, y1)."""
    x, y, width, height = (float(value) for value in box_xywh)
    return x, y, x + width, y + height


def xyxy_to_xywh(box_xyxy: Sequence[float]) -> Box:
    """A half-open (x0, y0, x1, y1) as COCO's (x, y, width, height)."""
    x0, y0, x1, y1 = (float(value) for value in box_xyxy)
    return x0, y0, x1 - x0, y1 - y0


def box_iou(box_a_xyxy: Sequence[float], box_b_xyxy: Sequence[float]) -> float:
    """Area of the intersection over area of the union of two half-open boxes; 0 where both are empty."""
    return float(box_ious(np.asarray(box_a_xyxy, dtype=np.float64), np.asarray(box_b_xyxy, dtype=np.float64)))


def box_ious(boxes_a_xyxy: np.ndarray, boxes_b_xyxy: np.ndarray) -> np.ndarray:
    """`box_iou` of arrays `[..., 4]` that broadcast against each other; a box with NaN, which is none, gives 0."""
    top_left = np.maximum(boxes_a_xyxy[..., :2], boxes_b_xyxy[..., :2])
    bottom_right = np.minimum(boxes_a_xyxy[..., 2:], boxes_b_xyxy[..., 2:])
    intersection = np.clip(bottom_right - top_left, 0, None).prod(axis=-1)
    union = _areas(boxes_a_xyxy) + _areas(boxes_b_xyxy) - intersection
    # A comparison with NaN is false, and an empty union has an empty intersection.
    result: np.ndarray = np.divide(intersection, union, out=np.zeros(np.shape(union)), where=union > 0)
    return result


def _areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    result: np.ndarray = np.clip(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], 0, None).prod(axis=-1)
    return result


def cell_coverage(box_xyxy: Sequence[float], grid: Grid) -> np.ndarray:
    """Share of each cell that a box covers: `[rows, cols]` float64 in [0, 1]."""
    x0, y0, x1, y1 = box_xyxy
    x_edges, y_edges = cell_edges(grid)
    across = np.clip(np.minimum(x_edges[1:], x1) - np.maximum(x_edges[:-1], x0), 0, None) / np.diff(x_edges)
    down = np.clip(np.minimum(y_edges[1:], y1) - np.maximum(y_edges[:-1], y0), 0, None) / np.diff(y_edges)
    return np.outer(down, across)


def mask_coverage(mask: np.ndarray, grid: Grid) -> np.ndarray:
    """Share of each cell that a mask of pixels covers, pixels being split where a cell's edge cuts through them.

    Args:
        mask: `[height, width]` bool, in pixels of the original image.
        grid: Where the cells lie in the image.

    Returns:
        `[rows, cols]` float64 in [0, 1]; what lies outside the image is covered by nothing.
    """
    x_edges, y_edges = cell_edges(grid)
    down, across = (_overlap(edges, length) for edges, length in ((y_edges, len(mask)), (x_edges, mask.shape[1])))
    covered: np.ndarray = down @ mask @ across.T / (grid.cell_w * grid.cell_h)
    return covered


def _overlap(edges: np.ndarray, length: int) -> np.ndarray:
    """How much of each pixel of one axis lies between two edges, `edges` being `[k + 1]`: `[k, length]`."""
    pixel = np.arange(length)
    result: np.ndarray = np.clip(np.minimum(edges[1:, None], pixel + 1) - np.maximum(edges[:-1, None], pixel), 0, None)
    return result


def cell_edges(grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """Edges of the columns, `[cols + 1]`, and of the rows, `[rows + 1]`, in pixels; not clipped."""
    return grid.x0 + grid.cell_w * np.arange(grid.cols + 1), grid.y0 + grid.cell_h * np.arange(grid.rows + 1)


def clipped_edges(grid: Grid, image_size_wh: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The same, clipped to the image: a cell outside has no extent left."""
    x_edges, y_edges = cell_edges(grid)
    return np.clip(x_edges, 0, image_size_wh[0]), np.clip(y_edges, 0, image_size_wh[1])
