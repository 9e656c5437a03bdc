"""Places for names beside their points, where they lie neither on points nor on each other."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

DISTANCES = (0.09, 0.17, 0.27, 0.4)
DIRECTIONS = tuple(math.radians(angle) for angle in (0, 180, 90, 270, 35, 145, 325, 215))
POINT_RADIUS = 0.04

Rect = tuple[float, float, float, float]


def place_labels(
    targets: Sequence[tuple[float, float]],
    sizes_wh: Sequence[tuple[float, float]],
    points: np.ndarray,
    room: Rect,
) -> list[tuple[float, float]]:
    """Choose for each name, in turn, the nearest place that is free, or the least crowded one.

    Args:
        targets: The points that are named, in inches.
        sizes_wh: Width and height of each name, in inches.
        points: `[n, 2]` all points, in inches.
        room: (left, bottom, right, top) of where names may lie, in inches.

    Returns:
        The middle of each name, in inches.
    """
    taken: list[Rect] = []
    for target, size_wh in zip(targets, sizes_wh):
        places = [_place(target, size_wh, reach, angle) for reach in DISTANCES for angle in DIRECTIONS]
        costs = [_crowding(rect, points, taken, room) + order / 100 for order, rect in enumerate(places)]
        taken.append(places[int(np.argmin(costs))])
    return [((left + right) / 2, (bottom + top) / 2) for left, bottom, right, top in taken]


def _place(target: tuple[float, float], size_wh: tuple[float, float], reach: float, angle: float) -> Rect:
    """The rectangle of a name whose edge lies `reach` from the point in a direction."""
    x = target[0] + math.cos(angle) * (reach + size_wh[0] / 2)
    y = target[1] + math.sin(angle) * (reach + size_wh[1] / 2)
    return x - size_wh[0] / 2, y - size_wh[1] / 2, x + size_wh[0] / 2, y + size_wh[1] / 2


def _crowding(rect: Rect, points: np.ndarray, taken: Sequence[Rect], room: Rect) -> float:
    """How many points and, counting more, names a rectangle lies on, and whether it leaves the room."""
    left, bottom, right, top = rect
    on_x = (points[:, 0] > left - POINT_RADIUS) & (points[:, 0] < right + POINT_RADIUS)
    on_y = (points[:, 1] > bottom - POINT_RADIUS) & (points[:, 1] < top + POINT_RADIUS)
    overlaps = sum(left < other[2] and other[0] < right and bottom < other[3] and other[1] < top for other in taken)
    outside = left < room[0] or bottom < room[1] or right > room[2] or top > room[3]
    return float((on_x & on_y).sum()) + 10.0 * overlaps + 100.0 * outside
