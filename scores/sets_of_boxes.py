"""Scores of expressions with several or no targets, as gRefCOCO's detection task counts them.

One-to-one matching of predictions and targets, the best overlap first; an expression succeeds when every target is
found and nothing else is claimed, F1 = 1 (He et al. 2023, arXiv 2308.16182). Overlap is generalized IoU there, IoU
where asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lab.boxes import box_ious
from scores.box_measures import generalized_ious

Boxes = Sequence[Sequence[float]]


@dataclass(frozen=True)
class SetScore:
    """How one expression fared.

    Attributes:
        f1: Harmonic mean of precision and recall over its boxes; 1 where nothing is there and nothing is claimed.
        has_target: Whether it refers to anything.
        claims: Whether anything was predicted.
    """

    f1: float
    has_target: bool
    claims: bool


def score_set(predicted_xyxy: Boxes, truth_xyxy: Boxes, *, threshold: float = 0.5, overlap: str = "giou") -> SetScore:
    """Match the boxes of one expression.

    Args:
        predicted_xyxy: Predicted boxes.
        truth_xyxy: Target boxes; none for an expression without a target.
        threshold: Overlap from which a pair counts.
        overlap: `giou` or `iou`.

    Returns:
        Its score.
    """
    has_target, claims = bool(len(truth_xyxy)), bool(len(predicted_xyxy))
    if not has_target or not claims:
        return SetScore(float(has_target == claims), has_target, claims)
    found = _match(_overlaps(predicted_xyxy, truth_xyxy, overlap), threshold)
    return SetScore(2 * found / (len(predicted_xyxy) + len(truth_xyxy)), has_target, claims)


def summarize_sets(scores: Sequence[SetScore]) -> dict[str, float | None]:
    """Share of expressions with F1 = 1, N-acc (nothing there, nothing claimed), T-acc (something there and claimed)."""
    empty = [not score.claims for score in scores if not score.has_target]
    full = [score.claims for score in scores if score.has_target]
    return {
        "Pr@(F1=1)": float(np.mean([score.f1 == 1 for score in scores])),
        "N-acc": float(np.mean(empty)) if empty else None,
        "T-acc": float(np.mean(full)) if full else None,
    }


def _overlaps(predicted_xyxy: Boxes, truth_xyxy: Boxes, overlap: str) -> np.ndarray:
    """`[predictions, targets]`."""
    predicted, truth = np.array(predicted_xyxy, dtype=np.float64), np.array(truth_xyxy, dtype=np.float64)
    measure = generalized_ious if overlap == "giou" else box_ious
    pairs = np.repeat(predicted, len(truth), axis=0), np.tile(truth, (len(predicted), 1))
    return measure(*pairs).reshape(len(predicted), len(truth))


def _match(overlaps: np.ndarray, threshold: float) -> int:
    """Pairs found greedily, the best first, each box once."""
    left, found = overlaps.copy(), 0
    while left.size and left.max() >= threshold:
        row, column = np.unravel_index(int(left.argmax()), left.shape)
        left[row, :], left[:, column] = -np.inf, -np.inf
        found += 1
    return found
