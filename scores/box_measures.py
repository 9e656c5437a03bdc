"""Measures of predicted boxes, all rows at once: half-open, in pixels; a missing one is NaN and hits nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Callable

import numpy as np

from lab.boxes import box_ious

COCO_SIZES = {"small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, np.inf)}
"""Classes of COCO by the box's area in square pixels, lower end included (cocodataset.org/#detection-eval)."""
REF_L4_SIZES = {"small": (0.0, 128.0), "medium": (128.0, 256.0), "large": (256.0, np.inf)}
"""Classes of Ref-L4 by the square root of the area (arXiv 2406.16866): below 128, up to and with 256, above."""
MACC_THRESHOLDS = tuple(round(0.5 + 0.05 * step, 2) for step in range(10))


def generalized_ious(predicted_xyxy: np.ndarray, truth_xyxy: np.ndarray) -> np.ndarray:
    """Generalized IoU (Rezatofighi et al. 2019, arXiv 1902.09630): IoU less the empty share of the hull.

    Args:
        predicted_xyxy: `[rows, 4]`; NaN for a missing box.
        truth_xyxy: `[rows, 4]`.

    Returns:
        `[rows]` in (-1, 1]; -1 for a missing box, which is below every threshold.
    """
    ious = box_ious(predicted_xyxy, truth_xyxy)
    low = np.minimum(predicted_xyxy[:, :2], truth_xyxy[:, :2])
    high = np.maximum(predicted_xyxy[:, 2:], truth_xyxy[:, 2:])
    hull = (high - low).prod(axis=1)
    overlap = np.minimum(predicted_xyxy[:, 2:], truth_xyxy[:, 2:]) - np.maximum(
        predicted_xyxy[:, :2], truth_xyxy[:, :2]
    )
    union = _areas(predicted_xyxy) + _areas(truth_xyxy) - np.clip(overlap, 0, None).prod(axis=1)
    with np.errstate(invalid="ignore", divide="ignore"):
        # Rounding must not make a box that lies within the other better than its IoU.
        values = ious - np.maximum(hull - union, 0) / hull
    return np.asarray(np.where(np.isnan(predicted_xyxy).any(axis=1), -1.0, values))


def centres_inside(predicted_xyxy: np.ndarray, truth_xyxy: np.ndarray) -> np.ndarray:
    """Whether the centre of the predicted box lies in the true one, edges included: `[rows]` bool."""
    centres = (predicted_xyxy[:, :2] + predicted_xyxy[:, 2:]) / 2
    return points_inside(centres, truth_xyxy)


def points_inside(points_xy: np.ndarray, truth_xyxy: np.ndarray) -> np.ndarray:
    """Whether points `[rows, 2]` lie in boxes `[rows, 4]`, edges included: `[rows]` bool; NaN lies nowhere."""
    return np.asarray(((points_xy >= truth_xyxy[:, :2]) & (points_xy <= truth_xyxy[:, 2:])).all(axis=1))


def hits(values: np.ndarray, threshold: float, rule: str) -> np.ndarray:
    """Whether values reach a threshold: `[rows]` bool.

    Args:
        values: `[rows]` IoU or generalized IoU.
        threshold: What to reach.
        rule: `ge`, at least the threshold, or `gt`, more than it.

    Raises:
        ValueError: The rule is another.
    """
    compare: Mapping[str, Callable[[np.ndarray, float], np.ndarray]] = {"ge": np.greater_equal, "gt": np.greater}
    if rule not in compare:
        raise ValueError(f"Expected --rule to be ge (at least) or gt (more than), but got {rule!r}.")
    return np.asarray(compare[rule](values, threshold))


def mean_accuracy(values: np.ndarray, rule: str) -> np.ndarray:
    """Share of the thresholds 0.50, 0.55, ..., 0.95 that each row reaches: `[rows]`; its mean is mAcc 0.5:0.95."""
    return np.asarray(np.mean([hits(values, threshold, rule) for threshold in MACC_THRESHOLDS], axis=0))


def size_classes(truth_xyxy: np.ndarray, scheme: str) -> list[str]:
    """The size class of each true box.

    Args:
        truth_xyxy: `[rows, 4]`.
        scheme: `coco` or `ref-l4`.

    Returns:
        `small`, `medium` or `large` for each row.

    Raises:
        ValueError: The scheme is another.
    """
    areas = _areas(truth_xyxy)
    if scheme == "coco":
        return _classes(areas, COCO_SIZES, upper_included=False)
    if scheme == "ref-l4":
        return _classes(np.sqrt(areas), REF_L4_SIZES, upper_included=True)
    raise ValueError(f"Expected --sizes to be coco or ref-l4, but got {scheme!r}.")


def _classes(values: np.ndarray, classes: Mapping[str, tuple[float, float]], upper_included: bool) -> list[str]:
    """Ref-L4 counts 256 among the medium ones, and 128 too: only its lowest class is open above."""
    names: Sequence[str] = list(classes)
    first, second = (classes[name][1] for name in names[:2])
    past_second = values > second if upper_included else values >= second
    return [names[int(index)] for index in (values >= first).astype(int) + past_second.astype(int)]


def _areas(boxes_xyxy: np.ndarray) -> np.ndarray:
    return np.asarray((boxes_xyxy[:, 2:] - boxes_xyxy[:, :2]).prod(axis=1))
