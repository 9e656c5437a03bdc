"""Where to point inside an object, and which mask agrees with the attention best: pure functions on maps."""

from __future__ import annotations

import numpy as np

from lab.records import Grid

_DEEP = 0.5
"""Points lie in cells deeper within the region than this share of its deepest: its edges may belong to others too."""


def interior_points(
    attention_map: np.ndarray, cell_mask: np.ndarray, grid: Grid, image_size_wh: tuple[int, int], count: int
) -> np.ndarray:
    """The peak of the attention within a region, then further points in its interior, far from one another.

    Args:
        attention_map: `[rows, cols]`, summed over heads.
        cell_mask: `[rows, cols]` bool, the region that the box holds.
        grid: Where the cells lie in the image.
        image_size_wh: Width and height of the image.
        count: Number of points.

    Returns:
        `[points, 2]` float64 as (x, y) in pixels of the image: the middles of what the image shows of their cells.
        Fewer than `count` where the region has no more cells inside, none where it is empty.
    """
    candidates = _interior_cells(attention_map, cell_mask)
    chosen: list[int] = []
    nearest = np.full(len(candidates), np.inf)
    while len(chosen) < min(count, len(candidates)):
        # The first is the peak, since no distance is finite yet; ties go to the brighter cell, then to the first.
        best = int(np.lexsort((-attention_map[tuple(candidates.T)], -nearest))[0])
        chosen.append(best)
        distances = np.linalg.norm((candidates - candidates[best]) * (grid.cell_h, grid.cell_w), axis=1)
        nearest = np.minimum(nearest, distances)
    return _middles(candidates[chosen], grid, image_size_wh)


def _interior_cells(attention_map: np.ndarray, cell_mask: np.ndarray) -> np.ndarray:
    """The deep cells of a region and its peak, `[cells, 2]` as (row, col)."""
    from scipy.ndimage import distance_transform_cdt

    if not cell_mask.any():
        return np.zeros((0, 2), dtype=np.int64)
    # A region may reach the grid's edge, where the object may go on: that is no boundary of it.
    depth = distance_transform_cdt(np.pad(cell_mask, 1, mode="edge"), metric="chessboard")[1:-1, 1:-1]
    deepest = depth.max()
    deep = cell_mask & (depth > _DEEP * deepest) if deepest > 0 else cell_mask.copy()
    deep[np.unravel_index(np.where(cell_mask, attention_map, -np.inf).argmax(), cell_mask.shape)] = True
    return np.argwhere(deep)


def _middles(cells: np.ndarray, grid: Grid, image_size_wh: tuple[int, int]) -> np.ndarray:
    """Middles (x, y) of what the image shows of some cells (row, col)."""
    size = np.array((grid.cell_w, grid.cell_h))
    low = (grid.x0, grid.y0) + cells[:, ::-1] * size
    middles: np.ndarray = (np.clip(low, 0, image_size_wh) + np.clip(low + size, 0, image_size_wh)) / 2
    return middles


def agreement(masks: np.ndarray, attention_map: np.ndarray, cell_mask: np.ndarray, grid: Grid) -> np.ndarray:
    """How well masks cover the attention: the cosine of what they cover of each cell and the attention there.

    It is high where a mask covers the attention and nothing else, and needs no threshold: a mask of a part misses
    attention, one of the whole picture covers cells without any.

    Args:
        masks: `[masks, height, width]` bool, in pixels of the image.
        attention_map: `[rows, cols]`, summed over heads; it counts within `cell_mask` only.
        cell_mask: `[rows, cols]` bool, the region that the box holds.
        grid: Where the cells lie in the image.

    Returns:
        `[masks]` float64 in [0, 1]; 0 for an empty mask.
    """
    attention = np.where(cell_mask, attention_map, 0).astype(np.float64)
    covered = _coverage(masks, grid)
    products = (covered * attention).sum(axis=(1, 2))
    norms = np.sqrt((covered**2).sum(axis=(1, 2)) * (attention**2).sum())
    cosines: np.ndarray = np.divide(products, norms, out=np.zeros(len(masks)), where=norms > 0)
    return cosines


def _coverage(masks: np.ndarray, grid: Grid) -> np.ndarray:
    """Share of each cell that each mask covers, `[masks, rows, cols]`; pixels are split where edges cut them."""
    down = _overlaps(grid.y0, grid.cell_h, grid.rows, masks.shape[1])
    across = _overlaps(grid.x0, grid.cell_w, grid.cols, masks.shape[2])
    covered: np.ndarray = down @ masks.astype(np.float64) @ across.T / (grid.cell_w * grid.cell_h)
    return covered


def _overlaps(start: float, step: float, count: int, length: int) -> np.ndarray:
    """`[cells, pixels]`: how much of each pixel lies in each cell of one axis."""
    edges, pixels = start + step * np.arange(count + 1), np.arange(length)
    shares: np.ndarray = np.clip(
        np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels), 0, None
    )
    return shares
