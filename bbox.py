"""Heads -> combined map -> mask -> box, in pixels of the original image.

Boxes are half-open with continuous edges: ``xyxy`` is (x0, y0, x1, y1) and covers ``[x0, x1) x [y0, y1)``. The pixel in
column i covers ``[i, i + 1)``, so that COCO's ``[x, y, w, h]`` is ``[x, y, x + w, y + h]``.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np

from finer.edges import FractionalEdges, edge_insets
from lab.boxes import (
    Box,
    box_iou,
    box_ious,
    cell_coverage,
    cell_edges,
    clipped_edges,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from lab.heads.measures import LocalizedHeads
from lab.records import Grid, Localization

__all__ = [
    "Box",
    "Localization",
    "box_iou",
    "box_ious",
    "cell_coverage",
    "cells_to_box",
    "cells_to_mask",
    "localize",
    "localize_each",
    "localize_heads",
    "smooth_maps",
    "xywh_to_xyxy",
    "xyxy_to_xywh",
]

REGIONS = ("largest", "heaviest", "all")
SETS_AT_ONCE = 250
FLATNESS_TOLERANCE = 1e-6
"""A map whose values differ by less than this share of the largest is flat: what is left is rounding."""
SLIVER = 1e-6
"""A cell that reaches into the image by less than this share of its width or height only does so by rounding."""


def localize(
    maps: np.ndarray,
    grid: Grid,
    image_size_wh: tuple[int, int],
    *,
    sigma: float = 1.0,
    truncate: float = 4.0,
    region: str = "largest",
    relative_threshold: float = 1.0,
    edges: FractionalEdges | None = None,
) -> Localization:
    """Combine the maps of the chosen heads and draw the box around what stands out.

    Each map is smoothed, the maps are summed, the mask is where the sum exceeds `relative_threshold` times its mean,
    and the box is the tight box around the mask's largest 8-connected region (most cells; then most attention), its
    heaviest (most attention), or all of it. Cells that lie wholly outside the image, in the padding, can be no part of
    an object: they count neither in the mean nor in the mask, so that the same scene gives the same box however it was
    padded.

    Args:
        maps: `[heads, rows, cols]`, attention of the chosen heads.
        grid: Where the cells lie in the image.
        image_size_wh: Width and height of the original image.
        sigma: Standard deviation of the Gaussian, in cells; 0 for none.
        truncate: Where the Gaussian ends, in standard deviations.
        region: `largest`, `heaviest` or `all`.
        relative_threshold: Threshold of the mask, as a multiple of the mean.
        edges: How far the box's edges end within its outer cells, by the combined map; None for whole cells. The mask
            in pixels then ends where the box does.

    Returns:
        The combined map, the mask in cells and in pixels, and the box; no box where the combined map is flat.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or infinite, or an option is out of range.
    """
    _check_maps(maps, grid)
    if len(maps) == 0:
        raise ValueError("Expected the maps of at least one head to combine, but got none.")
    combined = smooth_maps(maps, sigma=sigma, truncate=truncate).sum(axis=0)
    cell_masks, boxes_xyxy = localize_each(
        combined[None], grid, image_size_wh, region=region, relative_threshold=relative_threshold, edges=edges
    )
    box_xyxy = _as_box(boxes_xyxy[0]) if cell_masks[0].any() else None
    mask = cells_to_mask(cell_masks[0], grid, image_size_wh)
    return Localization(
        combined_map=combined.astype(np.float32),
        cell_mask=cell_masks[0],
        mask=mask if edges is None or box_xyxy is None else _mask_within(mask, box_xyxy),
        box_xyxy=box_xyxy,
        image_size_wh=image_size_wh,
    )


def smooth_maps(maps: np.ndarray, *, sigma: float, truncate: float = 4.0) -> np.ndarray:
    """Smooth each map with a Gaussian that reflects at the edges, so that no attention is lost or gained.

    Args:
        maps: `[maps, rows, cols]`.
        sigma: Standard deviation in cells; 0 for none.
        truncate: Where the Gaussian ends, in standard deviations; 3 with sigma 1 is a kernel 7 cells wide.

    Returns:
        The smoothed maps, `[maps, rows, cols]` float64.

    Raises:
        ValueError: If sigma is negative or truncate is not above 0.
    """
    from scipy.ndimage import gaussian_filter

    if not 0 <= sigma < np.inf or not 0 < truncate < np.inf:
        raise ValueError(
            f"Expected the smoothing's sigma to be 0 or more and truncate to be above 0, "
            f"but got sigma={sigma}, truncate={truncate}."
        )
    return np.asarray(gaussian_filter(maps.astype(np.float64), (0, sigma, sigma), truncate=truncate))


def localize_each(
    maps: np.ndarray,
    grid: Grid,
    image_size_wh: tuple[int, int],
    *,
    region: str = "largest",
    relative_threshold: float = 1.0,
    edges: FractionalEdges | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Mask and box of every map on its own, all at once; the rule is that of `localize`, without its smoothing.

    Args:
        maps: `[maps, rows, cols]`, smoothed as needed.
        grid: Where the cells lie in the image.
        image_size_wh: Width and height of the original image.
        region: `largest`, `heaviest` or `all`.
        relative_threshold: Threshold of the masks, as a multiple of each mean.
        edges: How far the boxes' edges end within their outer cells; None for whole cells.

    Returns:
        The masks, `[maps, rows, cols]` bool, and the boxes, `[maps, 4]` float64 xyxy, NaN where a mask is empty.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or infinite, or an option is out of range.
    """
    _check_maps(maps, grid)
    if region not in REGIONS:
        raise ValueError(f"Expected region to be one of {', '.join(REGIONS)}, but got {region!r}.")
    if not 0 <= relative_threshold < np.inf:
        raise ValueError(f"Expected relative_threshold to be 0 or more, but got {relative_threshold}.")
    masks = _threshold(maps, _cells_in_image(grid, image_size_wh), relative_threshold)
    if region != "all":
        masks = _one_region_each(masks, maps, heaviest=region == "heaviest")
    insets = None if edges is None else edge_insets(maps, masks, edges)
    return masks, _tight_boxes(masks, grid, image_size_wh, insets)


def _check_maps(maps: np.ndarray, grid: Grid) -> None:
    """Reject maps of another shape than the grid, and maps with NaN or infinity."""
    if maps.ndim != 3 or maps.shape[1:] != grid.shape:
        raise ValueError(
            f"Expected maps to have the shape [maps, {grid.rows}, {grid.cols}] of the grid, but got {list(maps.shape)}."
        )
    if not np.isfinite(maps).all():
        bad = int((~np.isfinite(maps).all(axis=(1, 2))).sum())
        raise ValueError(
            f"Expected maps to be finite, but got NaN or infinity in {bad} of {len(maps)}. "
            "Collect again with model.dtype=bfloat16 or float32."
        )


def _threshold(maps: np.ndarray, in_image: np.ndarray, relative_threshold: float) -> np.ndarray:
    """Cells of the image above the threshold, `[maps, rows, cols]` bool; none where a map is flat."""
    values = maps[:, in_image].astype(np.float64)
    smallest, largest = values.min(axis=1), values.max(axis=1)
    flat = largest - smallest <= FLATNESS_TOLERANCE * np.maximum(np.abs(smallest), np.abs(largest))
    cutoff = np.where(flat, np.inf, relative_threshold * values.mean(axis=1))
    return in_image & (maps > cutoff[:, None, None])


def _one_region_each(masks: np.ndarray, maps: np.ndarray, *, heaviest: bool) -> np.ndarray:
    """Keep of each mask the 8-connected region with the most cells; then the largest sum of the map; then the first.

    The heaviest region is that with the largest sum: there a faint smear over many cells yields to a small bright one.
    """
    from scipy.ndimage import label

    within_a_map = np.zeros((3, 3, 3), dtype=bool)
    within_a_map[1] = True
    labels, num_regions = label(masks, structure=within_a_map)
    cells = np.flatnonzero(labels)
    region_of_cell = labels.reshape(-1)[cells]
    num_cells = np.bincount(region_of_cell, minlength=num_regions + 1)
    mass = np.bincount(region_of_cell, weights=maps.reshape(-1)[cells], minlength=num_regions + 1)
    map_of_region = np.full(num_regions + 1, -1)
    map_of_region[region_of_cell] = cells // (masks.shape[1] * masks.shape[2])

    first = mass if heaviest else num_cells
    best_last = np.lexsort((-np.arange(num_regions + 1), mass, first, map_of_region))
    is_last = np.append(np.diff(map_of_region[best_last]) != 0, True)
    keep = np.zeros(num_regions + 1, dtype=bool)
    keep[best_last[is_last]] = True
    keep[0] = False
    return np.asarray(keep[labels])


def _tight_boxes(
    masks: np.ndarray, grid: Grid, image_size_wh: tuple[int, int], insets: np.ndarray | None = None
) -> np.ndarray:
    """Tight boxes around masks, clipped to the image: `[maps, 4]` float64 xyxy, NaN where a mask is empty.

    `insets` are `[maps, 4]` in cells: how far left, top, right and bottom edges move inwards before clipping.
    """
    x_edges, y_edges = cell_edges(grid)
    x0, x1 = _extent(np.any(masks, axis=1), x_edges)
    y0, y1 = _extent(np.any(masks, axis=2), y_edges)
    boxes_xyxy = np.stack([x0, y0, x1, y1], axis=1)
    if insets is not None:
        boxes_xyxy += insets * (grid.cell_w, grid.cell_h, -grid.cell_w, -grid.cell_h)
    boxes_xyxy = np.clip(boxes_xyxy, 0, (*image_size_wh, *image_size_wh))
    boxes_xyxy[~masks.any(axis=(1, 2))] = np.nan
    return np.asarray(boxes_xyxy)


def _extent(occupied: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """First and last edge of the occupied cells of one axis; `occupied` is `[maps, cells]`, `edges` `[cells + 1]`."""
    first = occupied.argmax(axis=1)
    end = occupied.shape[1] - occupied[:, ::-1].argmax(axis=1)
    return edges[first], edges[end]


# ---------------------------------------------------------------------------------------------------------------------
# Cells and pixels
# ---------------------------------------------------------------------------------------------------------------------


def cells_to_mask(cell_mask: np.ndarray, grid: Grid, image_size_wh: tuple[int, int]) -> np.ndarray:
    """The same mask in pixels: a pixel belongs to the cell that holds its centre, or to none.

    Args:
        cell_mask: `[rows, cols]` bool.
        grid: Where the cells lie in the image.
        image_size_wh: Width and height of the original image.

    Returns:
        `[height, width]` bool.
    """
    x_edges, y_edges = cell_edges(grid)
    col, in_cols = _cell_of_pixel(x_edges, image_size_wh[0])
    row, in_rows = _cell_of_pixel(y_edges, image_size_wh[1])
    return np.asarray(cell_mask[np.ix_(row, col)] & in_rows[:, None] & in_cols)


def _mask_within(mask: np.ndarray, box_xyxy: Box) -> np.ndarray:
    """A mask of pixels, less those whose centres lie outside a box."""
    x0, y0, x1, y1 = box_xyxy
    across, down = (np.arange(length) + 0.5 for length in (mask.shape[1], mask.shape[0]))
    within: np.ndarray = mask & ((across >= x0) & (across < x1)) & ((down >= y0) & (down < y1))[:, None]
    return within


def cells_to_box(cell_mask: np.ndarray, grid: Grid, image_size_wh: tuple[int, int]) -> Box | None:
    """The tight box around the cells of a mask `[rows, cols]`, clipped to the image, or None if it has none there."""
    in_image = cell_mask & _cells_in_image(grid, image_size_wh)
    return _as_box(_tight_boxes(in_image[None], grid, image_size_wh)[0]) if in_image.any() else None


def _cells_in_image(grid: Grid, image_size_wh: tuple[int, int]) -> np.ndarray:
    """Which cells share some area with the image, `[rows, cols]` bool; at least one must."""
    x_edges, y_edges = clipped_edges(grid, image_size_wh)
    in_image = np.outer(np.diff(y_edges) > SLIVER * grid.cell_h, np.diff(x_edges) > SLIVER * grid.cell_w)
    if not in_image.any():
        raise ValueError(
            f"Expected the grid to lie over the image of {image_size_wh[0]} x {image_size_wh[1]} pixels, "
            f"but got a grid over {grid.box_xyxy}. Grid and image size must belong to the same image."
        )
    return in_image


def _cell_of_pixel(edges: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel of one axis the index of the cell that holds its centre, and whether there is one."""
    index = np.searchsorted(edges, np.arange(length) + 0.5, side="right") - 1
    inside = (index >= 0) & (index < len(edges) - 1)
    return np.where(inside, index, 0), inside


def _as_box(values: np.ndarray) -> Box:
    x0, y0, x1, y1 = (float(value) for value in values)
    return x0, y0, x1, y1


# ---------------------------------------------------------------------------------------------------------------------
# Every head and many sets of heads of one sample
# ---------------------------------------------------------------------------------------------------------------------


def localize_heads(
    attention: np.ndarray,
    grid: Grid,
    image_size_wh: tuple[int, int],
    *,
    head_sets: np.ndarray,
    per_image_heads: Sequence[tuple[int, int]],
    sigma: float,
    truncate: float,
    region: str,
    relative_threshold: float,
    edges: FractionalEdges | None = None,
) -> LocalizedHeads:
    """Mask and box of every head, and the box of every set of heads, all at once; the rule is that of `localize`.

    Args:
        attention: `[layers, heads, visual_tokens]`.
        grid: Where the cells lie in the image.
        image_size_wh: Width and height of the original image.
        head_sets: `[sets, K]` int, heads as `layer * num_heads + head`: first the fixed ones.
        per_image_heads: (layer, head) of the heads that the criteria choose for this sample; none where they find none.
        sigma: Smoothing, as in `localize`; so are the other four.
        truncate: See there.
        region: See there.
        relative_threshold: See there.
        edges: See there.

    Returns:
        Masks and boxes.
    """
    localized = partial(
        localize_each,
        grid=grid,
        image_size_wh=image_size_wh,
        region=region,
        relative_threshold=relative_threshold,
        edges=edges,
    )
    # Smoothing is linear, so that the sum of smoothed maps serves every set.
    smoothed = smooth_maps(attention.reshape(-1, *grid.shape), sigma=sigma, truncate=truncate)
    masks, boxes_xyxy = localized(smoothed)
    per_image = [layer * attention.shape[1] + head for layer, head in per_image_heads]
    sums = [smoothed[head_sets[0]].sum(axis=0), smoothed.sum(axis=0), smoothed[per_image].sum(axis=0)]
    rival_masks, rival_boxes_xyxy = localized(np.stack(sums))
    chunks = np.array_split(head_sets, max(1, len(head_sets) // SETS_AT_ONCE))
    set_boxes_xyxy = [localized(_sum_of_members(smoothed, chunk))[1] for chunk in chunks]
    return LocalizedHeads(
        masks=masks,
        boxes_xyxy=boxes_xyxy,
        set_boxes_xyxy=np.concatenate(set_boxes_xyxy),
        fixed_mask=rival_masks[0],
        all_heads_xyxy=rival_boxes_xyxy[1],
        per_image_xyxy=rival_boxes_xyxy[2],
    )


def _sum_of_members(maps: np.ndarray, head_sets: np.ndarray) -> np.ndarray:
    """Sum of the maps of each set, `[sets, rows, cols]`, added up member by member to save memory."""
    total = maps[head_sets[:, 0]]
    for member in head_sets.T[1:]:
        total += maps[member]
    return np.asarray(total)
