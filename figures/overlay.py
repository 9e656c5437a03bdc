"""Maps of attention laid over the pixels of a picture."""

from __future__ import annotations

import functools

import matplotlib
import numpy as np
from PIL import Image

from figures.theme import HEAT
from lab.records import Grid


def border_segments(cell_mask: np.ndarray, grid: Grid, inset_xy: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    """Ends of the cell edges that have the mask on one side only, drawn in towards the mask.

    Args:
        cell_mask: `[rows, cols]` bool.
        grid: Where the cells lie.
        inset_xy: How far the line lies within the mask, in pixels of the original image, less than half a cell.

    Returns:
        `[n, 2, 2]`: for each edge its two ends, each as (x, y) in pixels of the original image.
    """
    mask = np.pad(np.asarray(cell_mask, bool), 2)
    inset = inset_xy[0] / grid.cell_w, inset_xy[1] / grid.cell_h
    upright = _border_along_columns(mask, inset)
    level = _border_along_columns(mask.T, inset[::-1])[..., ::-1]
    return np.concatenate([upright, level]) * (grid.cell_w, grid.cell_h) + (grid.x0, grid.y0)


def _border_along_columns(mask: np.ndarray, inset: tuple[float, float]) -> np.ndarray:
    """`[n, 2, 2]` (x, y) in cells of the upright edges of a mask that has two empty cells around it."""
    row, col = np.nonzero(mask[:, :-1] != mask[:, 1:])
    inward = np.where(mask[row, col + 1], 1, -1)
    inside = np.where(inward > 0, col + 1, col)
    ends = []
    for step in (-1, 1):
        goes_on = mask[row + step, inside]
        bends_out = mask[row + step, inside - inward]
        # Straight on: neither longer nor shorter. Round a corner of the mask: shorter. Into a nook of it: longer.
        longer = np.where(~goes_on, -1, np.where(bends_out, 1, 0))
        y = row + (step > 0) + step * longer * inset[1]
        ends.append(np.stack([col + 1 + inward * inset[0], y], axis=1))
    return np.asarray(np.stack(ends, axis=1) - 2)


def fit(image: Image.Image | np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """The picture at the given size, `[height, width, 3]` uint8."""
    picture = Image.fromarray(image) if isinstance(image, np.ndarray) else image.convert("RGB")
    if picture.size == size_wh:
        return np.asarray(picture)
    return np.asarray(picture.resize(size_wh, Image.Resampling.BICUBIC, reducing_gap=2.0))


def fade(pixels: np.ndarray) -> np.ndarray:
    """A slightly greyer and lighter copy, so that the map's colours stand out."""
    grey = pixels @ np.array([0.299, 0.587, 0.114], np.float32)
    return (0.35 * pixels + 0.5 * grey[..., None] + 0.15 * 255).astype(np.uint8)


def lay_over(
    pixels: np.ndarray, map_: np.ndarray, grid: Grid, image_size_wh: tuple[int, int], peak: float
) -> np.ndarray:
    """The pixels with the map's cells over them; pixels that the grid does not cover stay as they are.

    Args:
        pixels: `[height, width, 3]` uint8, the picture at any scale.
        map_: `[rows, cols]` attention.
        grid: Where the map lies, in pixels of the original image.
        image_size_wh: Size of the original image.
        peak: Attention that gets the strongest colour; the same for all maps that are to be compared.

    Returns:
        `[height, width, 3]` uint8.
    """
    if peak <= 0:
        return pixels
    heat = spread_cells(map_, grid, image_size_wh, (pixels.shape[1], pixels.shape[0]))
    return blend(pixels, np.clip(heat / peak, 0, 1))


def spread_cells(map_: np.ndarray, grid: Grid, image_size_wh: tuple[int, int], size_wh: tuple[int, int]) -> np.ndarray:
    """The value of the cell that holds each pixel's centre, `[height, width]` float32; 0 where the grid ends.

    Nothing is interpolated: a map is drawn as the cells that it is made of.
    """
    x = (np.arange(size_wh[0]) + 0.5) * image_size_wh[0] / size_wh[0]
    y = (np.arange(size_wh[1]) + 0.5) * image_size_wh[1] / size_wh[1]
    col, row = np.floor((x - grid.x0) / grid.cell_w).astype(int), np.floor((y - grid.y0) / grid.cell_h).astype(int)
    in_cols, in_rows = (col >= 0) & (col < grid.cols), (row >= 0) & (row < grid.rows)
    values = map_[np.ix_(np.clip(row, 0, grid.rows - 1), np.clip(col, 0, grid.cols - 1))]
    return np.where(in_rows[:, None] & in_cols, values, 0).astype(np.float32)


def blend(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay colours for `heat` in [0, 1] over pixels; the more heat, the less of the picture shows."""
    colors, alphas = _heat_table()
    level = (heat * 255).astype(np.uint8)
    alpha = alphas[level][..., None]
    return np.asarray(pixels * (1 - alpha) + colors[level] * alpha).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _heat_table() -> tuple[np.ndarray, np.ndarray]:
    """Colour `[256, 3]` in 0..255 and opacity `[256]` in 0..1 of each level of attention."""
    level = np.linspace(0, 1, 256)
    colors = matplotlib.colormaps[HEAT](0.2 + 0.8 * level)[:, :3] * 255
    return colors.astype(np.float32), (0.85 * level**0.85).astype(np.float32)
