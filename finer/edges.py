"""Edges of a box that end within a cell: an outer line of cells counts as far as its attention fills it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class FractionalEdges:
    """How far the edges of a box move into its outer cells.

    A line of cells (row or column) that an object fills holds about as much attention as the lines within it; one that
    it only touches holds less. With r as the line's attention over the mean of all lines of the box, at most 1, the
    edge moves inwards by ``most * (1 - r ** power)`` of a cell. It never moves outwards, and never past its cell.

    Attributes:
        most: The farthest that an edge may move, in cells, in [0, 1); 0 gives boxes of whole cells.
        power: How soon a line counts as filled, above 0; the smaller, the sooner.
    """

    most: float = 0.7
    power: float = 0.25

    def __post_init__(self) -> None:
        """Reject parameters that would turn a box inside out, or move its edges outwards."""
        if not 0 <= self.most < 1 or not 0 < self.power < np.inf:
            raise ValueError(
                "Expected fractional edges to have most in [0, 1) and power above 0, "
                f"but got most={self.most}, power={self.power}. Set logic.mask.edge_most and logic.mask.edge_power."
            )


def edge_insets(maps: np.ndarray, masks: np.ndarray, edges: FractionalEdges) -> np.ndarray:
    """How far each edge of each mask's tight box moves inwards.

    Args:
        maps: `[maps, rows, cols]`, attention; it counts within the masks only.
        masks: `[maps, rows, cols]` bool.
        edges: How far edges move.

    Returns:
        `[maps, 4]` float64, in cells, in [0, 1): left, top, right, bottom. 0 along an axis with a single line, of which
        nothing can be told, and where a mask is empty.
    """
    kept = np.where(masks, maps, 0).astype(np.float64)
    left, right = _moved_ends(kept.sum(axis=1), np.any(masks, axis=1), edges)
    top, bottom = _moved_ends(kept.sum(axis=2), np.any(masks, axis=2), edges)
    return np.stack([left, top, right, bottom], axis=1)


def _moved_ends(lines: np.ndarray, occupied: np.ndarray, edges: FractionalEdges) -> tuple[np.ndarray, np.ndarray]:
    """Move the first and the last occupied line of each map: `lines` and `occupied` are `[maps, lines]`."""
    first = occupied.argmax(axis=1)
    last = occupied.shape[1] - 1 - occupied[:, ::-1].argmax(axis=1)
    mean = lines.sum(axis=1) / (last - first + 1)
    rows = np.arange(len(lines))

    def move(index: np.ndarray) -> np.ndarray:
        filled = np.divide(lines[rows, index], mean, out=np.ones(len(lines)), where=mean > 0)
        moved: np.ndarray = edges.most * (1 - np.clip(filled, 0, 1) ** edges.power)
        return moved

    return move(first), move(last)
