"""Sets of heads to compare a set with: those that have as many heads in each layer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, product

import numpy as np

from lab.statistics.p_values import PValue, drawn, enumerated

MOST_ENUMERATED = 20_000
NUM_DRAWN = 2_000
FEWEST_MATCHED = 20
"""With fewer layer-matched sets than this, a layer has too few heads to compare with: sets of any layer are taken."""


@dataclass(frozen=True)
class HeadSets:
    """Sets of heads that the fixed ones are compared with.

    Attributes:
        members: `[sets, K]` int, heads as `layer * num_heads + head`; the fixed set is the first.
        num_possible: Number of such sets that there are, the fixed one included.
        layer_matched: Whether every set has as many heads in each layer as the fixed one has.
        note: What did not go the plain way; empty where all did.
    """

    members: np.ndarray
    num_possible: int
    layer_matched: bool
    note: str = ""

    @property
    def exact(self) -> bool:
        """Whether these are all the sets there are."""
        return len(self.members) == self.num_possible

    @property
    def name(self) -> str:
        """Name for people."""
        return "random heads of the same layers" if self.layer_matched else "random heads of any layer"


def comparison_sets(
    fixed: Sequence[tuple[int, int]],
    num_layers: int,
    num_heads: int,
    *,
    most_enumerated: int = MOST_ENUMERATED,
    num_drawn: int = NUM_DRAWN,
    seed: int = 0,
) -> HeadSets:
    """The sets of heads that could have been chosen as well, if the choice within the layers were arbitrary.

    The fixed set is one of them, and so are sets that share heads with it: only then is its place among all of them
    uniform under the null hypothesis. Up to `most_enumerated` sets are all listed; of more, some are drawn without
    replacement.

    Args:
        fixed: (layer, head) of the K fixed heads.
        num_layers: Layers of the model.
        num_heads: Heads of each layer.
        most_enumerated: List all sets up to this number.
        num_drawn: Sets drawn beside the fixed one where there are more.
        seed: Seed of the draws.

    Returns:
        The sets.

    Raises:
        ValueError: If no head is fixed, or one is listed twice or unknown.
    """
    flat = sorted(layer * num_heads + head for layer, head in fixed)
    if (
        not flat
        or len(set(flat)) < len(flat)
        or not all(0 <= h < num_heads and 0 <= la < num_layers for la, h in fixed)
    ):
        raise ValueError(
            f"Expected the fixed heads to be at least one of {num_layers} layers of {num_heads} heads, each once, "
            f"but got {[tuple(head) for head in fixed]}. Check the heads file."
        )
    by_layer = Counter(layer for layer, _ in fixed)
    groups = [(layer * num_heads + np.arange(num_heads), count) for layer, count in sorted(by_layer.items())]
    matched = math.prod(math.comb(num_heads, count) for _, count in groups)
    note = ""
    if matched < FEWEST_MATCHED:
        crowded = ", ".join(f"{count} of {num_heads} in layer {layer}" for layer, count in sorted(by_layer.items()))
        note = (
            f"The fixed heads are {crowded}: there are only {matched} sets of the same layers, too few to compare "
            "with, so that heads of any layer were taken."
        )
        groups = [(np.arange(num_layers * num_heads), len(flat))]
    possible = math.prod(math.comb(len(pool), count) for pool, count in groups)
    list_all = possible <= most_enumerated
    others = _enumerate(groups) if list_all else _draw(groups, num_drawn, set(flat), np.random.default_rng(seed))
    others = others[(others != flat).any(axis=1)]
    return HeadSets(np.concatenate([[flat], others]), possible, not note, note)


def set_p_value(statistics: np.ndarray, sets: HeadSets) -> PValue:
    """One-sided p-value of the fixed set: how many sets do at least as well.

    Args:
        statistics: `[sets]`, larger is better; the fixed set is the first, as in `sets.members`.
        sets: The sets.
    """
    reached = int((statistics >= statistics[0] - 1e-12).sum())
    if sets.exact:
        return enumerated(reached, len(statistics), smallest=1 / len(statistics), sides=1)
    return drawn(reached - 1, len(statistics) - 1, sides=1)


def _enumerate(groups: Sequence[tuple[np.ndarray, int]]) -> np.ndarray:
    """All sets with so many heads of each group: `[sets, K]`, ascending within a set."""
    parts = [list(combinations(pool.tolist(), count)) for pool, count in groups]
    return np.array([sum(chosen, ()) for chosen in product(*parts)], dtype=np.intp)


def _draw(
    groups: Sequence[tuple[np.ndarray, int]], num_drawn: int, fixed: set[int], rng: np.random.Generator
) -> np.ndarray:
    """Distinct sets, none of them the fixed one, drawn until there are enough."""
    found = {tuple(sorted(fixed)): None}
    while len(found) <= num_drawn:
        parts = [np.sort(rng.choice(pool, count, replace=False)) for pool, count in groups]
        found.setdefault(tuple(np.concatenate(parts).tolist()), None)
    return np.array(list(found)[1:], dtype=np.intp)
