"""Rank correlations over heads, with intervals and a test that keeps heads within their layers."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab.statistics.bootstrap import FEWEST_CLUSTERS, cluster_sums, resample_weights
from lab.statistics.p_values import PValue, drawn

PERMUTATIONS = 10_000
RESAMPLES = 2_000


@dataclass(frozen=True)
class RankCorrelation:
    """How two orders of the heads go together.

    Attributes:
        spearman: Spearman's rho; NaN where one of them is constant.
        low: Lower end of its 95 % interval over heads (Bonett and Wright 2000); NaN with fewer than 4 heads.
        high: Upper end.
        low_pictures: Lower end of its 95 % interval over pictures (the heads are held fixed); NaN where not known.
        high_pictures: Upper end.
        kendall: Kendall's tau-b.
        p_value: Of rho, two-sided, by permuting heads within their layers; None where rho is NaN.
        num_heads: Number of heads.
    """

    spearman: float
    low: float
    high: float
    low_pictures: float
    high_pictures: float
    kendall: float
    p_value: PValue | None
    num_heads: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; NaN is None."""
        plain = {name: None if isinstance(v, float) and np.isnan(v) else v for name, v in asdict(self).items()}
        return {**plain, "p_value": None if self.p_value is None else self.p_value.to_dict()}


def correlate_heads(
    first: np.ndarray,
    second: np.ndarray,
    layers: np.ndarray,
    *,
    ends_over_pictures: tuple[float, float] = (float("nan"), float("nan")),
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> RankCorrelation:
    """Correlate two values of each head.

    Heads of one layer are more alike than heads of two, so that the test exchanges heads within a layer only.

    Args:
        first: `[heads]`.
        second: `[heads]`.
        layers: `[heads]` int, layer of each head.
        ends_over_pictures: Interval over pictures, such as `spearman_over_pictures` gives.
        permutations: Permutations of the test.
        seed: Their seed.

    Returns:
        The correlation.
    """
    from scipy.stats import kendalltau

    known = np.isfinite(first) & np.isfinite(second)
    first, second, layers = first[known], second[known], layers[known]
    nan = float("nan")
    if len(first) < 2 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return RankCorrelation(nan, nan, nan, nan, nan, nan, None, len(first))
    rho = float(spearman_rows(first[None], second[None])[0])
    low, high = bonett_wright(rho, len(first))
    tau = float(kendalltau(first, second)[0])
    p_value = stratified_p_value(first, second, layers, permutations, seed)
    return RankCorrelation(rho, low, high, *ends_over_pictures, tau, p_value, len(first))


def spearman_rows(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Spearman's rho of each pair of rows, `[n, heads]` and `[n or 1, heads]`: `[n]`; NaN where a row is constant."""
    from scipy.stats import rankdata

    first, second = (rankdata(values, axis=1) for values in (first, second))
    first, second = (ranks - ranks.mean(axis=1, keepdims=True) for ranks in (first, second))
    scale = np.sqrt((first**2).sum(axis=1) * (second**2).sum(axis=1))
    product = (first * second).sum(axis=1)
    result: np.ndarray = np.divide(product, scale, out=np.full(len(product), np.nan), where=scale > 0)
    return result


def bonett_wright(rho: float, num_heads: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """95 % interval of rho: Fisher's z with the variance `(1 + rho^2 / 2) / (n - 3)` (Bonett and Wright 2000)."""
    if num_heads < 4 or abs(rho) >= 1:
        return float("nan"), float("nan")
    half = z * np.sqrt((1 + rho**2 / 2) / (num_heads - 3))
    return float(np.tanh(np.arctanh(rho) - half)), float(np.tanh(np.arctanh(rho) + half))


def stratified_p_value(
    first: np.ndarray, second: np.ndarray, layers: np.ndarray, permutations: int = PERMUTATIONS, seed: int = 0
) -> PValue:
    """Two-sided p-value of Spearman's rho, by permuting the first values among the heads of each layer."""
    from scipy.stats import rankdata

    ranks, fixed = rankdata(first), rankdata(second)
    fixed = fixed - fixed.mean()
    observed = abs(float(ranks @ fixed))
    rng, reached = np.random.default_rng(seed), 0
    for start in range(0, permutations, 1000):
        size = min(1000, permutations - start)
        # Sorting by layer first and chance second permutes within layers; the identity sorts by layer alone.
        order = np.lexsort((rng.random((size, len(ranks))), np.broadcast_to(layers, (size, len(ranks)))), axis=1)
        shuffled = np.empty((size, len(ranks)))
        shuffled[:, np.argsort(layers, kind="stable")] = ranks[order]
        reached += int((np.abs(shuffled @ fixed) >= observed * (1 - 1e-12)).sum())
    return drawn(reached, permutations, sides=2)


def spearman_over_pictures(
    chosen: np.ndarray, values: np.ndarray, clusters: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0
) -> tuple[float, float]:
    """95 % interval of the correlation between selection frequency and a mean measure, resampling pictures.

    Args:
        chosen: `[rows, heads]` 1 where a row chose a head, else 0.
        values: `[rows, heads]` measure of each head on each row; NaN is left out.
        clusters: `[rows]` int, picture of each row.
        resamples: Number of resamples.
        seed: Their seed.

    Returns:
        Both ends; NaN where there are fewer than six pictures.
    """
    counts, rows = cluster_sums(np.asarray(chosen, dtype=np.float64), clusters)
    totals, known = cluster_sums(np.asarray(values, dtype=np.float64), clusters)
    if len(counts) < FEWEST_CLUSTERS:
        return float("nan"), float("nan")
    found = []
    for weights in resample_weights(len(counts), resamples, seed):
        frequency, entered = weights @ counts / (weights @ rows), weights @ known
        means = np.divide(weights @ totals, entered, out=np.zeros(entered.shape), where=entered > 0)
        found.append(spearman_rows(frequency, means))
    rhos = np.concatenate(found)
    if np.isnan(rhos).all():
        return float("nan"), float("nan")
    low, high = np.nanquantile(rhos, (0.025, 0.975))
    return float(low), float(high)
