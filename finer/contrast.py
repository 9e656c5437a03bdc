"""Contrast: what a phrase's map shows beyond the maps of the other phrases about the same picture."""

from __future__ import annotations

import numpy as np


def contrast_with_siblings(maps: np.ndarray, share: float = 1.0) -> np.ndarray:
    """Take from each map the mean of the others, below 0 nothing.

    Args:
        maps: `[phrases, ..., rows, cols]`, of the phrases about one picture, all on its grid.
        share: How much of the others' mean is taken, 0 for none.

    Returns:
        Maps of the same shape, float64, at least 0; as they are where there is a single phrase.

    Raises:
        ValueError: The share is negative or not finite.
    """
    if not 0 <= share < np.inf:
        raise ValueError(f"Expected the share of the siblings' mean to be 0 or more, but got {share}.")
    own = maps.astype(np.float64)
    if len(own) < 2:
        return own
    others = (own.sum(axis=0) - own) / (len(own) - 1)
    contrasted: np.ndarray = np.maximum(own - share * others, 0)
    return contrasted
