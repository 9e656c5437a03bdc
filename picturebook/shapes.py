"""The outlines of all that stands in a scene: stacks of polygons, later ones on top, each with a paint of `drawing`."""

from __future__ import annotations

import math
from functools import cache

import numpy as np

from picturebook.scenes import Scene, Support


@cache
def kind_parts(kind: str, collar: bool) -> tuple[tuple[str, np.ndarray], ...]:
    """The polygons of a kind in the unit square, whose four sides they touch, as (paint, points `[n, 2]`)."""
    parts = _DRAWINGS[kind](collar)
    corners = np.concatenate([points for _, points in parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    return tuple((paint, (points - low) / (high - low)) for paint, points in parts)


def support_parts(support: Support, scene: Scene) -> list[tuple[str, np.ndarray]]:
    """The polygons of a support in scene units, as (paint, points `[n, 2]`)."""
    return {"branch": _branch_parts, "floor": _floor_parts, "hill": _hill_parts}[support.kind](support, scene)


# ---------------------------------------------------------------------------------------------------------------------
# The kinds: drawn on a sheet of about 100 x 100, facing left, then fitted to the unit square
# ---------------------------------------------------------------------------------------------------------------------


def _ball(collar: bool) -> list[tuple[str, np.ndarray]]:
    shadow = [*_arc(50, 50, 50, 50, 0.05, 2.2), *_arc(46, 44, 48, 48, 2.2, 0.05)]
    return [
        ("fill", _ellipse(50, 50, 50, 50)),
        ("deep", np.array(shadow)),
        ("gleam", _ellipse(31, 24, 12, 7, -0.6)),
    ]


def _box(collar: bool) -> list[tuple[str, np.ndarray]]:
    return [
        ("fill", _rectangle(0, 20, 80, 100)),
        ("gleam", np.array([(0, 20), (20, 0), (100, 0), (80, 20)])),
        ("deep", np.array([(80, 20), (100, 0), (100, 80), (80, 100)])),
        ("crease", _stroke([(2, 20), (80, 20)], [0.9, 0.9])),
        ("crease", _stroke([(80, 20), (80, 98)], [0.9, 0.9])),
        ("crease", _stroke([(80, 20), (98, 2)], [0.9, 0.9])),
    ]


def _star(collar: bool) -> list[tuple[str, np.ndarray]]:
    corners = []
    for step in range(10):
        radius, angle = (50 if step % 2 == 0 else 25), -math.pi / 2 + step * math.pi / 5
        corners.append((50 + radius * math.cos(angle), 50 + radius * math.sin(angle)))
    smile = [(44.5, 56), (47.5, 58.5), (52.5, 58.5), (55.5, 56)]
    return [
        ("fill", _rounded(corners, 0.16)),
        *_eye(42, 46, 3.6, 4.4),
        *_eye(58, 46, 3.6, 4.4),
        ("gleam", _stroke(smile, [2.4, 2.6, 2.6, 2.4])),
        ("ink", _stroke(smile, [1.0, 1.3, 1.3, 1.0])),
    ]


def _tree(collar: bool) -> list[tuple[str, np.ndarray]]:
    trunk = np.array([(43, 60), (57, 60), (58, 88), (66, 100), (34, 100), (42, 88)])
    lobes = [(50, 21, 26, 21), (24, 34, 22, 20), (76, 34, 22, 20), (20, 54, 20, 18), (80, 54, 20, 18), (50, 56, 32, 22)]
    return [
        ("bark", trunk),
        ("bark_dark", np.array([(51, 60), (57, 60), (58, 88), (66, 100), (54, 100)])),
        *(("fill", _ellipse(*lobe)) for lobe in lobes),
        ("fill", _ellipse(50, 42, 32, 26)),
        ("deep", np.array([*_arc(50, 56, 32, 22, 0.25, 2.9), *_arc(50, 50, 32, 22, 2.9, 0.25)])),
        ("gleam", _ellipse(37, 16, 9, 4.5, -0.5)),
    ]


def _house(collar: bool) -> list[tuple[str, np.ndarray]]:
    return [
        ("deep", _rectangle(70, 6, 82, 40)),
        ("fill", _rectangle(10, 42, 90, 100)),
        ("soft", _rounded([(50, 0), (101, 48), (-1, 48)], 0.06)),
        ("crease", _rectangle(10, 48, 90, 50.5)),
        ("pale", _door(21.5, 42.5, 72.5)),
        ("bark", _door(23.5, 40.5, 74)),
        ("tag", _ellipse(37.5, 86, 1.6, 1.6)),
        ("white", _rectangle(56, 62, 78, 84)),
        ("glass", _rectangle(58.5, 64.5, 65.8, 72)),
        ("glass", _rectangle(68.2, 64.5, 75.5, 72)),
        ("glass", _rectangle(58.5, 74.2, 65.8, 81.5)),
        ("glass", _rectangle(68.2, 74.2, 75.5, 81.5)),
    ]


def _door(left: float, right: float, spring: float) -> np.ndarray:
    half = (right - left) / 2
    return np.array([(left, 100), *_arc(left + half, spring, half, half, math.pi, 2 * math.pi), (right, 100)])


def _cat(collar: bool) -> list[tuple[str, np.ndarray]]:
    parts = [
        ("fill", _stroke([(66, 92), (88, 93), (97, 76), (90, 58), (94, 46)], [5.5, 5.5, 5.2, 5.0, 4.6])),
        ("fill", _smooth([(24, 99), (13, 86), (18, 66), (32, 48), (60, 48), (74, 66), (79, 86), (68, 99)])),
        ("deep", _ellipse(46, 35.5, 29, 23.5)),
        ("fill", _rounded([(16, 34), (17, -1), (43, 14)], 0.1)),
        ("fill", _rounded([(76, 34), (75, -1), (49, 14)], 0.1)),
        ("blush", _rounded([(21.5, 20), (21.5, 7), (32, 13)], 0.1)),
        ("blush", _rounded([(70.5, 20), (70.5, 7), (60, 13)], 0.1)),
        ("fill", _ellipse(46, 32, 30, 23.5)),
        ("crease", _stroke([(46, 78), (46, 95)], [0.6, 1.0])),
        ("pale", _ellipse(36, 95, 9.5, 5.5)),
        ("pale", _ellipse(56, 95, 9.5, 5.5)),
        ("pale", _ellipse(46, 42, 11, 8)),
    ]
    parts += _eye(34, 30, 6.2, 7.2) + _eye(58, 30, 6.2, 7.2)
    parts += [("ink", _rounded([(42.5, 37.5), (49.5, 37.5), (46, 41.5)], 0.2))]
    parts += [("ink", _stroke([(46, 41), (45.6, 44), (42.6, 46), (39.6, 44.4)], [0.8, 0.8, 0.8, 0.6]))]
    parts += [("ink", _stroke([(46, 41), (46.4, 44), (49.4, 46), (52.4, 44.4)], [0.8, 0.8, 0.8, 0.6]))]
    for side in (-1, 1):
        for rise in (0, 5):
            start, end = (46 + side * 14, 41 + 0.5 * rise), (46 + side * 25, 39 + rise)
            parts.append(("crease", _stroke([start, end], [0.7, 0.5])))
    return parts + (_collar_parts([(24, 53), (34, 58.5), (46, 60), (58, 58.5), (68, 53)]) if collar else [])


def _dog(collar: bool) -> list[tuple[str, np.ndarray]]:
    parts = [
        ("fill", _stroke([(82, 56), (93, 48), (97, 32)], [5.5, 4.8, 3.4])),
        ("deep", _stroke([(44, 62), (44, 92)], [6.5, 6])),
        ("deep", _stroke([(70, 62), (69, 92)], [6.5, 6])),
        ("deep", _ellipse(43, 95.5, 7, 4.5)),
        ("deep", _ellipse(66, 95.5, 7, 4.5)),
        ("fill", _smooth([(30, 48), (50, 49), (74, 47), (87, 54), (88, 68), (74, 75), (48, 76), (32, 73), (27, 60)])),
        ("fill", _smooth([(28, 28), (46, 28), (50, 48), (44, 64), (28, 62), (25, 46)])),
        ("fill", _stroke([(34, 62), (34, 92)], [7.5, 5.5])),
        ("fill", _smooth([(74, 52), (88, 56), (89, 70), (83, 82), (83, 96), (74, 96), (74, 82), (70, 68)])),
        ("pale", _ellipse(31.5, 95.5, 8, 4.8)),
        ("pale", _ellipse(76.5, 95.5, 8, 4.8)),
        ("fill", _ellipse(30, 23, 21, 19)),
        ("fill", _smooth([(24, 18), (8, 21), (-1, 28), (1, 37), (14, 41), (30, 39)])),
        ("ink", _ellipse(2, 26.5, 5, 4.2)),
        ("ink", _stroke([(4, 35), (12, 35.5), (17, 32)], [0.7, 0.8, 0.6])),
    ]
    parts += _eye(21, 18.5, 5.0, 5.6)
    if collar:
        parts += _collar_parts([(25, 44), (31, 48.5), (40, 49.5), (49.5, 45)])
    parts.append(("crease", _smooth([(33, 8), (44, 8), (52, 24), (51, 38), (43, 43), (36, 34), (34, 20)])))
    inner_ear = [(35, 9.5), (43.5, 9.5), (50.5, 24), (49.5, 36.5), (43, 41), (37.5, 33), (35.5, 20)]
    parts.append(("deep", _smooth(inner_ear)))
    return parts


def _bird(collar: bool) -> list[tuple[str, np.ndarray]]:
    # Legs and feet stay wider than a pixel at a long side of 128.
    parts = [("amber", _stroke([(x, 76), (x - 1, 96)], [2.9, 2.9])) for x in (43, 58)]
    parts += [("amber", _stroke([(x - 10, 97), (x - 1, 96), (x + 6, 97)], [2.5, 2.9, 2.5])) for x in (43, 58)]
    parts += [
        ("amber", _rounded([(14, 20), (-5, 30), (14, 37)], 0.1)),
        ("crease", _stroke([(-3, 30), (10, 29.5)], [0.6, 0.8])),
        ("deep", _rounded([(68, 52), (98, 34), (104, 44), (100, 53), (78, 70)], 0.14)),
        (
            "fill",
            _smooth(
                [
                    (9, 27),
                    (17, 10),
                    (33, 6),
                    (47, 17),
                    (60, 34),
                    (82, 48),
                    (82, 62),
                    (66, 77),
                    (44, 82),
                    (24, 75),
                    (13, 58),
                    (10, 42),
                ]
            ),
        ),
        ("pale", _smooth([(15, 58), (25, 56), (38, 66), (46, 79), (32, 78), (22, 71)])),
        ("crease", _smooth([(38, 43), (56, 39), (76, 50), (92, 62), (70, 70), (50, 68), (39, 58)])),
        ("deep", _smooth([(39.5, 44.5), (56, 41), (75, 51.5), (88, 61.5), (70, 68), (51, 66.3), (41, 57)])),
        ("crease", _stroke([(56, 58), (72, 62)], [0.9, 0.7])),
        ("crease", _stroke([(60, 50), (76, 57)], [0.9, 0.7])),
    ]
    return parts + _eye(25, 25, 5.2, 5.8)


_DRAWINGS = {
    "ball": _ball, "box": _box, "star": _star, "tree": _tree, "house": _house, "cat": _cat, "dog": _dog, "bird": _bird,
}  # fmt: skip


def _eye(x: float, y: float, radius_x: float, radius_y: float) -> list[tuple[str, np.ndarray]]:
    return [
        ("ink", _ellipse(x, y, radius_x, radius_y)),
        ("white", _ellipse(x, y, 0.82 * radius_x, 0.84 * radius_y)),
        ("ink", _ellipse(x - 0.1 * radius_x, y + 0.05 * radius_y, 0.55 * radius_x, 0.66 * radius_y)),
        ("white", _ellipse(x - 0.32 * radius_x, y - 0.25 * radius_y, 0.2 * radius_x, 0.2 * radius_y)),
    ]


def _collar_parts(path: list[tuple[float, float]]) -> list[tuple[str, np.ndarray]]:
    """A light band with dark edges, which stands out from every colour and pattern, and its tag."""
    x, y = path[len(path) // 2]
    return [
        ("ink", _stroke(path, [4.9] * len(path))),
        ("collar", _stroke(path, [3.5] * len(path))),
        ("ink", _ellipse(x, y + 6.5, 4.8, 4.8)),
        ("tag", _ellipse(x, y + 6.5, 3.7, 3.7)),
    ]


# ---------------------------------------------------------------------------------------------------------------------
# The supports, in scene units
# ---------------------------------------------------------------------------------------------------------------------


def _floor_parts(support: Support, scene: Scene) -> list[tuple[str, np.ndarray]]:
    width, height = scene.aspect
    dark = f"{support.style}_dark"
    parts = [(support.style, _rectangle(-0.1, support.top, width + 0.1, height + 0.1))]
    rows = [support.top + support.thickness * share for share in (0.0, 0.12, 0.34, 0.64, 1.0)]
    for row, (upper, lower) in enumerate(zip(rows, rows[1:])):
        parts.append((dark, _rectangle(-0.1, upper, width + 0.1, upper + 0.0035)))
        for joint in np.arange(-1.2, 1.3, 0.22) + (0.11 if row % 2 else 0.0):
            # Joints run towards a vanishing point above the floor.
            top_x, bottom_x = (
                width / 2 + joint * (0.55 + 0.6 * (y - support.top) / support.thickness) for y in (upper, lower)
            )
            half = 0.0018
            quad = [(top_x - half, upper), (top_x + half, upper), (bottom_x + half, lower), (bottom_x - half, lower)]
            parts.append((dark, np.array(quad)))
    return parts


def _hill_parts(support: Support, scene: Scene) -> list[tuple[str, np.ndarray]]:
    width, height = scene.aspect
    xs = np.linspace(-0.05, width + 0.05, 48)
    crest = [(x, support.top_at(x)) for x in xs]
    lower = [(x, support.top_at(x) + 0.55 * support.thickness + 0.012 * math.sin(9 * x + 1)) for x in xs]
    ground = [(width + 0.05, height + 0.1), (-0.05, height + 0.1)]
    parts = [("grass", np.array(crest + ground)), ("grass_dark", np.array(lower + ground))]
    for step in range(int(width / 0.07)):
        x = 0.03 + 0.07 * step
        y = support.top_at(x) + support.thickness * (0.3 if step % 2 else 0.42)
        outline = [(-8, 0), (-11, -14), (-3, -4), (0, -18), (3, -4), (11, -14), (8, 0)]
        parts.append(("grass_dark", np.array(outline) * 0.001 + (x, y)))
    return parts


def _branch_parts(support: Support, scene: Scene) -> list[tuple[str, np.ndarray]]:
    root_left = support.style == "left"
    length, thick = support.right - support.left, support.thickness

    def at(along: float, below: float) -> tuple[float, float]:
        """The point `along` of the bough from root 0 to tip 1, `below` its top edge by that many thicknesses."""
        x = support.left + length * (along if root_left else 1 - along)
        return x, support.top_at(x) + below * thick

    steps = np.linspace(-0.02, 1.0, 24)
    upper = [at(step, 0.0) for step in steps]
    lower = [at(step, 1.0 - 0.72 * step) for step in steps[::-1]]
    shade = [at(step, 0.62 * (1.0 - 0.72 * step)) for step in steps]
    parts = [("bark", np.array(upper + lower)), ("bark_dark", np.array(shade + lower))]
    for along, drop, lean in ((0.3, 1.5, 0.05), (0.62, 1.4, 0.04), (0.86, 1.1, 0.03)):
        start, end = at(along, 0.5 * (1 - 0.72 * along)), at(along + lean, drop)
        parts.append(("bark", _stroke([start, end], [0.16 * thick, 0.08 * thick])))
        parts += _leaf_pair(end, thick, root_left)
    return parts + _leaf_pair(at(1.0, 0.1), 1.1 * thick, root_left)


def _leaf_pair(tip: tuple[float, float], size: float, root_left: bool) -> list[tuple[str, np.ndarray]]:
    turn = 1 if root_left else -1
    return [
        (paint, _ellipse(tip[0] + turn * dx * size, tip[1] + dy * size, 0.55 * size, 0.25 * size, turn * angle))
        for paint, dx, dy, angle in (("leaf_dark", 0.38, 0.2, 0.55), ("leaf", 0.4, -0.22, -0.5))
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Polygons
# ---------------------------------------------------------------------------------------------------------------------


def _rectangle(x0: float, y0: float, x1: float, y1: float) -> np.ndarray:
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=float)


def _arc(x: float, y: float, radius_x: float, radius_y: float, start: float, stop: float) -> list[tuple[float, float]]:
    return [(x + radius_x * math.cos(angle), y + radius_y * math.sin(angle)) for angle in np.linspace(start, stop, 20)]


def _ellipse(x: float, y: float, radius_x: float, radius_y: float, turn: float = 0.0) -> np.ndarray:
    angles = np.linspace(0, 2 * math.pi, 48, endpoint=False)
    across, down = radius_x * np.cos(angles), radius_y * np.sin(angles)
    cosine, sine = math.cos(turn), math.sin(turn)
    return np.stack([x + across * cosine - down * sine, y + across * sine + down * cosine], axis=1)


def _smooth(points: list[tuple[float, float]], steps: int = 8) -> np.ndarray:
    """A closed Catmull-Rom curve through the points."""
    knots = np.array(points, dtype=float)
    before, after, beyond = np.roll(knots, 1, 0), np.roll(knots, -1, 0), np.roll(knots, -2, 0)
    t = np.linspace(0, 1, steps, endpoint=False)[None, :, None]
    p0, p1, p2, p3 = (array[:, None, :] for array in (before, knots, after, beyond))
    curve = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    return curve.reshape(-1, 2)


def _rounded(points: list[tuple[float, float]], share: float) -> np.ndarray:
    """A polygon whose corners are rounded over this share of each edge."""
    knots, t = np.array(points, dtype=float), np.linspace(0, 1, 6)[:, None]
    corners = []
    for before, knot, after in zip(np.roll(knots, 1, 0), knots, np.roll(knots, -1, 0)):
        start, end = knot + share * (before - knot), knot + share * (after - knot)
        corners.append((1 - t) ** 2 * start + 2 * t * (1 - t) * knot + t**2 * end)
    return np.concatenate(corners)


def _stroke(points: list[tuple[float, float]], radii: list[float]) -> np.ndarray:
    """A brush stroke along a smoothed path, round at both ends, as one polygon."""
    knots = np.array([(*point, radius) for point, radius in zip(points, radii)], dtype=float)
    padded = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])
    t = np.linspace(0, 1, 8)[None, :, None]
    p0, p1, p2, p3 = (padded[i : len(padded) - 3 + i, None, :] for i in range(4))
    path = 0.5 * (2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3)
    path = np.concatenate([path[:, :-1].reshape(-1, 3), knots[-1:]])
    along = np.gradient(path[:, :2], axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    side = np.stack([-along[:, 1], along[:, 0]], axis=1) * path[:, 2:]
    angle = np.linspace(0, math.pi, 10)[1:-1, None]
    end_cap = path[-1, :2] + np.cos(angle) * side[-1] + np.sin(angle) * along[-1] * path[-1, 2]
    start_cap = path[0, :2] - np.cos(angle) * side[0] - np.sin(angle) * along[0] * path[0, 2]
    return np.concatenate([path[:, :2] + side, end_cap, (path[:, :2] - side)[::-1], start_cap])
