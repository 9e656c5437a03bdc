"""The head audit: do the chosen heads look at what was asked for? Statistics over arrays.

Criteria without labels may pick heads that look at one place whatever is asked. With ground-truth boxes each head is
measured on its own, and the fixed heads together are compared with random heads, all heads and the whole image.

The verdict is "these heads look at the target" if and only if
1. the boxes of the fixed heads have a higher mean IoU than those of layer-matched random heads, all heads and the whole
   image, each time with a two-sided p below 0.01, and
2. each fixed head gives the target more than its share of attention (enrichment above 1) and ranks its cells above
   others (AUROC above 0.5), on average.

Beside the verdict stands how heads chosen anew for each image, by the same criteria, compare with the fixed ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.records import Grid

ALPHA = 0.01
COVERED = 0.5
"""A cell is a positive of the AUROC when the ground-truth box covers at least this share of it."""
SIGN_FLIPS = 10_000
_CHUNK = 500


@dataclass(frozen=True)
class SampleAudit:
    """Every head, and some sets of heads, against the ground truth of one sample.

    Attributes:
        box_iou: `[layers, heads]` IoU of the box of a head's own map.
        mask_iou: `[layers, heads]` IoU of the mask of a head's own map with the ground-truth box.
        pointing: `[layers, heads]` 1.0 where the centre of the map's highest cell lies in the box, else 0.0.
        enrichment: `[layers, heads]` share of attention on the box over the box's share of the area; 1 is chance.
        auroc: `[layers, heads]` chance that a cell of the target has more attention than another one.
        set_ious: `[sets]` IoU of the box of each set of heads: the fixed ones, then the random draws.
        all_heads_iou: IoU of the box of all heads' sum.
        per_image_iou: IoU of the box of the heads that the criteria choose for this image alone, 0 if none.
        image_iou: IoU of the whole image.
    """

    box_iou: np.ndarray
    mask_iou: np.ndarray
    pointing: np.ndarray
    enrichment: np.ndarray
    auroc: np.ndarray
    set_ious: np.ndarray
    all_heads_iou: float
    per_image_iou: float
    image_iou: float


PER_HEAD = ("box_iou", "mask_iou", "pointing", "enrichment", "auroc")
PER_SAMPLE = ("set_ious", "all_heads_iou", "per_image_iou", "image_iou")


@dataclass(frozen=True)
class Rival:
    """What the fixed heads are compared with.

    Attributes:
        name: Name for people.
        mean_iou: Mean IoU of its boxes.
        sd: Standard deviation of that mean over the draws; 0 for a single rival.
        p_value: Two-sided, of the difference to the fixed heads.
    """

    name: str
    mean_iou: float
    sd: float
    p_value: float


@dataclass(frozen=True)
class HeadAudit:
    """The audit of a model's heads over a data set.

    Attributes:
        num_samples: Number of samples with a ground truth.
        means: `[layers, heads]` mean of each measure of `SampleAudit`, by its name.
        rank: `[layers, heads]` int, rank by mean IoU of the own box; 1 is best, equal heads share the better rank.
        frequency: `[layers, heads]` selection frequency.
        fixed: (layer, head) of the fixed heads.
        fixed_iou: Mean IoU of the fixed heads' boxes.
        rivals: Random heads, all heads, whole image: what the verdict compares with.
        per_image: Heads chosen for each image by the same criteria; they do not enter the verdict.
        spearman: Rank correlation, over the heads that may be chosen, between selection frequency and mean IoU of a
            head's own box; NaN where one of them is constant.
        spearman_p: Its two-sided p-value.
        verdict: One sentence.
        looks_at_target: What the verdict says.
    """

    num_samples: int
    means: dict[str, np.ndarray]
    rank: np.ndarray
    frequency: np.ndarray
    fixed: tuple[tuple[int, int], ...]
    fixed_iou: float
    rivals: tuple[Rival, ...]
    per_image: Rival
    spearman: float
    spearman_p: float
    verdict: str
    looks_at_target: bool

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain data for JSON; NaN is None."""
        return {
            "num_samples": self.num_samples,
            "fixed": [list(head) for head in self.fixed],
            "fixed_iou": self.fixed_iou,
            "rivals": [vars(rival) for rival in self.rivals],
            "per_image": vars(self.per_image),
            "spearman": None if np.isnan(self.spearman) else self.spearman,
            "spearman_p": None if np.isnan(self.spearman_p) else self.spearman_p,
            "looks_at_target": self.looks_at_target,
            "verdict": self.verdict,
        }

    def ranked_heads(self) -> list[tuple[int, int]]:
        """(layer, head) of every head, best IoU of the own box first."""
        order = np.argsort(self.rank, axis=None, kind="stable")
        return [divmod(int(index), self.rank.shape[1]) for index in order]

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `head_audit.csv`, best rank first."""
        return [self._row(*head) for head in self.ranked_heads()]

    def _row(self, layer: int, head: int) -> dict[str, Any]:
        return {
            "layer": layer,
            "head": head,
            "fixed": int((layer, head) in self.fixed),
            "frequency": float(self.frequency[layer, head]),
            "mean_box_iou": float(self.means["box_iou"][layer, head]),
            "mean_mask_iou": float(self.means["mask_iou"][layer, head]),
            "pointing_accuracy": float(self.means["pointing"][layer, head]),
            "enrichment": float(self.means["enrichment"][layer, head]),
            "auroc": float(self.means["auroc"][layer, head]),
            "rank": int(self.rank[layer, head]),
        }


# ---------------------------------------------------------------------------------------------------------------------
# Which heads to compare with
# ---------------------------------------------------------------------------------------------------------------------


def draw_random_sets(
    fixed: Sequence[tuple[int, int]], num_layers: int, num_heads: int, *, draws: int = 1000, seed: int = 0
) -> np.ndarray:
    """Draw sets of other heads from the same layers as the fixed ones.

    The fixed heads are left out and no set holds a head twice. Where a layer has too few other heads, those of the
    nearest layers follow.

    Args:
        fixed: (layer, head) of the K fixed heads.
        num_layers: Layers of the model.
        num_heads: Heads of each layer.
        draws: Number of sets.
        seed: Seed of the draws.

    Returns:
        `[draws, K]` int, heads as `layer * num_heads + head`.

    Raises:
        ValueError: If the model has too few other heads.
    """
    if 2 * len(fixed) > num_layers * num_heads:
        raise ValueError(
            f"Expected at least as many other heads as the {len(fixed)} fixed ones, "
            f"but got {num_layers * num_heads} heads in all. Lower logic.top_k."
        )
    rng = np.random.default_rng(seed)
    layer_of_head = np.repeat(np.arange(num_layers), num_heads)
    taken = np.zeros((draws, num_layers * num_heads), dtype=bool)
    taken[:, [layer * num_heads + head for layer, head in fixed]] = True
    columns = []
    for layer, _ in fixed:
        # The distance in layers goes first, chance decides among heads of one layer.
        order = np.abs(layer_of_head - layer) + rng.random(taken.shape)
        drawn = np.where(taken, np.inf, order).argmin(axis=1)
        taken[np.arange(draws), drawn] = True
        columns.append(drawn)
    return np.stack(columns, axis=1)


# ---------------------------------------------------------------------------------------------------------------------
# One sample
# ---------------------------------------------------------------------------------------------------------------------


def measure_masks(
    masks: np.ndarray, coverage: np.ndarray, visible: np.ndarray, truth_xyxy: Sequence[float], grid: Grid
) -> np.ndarray:
    """IoU of masks in cells with a ground-truth box, areas being exact and cells clipped to the image.

    Args:
        masks: `[maps, rows, cols]` bool.
        coverage: `[rows, cols]` share of each cell that the box covers.
        visible: `[rows, cols]` share of each cell that lies in the image.
        truth_xyxy: The box.
        grid: Where the cells lie.

    Returns:
        `[maps]` float64.
    """
    x0, y0, x1, y1 = truth_xyxy
    truth_in_cells = (x1 - x0) * (y1 - y0) / (grid.cell_w * grid.cell_h)
    flat = masks.reshape(len(masks), -1).astype(np.float64)
    intersection = flat @ coverage.reshape(-1)
    return intersection / (flat @ visible.reshape(-1) + truth_in_cells - intersection)


def measure_pointing(maps: np.ndarray, truth_xyxy: Sequence[float], grid: Grid) -> np.ndarray:
    """Whether the centre of the highest cell of each map `[maps, rows, cols]` lies in the box: `[maps]`, 1.0 or 0.0."""
    x0, y0, x1, y1 = truth_xyxy
    row, col = np.divmod(maps.reshape(len(maps), -1).argmax(axis=1), grid.cols)
    x = grid.x0 + (col + 0.5) * grid.cell_w
    y = grid.y0 + (row + 0.5) * grid.cell_h
    return ((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)).astype(np.float64)


def measure_enrichment(maps: np.ndarray, coverage: np.ndarray, visible: np.ndarray) -> np.ndarray:
    """Share of the attention on the box over the box's share of the area, within the image's part of the grid.

    Args:
        maps: `[maps, rows, cols]`.
        coverage: `[rows, cols]` share of each cell that the box covers.
        visible: `[rows, cols]` share of each cell that lies in the image.

    Returns:
        `[maps]` float64; NaN where the grid does not reach the box or a map is 0 in the image.
    """
    flat = maps.reshape(len(maps), -1).astype(np.float64)
    on_box, on_image = flat @ coverage.reshape(-1), flat @ visible.reshape(-1)
    expected = on_image * coverage.sum() / visible.sum()
    return np.divide(on_box, expected, out=np.full(len(maps), np.nan), where=expected > 0)


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
    return surplus / (num_positive * num_negative)


# ---------------------------------------------------------------------------------------------------------------------
# The data set
# ---------------------------------------------------------------------------------------------------------------------


def summarize_audit(
    samples: Iterable[SampleAudit],
    *,
    frequency: np.ndarray,
    fixed: Sequence[tuple[int, int]],
    skip_layers: int = 0,
    seed: int = 0,
) -> HeadAudit:
    """Average over the samples, compare and judge; `samples` may be an iterator, only sums of it are kept.

    Args:
        samples: Measures of each sample; `set_ious` begins with the fixed heads.
        frequency: `[layers, heads]` selection frequency.
        fixed: (layer, head) of the fixed heads.
        skip_layers: First layers that the rules leave out; their frequency is 0 whatever their heads do, so that the
            rank correlation leaves them out, too.
        seed: Seed of the sign flips.

    Returns:
        The audit.

    Raises:
        ValueError: If there is no sample.
    """
    means, ious = _gather(samples)
    set_ious, fixed_ious = ious["set_ious"], ious["set_ious"][:, 0]
    rng = np.random.default_rng(seed)
    rivals = (
        _random_rival(set_ious),
        _paired_rival("all heads", fixed_ious, ious["all_heads_iou"], rng),
        _paired_rival("whole image", fixed_ious, ious["image_iou"], rng),
    )
    fixed = tuple((int(layer), int(head)) for layer, head in fixed)
    reasons = _reasons_against(float(fixed_ious.mean()), rivals, means, fixed)
    spearman, spearman_p = rank_correlation(frequency[skip_layers:], means["box_iou"][skip_layers:])
    return HeadAudit(
        num_samples=len(set_ious),
        means=means,
        rank=_ranks(means["box_iou"]),
        frequency=frequency,
        fixed=fixed,
        fixed_iou=float(fixed_ious.mean()),
        rivals=rivals,
        per_image=_paired_rival("per-image heads", fixed_ious, ious["per_image_iou"], rng),
        spearman=spearman,
        spearman_p=spearman_p,
        verdict=f"These heads do not look at the target: {'; '.join(reasons)}."
        if reasons
        else "These heads look at the target.",
        looks_at_target=not reasons,
    )


def rank_correlation(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
    """Spearman's rho over all entries and its two-sided p-value; NaN where one of the arrays is constant."""
    from scipy.stats import spearmanr

    if np.ptp(first) == 0 or np.ptp(second) == 0:
        return float("nan"), float("nan")
    result = spearmanr(first, second, axis=None)
    return float(result[0]), float(result[1])


def sign_flip_p_value(differences: np.ndarray, rng: np.random.Generator, flips: int = SIGN_FLIPS) -> float:
    """Two-sided p-value of a mean of paired differences `[samples]`, by flipping their signs at random."""
    observed = abs(float(differences.mean()))
    tolerance = 1e-12 * max(1.0, observed)
    reached = 0
    for start in range(0, flips, _CHUNK):
        signs = rng.choice((-1.0, 1.0), size=(min(_CHUNK, flips - start), len(differences)))
        reached += int((np.abs(signs @ differences / len(differences)) >= observed - tolerance).sum())
    return (reached + 1) / (flips + 1)


def _gather(samples: Iterable[SampleAudit]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Means over samples, NaN left out, `[layers, heads]`; IoUs of each sample, `[samples]` or `[samples, sets]`."""
    totals: dict[str, np.ndarray] = {}
    counts: dict[str, np.ndarray] = {}
    ious: dict[str, list[Any]] = {name: [] for name in PER_SAMPLE}
    for sample in samples:
        for name in PER_HEAD:
            values = getattr(sample, name)
            totals[name] = totals.get(name, 0.0) + np.nan_to_num(values, nan=0.0)
            counts[name] = counts.get(name, 0) + ~np.isnan(values)
        for name in PER_SAMPLE:
            ious[name].append(getattr(sample, name))
    if not totals:
        raise ValueError(
            "Expected at least one sample with a ground truth to audit heads with, but got none. "
            "Check that data.ground_truth has the ids of the attention files."
        )
    means = {
        name: np.divide(totals[name], counts[name], out=np.full(totals[name].shape, np.nan), where=counts[name] > 0)
        for name in PER_HEAD
    }
    return means, {name: np.array(values) for name, values in ious.items()}


def _random_rival(set_ious: np.ndarray) -> Rival:
    """Random sets against the fixed heads: the place of the fixed heads' mean among the means of the draws."""
    means = set_ious.mean(axis=0)
    fixed, draws = means[0], means[1:]
    above, below = int((draws >= fixed).sum()), int((draws <= fixed).sum())
    p_value = min(1.0, 2 * (min(above, below) + 1) / (len(draws) + 1))
    sd = float(np.std(draws, ddof=1)) if len(draws) > 1 else 0.0
    return Rival("random heads", float(np.mean(draws)), sd, p_value)


def _paired_rival(name: str, fixed_ious: np.ndarray, rival_ious: np.ndarray, rng: np.random.Generator) -> Rival:
    p_value = sign_flip_p_value(fixed_ious - rival_ious, rng)
    return Rival(name, float(rival_ious.mean()), 0.0, p_value)


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the largest value; equal values share the better rank."""
    flat = values.reshape(-1)
    return (1 + np.searchsorted(np.sort(-flat), -flat, side="left")).reshape(values.shape)


def _reasons_against(
    fixed_iou: float, rivals: Sequence[Rival], means: dict[str, np.ndarray], fixed: Sequence[tuple[int, int]]
) -> list[str]:
    """What speaks against the heads by the rule of this module; nothing if they look at the target."""
    reasons = [
        f"their boxes (mean IoU {fixed_iou:.3f}) are not clearly better than those of {rival.name} "
        f"({rival.mean_iou:.3f}, p = {rival.p_value:.2g})"
        for rival in rivals
        if not (fixed_iou > rival.mean_iou and rival.p_value < ALPHA)
    ]
    for layer, head in fixed:
        enrichment, auroc = means["enrichment"][layer, head], means["auroc"][layer, head]
        if not (enrichment > 1 and auroc > 0.5):
            reasons.append(
                f"L{layer}H{head} does not prefer the target (enrichment {enrichment:.2f}, AUROC {auroc:.2f})"
            )
    return reasons
