"""Maps of attention laid over the pixels of a picture."""

from __future__ import annotations

import functools
import math

import matplotlib
import numpy as np
from PIL import Image

from figures.theme import HEAT
from lab.records import Grid


def border_segments(cell_mask: np.ndarray, grid: Grid) -> np.ndarray:
    """`[n, 2, 2]` ends (x, y) of the cell edges with the mask on one side only, in pixels of the original image."""
    padded = np.pad(np.asarray(cell_mask, bool), 1)
    row, col = np.nonzero(padded[1:-1, :-1] != padded[1:-1, 1:])
    upright = np.stack([np.stack([col, row], axis=1), np.stack([col, row + 1], axis=1)], axis=1)
    row, col = np.nonzero(padded[:-1, 1:-1] != padded[1:, 1:-1])
    level = np.stack([np.stack([col, row], axis=1), np.stack([col + 1, row], axis=1)], axis=1)
    return np.concatenate([upright, level]) * (grid.cell_w, grid.cell_h) + (grid.x0, grid.y0)


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


def lay_over(pixels: np.ndarray, map_: np.ndarray, grid: Grid, image_size_wh: tuple[int, int]) -> np.ndarray:
    """The pixels with the map over them; pixels that the grid does not cover stay as they are.

    Args:
        pixels: `[height, width, 3]` uint8, the picture at any scale.
        map_: `[rows, cols]` attention.
        grid: Where the map lies, in pixels of the original image.
        image_size_wh: Size of the original image.

    Returns:
        `[height, width, 3]` uint8.
    """
    heat = _resample(map_, grid, image_size_wh, (pixels.shape[1], pixels.shape[0]))
    peak = float(heat.max())
    return blend(pixels, heat / peak) if peak > 0 else pixels


def _resample(map_: np.ndarray, grid: Grid, image_size_wh: tuple[int, int], size_wh: tuple[int, int]) -> np.ndarray:
    """The map at each pixel of the picture, `[height, width]` float32, at least 0; 0 where the grid does not reach."""
    x0, y0, x1, y1 = grid.box_xyxy
    scale_x, scale_y = size_wh[0] / image_size_wh[0], size_wh[1] / image_size_wh[1]
    left, right = max(0, math.ceil(x0 * scale_x - 1e-6)), min(size_wh[0], math.floor(x1 * scale_x + 1e-6))
    top, bottom = max(0, math.ceil(y0 * scale_y - 1e-6)), min(size_wh[1], math.floor(y1 * scale_y + 1e-6))
    heat = np.zeros((size_wh[1], size_wh[0]), np.float32)
    if right <= left or bottom <= top:
        return heat
    cols = np.clip((np.array([left, right]) / scale_x - x0) / grid.cell_w, 0, grid.cols)
    rows = np.clip((np.array([top, bottom]) / scale_y - y0) / grid.cell_h, 0, grid.rows)
    tile = Image.fromarray(np.ascontiguousarray(map_, dtype=np.float32))
    box = (float(cols[0]), float(rows[0]), float(cols[1]), float(rows[1]))
    smooth = tile.resize((right - left, bottom - top), Image.Resampling.BICUBIC, box=box)
    heat[top:bottom, left:right] = np.maximum(np.asarray(smooth), 0)
    return heat


def blend(pixels: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """Lay colours for `heat` in [0, 1] over pixels; the more heat, the less of the picture shows."""
    colors, alphas = _heat_table()
    level = (heat * 255).astype(np.uint8)
    alpha = alphas[level][..., None]
    return (pixels * (1 - alpha) + colors[level] * alpha).astype(np.uint8)


@functools.lru_cache(maxsize=1)
def _heat_table() -> tuple[np.ndarray, np.ndarray]:
    """Colour `[256, 3]` in 0..255 and opacity `[256]` in 0..1 of each level of attention."""
    level = np.linspace(0, 1, 256)
    colors = matplotlib.colormaps[HEAT](0.2 + 0.8 * level)[:, :3] * 255
    return colors.astype(np.float32), (0.85 * level**0.85).astype(np.float32)
