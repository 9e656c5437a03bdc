"""Refuse arrays that do not fit before anything is drawn of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from lab.records import Grid, HeadChoice, Localization

FORMATS = (".png", ".pdf", ".svg")


def check_map_shape(maps: np.ndarray, grid: Grid, what: str) -> None:
    """Refuse maps that are not `[K, rows, cols]` of the grid, or not finite."""
    if maps.ndim != 3 or maps.shape[1:] != grid.shape:
        raise ValueError(
            f"Expected {what} to fit the grid's {_by(grid.shape)} cells, but got the shape {list(maps.shape[-2:])}."
            if maps.ndim == 3
            else f"Expected {what} to have the shape [K, rows, cols], but got {list(maps.shape)}."
        )
    if not np.isfinite(maps).all():
        raise ValueError(f"Expected {what} to be finite, but got NaN or inf. Collect the attention again.")


def finite_array(
    name: str,
    values: object,
    *,
    ndim: int | None = None,
    shape: tuple[int, ...] | None = None,
    length: int | None = None,
) -> np.ndarray:
    """The values as a float array of the given form; refuses empty ones, other forms, NaN and inf."""
    array = np.asarray(values, dtype=float)
    if length is not None:
        shape = (length,)
    if shape is not None and array.shape != shape:
        raise ValueError(f"Expected {name} to have the shape {list(shape)}, but got {list(array.shape)}.")
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"Expected {name} to have {ndim} dimensions, but got the shape {list(array.shape)}.")
    if array.size == 0 or not np.isfinite(array).all():
        raise ValueError(f"Expected {name} to hold finite numbers, at least one, but got NaN, inf or nothing.")
    return array


def checked_ends(ends: tuple[object, object] | None, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray] | None:
    """Lower and upper ends of intervals, checked, or None."""
    if ends is None:
        return None
    low, high = (finite_array(name, values, shape=shape) for name, values in zip(("low ends", "high ends"), ends))
    if (low > high).any():
        raise ValueError("Expected every interval to have low <= high, but got one the other way round. Swap its ends.")
    return low, high


def check_top_heads(
    image: Image.Image, maps: np.ndarray, grid: Grid, choice: HeadChoice, localization: Localization
) -> None:
    """Refuse maps, heads and picture that do not belong together."""
    check_map_shape(maps, grid, "maps")
    if not choice.heads or len(maps) != len(choice.heads):
        raise ValueError(
            f"Expected one map for each chosen head, at least one, but got {len(maps)} maps for "
            f"{len(choice.heads)} heads. Give the maps of choice.heads, in their order."
        )
    if tuple(image.size) != tuple(localization.image_size_wh):
        raise ValueError(
            f"Expected the picture to be {_by(localization.image_size_wh)} px as the localization says, "
            f"but got {_by(image.size)} px. Load it with its EXIF rotation applied."
        )


def _by(pair: Sequence[int]) -> str:
    """Two numbers as people write a size."""
    return f"{pair[0]} x {pair[1]}"


def check_figure_path(path: str | Path | None) -> None:
    """Refuse a path of a kind that is not written; None, which is no file, is fine."""
    if path is not None and Path(path).suffix.lower() not in FORMATS:
        raise ValueError(
            f"Expected the path of a figure to end in .png, .pdf or .svg, but got {cut_short(str(path))}. Rename it."
        )


def cut_short(text: str, most: int = 100) -> str:
    """What is quoted in a message: on one line, and of a long text only its end."""
    return repr(text if len(text) <= most else "…" + text[-most:])
