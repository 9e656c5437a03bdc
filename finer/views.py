"""Views of a picture: the same picture on canvases shifted by half a cell, and their maps as one map of half cells."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from lab.records import Grid

if TYPE_CHECKING:
    from PIL import Image

SHIFTS = ((0, 0), (1, 0), (0, 1), (1, 1))
"""By how many half cells the picture lies farther right and farther down, view by view."""


@dataclass(frozen=True)
class ViewPlace:
    """Where a picture lies on the square canvas of one view.

    Attributes:
        side: Side of the canvas in pixels.
        corner_xy: Its pixel where the picture's top left corner lies.
    """

    side: int
    corner_xy: tuple[int, int]

    def render(self, image: Image.Image, background: tuple[int, ...]) -> Image.Image:
        """The canvas with the picture, in RGB; what the picture leaves free has the background's colour."""
        from PIL import Image

        canvas = Image.new("RGB", (self.side, self.side), background)
        canvas.paste(image, self.corner_xy)
        return canvas

    def grid_of_picture(self, grid: Grid) -> Grid:
        """A grid over the canvas, in pixels of the canvas, as a grid in pixels of the picture."""
        return replace(grid, x0=grid.x0 - self.corner_xy[0], y0=grid.y0 - self.corner_xy[1])


def view_places(image_size_wh: tuple[int, int], cells: int) -> tuple[ViewPlace, ...]:
    """Places of a picture on four canvases that a model sees with as many cells a side as ever.

    The canvases are one cell larger than the square around the picture, so that the picture can move by half a cell and
    stay whole. Shifts are whole pixels, so that they are half a cell up to half a pixel; grids say where cells lie.

    Args:
        image_size_wh: Width and height of the picture.
        cells: Cells along a side of the model's grid, at least 2.

    Returns:
        Four places, in the order of `SHIFTS`.

    Raises:
        ValueError: There are fewer than 2 cells.
    """
    if cells < 2:
        raise ValueError(f"Expected views of a picture to have at least 2 cells a side, but got {cells}.")
    longest = max(image_size_wh)
    side = math.ceil(longest * cells / (cells - 1))
    half_cell = round(side / cells / 2)
    left, top = ((longest - length) // 2 for length in image_size_wh)
    return tuple(ViewPlace(side, (left + across * half_cell, top + down * half_cell)) for across, down in SHIFTS)


def average_maps(maps: Sequence[np.ndarray], grids: Sequence[Grid]) -> tuple[np.ndarray, Grid]:
    """Average maps of shifted grids on one grid of half cells, over what all of them show.

    A cell's attention is spread evenly over its area. So the sum over the new grid is the mean of the sums over the old
    ones, less what lies outside the part that all show, which is padding.

    Args:
        maps: For each view `[..., rows, cols]`.
        grids: For each view the grid of its map, in pixels of the picture; all of one cell size.

    Returns:
        The map `[..., 2 * rows - 1, 2 * cols - 1]`, of the dtype given, and its grid.

    Raises:
        ValueError: There are no views, shapes do not fit, or cells are of different sizes.
    """
    if not grids or len(maps) != len(grids) or any(a_map.shape[-2:] != g.shape for a_map, g in zip(maps, grids)):
        shapes = [list(a_map.shape[-2:]) for a_map in maps][:4]
        raise ValueError(f"Expected one map for each view, of its grid's shape, but got {shapes} for {len(grids)}.")
    first = grids[0]
    if any((g.shape, g.cell_w, g.cell_h) != (first.shape, first.cell_w, first.cell_h) for g in grids):
        raise ValueError("Expected the grids of all views to have equal cells, but got different ones.")
    target = Grid(
        rows=2 * first.rows - 1,
        cols=2 * first.cols - 1,
        x0=max(grid.x0 for grid in grids),
        y0=max(grid.y0 for grid in grids),
        cell_w=first.cell_w / 2,
        cell_h=first.cell_h / 2,
    )
    total = np.zeros((*maps[0].shape[:-2], *target.shape))
    for a_map, grid in zip(maps, grids):
        down = _shares(grid.y0, grid.cell_h, grid.rows, target.y0, target.cell_h, target.rows)
        across = _shares(grid.x0, grid.cell_w, grid.cols, target.x0, target.cell_w, target.cols)
        total += down.T @ a_map.astype(np.float64) @ across
    average: np.ndarray = (total / len(grids)).astype(maps[0].dtype)
    return average, target


def _shares(start: float, step: float, count: int, to_start: float, to_step: float, to_count: int) -> np.ndarray:
    """`[cells, new cells]`: which part of each cell lies in which new cell, along one axis."""
    edges, to_edges = start + step * np.arange(count + 1), to_start + to_step * np.arange(to_count + 1)
    low = np.maximum(edges[:-1, None], to_edges[None, :-1])
    high = np.minimum(edges[1:, None], to_edges[None, 1:])
    shares: np.ndarray = np.clip(high - low, 0, None) / step
    return shares
