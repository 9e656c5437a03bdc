"""Every head, and some sets of heads, against the targets of one picture: measures of one sample.

A head that does not look at the image at all on a sample, its map being 0 there, misses by every measure: IoU 0,
pointing 0, attention on the target 0, enrichment 0, and an AUROC of one half, what a flat map has. So all means of a
head are over the same rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.boxes import Box, box_ious, cell_coverage, mask_coverage
from lab.records import Grid
from lab.statistics.ceiling import best_cell_box, pointing_reachable

COVERED = 0.5
"""A cell is a positive of the AUROC when the ground-truth box covers at least this share of it."""


@dataclass(frozen=True)
class Targets:
    """The targets of one picture, of which one is the sample's own.

    Attributes:
        picture: Name of the picture; samples of one name share their targets.
        boxes_xyxy: Distinct half-open boxes in pixels of the original image.
        own: Which of them the sample's phrase means.
        mask: `[height, width]` bool, pixels of the sample's own target, where they are known.
    """

    picture: str
    boxes_xyxy: tuple[Box, ...]
    own: int
    mask: np.ndarray | None = None

    @property
    def own_xyxy(self) -> Box:
        """The sample's own target."""
        return self.boxes_xyxy[self.own]


@dataclass(frozen=True)
class LocalizedHeads:
    """What the rule for boxes makes of the heads of one sample.

    Attributes:
        masks: `[layers * heads, rows, cols]` bool, of each head's own map.
        boxes_xyxy: `[layers * heads, 4]`, of each head's own map; NaN where there is none, as in the others.
        set_boxes_xyxy: `[sets, 4]`, of each set of heads; the fixed ones come first.
        fixed_mask: `[rows, cols]` bool, of the fixed heads.
        all_heads_xyxy: `[4]`, of the sum of all heads.
        per_image_xyxy: `[4]`, of the heads that the criteria choose for this sample alone.
    """

    masks: np.ndarray
    boxes_xyxy: np.ndarray
    set_boxes_xyxy: np.ndarray
    fixed_mask: np.ndarray
    all_heads_xyxy: np.ndarray
    per_image_xyxy: np.ndarray


@dataclass(frozen=True)
class SampleAudit:
    """Every head, and some sets of heads, against the ground truth of one sample.

    Attributes:
        picture: Name of the picture.
        own: Which of the picture's targets is the sample's own.
        iou_on: `[targets, heads]` float32, IoU of the box of a head's own map with each target of the picture.
        enrichment_on: The same shape, share of the attention on a target over the target's share of the area; 1 is
            chance; NaN where the grid does not reach the target.
        pointing_on: The same shape, 1 where the centre of the map's highest cell lies in the target, else 0.
        fixed_iou_on: `[targets]` IoU of the fixed heads' box with each target.
        share: `[heads]` share of the attention inside the image that lies on the own target.
        area_share: The own target's share of the area.
        looks: `[heads]` bool, whether a head looks at the image at all.
        auroc: `[heads]` chance that a cell of the own target has more attention than another one.
        mask_iou_box: `[heads]` IoU of the mask of a head's own map with the own box.
        mask_iou_object: `[heads]` the same with the object's own pixels; NaN where they are not known.
        fixed_mask_areas: Intersection and union, in cells, of the fixed heads' mask with the object; NaN likewise.
        fixed_mask_iou_box: IoU of the fixed heads' mask with the own box.
        set_ious: `[sets]` float32, IoU of the box of each set of heads: the fixed ones first.
        all_heads_iou: IoU of the box of all heads' sum.
        per_image_iou: IoU of the box of the heads that the criteria choose for this image alone, 0 if none.
        image_iou: IoU of the whole image.
        ceiling_iou: IoU of the best box of whole cells.
        pointing_ceiling: Whether the centre of some cell lies in the own target.
    """

    picture: str
    own: int
    iou_on: np.ndarray
    enrichment_on: np.ndarray
    pointing_on: np.ndarray
    fixed_iou_on: np.ndarray
    share: np.ndarray
    area_share: float
    looks: np.ndarray
    auroc: np.ndarray
    mask_iou_box: np.ndarray
    mask_iou_object: np.ndarray
    fixed_mask_areas: tuple[float, float]
    fixed_mask_iou_box: float
    set_ious: np.ndarray
    all_heads_iou: float
    per_image_iou: float
    image_iou: float
    ceiling_iou: float
    pointing_ceiling: bool


def measure_sample(
    attention: np.ndarray, grid: Grid, image_size_wh: tuple[int, int], targets: Targets, found: LocalizedHeads
) -> SampleAudit:
    """Measure every head, and the sets of heads, of one sample against the targets of its picture.

    Args:
        attention: `[layers, heads, visual_tokens]`.
        grid: Where the cells lie in the image.
        image_size_wh: Width and height of the original image.
        targets: The picture's targets.
        found: Masks and boxes of the heads.

    Returns:
        The measures; heads run as `layer * num_heads + head`.
    """
    maps = attention.reshape(-1, *grid.shape)
    image_xyxy = (0.0, 0.0, float(image_size_wh[0]), float(image_size_wh[1]))
    visible = cell_coverage(image_xyxy, grid)
    coverages = np.stack([np.minimum(cell_coverage(box, grid), visible) for box in targets.boxes_xyxy])
    looks = maps.reshape(len(maps), -1) @ visible.reshape(-1).astype(maps.dtype) > 0
    all_xyxy, own_xyxy = np.array(targets.boxes_xyxy), np.array(targets.own_xyxy)
    shares, area_shares = attention_shares(maps, coverages, visible)
    own_coverage = coverages[targets.own]
    own_area = (own_xyxy[2] - own_xyxy[0]) * (own_xyxy[3] - own_xyxy[1]) / (grid.cell_w * grid.cell_h)
    mask_iou_object, mask_areas = _against_object(found, targets.mask, visible, grid)
    rivals = np.stack([found.all_heads_xyxy, found.per_image_xyxy, np.array(image_xyxy)])
    all_heads_iou, per_image_iou, image_iou = box_ious(rivals, own_xyxy)
    pointing = np.stack([measure_pointing(maps, box, grid) for box in targets.boxes_xyxy])
    mask_ious = mask_areas_of(np.concatenate([found.masks, found.fixed_mask[None]]), own_coverage, visible, own_area)
    return SampleAudit(
        picture=targets.picture,
        own=targets.own,
        iou_on=box_ious(found.boxes_xyxy[None], all_xyxy[:, None]).astype(np.float32),
        enrichment_on=enrichment_of(shares, area_shares).astype(np.float32),
        pointing_on=np.where(looks, pointing, 0).astype(np.float32),
        fixed_iou_on=box_ious(found.set_boxes_xyxy[0], all_xyxy),
        share=shares[targets.own],
        area_share=float(area_shares[targets.own]),
        looks=looks,
        auroc=measure_auroc(maps, own_coverage, visible),
        mask_iou_box=ratio(*mask_ious)[:-1],
        mask_iou_object=mask_iou_object,
        fixed_mask_areas=mask_areas,
        fixed_mask_iou_box=float(ratio(*mask_ious)[-1]),
        set_ious=box_ious(found.set_boxes_xyxy, own_xyxy).astype(np.float32),
        all_heads_iou=float(all_heads_iou),
        per_image_iou=float(per_image_iou),
        image_iou=float(image_iou),
        ceiling_iou=best_cell_box(targets.own_xyxy, grid, image_size_wh)[0],
        pointing_ceiling=pointing_reachable(targets.own_xyxy, grid),
    )


def _against_object(
    found: LocalizedHeads, mask: np.ndarray | None, visible: np.ndarray, grid: Grid
) -> tuple[np.ndarray, tuple[float, float]]:
    """IoU of each head's mask with the object's pixels, and intersection and union of the fixed heads' mask."""
    if mask is None:
        return np.full(len(found.masks), np.nan), (float("nan"), float("nan"))
    masks = np.concatenate([found.masks, found.fixed_mask[None]])
    area = float(mask.sum()) / (grid.cell_w * grid.cell_h)
    shared, union = mask_areas_of(masks, mask_coverage(mask, grid), visible, area)
    return ratio(shared, union)[:-1], (float(shared[-1]), float(union[-1]))


def mask_areas_of(
    masks: np.ndarray, coverage: np.ndarray, visible: np.ndarray, truth_area: float
) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of masks in cells with a truth, areas being exact and cells clipped to the image.

    Args:
        masks: `[maps, rows, cols]` bool.
        coverage: `[rows, cols]` share of each cell that the truth covers.
        visible: `[rows, cols]` share of each cell that lies in the image.
        truth_area: Area of the truth, in cells; it may reach over the edge of the grid.

    Returns:
        `[maps]` float64 each, in cells.
    """
    flat = masks.reshape(len(masks), -1).astype(np.float64)
    shared = flat @ coverage.reshape(-1)
    return shared, flat @ visible.reshape(-1) + truth_area - shared


def ratio(shared: np.ndarray, union: np.ndarray) -> np.ndarray:
    """Intersection over union; 0 where there is neither."""
    result: np.ndarray = np.divide(shared, union, out=np.zeros(np.shape(union)), where=union > 0)
    return result


def measure_pointing(maps: np.ndarray, truth_xyxy: Sequence[float], grid: Grid) -> np.ndarray:
    """Whether the centre of the highest cell of each map `[maps, rows, cols]` lies in the box: `[maps]`, 1.0 or 0.0."""
    x0, y0, x1, y1 = truth_xyxy
    row, col = np.divmod(maps.reshape(len(maps), -1).argmax(axis=1), grid.cols)
    x = grid.x0 + (col + 0.5) * grid.cell_w
    y = grid.y0 + (row + 0.5) * grid.cell_h
    result: np.ndarray = ((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)).astype(np.float64)
    return result


def attention_shares(maps: np.ndarray, coverages: np.ndarray, visible: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Share of the attention inside the image that lies on each target, and the target's share of the image's area.

    Args:
        maps: `[maps, rows, cols]`.
        coverages: `[targets, rows, cols]` share of each cell that a target covers.
        visible: `[rows, cols]` share of each cell that lies in the image.

    Returns:
        `[targets, maps]` float64, 0 for a map that is 0 inside the image; and `[targets]`.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    on_target = coverages.reshape(len(coverages), -1) @ flat.T
    on_image = flat @ visible.reshape(-1)
    shares = np.divide(on_target, on_image, out=np.zeros(on_target.shape), where=on_image > 0)
    return shares, coverages.sum(axis=(1, 2)) / visible.sum()


def enrichment_of(shares: np.ndarray, area_shares: np.ndarray) -> np.ndarray:
    """Shares of attention `[targets, maps]` over shares of the area `[targets]`; NaN where the grid misses a target."""
    expected = np.broadcast_to(area_shares[:, None], shares.shape)
    result: np.ndarray = np.divide(shares, expected, out=np.full(shares.shape, np.nan), where=expected > 0)
    return result


def measure_auroc(maps: np.ndarray, coverage: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Chance that a cell of the target has more attention than another cell of the image; ties count half.

    Cells of the target are covered by at least half; where none is, those covered most.

    Args:
        maps: `[maps, rows, cols]`.
        coverage: `[rows, cols]` share of each cell that the box covers.
        visible: `[rows, cols]` share of each cell that lies in the image.

    Returns:
        `[maps]` float64; NaN where the grid does not reach the box or the box covers all cells.
    """
    from scipy.stats import rankdata

    in_image = visible > 0
    covered = coverage[in_image]
    positive = covered >= min(COVERED, covered.max())
    num_positive, num_negative = int(positive.sum()), int((~positive).sum())
    if covered.max() <= 0 or num_negative == 0:
        return np.full(len(maps), np.nan)
    ranks = rankdata(maps[:, in_image], axis=1)
    surplus = ranks[:, positive].sum(axis=1) - num_positive * (num_positive + 1) / 2
    result: np.ndarray = surplus / (num_positive * num_negative)
    return result
