"""Intervals of means over rows that come in clusters, such as phrases about one picture.

Rows of one picture share it, so that pictures are drawn again and not rows: a resample gives picture g the weight
`w_g`, all weights together a draw of a multinomial over the G pictures, and the mean is a ratio of two sums,
`sum_g w_g x_g / sum_g w_g n_g`, since pictures differ in their number of rows (Davison and Hinkley, Bootstrap Methods
and their Application, section 3.8). Equal seeds give equal weights, so that differences between columns are paired.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.95
RESAMPLES = 10_000
FEWEST_CLUSTERS = 6
"""Below so many clusters there is no interval: not even all signs alike would be rarer than one in twenty."""
FEW_CLUSTERS = 50
"""Below so many clusters the interval is corrected for bias and skewness (BCa)."""
_CHUNK = 500


@dataclass(frozen=True)
class Interval:
    """An estimate with its interval.

    Attributes:
        estimate: Mean over the rows.
        low: Lower end; NaN where there are fewer than six clusters, whose resamples are too alike to say anything.
        high: Upper end.
        level: Coverage that the interval aims at.
        num_rows: Rows that enter.
        num_clusters: Clusters that enter.
        method: `percentile`, `bca`, or `none` where there is no interval.
    """

    estimate: float
    low: float
    high: float
    level: float
    num_rows: int
    num_clusters: int
    method: str

    def __str__(self) -> str:
        """The estimate with its ends, such as `0.717 [0.706, 0.727]`."""
        ends = "no interval" if np.isnan(self.low) else f"{self.low:.3f}, {self.high:.3f}"
        return f"{self.estimate:.3f} [{ends}]"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN is None."""
        numbers = {name: getattr(self, name) for name in ("estimate", "low", "high")}
        finite = {name: float(value) if np.isfinite(value) else None for name, value in numbers.items()}
        return {**finite, "level": self.level, "n": self.num_rows, "pictures": self.num_clusters, "method": self.method}


def cluster_numbers(names: Sequence[Hashable]) -> np.ndarray:
    """Number the clusters in the order of their first row: `[rows]` int, from 0."""
    number_of: dict[Hashable, int] = {}
    return np.array([number_of.setdefault(name, len(number_of)) for name in names], dtype=np.intp)


def cluster_sums(values: np.ndarray, clusters: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sum of the values of each cluster, NaN left out, and how many entered.

    Args:
        values: `[rows, columns]`.
        clusters: `[rows]` int, number of the cluster of each row.

    Returns:
        Two arrays `[clusters, columns]`, float64.
    """
    order = np.argsort(clusters, kind="stable")
    _, starts = np.unique(clusters[order], return_index=True)
    known = ~np.isnan(values)
    totals = np.add.reduceat(np.where(known, values, 0.0)[order], starts, axis=0, dtype=np.float64)
    return totals, np.add.reduceat(known[order], starts, axis=0, dtype=np.float64)


def resample_weights(
    num_clusters: int, resamples: int = RESAMPLES, seed: int = 0, num_drawn: int | None = None
) -> Iterator[np.ndarray]:
    """How often each cluster is drawn, for all resamples in chunks: `[some, clusters]` float64 each.

    `num_drawn` clusters are drawn with replacement, by default as many as there are.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, resamples, _CHUNK):
        size = min(_CHUNK, resamples - start)
        drawn = rng.integers(0, num_clusters, (size, num_clusters if num_drawn is None else num_drawn))
        drawn += num_clusters * np.arange(size)[:, None]
        counts = np.bincount(drawn.reshape(-1), minlength=size * num_clusters)
        yield counts.reshape(size, num_clusters).astype(np.float64)


def resampled_means(totals: np.ndarray, counts: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> np.ndarray:
    """Means over the rows of every resample, `[resamples, columns]`; NaN where no row of a column was drawn."""
    parts = []
    for weights in resample_weights(len(totals), resamples, seed):
        summed, drawn = weights @ totals, weights @ counts
        parts.append(np.divide(summed, drawn, out=np.full(summed.shape, np.nan), where=drawn > 0))
    return np.concatenate(parts)


def cluster_intervals(
    values: np.ndarray,
    clusters: np.ndarray,
    *,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> list[Interval]:
    """Means of some columns over rows in clusters, with intervals from one and the same resamples.

    Quantiles of the resampled means; with fewer than 50 clusters corrected for bias and skewness (Efron 1987).

    Args:
        values: `[rows, columns]`; NaN is left out of its column.
        clusters: `[rows]` int, number of the cluster of each row.
        level: Coverage aimed at.
        resamples: Number of resamples.
        seed: Seed of the resamples.

    Returns:
        One interval for each column.

    Raises:
        ValueError: If there are no rows, or not one cluster number for each.
    """
    if values.ndim != 2 or len(values) == 0 or len(clusters) != len(values):
        raise ValueError(
            f"Expected values [rows, columns] with a cluster for each row, but got {list(values.shape)} and "
            f"{len(clusters)} clusters. Pass at least one row."
        )
    totals, counts = cluster_sums(values, clusters)
    means = resampled_means(totals, counts, resamples, seed)
    return [_interval(totals[:, at], counts[:, at], means[:, at], level) for at in range(values.shape[1])]


def cluster_interval(values: np.ndarray, clusters: np.ndarray, **options: Any) -> Interval:
    """`cluster_intervals` of one column `[rows]`."""
    return cluster_intervals(np.asarray(values, dtype=np.float64)[:, None], clusters, **options)[0]


def _interval(totals: np.ndarray, counts: np.ndarray, means: np.ndarray, level: float) -> Interval:
    enters = counts > 0
    totals, counts, means = totals[enters], counts[enters], means[~np.isnan(means)]
    num_rows, num_clusters = int(counts.sum()), len(counts)
    estimate = float(totals.sum() / num_rows) if num_rows else float("nan")
    if num_clusters < FEWEST_CLUSTERS:
        return Interval(estimate, float("nan"), float("nan"), level, num_rows, num_clusters, "none")
    tails = ((1 - level) / 2, (1 + level) / 2)
    corrected = _bca_tails(totals, counts, means, tails) if num_clusters < FEW_CLUSTERS else None
    low, high = np.quantile(means, tails if corrected is None else corrected)
    method = "percentile" if corrected is None else "bca"
    return Interval(estimate, float(low), float(high), level, num_rows, num_clusters, method)


def _bca_tails(
    totals: np.ndarray, counts: np.ndarray, means: np.ndarray, tails: tuple[float, float]
) -> tuple[float, float] | None:
    """Quantiles that make up for bias and skewness; None where the resamples do not vary around the estimate."""
    from statistics import NormalDist  # which few runs need, and which takes longer to import than a thousand rows

    normal, estimate = NormalDist(), totals.sum() / counts.sum()
    below = ((means < estimate).sum() + 0.5 * (means == estimate).sum()) / len(means)
    left_out = (totals.sum() - totals) / (counts.sum() - counts)
    shifts = left_out.mean() - left_out
    spread = (shifts**2).sum()
    if not 0 < below < 1 or spread <= 0:
        return None
    bias, acceleration = normal.inv_cdf(float(below)), (shifts**3).sum() / (6 * spread**1.5)
    low, high = (bias + normal.inv_cdf(tail) for tail in tails)
    return (
        normal.cdf(bias + low / (1 - acceleration * low)),
        normal.cdf(bias + high / (1 - acceleration * high)),
    )
