"""Rank heads: the threshold of criterion 1 at the elbow, then lowest entropy first, for all samples at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ELBOW_TOLERANCE = 1e-9
"""Distances from the chord closer than this share of the range of values are ties."""
_AFTER_SURVIVORS = np.finfo(np.float64).max
"""Ranks heads that fail by the threshold alone behind every entropy, and before those that the filters leave out."""


def elbow_threshold(values: np.ndarray) -> float:
    """The value at the elbow of the ascending values: the point farthest from the chord between first and last.

    All points lie over equally spaced ranks, so that the farthest point in the direction of y is also the farthest
    from the chord, whatever the scale of the axes. Of several equally far points the lowest value wins, which keeps
    more heads. Without an elbow (fewer than three values, equal values, values on a line) it is the lowest value.

    Args:
        values: Any shape; a copy is sorted.

    Returns:
        The threshold, one of the values: keep what is at or above it.

    Raises:
        ValueError: If there is no value, or one is NaN or infinite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if len(ordered) == 0 or not np.isfinite(ordered).all():
        raise ValueError(
            "Expected the values to find an elbow in to be finite and at least one, "
            f"but got {len(ordered)} values, {int((~np.isfinite(ordered)).sum())} of them NaN or infinite."
        )
    distances = np.abs(ordered - np.linspace(ordered[0], ordered[-1], len(ordered)))
    tolerance = ELBOW_TOLERANCE * (ordered[-1] - ordered[0])
    if distances.max() <= tolerance:
        return float(ordered[0])
    return float(ordered[np.argmax(distances >= distances.max() - tolerance)])


@dataclass(frozen=True)
class Ranking:
    """`order`: `[samples, heads]` flat head indices, best first; `num_kept`: `[samples]` how many of them count."""

    order: np.ndarray
    num_kept: np.ndarray


def allowed_heads(bottom_row_focus: np.ndarray, skip_layers: int, bottom_row_filter: bool) -> np.ndarray:
    """Which heads the filters allow, `[samples, layers, heads]` bool like `bottom_row_focus`."""
    num_layers = bottom_row_focus.shape[1]
    if skip_layers >= num_layers:
        raise ValueError(
            f"Expected skip_layers to leave at least one of the model's {num_layers} layers, but got {skip_layers}. "
            "Set logic.skip_layers lower."
        )
    allowed = ~bottom_row_focus if bottom_row_filter else np.ones(bottom_row_focus.shape, dtype=bool)
    allowed[:, :skip_layers] = False
    return allowed


def rank_all(
    sums: np.ndarray, entropies: np.ndarray, allowed: np.ndarray, thresholds: np.ndarray, min_keep: int
) -> Ranking:
    """Rank the heads of every sample at once; see `rank_heads` for the rule.

    Args:
        sums: `[samples, layers, heads]`, what criterion 1 compares.
        entropies: The same shape.
        allowed: The same shape, bool.
        thresholds: `[samples]`.
        min_keep: Number of heads to fill up to.
    """
    flat = (len(sums), -1)
    sums, entropies, allowed = sums.reshape(flat), entropies.reshape(flat), allowed.reshape(flat)
    usable = allowed & np.isfinite(entropies)
    survives = usable & (sums >= thresholds[:, None])
    # The last key sorts first: survivors by entropy, then usable heads, then the others. lexsort is stable, so that
    # remaining ties go by (layer, head).
    order = np.lexsort((-sums, np.where(survives, entropies, np.where(usable, _AFTER_SURVIVORS, np.inf))))
    num_kept = np.maximum(survives.sum(axis=1), np.minimum(min_keep, usable.sum(axis=1)))
    return Ranking(order, num_kept)
