"""The verdict on a set of heads: they look at the target, they do not, or there are too few rows to tell.

A condition is met where the interval of a paired difference lies above its margin, and failed where it lies at or below
it; in between more rows would tell. All conditions must be met (an intersection-union test, which needs no correction):

1. the fixed heads' boxes beat those of all heads by more than the margin, in IoU;
2. they beat sets of heads of the same layers, on average over the sets, by more than the margin;
3. they are not worse than heads chosen anew for each image by the margin or more;
4. they fit the own target better than the other targets of the same picture by more than the margin, and so does the
   own box of each fixed head by itself: they follow the phrase.

The p-value of the fixed heads' place among all sets of heads stands beside the verdict and is no part of it: other
heads that look at the target as well do not make these look elsewhere. Where the signs of so few pictures could not
give a p-value below 0.01, no condition is decided.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lab.statistics.bootstrap import Interval
from lab.statistics.sign_flips import clusters_needed, smallest_p_value

ALPHA = 0.01
MARGIN = 0.05
LOOK = "look at the target"
DO_NOT = "do not look at the target"
TOO_FEW = "too few rows to tell"
_NAMED = 3
MET, FAILED, UNDECIDED = "met", "failed", "undecided"


@dataclass(frozen=True)
class Condition:
    """One thing that must hold.

    Attributes:
        name: What is claimed, such as `better than all heads`.
        difference: The paired difference with its interval; None where there is nothing to compare.
        margin: The difference must lie above it.
    """

    name: str
    difference: Interval | None
    margin: float

    @property
    def outcome(self) -> str:
        """`met`, `failed` or `undecided`."""
        difference = self.difference
        if difference is None or difference.num_clusters < clusters_needed(ALPHA):
            return UNDECIDED
        if difference.high <= self.margin:
            return FAILED
        return MET if difference.low > self.margin else UNDECIDED

    @property
    def pictures_needed(self) -> int | None:
        """Pictures that would decide it, if the difference stays as it is; None where no number can be given."""
        difference, least = self.difference, clusters_needed(ALPHA)
        if difference is None:
            return None
        if math.isnan(difference.low):
            return least
        away = difference.estimate - self.margin
        spread = difference.estimate - difference.low if away > 0 else difference.high - difference.estimate
        if away == 0:
            return None
        # An interval narrows with the square root of the number of pictures.
        return max(least, math.ceil(difference.num_clusters * (spread / away) ** 2 * (1 - 1e-9)))

    def describe(self) -> str:
        """The claim with its difference, such as `better than all heads: 0.106 [0.090, 0.123], margin 0.05`."""
        if self.difference is None:
            return f"{self.name}: nothing to compare with"
        return f"{self.name}: {self.difference}, margin {self.margin:g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "outcome": self.outcome,
            "margin": self.margin,
            "difference": None if self.difference is None else self.difference.to_dict(),
            "pictures_needed": self.pictures_needed if self.outcome == UNDECIDED else None,
        }


@dataclass(frozen=True)
class Verdict:
    """What all conditions say together.

    Attributes:
        conditions: The conditions.
        num_rows: Rows with a ground truth.
        num_pictures: Pictures that they are about.
    """

    conditions: tuple[Condition, ...]
    num_rows: int
    num_pictures: int

    @property
    def outcome(self) -> str:
        """One of the three outcomes."""
        outcomes = {condition.outcome for condition in self.conditions}
        return DO_NOT if FAILED in outcomes else TOO_FEW if UNDECIDED in outcomes else LOOK

    @property
    def looks_at_target(self) -> bool | None:
        """True, False, or None where there are too few rows to tell."""
        return {LOOK: True, DO_NOT: False, TOO_FEW: None}[self.outcome]

    @property
    def pictures_needed(self) -> int | None:
        """Pictures that would decide the open conditions, if differences stay; None where no number can be given."""
        needed = [c.pictures_needed for c in self.conditions if c.outcome == UNDECIDED]
        return None if not needed or None in needed else max(n for n in needed if n is not None)

    @property
    def rows_needed(self) -> int | None:
        """The same as a number of rows, with as many rows a picture as there are now."""
        pictures = self.pictures_needed
        return None if pictures is None else math.ceil(pictures * self.num_rows / self.num_pictures)

    def sentence(self) -> str:
        """The verdict in words, with the number of rows and pictures."""
        base = f"{self.num_rows} rows of {self.num_pictures} pictures"
        if self.outcome == LOOK:
            return f"These heads look at the target ({base})."
        if self.outcome == DO_NOT:
            return f"These heads do not look at the target ({base}): not {self._named(FAILED)}."
        return f"Too few rows to tell ({base}): open is {self._named(UNDECIDED)}. {self._advice()}"

    def _named(self, outcome: str) -> str:
        named = [condition.describe() for condition in self.conditions if condition.outcome == outcome]
        return "; ".join(named if len(named) <= _NAMED else [*named[:_NAMED], f"and {len(named) - _NAMED} more"])

    def _advice(self) -> str:
        missing = [c.name for c in self.conditions if c.difference is None]
        if missing:
            return "It takes pictures with phrases about two targets or more."
        advice = []
        if self.num_pictures < clusters_needed(ALPHA):
            advice.append(
                f"The signs of {self.num_pictures} pictures cannot give a p-value below "
                f"{smallest_p_value(self.num_pictures):.2g}."
            )
        if self.pictures_needed is None:
            return " ".join([*advice, "A difference lies on its margin: no number of rows is sure to do."])
        return " ".join([*advice, f"About {self.rows_needed} rows of {self.pictures_needed} pictures would do."])

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "outcome": self.outcome,
            "looks_at_target": self.looks_at_target,
            "sentence": self.sentence(),
            "num_rows": self.num_rows,
            "num_pictures": self.num_pictures,
            "smallest_p_value": smallest_p_value(self.num_pictures),
            "rows_needed": self.rows_needed,
            "pictures_needed": self.pictures_needed,
            "conditions": [condition.to_dict() for condition in self.conditions],
        }


def give_verdict(conditions: Sequence[Condition], num_rows: int, num_pictures: int) -> Verdict:
    """Put the conditions together."""
    return Verdict(tuple(conditions), num_rows, num_pictures)
