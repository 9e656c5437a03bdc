"""Random scenes of the picture-book world: what they hold, and a layout in which everything fits."""

from __future__ import annotations

import colorsys
import math
import random

from picturebook.scenes import (
    COLLARED_KINDS,
    COLORS,
    KINDS,
    MIN_GAP,
    PATTERNS,
    SUPPORTS,
    Background,
    Scene,
    SceneObject,
    Support,
    check_aspect,
    check_member,
    too_close,
)

COMPOSITIONS = {"binding": 0.5, "one_kind": 0.15, "one_color": 0.15, "free": 0.2}
SIDE_RANGES = {"small": (0.19, 0.25), "big": (0.32, 0.42)}
BIG_PROBABILITY = 0.35
COLLAR_PROBABILITY = 0.3
SHARED_KIND_PROBABILITY = 0.35
STANDING_PREFERENCE = {"branch": ("bird", "cat"), "floor": ("cat", "dog"), "hill": ("tree", "house")}
ASPECT_RATIOS = (1.0, 4 / 3, 3 / 2, 16 / 9)
# Below this short side the objects shrink, so that four of them still fit.
FULL_SIZE_SHORT_SIDE = 0.52
LAYOUT_ATTEMPTS = 600
# A support too narrow for two objects then carries one.
PAIR_ATTEMPTS = 60
LAYOUTS_PER_SIZES = 40
PLACES_PER_OBJECT = 30


def sample_aspect(rng: random.Random) -> tuple[float, float]:
    """Draws a picture shape: square, landscape or portrait.

    Args:
        rng: Source of randomness.

    Returns:
        Width and height in scene units; the longer one is 1.0.
    """
    short = 1.0 / rng.choice(ASPECT_RATIOS)
    return (1.0, short) if rng.random() < 0.5 else (short, 1.0)


def sample_scene(
    rng: random.Random,
    aspect: tuple[float, float] | None = None,
    composition: str | None = None,
    num_objects: int | None = None,
    supports_probability: float = 0.4,
) -> Scene:
    """Draws a random scene.

    Args:
        rng: Source of randomness; the same state gives the same scene.
        aspect: Width and height in scene units, or None for a random one.
        composition: "free", "one_kind", "one_color", "binding", or None for a random one.
        num_objects: Number of objects, 1 to 5, for "free"; the other compositions have four.
        supports_probability: Chance that the picture has a branch, a floor or a hill.

    Returns:
        A scene whose objects lie inside the picture with a gap of at least `MIN_GAP`.

    Raises:
        ValueError: If an argument is out of range, or the objects fit nowhere.
    """
    aspect = sample_aspect(rng) if aspect is None else aspect
    check_aspect(aspect)
    aspect = (float(aspect[0]), float(aspect[1]))
    if not 0.0 <= supports_probability <= 1.0:
        raise ValueError(
            f"Expected supports_probability to be in [0, 1], but got {supports_probability}. Pass a probability."
        )
    plan = _sample_plan(rng, composition, num_objects)
    support_kind = rng.choice(SUPPORTS) if rng.random() < supports_probability else None
    standing = _choose_standing(rng, [kind for _, kind, _ in plan], support_kind)
    sizes, frames, support, standing = _sample_layout(rng, aspect, len(plan), standing, support_kind)
    objects = tuple(
        SceneObject(
            kind=kind,
            color=color,
            pattern=pattern,
            size=sizes[index],
            frame=frames[index],
            collar=kind in COLLARED_KINDS and rng.random() < COLLAR_PROBABILITY,
            support=support_kind if index in standing else None,
            flipped=rng.random() < 0.5,
            shade=round(rng.uniform(0.93, 1.05), 3),
        )
        for index, (color, kind, pattern) in enumerate(plan)
    )
    return Scene(aspect, _sample_background(rng, support), objects)


def _sample_plan(rng: random.Random, composition: str | None, num_objects: int | None) -> list[tuple[str, str, str]]:
    """Draws color, kind and pattern of every object, in random order."""
    if composition is None:
        names = list(COMPOSITIONS) if num_objects in (None, 4) else ["free"]
        composition = rng.choices(names, [COMPOSITIONS[name] for name in names])[0]
    check_member("composition", composition, tuple(COMPOSITIONS))
    if num_objects is not None and not 1 <= num_objects <= 5:
        raise ValueError(f"Expected num_objects to be from 1 to 5, but got {num_objects}. More do not fit.")
    if composition != "free" and num_objects not in (None, 4):
        raise ValueError(
            f"Expected num_objects to be 4 for '{composition}', but got {num_objects}. Use composition='free'."
        )
    if composition == "free":
        return _free_plan(rng, num_objects or rng.randint(2, 5))
    plan = {"binding": _binding_plan, "one_kind": _one_kind_plan, "one_color": _one_color_plan}[composition](rng)
    rng.shuffle(plan)
    return plan


def _binding_plan(rng: random.Random) -> list[tuple[str, str, str]]:
    colors, kinds, patterns = rng.sample(list(COLORS), 2), rng.sample(KINDS, 2), rng.sample(PATTERNS, 2)
    return [(colors[c], kinds[k], patterns[c ^ k]) for c in (0, 1) for k in (0, 1)]


def _one_kind_plan(rng: random.Random) -> list[tuple[str, str, str]]:
    kind = rng.choice(KINDS)
    return [(color, kind, rng.choice(PATTERNS)) for color in rng.sample(list(COLORS), 4)]


def _one_color_plan(rng: random.Random) -> list[tuple[str, str, str]]:
    color = rng.choice(list(COLORS))
    return [(color, kind, rng.choice(PATTERNS)) for kind in rng.sample(KINDS, 4)]


def _free_plan(rng: random.Random, num_objects: int) -> list[tuple[str, str, str]]:
    plan: list[tuple[str, str, str]] = []
    for _ in range(num_objects):
        kind = rng.choice(KINDS)
        if plan and rng.random() < SHARED_KIND_PROBABILITY:
            kind = rng.choice(plan)[1]
        plan.append((rng.choice(list(COLORS)), kind, rng.choice(PATTERNS)))
    return plan


def _choose_standing(rng: random.Random, kinds: list[str], support_kind: str | None) -> tuple[int, ...]:
    """Picks one or two objects to stand on the support, with a mild preference for the kinds that suit it."""
    if support_kind is None:
        return ()
    preferred = STANDING_PREFERENCE[support_kind]
    # Weighted choice without repetition: the largest of u ** (1 / weight) (Efraimidis and Spirakis, 2006).
    keys = [rng.random() ** (1 / 1.6 if kind in preferred else 1.0) for kind in kinds]
    order = sorted(range(len(kinds)), key=lambda index: -keys[index])
    return tuple(order[: rng.randint(1, min(2, len(kinds)))])


def _sample_layout(
    rng: random.Random,
    aspect: tuple[float, float],
    num_objects: int,
    standing: tuple[int, ...],
    support_kind: str | None,
) -> tuple[list[str], list[tuple[float, float, float, float]], Support | None, tuple[int, ...]]:
    """Draws sizes, frames and the support, anew as a whole until everything fits; also says which objects stand."""
    sizes: list[str] = []
    for attempt in range(LAYOUT_ATTEMPTS):
        if attempt == PAIR_ATTEMPTS:
            standing = standing[:1]
        # The longer nothing fits, the smaller the objects and the closer to one another.
        crowding = attempt / LAYOUT_ATTEMPTS
        if attempt % LAYOUTS_PER_SIZES == 0:
            big_probability = BIG_PROBABILITY * (1 - crowding)
            sizes = ["big" if rng.random() < big_probability else "small" for _ in range(num_objects)]
        support = _sample_support(rng, aspect, support_kind)
        sides = [_sample_sides(rng, size, aspect, crowding) for size in sizes]
        frames = _place_all(rng, aspect, sides, standing, support, crowding)
        if frames is not None:
            return sizes, frames, support, standing
    raise ValueError(
        f"Expected {num_objects} objects to be placeable in a picture of aspect {aspect}, but got no layout in "
        f"{LAYOUT_ATTEMPTS} attempts. Ask for fewer objects or a squarer picture."
    )


def _sample_sides(rng: random.Random, size: str, aspect: tuple[float, float], crowding: float) -> tuple[float, float]:
    smallest, largest = SIDE_RANGES[size]
    side = rng.uniform(smallest, largest - crowding * (largest - smallest)) * _size_factor(aspect)
    stretch = math.sqrt(rng.uniform(0.85, 1.15))
    return side * stretch, side / stretch


def _size_factor(aspect: tuple[float, float]) -> float:
    return min(1.0, min(aspect) / FULL_SIZE_SHORT_SIDE)


def _sample_support(rng: random.Random, aspect: tuple[float, float], kind: str | None) -> Support | None:
    width, height = aspect
    if kind is None:
        return None
    if kind == "floor":
        top = height * rng.uniform(0.74, 0.84)
        return Support("floor", top, 0.0, width, height - top, 0.0, rng.choice(("wood", "tile")))
    if kind == "hill":
        top = height * rng.uniform(0.74, 0.84)
        crest_shift = width * rng.uniform(-0.25, 0.25)
        fall = 0.6 * (height - top) / (0.75 * width) ** 2
        return Support("hill", top, crest_shift, width + crest_shift, height - top, fall, "grass")
    factor, side = _size_factor(aspect), rng.choice(("left", "right"))
    top, length = height * rng.uniform(0.45, 0.8), width * min(1.0, rng.uniform(0.55, 0.75) * max(1.0, height / width))
    left, right = (0.0, length) if side == "left" else (width - length, width)
    return Support("branch", top, left, right, rng.uniform(0.034, 0.044) * factor, 0.022 * factor, side)


def _place_all(
    rng: random.Random,
    aspect: tuple[float, float],
    sides: list[tuple[float, float]],
    standing: tuple[int, ...],
    support: Support | None,
    crowding: float,
) -> list[tuple[float, float, float, float]] | None:
    """Places the standing objects, then the floating ones from large to small; None when one fits nowhere."""
    frames: dict[int, tuple[float, float, float, float]] = {}
    floating = sorted(set(range(len(sides))) - set(standing), key=lambda index: -sides[index][0] * sides[index][1])
    for index in (*standing, *floating):
        for _ in range(PLACES_PER_OBJECT):
            if support is not None and index in standing:
                frame = _propose_standing(rng, aspect, sides[index], support)
            else:
                snapped_to = [*frames.values(), None] if rng.random() < crowding else []
                frame = _propose_floating(rng, aspect, sides[index], support, snapped_to)
            if frame is not None and not any(too_close(frame, other, MIN_GAP) for other in frames.values()):
                frames[index] = frame
                break
        else:
            return None
    return [frames[index] for index in range(len(sides))]


def _propose_standing(
    rng: random.Random, aspect: tuple[float, float], sides: tuple[float, float], support: Support
) -> tuple[float, float, float, float] | None:
    width, height = sides
    low, high = max(0.0, support.left), min(aspect[0], support.right)
    if support.kind == "branch":
        # The thin tip carries nothing.
        tip = 0.1 * (high - low)
        low, high = (low, high - tip) if support.style == "left" else (low + tip, high)
    if high - low < width:
        return None
    x0 = rng.uniform(low, high - width)
    bottom = support.top_at(x0 + width / 2) + _standing_depth(rng, support)
    y0 = bottom - height
    return (x0, y0, x0 + width, bottom) if y0 >= 0 and bottom <= aspect[1] else None


def _standing_depth(rng: random.Random, support: Support) -> float:
    """How far below the support's top edge an object stands: in the bark, in the grass, or out on the floor."""
    if support.kind == "branch":
        return 0.15 * support.thickness
    if support.kind == "hill":
        return 0.015
    return support.thickness * rng.uniform(0.2, 0.6)


def _propose_floating(
    rng: random.Random,
    aspect: tuple[float, float],
    sides: tuple[float, float],
    support: Support | None,
    snapped_to: list[tuple[float, float, float, float] | None],
) -> tuple[float, float, float, float] | None:
    """Proposes a place anywhere on the page or, given frames (None is the page's edge), right beside one of them."""
    width, height = sides
    if width > aspect[0] or height > aspect[1]:
        return None
    x0, y0 = rng.uniform(0, aspect[0] - width), rng.uniform(0, aspect[1] - height)
    if snapped_to:
        x_neighbor, y_neighbor = rng.choice(snapped_to), rng.choice(snapped_to)
        x0 = rng.choice((0.0, aspect[0] - width) if x_neighbor is None else _beside(x_neighbor, 0, width))
        y0 = rng.choice((0.0, aspect[1] - height) if y_neighbor is None else _beside(y_neighbor, 1, height))
    frame = (x0, y0, x0 + width, y0 + height)
    inside = x0 >= 0 and y0 >= 0 and frame[2] <= aspect[0] and frame[3] <= aspect[1]
    return frame if inside and (support is None or not _touches_support(frame, support)) else None


def _beside(frame: tuple[float, float, float, float], axis: int, length: float) -> tuple[float, float]:
    """Where a frame of this length starts, to lie right before or right after another one along an axis."""
    return frame[axis] - MIN_GAP - length, frame[axis + 2] + MIN_GAP


def _touches_support(frame: tuple[float, float, float, float], support: Support) -> bool:
    if support.kind == "branch":
        return too_close(frame, _branch_extent(support), 0.0)
    crest = (support.left + support.right) / 2
    highest = support.top_at(min(max(crest, frame[0]), frame[2]))
    return frame[3] > highest - MIN_GAP / 2


def _branch_extent(support: Support) -> tuple[float, float, float, float]:
    """Frame in scene units that holds the bough with its twigs and leaves."""
    reach = 1.6 * support.thickness
    left, right = (0.0, 0.7 * reach) if support.style == "left" else (0.7 * reach, 0.0)
    bottom = support.top + support.thickness + 0.8 * reach
    return support.left - left, support.top - support.rise - 0.6 * reach, support.right + right, bottom


def _sample_background(rng: random.Random, support: Support | None) -> Background:
    tones = (rng.uniform(0.05, 0.2), rng.uniform(0.92, 1.0)), (rng.uniform(0.02, 0.1), 0.98)
    top, bottom = (_pastel(rng.random(), *tone) for tone in tones)
    return Background(top, bottom, rng.randrange(1 << 30), () if support is None else (support,))


def _pastel(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
