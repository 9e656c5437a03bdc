"""P-values that say how they were counted, and corrections for several of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PValue:
    """A p-value with the counts behind it.

    Attributes:
        value: `num_reached / num_draws` where all cases were enumerated, else `(num_reached + 1) / (num_draws + 1)`.
        num_reached: Cases that are as extreme as what was observed, the observed one not counted unless enumerated.
        num_draws: Cases looked at.
        exact: Whether all cases there are were enumerated.
        smallest: The smallest value that this test could have given here.
        sides: 1 or 2.
    """

    value: float
    num_reached: int
    num_draws: int
    exact: bool
    smallest: float
    sides: int

    def __str__(self) -> str:
        """`p <= 0.0001` where no draw reached the observed value, so that only a bound is known; else `p = 0.031`."""
        bound = not self.exact and self.num_reached == 0
        return f"p <= {self.value:.1g}" if bound else f"p = {self.value:.2g}"

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


def enumerated(num_reached: int, num_cases: int, *, smallest: float, sides: int) -> PValue:
    """The p-value where all cases were looked at, the observed one among them."""
    value = min(1.0, num_reached / num_cases)
    return PValue(value, num_reached, num_cases, True, min(1.0, smallest), sides)


def drawn(num_reached: int, num_draws: int, *, sides: int) -> PValue:
    """The p-value where cases were drawn at random: (k + 1) / (n + 1), as the observed case is one more of them."""
    return PValue((num_reached + 1) / (num_draws + 1), num_reached, num_draws, False, 1 / (num_draws + 1), sides)


def holm(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's step-down adjustment (1979): keeps the chance of any false rejection, whatever the dependence.

    Args:
        p_values: `[tests]`; NaN is left out of the family and stays NaN.

    Returns:
        Adjusted p-values, in the same order.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    order = _ascending(values)
    steps = values[order] * np.arange(len(order), 0, -1)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps)) if len(order) else steps
    return adjusted


def benjamini_hochberg(p_values: Sequence[float] | np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's adjustment (1995): the share of false ones among those below a limit.

    Args:
        p_values: `[tests]`; NaN is left out of the family and stays NaN.

    Returns:
        Adjusted p-values, in the same order.
    """
    values = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(values.shape, np.nan)
    order = _ascending(values)
    if len(order):
        steps = values[order] * len(order) / np.arange(1, len(order) + 1)
        adjusted[order] = np.minimum(1.0, np.minimum.accumulate(steps[::-1])[::-1])
    return adjusted


def _ascending(values: np.ndarray) -> np.ndarray:
    """Positions of the values that are not NaN, ascending by value."""
    order = np.argsort(values, kind="stable")
    return order[: int((~np.isnan(values)).sum())]
