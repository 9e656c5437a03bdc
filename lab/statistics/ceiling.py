"""What a grid allows at best: the box of whole cells that fits a target best, and whether a cell can hit it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from lab.records import Grid


def best_cell_box(
    truth_xyxy: Sequence[float], grid: Grid, image_size_wh: tuple[int, int]
) -> tuple[float, tuple[float, float, float, float]]:
    """The box of whole cells with the largest IoU with a target, cells clipped to the image as in `bbox`.

    The best box holds every cell that lies wholly between the target's edges along an axis, since such a cell raises
    the intersection by more than its share of the union, and none that the target does not touch. So each of its edges
    is one of the two grid lines around the target's edge, which leaves at most sixteen boxes. Rounding each edge to the
    nearest line is another rule, and often gives a worse box.

    Args:
        truth_xyxy: Target, half-open, in pixels of the original image.
        grid: The grid that was applied.
        image_size_wh: Width and height of the original image.

    Returns:
        The largest IoU, and the box; 0 and an empty box where the grid does not reach the target.
    """
    x0, y0, x1, y1 = (float(edge) for edge in truth_xyxy)
    across = _spans(x0, x1, grid.x0, grid.cell_w, grid.cols, image_size_wh[0])
    down = _spans(y0, y1, grid.y0, grid.cell_h, grid.rows, image_size_wh[1])
    area, best = (x1 - x0) * (y1 - y0), (0.0, (0.0, 0.0, 0.0, 0.0))
    for (left, right), (top, bottom) in itertools.product(across, down):
        shared = max(0.0, min(right, x1) - max(left, x0)) * max(0.0, min(bottom, y1) - max(top, y0))
        union = (right - left) * (bottom - top) + area - shared
        if union > 0 and shared / union > best[0]:
            best = (shared / union, (left, top, right, bottom))
    return best


def _spans(low: float, high: float, origin: float, cell: float, cells: int, length: int) -> list[tuple[float, float]]:
    """Pairs of grid lines that may bound the best box along one axis, clipped to the image."""
    first, last = (low - origin) / cell, (high - origin) / cell
    starts = {int(np.floor(first)), int(np.ceil(first))}
    ends = {int(np.floor(last)), int(np.ceil(last))}
    pairs = [(max(a, 0), min(b, cells)) for a in starts for b in ends]
    edges = [(origin + a * cell, origin + b * cell) for a, b in pairs if a < b]
    return [(max(a, 0.0), min(b, float(length))) for a, b in edges if min(b, length) > max(a, 0)]


def pointing_reachable(truth_xyxy: Sequence[float], grid: Grid) -> bool:
    """Whether the centre of some cell lies in the target: where none does, pointing at a cell's centre must miss."""
    x0, y0, x1, y1 = truth_xyxy
    x = grid.x0 + grid.cell_w * (np.arange(grid.cols) + 0.5)
    y = grid.y0 + grid.cell_h * (np.arange(grid.rows) + 0.5)
    return bool(((x0 <= x) & (x < x1)).any() and ((y0 <= y) & (y < y1)).any())
