"""Two runs on the same rows: the difference of every score, with its interval."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from lab.statistics.bootstrap import Interval, cluster_intervals, cluster_numbers
from scores.evaluation import Rules, ScoredRows, columns


@dataclass(frozen=True)
class Comparison:
    """Differences of two runs, the first less the second, over the rows that both were asked.

    Attributes:
        name: What the second run is called.
        num_rows: Rows that both have.
        differences: Interval of each score's difference, by its name.
        better: Rows that only the first hits at each threshold, by its name.
        worse: Rows that only the second hits.
    """

    name: str
    num_rows: int
    differences: dict[str, Interval]
    better: dict[str, int]
    worse: dict[str, int]


def compare(rows: ScoredRows, against: ScoredRows, rules: Rules, name: str) -> Comparison:
    """Compare two runs row by row.

    Args:
        rows: The first run.
        against: The second, on the same data set.
        rules: How both are counted; intervals are resampled by picture, both runs in the same resamples.
        name: What the second run is called.

    Returns:
        The differences.

    Raises:
        ValueError: They have no row in common.
    """
    position = {truth.id: index for index, truth in enumerate(against.truths)}
    shared = [(index, position[truth.id]) for index, truth in enumerate(rows.truths) if truth.id in position]
    if not shared:
        raise ValueError(f"Expected {name} to have rows in common with the run, but got none. Check --against.")
    first, second = rows.take([a for a, _ in shared]), against.take([b for _, b in shared])
    own, other = columns(first, rules), columns(second, rules)
    names = [key for key in own if key in other]
    differences = np.column_stack([own[key] - other[key] for key in names])
    clusters = cluster_numbers([truth.picture for truth in first.truths])
    resamples = rules.resamples_of(int(clusters.max()) + 1) or 1
    intervals = cluster_intervals(differences, clusters, resamples=resamples, seed=rules.seed)
    hits = {key: own[key] - other[key] for key in rules.names}
    return Comparison(
        name=name,
        num_rows=len(shared),
        differences=dict(zip(names, intervals)),
        better={key: int((values > 0).sum()) for key, values in hits.items()},
        worse={key: int((values < 0).sum()) for key, values in hits.items()},
    )
