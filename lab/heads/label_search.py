"""The best set of heads that labels find: greedily, and over all sets of the best twenty heads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Callable

import numpy as np

LARGEST_SET = 5
NUM_CANDIDATES = 20
_CHUNK = 500

ScoreSets = Callable[[np.ndarray], np.ndarray]
"""Mean IoU over all rows of each of some sets of candidates: `[sets, K]` int -> `[sets]`."""


@dataclass(frozen=True)
class LabelledSet:
    """A set of heads chosen with labels.

    Attributes:
        members: Indices of the candidates.
        mean_iou: Mean IoU of its box over the rows that it was chosen on.
        search: `greedy` or `exhaustive`.
    """

    members: tuple[int, ...]
    mean_iou: float
    search: str

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """Plain data for YAML and JSON; `names` are those of the candidates."""
        return {
            "size": len(self.members),
            "heads": [names[member] for member in self.members],
            "mean_iou_in_sample": self.mean_iou,
            "search": self.search,
        }


def search_sets(
    score_sets: ScoreSets, num_candidates: int, *, largest: int = LARGEST_SET, exhaustive: bool = False
) -> tuple[LabelledSet, ...]:
    """Find good sets of each size from 1 on.

    Greedily, each set is the one before and the head that helps it most; it may get worse with its size, since a head
    is added even where each of them harms. Exhaustively, all sets of each size are tried.

    Args:
        score_sets: Gives the mean IoU of sets of candidates.
        num_candidates: Number of candidates.
        largest: Largest size.
        exhaustive: Whether to try all sets, too.

    Returns:
        The best set of each size and search.
    """
    largest = min(largest, num_candidates)
    found: list[LabelledSet] = []
    members: tuple[int, ...] = ()
    for _ in range(largest):
        longer = [(*members, other) for other in range(num_candidates) if other not in members]
        found.append(_best(score_sets, longer, "greedy"))
        members = found[-1].members
    if exhaustive:
        for size in range(1, largest + 1):
            found.append(_best(score_sets, list(combinations(range(num_candidates), size)), "exhaustive"))
    return tuple(found)


def best_set(found: Sequence[LabelledSet]) -> LabelledSet:
    """The set with the largest mean IoU; of equal ones the smallest."""
    return max(found, key=lambda one: (one.mean_iou, -len(one.members)))


def _best(score_sets: ScoreSets, sets: list[tuple[int, ...]], search: str) -> LabelledSet:
    chunks = [np.array(sets[start : start + _CHUNK]) for start in range(0, len(sets), _CHUNK)]
    ious = np.concatenate([score_sets(chunk) for chunk in chunks])
    at = int(ious.argmax())
    return LabelledSet(sets[at], float(ious[at]), search)
