"""Regions of processors that cut a picture into tiles: which layout they choose, and where the tiles' tokens stand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lab.grids import Grid
from lab.regions import Region, covering, row_major

Size = tuple[int, int]
# Columns and rows of tiles.
Layout = tuple[int, int]


def tiled(wh: Size, layout: Layout, *, side: int, thumbnail: str = "last") -> list[Region]:
    """The whole picture squashed onto tiles, and a thumbnail of it where there are more than one.

    Args:
        wh: Width and height of the image.
        layout: Columns and rows of tiles.
        side: Tokens on a side of a tile.
        thumbnail: `last` (InternVL, Aya Vision, Cohere 2 Vision, Idefics 3), `first` (Ovis2, Perception LM) or `none`.
    """
    cols, rows = layout
    per_tile = side * side
    if cols * rows == 1:
        return [Region("whole", covering(*wh, side, side), row_major(side, side))]
    ahead = per_tile if thumbnail == "first" else 0
    width, height = wh[0] / cols, wh[1] / rows
    regions = [
        Region(
            "tile",
            covering(width, height, side, side, x0=col * width, y0=row * height),
            row_major(side, side, first=ahead + (row * cols + col) * per_tile),
        )
        for row in range(rows)
        for col in range(cols)
    ]
    if thumbnail == "none":
        return regions
    first = 0 if thumbnail == "first" else cols * rows * per_tile
    return [*regions, Region("thumbnail", covering(*wh, side, side), row_major(side, side, first=first))]


def layouts(least: int, most: int) -> list[Layout]:
    """All layouts of so many tiles, the smaller first, in the order in which processors look at them."""
    sides = range(1, most + 1)
    found = [(cols, rows) for cols in sides for rows in sides if least <= cols * rows <= most]
    return sorted(found, key=lambda layout: layout[0] * layout[1])


def layout_of_closest_shape(wh: Size, *, tile_wh: Size, least: int, most: int) -> Layout:
    """InternVL's and Aya Vision's choice: the shape closest to the picture's.

    Of layouts of one shape the larger wins if the picture has more than half of its pixels.
    """
    best, best_distance = (1, 1), math.inf
    for layout in layouts(least, most):
        distance = abs(wh[0] / wh[1] - layout[0] / layout[1])
        pixels = tile_wh[0] * tile_wh[1] * layout[0] * layout[1]
        if distance < best_distance or (distance == best_distance and wh[0] * wh[1] > 0.5 * pixels):
            best, best_distance = layout, distance
    return best


def layout_of_least_enlargement(wh: Size, *, tile: int, most: int) -> Layout:
    """Cohere 2 Vision's choice: the canvas that needs the least enlargement to be filled, else the least shrinking."""
    found = layouts(1, most)
    scales = [min(cols * tile / wh[0], rows * tile / wh[1]) for cols, rows in found]
    covering_scales = [scale if scale >= 1 else math.inf for scale in scales]
    if min(covering_scales) < math.inf:
        return found[covering_scales.index(min(covering_scales))]
    return found[scales.index(max(scales))]


def layout_of_fewest_tiles(wh: Size, *, tile: int, most: int, enough: float = 0.9) -> Layout:
    """Ovis2's choice: the fewest tiles that keep nine tenths of the picture's resolution.

    Its code hands the number of rows on as that of columns; so does this.
    """
    rated = [(layout, _kept_resolution(wh, layout[0], layout[1], tile)) for layout in layouts(1, most)]
    good = [entry for entry in rated if entry[1] > enough]
    if good:
        return min(good, key=lambda entry: (entry[0][0] * entry[0][1], -entry[1]))[0]
    return min(rated, key=lambda entry: (-entry[1], entry[0][0] * entry[0][1]))[0]


def _kept_resolution(wh: Size, rows: int, cols: int, tile: int) -> float:
    """Share of the picture's pixels that its parts have once each is fitted into a tile."""
    widths = _parts(wh[0], cols)
    heights = _parts(wh[1], rows)
    kept = 0.0
    for width in widths:
        for height in heights:
            long, short = max(width, height), min(width, height)
            kept += tile * (short / long * tile) if long > tile else long * short
    return kept / (wh[0] * wh[1])


def _parts(length: int, count: int) -> list[int]:
    """Lengths of equal whole parts, the last with what remains."""
    step = length // count
    return [step] * (count - 1) + [length - step * (count - 1)]


def layout_of_whole_tiles(wh: Size, *, longest: int, tile: int, cap: int = 4096) -> Layout:
    """Idefics 3's and SmolVLM's: long side to a length, then both up to whole tiles.

    The second number of tiles follows from the first side once that has been rounded up.
    """
    width, height = _long_side_to(wh, longest)
    if max(width, height) > cap:
        ratio = width / height
        width, height = (cap, int(cap / ratio)) if width >= height else (int(cap * ratio), cap)
    ratio = width / height
    if width >= height:
        cols = math.ceil(width / tile)
        return cols, math.ceil(int(cols * tile / ratio) / tile)
    rows = math.ceil(height / tile)
    return math.ceil(int(rows * tile * ratio) / tile), rows


def _long_side_to(wh: Size, longest: int) -> Size:
    """The size with that long side; the short one is made even."""
    ratio = wh[0] / wh[1]
    if wh[0] >= wh[1]:
        short = int(longest / ratio)
        return longest, short + short % 2
    short = int(longest * ratio)
    return short + short % 2, longest


# Fitted into a canvas of tiles ----------------------------------------------------------------------------------------


def layout_of_canvas(wh: Size, *, tile: int, most: int) -> Layout:
    """Llama's choice: the canvas of the least enlargement, else of the least shrinking; of equal ones the smallest.

    In single precision, as the processor reckons, so that ties fall as there.
    """
    sides = range(1, most + 1)
    found = [(cols, rows) for cols in sides for rows in sides if cols * rows <= most]
    scales = np.array([min(np.float32(c * tile / wh[0]), np.float32(r * tile / wh[1])) for c, r in found])
    wanted = scales[scales >= 1].min() if (scales >= 1).any() else scales.max()
    equal = [layout for layout, scale in zip(found, scales) if scale == wanted]
    return min(equal, key=lambda layout: layout[0] * layout[1])


def fitted_into(wh: Size, box: Size) -> Size:
    """The largest size of the picture's shape within a box, rounded down."""
    if box[0] / wh[0] < box[1] / wh[1]:
        return box[0], min(math.floor(wh[1] * box[0] / wh[0]) or 1, box[1])
    return min(math.floor(wh[0] * box[1] / wh[1]) or 1, box[0]), box[1]


def on_canvas(
    wh: Size, resized_wh: Size, layout: Layout, *, tile: int, side: int, first: int, step: int
) -> list[Region]:
    """Tiles of a canvas that holds the picture in its upper left corner, filled up right and below: Llama 3.2 and 4.

    Args:
        wh: Width and height of the image.
        resized_wh: Its size on the canvas.
        layout: Columns and rows of tiles.
        tile: Side of a tile in pixels.
        side: Tokens on a side of a tile.
        first: Token of the first cell.
        step: Tokens from tile to tile.
    """
    cols, rows = layout
    width, height = tile * wh[0] / resized_wh[0], tile * wh[1] / resized_wh[1]
    return [
        Region(
            "tile" if cols * rows > 1 else "whole",
            covering(width, height, side, side, x0=col * width, y0=row * height),
            row_major(side, side, first=first + (row * cols + col) * step),
        )
        for row in range(rows)
        for col in range(cols)
    ]


# Tiles joined into one grid -------------------------------------------------------------------------------------------


def best_pinpoint(wh: Size, pinpoints: Sequence[Sequence[int]]) -> Size:
    """LLaVA-NeXT's choice (width, height): the pinpoint that keeps most of the picture, then wastes least.

    Args:
        wh: Width and height of the image.
        pinpoints: Sizes (height, width) of a checkpoint's `image_grid_pinpoints`.
    """

    def rank(pinpoint: Sequence[int]) -> tuple[int, int]:
        height, width = pinpoint
        scale = min(width / wh[0], height / wh[1])
        kept = min(int(wh[0] * scale) * int(wh[1] * scale), wh[0] * wh[1])
        return kept, kept - width * height

    height, width = max(pinpoints, key=rank)
    return width, height


def joined_tiles(
    wh: Size, *, pinpoints: Sequence[Sequence[int]], tile: int, side: int, most: int | None = None
) -> list[Region]:
    """LLaVA-NeXT and OneVision: a thumbnail, then one grid over all tiles whose rows each end with a newline.

    Tokens of padding are cut off before the newlines come, so the tiles are no regions of their own. The newlines carry
    the image token's id.

    Args:
        wh: Width and height of the image.
        pinpoints: `image_grid_pinpoints`, (height, width).
        tile: Side of a tile in pixels.
        side: Tokens on a side of a tile.
        most: Tiles' worth of tokens above which the joined grid is shrunk (9 of OneVision's `anyres_max_9`).
    """
    canvas = best_pinpoint(wh, pinpoints)
    box, rows, cols = _unpadded(wh, canvas, (canvas[1] // tile * side, canvas[0] // tile * side), tile / side)
    if most is not None:
        ratio = math.sqrt(rows * cols / (most * side * side))
        if ratio > 1.1:
            rows, cols = int(rows // ratio), int(cols // ratio)
    x0, y0, width, height = box
    return [
        Region("thumbnail", covering(*wh, side, side), row_major(side, side)),
        Region(
            "whole",
            covering(width, height, rows, cols, x0=x0, y0=y0),
            row_major(rows, cols, first=side * side, row_step=cols + 1),
        ),
    ]


def _unpadded(
    wh: Size, canvas: Size, shape: tuple[int, int], cell: float
) -> tuple[tuple[float, float, float, float], int, int]:
    """What is left of a joined grid once rows or columns of padding are cut off.

    Two roundings meet: that of the picture's size on the canvas, and that of the tokens cut off on both sides.

    Returns:
        Left, top, width and height of the grid in pixels of the image; rows; columns.
    """
    width, height = wh
    rows, cols = shape
    if canvas[0] / width < canvas[1] / height:
        resized = (canvas[0], min(math.ceil(height * canvas[0] / width), canvas[1]))
    else:
        resized = (min(math.ceil(width * canvas[1] / height), canvas[0]), canvas[1])
    cut_rows = cut_cols = 0
    if width / height > cols / rows:
        cut_rows = (rows - int(round(height * (cols / width), 7))) // 2
    else:
        cut_cols = (cols - int(round(width * (rows / height), 7))) // 2
    rows, cols = rows - 2 * cut_rows, cols - 2 * cut_cols
    scale_x, scale_y = width / resized[0], height / resized[1]
    x0 = (cut_cols * cell - (canvas[0] - resized[0]) // 2) * scale_x
    y0 = (cut_rows * cell - (canvas[1] - resized[1]) // 2) * scale_y
    return (x0, y0, cols * cell * scale_x, rows * cell * scale_y), rows, cols


def pan_and_scan(
    wh: Size, *, side: int, smallest_crop: int = 256, most: int = 4, least_ratio: float = 1.2
) -> list[Region]:
    """Gemma 3 with pan and scan: the whole picture squashed, and 2 to 4 crops along its longer side, each squashed.

    Args:
        wh: Width and height of the image.
        side: Tokens on a side of each.
        smallest_crop: Side below which there are no crops.
        most: Crops at most.
        least_ratio: Ratio of the sides below which there are no crops.
    """
    regions = [Region("whole", covering(*wh, side, side), row_major(side, side))]
    long, short = max(wh), min(wh)
    if long / short < least_ratio:
        return regions
    count = min(most, max(2, min(long // smallest_crop, math.floor(long / short + 0.5))))
    crop = math.ceil(long / count)
    if min(crop, short) < smallest_crop:
        return regions
    wide = wh[0] >= wh[1]
    for number in range(count):
        start = number * crop
        length = min(crop, long - start)
        grid: Grid = (
            covering(length, short, side, side, x0=start) if wide else covering(short, length, side, side, y0=start)
        )
        regions.append(Region("tile", grid, row_major(side, side, first=(number + 1) * side * side)))
    # The overview beside crops is what a thumbnail is beside tiles.
    return [Region("thumbnail", regions[0].grid, regions[0].token_of), *regions[1:]]
