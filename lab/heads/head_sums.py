"""Attention sums from before the attention was rounded for storage, and ties that its rounding leaves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab.heads.head_scores import DatasetScores, SelectionRules
from lab.heads.ranking import allowed_heads, rank_all

SUMS_KEY = "attn_sums"
_DIGITS = 7
"""Significant digits of a stored sum: float32 holds no more."""
_ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24}
"""Largest relative error of one value by the type that it was stored in."""


def sums_record(attention: np.ndarray) -> list[list[float]]:
    """Sum over the image of every head's attention `[layers, heads, visual_tokens]`, as lists for the metadata."""
    sums = attention.sum(axis=2, dtype=np.float64)
    return [[float(f"{value:.{_DIGITS}g}") for value in layer] for layer in sums]


def stored_sums(meta: Mapping[str, Any], shape: tuple[int, ...]) -> np.ndarray | None:
    """The sums that an attention file's metadata hold, `[layers, heads]` float64; None where they hold none.

    Raises:
        ValueError: If they are not one number in [0, 1] for each head.
    """
    record = meta.get(SUMS_KEY)
    if record is None:
        return None
    try:
        sums = np.array(record, dtype=np.float64)
    except (TypeError, ValueError):
        sums = np.full((), np.nan)
    if sums.shape != shape or not ((sums >= 0) & (sums <= 1.001)).all():
        raise ValueError(
            f"Expected {SUMS_KEY} of the metadata to hold a sum from 0 to 1 for each of {shape[0]} layers of "
            f"{shape[1]} heads, but got something else. Collect the attention again."
        )
    return sums


def sum_precision(meta: Mapping[str, Any]) -> float:
    """Relative precision of the attention sums of a file: that of its storage, or float32's where they were kept."""
    dtype = "float32" if meta.get(SUMS_KEY) is not None else str(meta.get("attn_dtype") or "float16")
    return _ROUNDING.get(dtype.rpartition(".")[2], _ROUNDING["float16"])


@dataclass(frozen=True)
class TieShares:
    """How often the last head that a sample counts is chosen by a tie-break.

    Attributes:
        num_rows: Number of samples.
        tied_entropy: Share of the samples whose last counted head and the next have the same entropy, so that the
            larger attention sum decides.
        tied_sum: Share of the samples where, besides, these sums differ by less than the precision they are known to.
        zero_entropy_heads: Heads a sample with an entropy of 0, among those that pass, on average.
        precision: Relative precision of the sums.
    """

    num_rows: int
    tied_entropy: float
    tied_sum: float
    zero_entropy_heads: float
    precision: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def count_ties(scores: DatasetScores, rules: SelectionRules, thresholds: np.ndarray, precision: float) -> TieShares:
    """Count the samples whose choice hangs on a tie.

    Args:
        scores: Scores of every head on every sample.
        rules: How to choose.
        thresholds: `[samples]`, what criterion 1 compares with.
        precision: Relative precision of the sums.

    Returns:
        The shares.
    """
    mean_sums = scores.attn_sum.mean(axis=0, dtype=np.float64)
    by_dataset = rules.threshold_scope == "dataset"
    sums = np.broadcast_to(mean_sums, scores.attn_sum.shape) if by_dataset else scores.attn_sum
    allowed = allowed_heads(scores.bottom_row_focus, rules.skip_layers, rules.bottom_row_filter)
    ranking = rank_all(sums, scores.spatial_entropy, allowed, thresholds, rules.min_keep)
    flat_sums, entropies = (array.reshape(len(sums), -1) for array in (sums, scores.spatial_entropy))
    passes = (allowed & (sums >= thresholds[:, None, None])).reshape(flat_sums.shape)
    zero = (passes & (entropies == 0)).sum(axis=1)
    last = rules.num_counted
    if last >= flat_sums.shape[1]:
        return TieShares(len(sums), 0.0, 0.0, float(zero.mean()), precision)
    pair = ranking.order[:, last - 1 : last + 1]
    both = ranking.num_kept > last
    (one, two), (sum_one, sum_two) = (np.take_along_axis(array, pair, axis=1).T for array in (entropies, flat_sums))
    tied = both & (one == two)
    close = tied & (np.abs(sum_one - sum_two) <= precision * np.maximum(sum_one, sum_two))
    return TieShares(len(sums), float(tied.mean()), float(close.mean()), float(zero.mean()), precision)
