"""Sign flips: could a mean of paired differences come from chance alone? The sign of a whole picture is flipped."""

from __future__ import annotations

import numpy as np

from lab.statistics.bootstrap import cluster_sums
from lab.statistics.p_values import PValue, drawn, enumerated

SIGN_FLIPS = 10_000
MOST_ENUMERATED = 14
"""Up to so many clusters all 2^G flips are looked at."""
_CHUNK = 500


def smallest_p_value(num_clusters: int) -> float:
    """The smallest two-sided p-value that the flips of so many clusters can give: all of one sign or the other."""
    return min(1.0, 2.0 ** (1 - num_clusters))


def clusters_needed(alpha: float) -> int:
    """The smallest number of clusters whose flips can give a two-sided p-value below `alpha`."""
    num_clusters = 1
    while smallest_p_value(num_clusters) >= alpha:
        num_clusters += 1
    return num_clusters


def sign_flip_tests(
    differences: np.ndarray, clusters: np.ndarray, *, flips: int = SIGN_FLIPS, seed: int = 0
) -> list[PValue]:
    """Two-sided tests of means of paired differences, by flipping the signs of clusters.

    The statistic is `|sum_g s_g D_g| / N` with `D_g` the sum of a cluster's differences: rows of one picture are no
    independent evidence, so they change their sign together. The null hypothesis is that a picture's sum is as likely
    to be `D_g` as `-D_g`, symmetry around 0 and not only a mean of 0.

    Args:
        differences: `[rows, tests]`.
        clusters: `[rows]` int, number of the cluster of each row.
        flips: Random flips where there are too many to enumerate.
        seed: Seed of the flips.

    Returns:
        One p-value for each test.
    """
    sums, _ = cluster_sums(differences, clusters)
    observed = np.abs(sums.sum(axis=0))
    # Sums that differ by rounding alone are equal.
    limit = observed - 1e-12 * np.maximum(1.0, np.abs(sums).sum(axis=0))
    if len(sums) <= MOST_ENUMERATED:
        signs = _all_signs(len(sums))
        reached = (np.abs(signs @ sums) >= limit).sum(axis=0)
        smallest = smallest_p_value(len(sums))
        return [enumerated(int(count), len(signs), smallest=smallest, sides=2) for count in reached]
    rng = np.random.default_rng(seed)
    reached = np.zeros(sums.shape[1], dtype=np.int64)
    for start in range(0, flips, _CHUNK):
        signs = 2.0 * rng.integers(0, 2, (min(_CHUNK, flips - start), len(sums))) - 1.0
        reached += (np.abs(signs @ sums) >= limit).sum(axis=0)
    return [drawn(int(count), flips, sides=2) for count in reached]


def sign_flip_test(differences: np.ndarray, clusters: np.ndarray, **options: int) -> PValue:
    """`sign_flip_tests` of one column `[rows]`."""
    return sign_flip_tests(np.asarray(differences, dtype=np.float64)[:, None], clusters, **options)[0]


def _all_signs(num_clusters: int) -> np.ndarray:
    """All assignments of signs, `[2^G, G]`."""
    bits = np.arange(2**num_clusters)[:, None] >> np.arange(num_clusters)
    return 2.0 * (bits & 1) - 1.0
