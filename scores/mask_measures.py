"""Scores of masks: intersections and unions of every row, and what published tables make of them.

"cIoU" and "oIoU" are one number, the sum of all intersections over the sum of all unions; "gIoU" of LISA, GLaMM and
GRES is the mean of the rows' IoU and has nothing to do with generalized IoU. Here they are called cIoU and mIoU.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PRECISION_THRESHOLDS = (0.5, 0.6, 0.7, 0.8, 0.9)
GRES_THRESHOLDS = (0.7, 0.8, 0.9)
LISA_EPSILON = 1e-5


@dataclass(frozen=True)
class MaskOverlap:
    """Pixels of one row.

    Attributes:
        intersection: Pixels in both masks.
        union: Pixels in either.
        truth: Pixels of the truth; 0 for an expression without a target.
        predicted: Pixels of the prediction; 0 where nothing is claimed.
    """

    intersection: int
    union: int
    truth: int
    predicted: int

    @property
    def iou(self) -> float:
        """Intersection over union; 0 where both are empty, as in RES, whose expressions all have a target."""
        return self.intersection / self.union if self.union else 0.0


def overlap_masks(predicted: np.ndarray, truth: np.ndarray, ignored: np.ndarray | None = None) -> MaskOverlap:
    """Count the pixels of two masks.

    Args:
        predicted: `[height, width]` bool.
        truth: `[height, width]` bool.
        ignored: `[height, width]` bool, pixels that count nowhere; None for none.

    Returns:
        The counts.

    Raises:
        ValueError: The masks differ in size.
    """
    if predicted.shape != truth.shape:
        raise ValueError(
            f"Expected the predicted mask to have the size of the true one, {list(truth.shape)} (height, width), but "
            f"got {list(predicted.shape)}. Masks are compared at the picture's own size."
        )
    if ignored is not None:
        predicted, truth = predicted & ~ignored, truth & ~ignored
    return MaskOverlap(
        int((predicted & truth).sum()), int((predicted | truth).sum()), int(truth.sum()), int(predicted.sum())
    )


def summarize_masks(overlaps: Sequence[MaskOverlap]) -> dict[str, float]:
    """Scores of referring segmentation: cIoU, mIoU, and the share of rows with an IoU of at least 0.5 to 0.9."""
    ious = np.array([overlap.iou for overlap in overlaps])
    precision = {f"P@{threshold:g}": float((ious >= threshold).mean()) for threshold in PRECISION_THRESHOLDS}
    return {"cIoU": cumulative_iou(overlaps), "mIoU": float(ious.mean()), **precision}


def cumulative_iou(overlaps: Sequence[MaskOverlap]) -> float:
    """Sum of the intersections over the sum of the unions; large objects weigh most."""
    union = sum(overlap.union for overlap in overlaps)
    return sum(overlap.intersection for overlap in overlaps) / union if union else 0.0


def lisa_scores(overlaps: Sequence[MaskOverlap]) -> dict[str, float]:
    """LISA's two scores: rows whose union is empty count 1, and 1e-5 is added to every union and to their sum.

    Source: the public code of "LISA: Reasoning Segmentation via Large Language Model" (arXiv 2308.00692).
    """
    terms = [overlap.intersection / (overlap.union + LISA_EPSILON) if overlap.union else 1.0 for overlap in overlaps]
    total = sum(overlap.union for overlap in overlaps)
    intersections = sum(overlap.intersection for overlap in overlaps)
    return {"mIoU (LISA's gIoU)": float(np.mean(terms)), "cIoU": intersections / (total + 1e-10)}


def gres_scores(overlaps: Sequence[MaskOverlap]) -> dict[str, float | None]:
    """Scores of generalized referring segmentation, where expressions may refer to nothing.

    A row without a target counts 1 if nothing is claimed, else 0; a row with one that is said to be empty adds its
    union only. Precision is over rows with a target. Source: "GRES: Generalized Referring Expression Segmentation"
    (arXiv 2306.00968).
    """
    full = [overlap for overlap in overlaps if overlap.truth]
    empty = [overlap for overlap in overlaps if not overlap.truth]
    terms = [overlap.iou for overlap in full] + [float(overlap.predicted == 0) for overlap in empty]
    precision: dict[str, float | None] = {
        f"Pr@{threshold:g}": float(np.mean([overlap.iou >= threshold for overlap in full])) if full else None
        for threshold in GRES_THRESHOLDS
    }
    return {
        "mIoU (GRES's gIoU)": float(np.mean(terms)),
        "cIoU": cumulative_iou(overlaps),
        "T-acc": float(np.mean([overlap.predicted > 0 for overlap in full])) if full else None,
        "N-acc": float(np.mean([overlap.predicted == 0 for overlap in empty])) if empty else None,
        **precision,
    }
