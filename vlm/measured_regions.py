"""Regions of a family without a rule, read off the places where its image tokens listen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from lab.grids import Grid
from lab.regions import Region, Regions
from vlm.grid_probe import Process, Size, measured_centres

if TYPE_CHECKING:
    from torch import nn

# Largest distance, in cells, between a token's measured centre and its place in the grid read off.
_TOLERANCE = 0.35


def measure_regions(model: nn.Module, process: Process, wh: Size, count: int, image_ids: frozenset[int]) -> Regions:
    """Measure where each image token listens, and lay grids through the places.

    One backward pass of the vision tower for each token.

    Args:
        model: The whole model.
        process: Its processor with any prompt.
        wh: Width and height of the picture.
        count: Number of image tokens.
        image_ids: Their ids.

    Raises:
        ValueError: If the places make no grid.
    """
    try:
        centres = measured_centres(model, process, wh, range(count), image_ids, directions=1)
    except RuntimeError as error:
        raise ValueError(
            "Expected image tokens to listen to pixels, so that a family without a grid rule can be measured, but got "
            "no gradient. This model cannot be read."
        ) from error
    return regions_of_centres(centres, wh)


def regions_of_centres(centres: np.ndarray, wh: Size) -> Regions:
    """Lay grids through measured places.

    Args:
        centres: `[V, 2]` x and y in pixels, in the order of the prompt; NaN for separators.
        wh: Width and height of the picture.

    Raises:
        ValueError: If the places make no grid, as those of a resampler's tokens do.
    """
    regions, start = [], 0
    rows = _rows(centres, wh)
    while start < len(rows):
        end = start + 1
        while end < len(rows) and _goes_on(centres, rows[end - 1], rows[end], wh):
            end += 1
        regions.append(_region(centres, rows[start:end], wh))
        start = end
    if not _plausible(regions, len(centres), wh):
        raise ValueError(_no_grid(len(centres)))
    kinds = _kinds(regions, wh)
    named = tuple(Region(kind, region.grid, region.token_of) for kind, region in zip(kinds, regions))
    return Regions(named, len(centres), source="measured")


def _plausible(regions: list[Region], count: int, wh: Size) -> bool:
    """Whether most tokens are in real grids which together reach over most of the picture."""
    if len(regions) == 1 and regions[0].token_of.size > count / 2:
        real = regions
    else:
        real = [region for region in regions if min(region.grid.shape) > 1]
    if sum(region.token_of.size for region in real) <= count / 2:
        return False
    boxes = np.array([region.grid.box_xyxy for region in real])
    x0, y0 = np.maximum(boxes[:, :2].min(axis=0), 0)
    x1, y1 = np.minimum(boxes[:, 2:].max(axis=0), wh)
    # The least that is left of a picture cropped to its central square.
    least = 0.8 * min(wh) / max(wh)
    return bool((x1 - x0) * (y1 - y0) >= least * wh[0] * wh[1])


def _no_grid(count: int) -> str:
    return (
        f"Expected the model's {count} image tokens to listen to places that make a grid, but got none. This is so "
        "where they come out of a resampler. This model cannot be read."
    )


def _rows(centres: np.ndarray, wh: Size) -> list[list[int]]:
    """Runs of tokens along which x grows and y stays; a separator ends one."""
    step = np.diff(centres, axis=0)
    down = step[(step[:, 0] < 0) & (step[:, 1] > 0), 1]
    height = float(np.median(down)) if len(down) else float(wh[1])
    rows: list[list[int]] = []
    for token, (x, _) in enumerate(centres):
        if not np.isfinite(x):
            continue
        # From a tile's last row to the next tile's first one x grows too, but y jumps.
        goes_on = token > 0 and step[token - 1, 0] > 0 and abs(step[token - 1, 1]) < 0.5 * height
        if goes_on:
            rows[-1].append(token)
        else:
            rows.append([token])
    return rows


def _goes_on(centres: np.ndarray, above: list[int], below: list[int], wh: Size) -> bool:
    """Whether a row is the next one of the same grid: as long, under it, and further down."""
    if len(above) != len(below):
        return False
    sideways = np.abs(centres[above, 0] - centres[below, 0])
    down = centres[below, 1] - centres[above, 1]
    pitch = _pitch(centres[above, 0], wh[0])
    return bool(np.median(sideways) < _TOLERANCE * pitch and np.median(down) > 0.1 * pitch)


def _pitch(places: np.ndarray, length: float) -> float:
    return float(np.median(np.diff(places))) if len(places) > 1 else length


def _region(centres: np.ndarray, rows: list[list[int]], wh: Size) -> Region:
    """The regular grid closest to the places of some rows."""
    tokens = np.array(rows)
    x, y = centres[tokens, 0], centres[tokens, 1]
    x0, cell_w = _line(np.median(x, axis=0), wh[0])
    y0, cell_h = _line(np.median(y, axis=1), wh[1])
    across = x0 + (np.arange(x.shape[1]) + 0.5) * cell_w
    down = y0 + (np.arange(x.shape[0]) + 0.5) * cell_h
    off = np.maximum(np.abs(x - across[None]) / cell_w, np.abs(y - down[:, None]) / cell_h)
    if float(np.median(off)) > _TOLERANCE:
        raise ValueError(_no_grid(len(centres)))
    return Region("whole", Grid(tokens.shape[0], tokens.shape[1], x0, y0, cell_w, cell_h), tokens)


def _line(places: np.ndarray, length: int) -> tuple[float, float]:
    """Start and size of evenly spaced cells whose centres are closest to some places."""
    if len(places) == 1:
        # One cell tells no size: it is taken to reach as far to both sides as it can within the picture.
        half = min(float(places[0]), length - float(places[0]))
        return float(places[0]) - half, max(2 * half, 1.0)
    # The outer cells may lie partly in padding, which draws their centres inwards.
    inner = slice(1, -1) if len(places) > 4 else slice(None)
    step, start = np.polyfit(np.arange(len(places))[inner] + 0.5, places[inner], 1)
    return float(start), float(max(step, 1e-6))


def _kinds(regions: list[Region], wh: Size) -> list[str]:
    """A region that covers the picture beside smaller ones is their thumbnail."""
    if len(regions) == 1:
        return ["whole"]
    sizes = [_coverage(region, wh) for region in regions]
    cells = [region.grid.cell_w * region.grid.cell_h for region in regions]
    coarsest = max(range(len(regions)), key=lambda number: (sizes[number] > 0.7, cells[number]))
    rest = ["whole" if size > 0.7 else "tile" for size in sizes]
    if sizes[coarsest] > 0.7:
        rest[coarsest] = "thumbnail"
    return rest


def _coverage(region: Region, wh: Size) -> float:
    """Share of the picture that a region covers."""
    x1, y1, x2, y2 = region.grid.box_xyxy
    width, height = min(x2, wh[0]) - max(x1, 0), min(y2, wh[1]) - max(y1, 0)
    return max(0.0, width) * max(0.0, height) / (wh[0] * wh[1])
