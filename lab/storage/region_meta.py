"""What attention files say of grids, regions and layers without a map: written, and read from files of others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from foreign_files.messages import shorten, shorten_reason
from lab.grids import Grid
from lab.records import CollectedAttention
from lab.regions import Regions

_MAX_GRID_NUMBER = 1e9
_MIN_CELL = 1e-6


def regions_meta(collected: CollectedAttention) -> dict[str, Any]:
    """What is stored only where the tokens are not simply the cells of one grid, or layers have no map."""
    meta: dict[str, Any] = {}
    if collected.regions is not None:
        meta.update(regions=collected.regions.to_list(), regions_from=collected.regions.source)
    if collected.layers_without_map:
        meta.update(layers_without_map=list(collected.layers_without_map))
    return meta


def regions_from_meta(meta: Mapping[str, Any], tokens: int, path: Path) -> Regions | None:
    """The regions of a picture with several; None in files of one grid, which say nothing of regions.

    Args:
        meta: The file's metadata.
        tokens: Visual tokens of its attention.
        path: Named in messages.

    Raises:
        ValueError: If they are not regions of so many tokens.
    """
    rows = meta.get("regions")
    if rows is None:
        return None
    try:
        if not isinstance(rows, (list, tuple)) or not all(isinstance(row, Mapping) for row in rows):
            raise ValueError(f"{shorten(rows)} where regions belong")
        regions = Regions.from_list(rows, tokens, str(meta.get("regions_from", "rule")))
        for region in regions.regions:
            check_grid(region.grid)
        check_grid(regions.map_grid())
    except (TypeError, KeyError, ValueError, OverflowError) as error:
        raise ValueError(
            f"Expected the regions in the metadata of {path} to fit its {tokens} visual tokens, "
            f"but got a problem: {shorten_reason(error)}. Collect again."
        ) from error
    return regions


def layers_from_meta(meta: Mapping[str, Any], layers: int, path: Path) -> tuple[int, ...]:
    """Layers without softmax attention to the image, by the file.

    Args:
        meta: The file's metadata.
        layers: Layers of its attention.
        path: Named in messages.

    Raises:
        ValueError: If they are not layers of it.
    """
    found = meta.get("layers_without_map", ())
    good = isinstance(found, (list, tuple)) and all(type(layer) is int and 0 <= layer < layers for layer in found)
    if not good:
        raise ValueError(
            f"Expected layers_without_map in the metadata of {path} to be layers from 0 to {layers - 1}, "
            f"but got {shorten(found)}. Collect again."
        )
    return tuple(found)


def check_grid(grid: Grid) -> None:
    """Refuse a grid from a file whose numbers are of other types or sizes than a grid's.

    Raises:
        ValueError: Naming the number.
    """
    if type(grid.rows) is not int or type(grid.cols) is not int:
        raise ValueError(f"{shorten(grid.rows)} rows, {shorten(grid.cols)} columns")
    for number in (grid.x0, grid.y0, grid.cell_w, grid.cell_h):
        if type(number) not in (int, float) or abs(number) > _MAX_GRID_NUMBER:
            raise ValueError(f"the edge or size {shorten(number)}")
    if min(grid.cell_w, grid.cell_h) < _MIN_CELL:
        raise ValueError(f"cells of {grid.cell_w} x {grid.cell_h} pixels")
