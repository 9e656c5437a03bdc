"""The scenes of the picture-book world: which objects a picture holds and where they lie.

All geometry is in scene units: the long side of the picture is 1.0 and the origin is its top-left corner, so one scene
looks the same at every resolution. A scene is a frozen record; `sample_scene` makes one from a random generator and
`drawing.render` draws it. Objects never overlap one another; what they stand on is part of the background.
"""

from __future__ import annotations

import colorsys
import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

KINDS = ("ball", "box", "star", "tree", "house", "cat", "dog", "bird")
COLORS = {
    "red": (222, 52, 48),
    "green": (58, 168, 80),
    "blue": (46, 104, 224),
    "yellow": (250, 210, 50),
    "purple": (150, 72, 192),
    "orange": (246, 136, 30),
    "brown": (148, 94, 54),
    "gray": (146, 146, 150),
}
PATTERNS = ("plain", "striped", "dotted", "checked")
SIZES = ("small", "big")
SUPPORTS = ("branch", "floor", "hill")
COMPOSITIONS = {"binding": 0.5, "one_kind": 0.15, "one_color": 0.15, "free": 0.2}
COLLARED_KINDS = ("cat", "dog")

MIN_GAP = 0.02
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


@dataclass(frozen=True)
class Support:
    """What objects can stand on; it belongs to the background.

    Attributes:
        kind: One of `SUPPORTS`.
        top: Height of the top edge in scene units: of the bough at its root, of the floor, or of the hill's crest.
        left: Left end of the support in scene units.
        right: Right end of the support in scene units.
        thickness: Of the bough at its root; of the floor and the hill, down to the bottom of the picture.
        rise: How far the bough bends up in its middle, or how far the hill falls one scene unit from its crest.
        style: "left" or "right" (the bough's root), "wood" or "tile" (the floor), "grass" (the hill).
    """

    kind: str
    top: float
    left: float
    right: float
    thickness: float
    rise: float = 0.0
    style: str = "grass"

    def __post_init__(self) -> None:
        """Checks the kind, its style and the measures."""
        _check_member("support kind", self.kind, SUPPORTS)
        styles = {"branch": ("left", "right"), "floor": ("wood", "tile"), "hill": ("grass",)}
        _check_member(f"style of a {self.kind}", self.style, styles[self.kind])
        if not self.left < self.right or self.thickness <= 0:
            raise ValueError(
                f"Expected support {self.kind} to be wider and thicker than 0, but got left {self.left}, "
                f"right {self.right}, thickness {self.thickness}. Give it left < right and thickness > 0."
            )

    def top_at(self, x: float) -> float:
        """Height of the top edge at `x`, in scene units."""
        if self.kind == "floor":
            return self.top
        middle = (self.left + self.right) / 2
        if self.kind == "hill":
            return self.top + self.rise * (x - middle) ** 2
        along = min(max((x - self.left) / (self.right - self.left), 0.0), 1.0)
        return self.top - self.rise * math.sin(math.pi * along)


@dataclass(frozen=True)
class Background:
    """The page: a soft gradient, paper grain and at most one support.

    Attributes:
        sky_top: RGB colour of the top of the page.
        sky_bottom: RGB colour of the bottom of the page.
        seed: Seed of the paper grain.
        supports: Zero or one `Support`.
    """

    sky_top: tuple[int, int, int]
    sky_bottom: tuple[int, int, int]
    seed: int = 0
    supports: tuple[Support, ...] = ()

    def __post_init__(self) -> None:
        """Checks the number of supports."""
        if len(self.supports) > 1:
            raise ValueError(
                f"Expected a background to be given at most one support, but got {len(self.supports)}. Keep one."
            )


@dataclass(frozen=True)
class SceneObject:
    """One object of a scene.

    Attributes:
        kind: One of `KINDS`.
        color: A name in `COLORS`.
        pattern: One of `PATTERNS`.
        size: One of `SIZES`.
        frame: x0, y0, x1, y1 in scene units; the drawing touches all four sides.
        collar: Whether a cat or dog wears a contrasting band round its neck.
        support: What it stands on, one of `SUPPORTS`, or None when it floats on the page.
        flipped: Mirrored left to right.
        shade: Brightness factor of its colour.
    """

    kind: str
    color: str
    pattern: str
    size: str
    frame: tuple[float, float, float, float]
    collar: bool = False
    support: str | None = None
    flipped: bool = False
    shade: float = 1.0

    def __post_init__(self) -> None:
        """Checks every attribute."""
        _check_member("kind", self.kind, KINDS)
        _check_member("color", self.color, tuple(COLORS))
        _check_member("pattern", self.pattern, PATTERNS)
        _check_member("size", self.size, SIZES)
        if self.support is not None:
            _check_member("support", self.support, SUPPORTS)
        if len(self.frame) != 4 or not (self.frame[0] < self.frame[2] and self.frame[1] < self.frame[3]):
            raise ValueError(
                f"Expected frame to be x0, y0, x1, y1 with x0 < x1 and y0 < y1, but got {self.frame}. Swap corners."
            )
        if self.collar and self.kind not in COLLARED_KINDS:
            raise ValueError(
                f"Expected the wearer of a collar to be a cat or a dog, but got '{self.kind}'. Pass collar=False."
            )
        if not 0.5 <= self.shade <= 1.5:
            raise ValueError(f"Expected shade to be in [0.5, 1.5], but got {self.shade}. Use 1.0 for the pure colour.")


@dataclass(frozen=True)
class Scene:
    """A picture to draw.

    Attributes:
        aspect: Width and height in scene units; the longer one is 1.0.
        background: The page and what stands in it.
        objects: The objects, none overlapping another.
    """

    aspect: tuple[float, float]
    background: Background
    objects: tuple[SceneObject, ...]

    def __post_init__(self) -> None:
        """Checks that the objects fit the picture, one another and their support."""
        _check_aspect(self.aspect)
        for index, thing in enumerate(self.objects):
            _check_inside(index, thing.frame, self.aspect)
            for other in range(index):
                _check_gap(other, self.objects[other].frame, index, thing.frame)
        _check_standing(self.background, self.objects)


@dataclass(frozen=True)
class Rendered:
    """A drawn scene.

    Attributes:
        image: RGB picture `[height, width]`.
        masks: bool `[num_objects, height, width]`, true where an object covers at least half of the pixel.
        boxes_xyxy: One tight, half-open pixel box `(x0, y0, x1, y1)` per object.
    """

    image: Image.Image
    masks: np.ndarray
    boxes_xyxy: tuple[tuple[int, int, int, int], ...]

    def __post_init__(self) -> None:
        """Checks that masks, boxes and image match."""
        expected = (len(self.boxes_xyxy), self.image.height, self.image.width)
        if self.masks.shape != expected:
            raise ValueError(
                f"Expected masks to be of shape {expected}, but got {self.masks.shape}. Pass one mask per box."
            )


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
    _check_aspect(aspect)
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


def example_scenes() -> dict[str, Scene]:
    """Three hand-made pictures, each fit for queries that single out one object.

    Returns:
        "bird" (for "birds." and "the bird on the branch"), "cat" (for "a cat on the floor") and "dog" (for "a small dog
        wearing a collar"), each of aspect 4:3.
    """
    aspect = (1.0, 0.75)
    branch = Support("branch", 0.50, 0.0, 0.66, 0.042, 0.022, "left")
    floor = Support("floor", 0.56, 0.0, 1.0, 0.19, 0.0, "wood")
    hill = Support("hill", 0.60, 0.0, 1.0, 0.15, 0.30, "grass")
    bird = (
        _thing("bird", "red", "plain", "big", (0.24, 0.166, 0.56, 0.482), support="branch", flipped=True),
        _thing("star", "yellow", "plain", "small", (0.03, 0.05, 0.215, 0.23)),
        _thing("house", "blue", "striped", "small", (0.74, 0.07, 0.96, 0.30)),
        _thing("cat", "orange", "striped", "small", (0.715, 0.45, 0.945, 0.70)),
    )
    cat = (
        _thing("cat", "gray", "striped", "big", (0.30, 0.285, 0.65, 0.66), support="floor"),
        _thing("ball", "red", "dotted", "small", (0.735, 0.32, 0.925, 0.51)),
        _thing("bird", "blue", "plain", "small", (0.06, 0.08, 0.28, 0.29), flipped=True),
        _thing("star", "yellow", "checked", "small", (0.70, 0.06, 0.91, 0.26)),
    )
    dog = (
        _thing("dog", "brown", "plain", "small", (0.13, 0.395, 0.36, 0.63), support="hill", collar=True, flipped=True),
        _thing("dog", "orange", "dotted", "big", (0.52, 0.255, 0.89, 0.625), support="hill"),
        _thing("tree", "green", "plain", "small", (0.07, 0.06, 0.29, 0.29)),
        _thing("ball", "purple", "checked", "small", (0.385, 0.045, 0.575, 0.235)),
    )
    return {
        "bird": Scene(aspect, Background((206, 230, 246), (252, 244, 226), 3, (branch,)), bird),
        "cat": Scene(aspect, Background((250, 234, 214), (252, 246, 232), 5, (floor,)), cat),
        "dog": Scene(aspect, Background((200, 228, 248), (250, 246, 230), 7, (hill,)), dog),
    }


def _thing(kind: str, color: str, pattern: str, size: str, frame: tuple, **details) -> SceneObject:
    return SceneObject(kind, color, pattern, size, frame, **details)


# ---------------------------------------------------------------------------------------------------------------------
# Checks
# ---------------------------------------------------------------------------------------------------------------------


def _check_member(what: str, value: object, allowed: tuple) -> None:
    if value not in allowed:
        raise ValueError(f"Expected {what} to be one of {', '.join(allowed)}, but got '{value}'. Choose one of these.")


def _check_aspect(aspect: tuple[float, float]) -> None:
    if len(aspect) != 2 or abs(max(aspect) - 1.0) > 1e-6 or min(aspect) < 0.2:
        raise ValueError(
            f"Expected aspect to be (width, height) with the longer side 1.0 and the other at least 0.2, but got "
            f"{tuple(aspect)}. Divide both by the longer one."
        )


def _check_inside(index: int, frame: tuple, aspect: tuple[float, float]) -> None:
    slack = 1e-6
    if frame[0] < -slack or frame[1] < -slack or frame[2] > aspect[0] + slack or frame[3] > aspect[1] + slack:
        raise ValueError(
            f"Expected the frame of object {index} to be inside the picture {aspect}, but got {frame}. Move it."
        )


def _check_gap(first: int, first_frame: tuple, second: int, second_frame: tuple) -> None:
    if _too_close(first_frame, second_frame, MIN_GAP - 1e-6):
        raise ValueError(
            f"Expected objects {first} and {second} to be at least {MIN_GAP} apart, but got {first_frame} and "
            f"{second_frame}. Move one of them."
        )


def _check_standing(background: Background, objects: tuple[SceneObject, ...]) -> None:
    present = tuple(support.kind for support in background.supports)
    standing = [thing.support for thing in objects if thing.support is not None]
    if any(kind not in present for kind in standing):
        raise ValueError(
            f"Expected what objects stand on to be in the background {present}, but got {standing}. Add the support."
        )
    if len(standing) > 2:
        raise ValueError(
            f"Expected the objects standing on a support to be at most two, but got {len(standing)}. Let some float."
        )


# ---------------------------------------------------------------------------------------------------------------------
# Sampling
# ---------------------------------------------------------------------------------------------------------------------


def _sample_plan(rng: random.Random, composition: str | None, num_objects: int | None) -> list[tuple[str, str, str]]:
    """Draws color, kind and pattern of every object, in random order."""
    if composition is None:
        names = list(COMPOSITIONS) if num_objects in (None, 4) else ["free"]
        composition = rng.choices(names, [COMPOSITIONS[name] for name in names])[0]
    _check_member("composition", composition, tuple(COMPOSITIONS))
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
            if frame is not None and not any(_too_close(frame, other, MIN_GAP) for other in frames.values()):
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
        return _too_close(frame, _branch_extent(support), 0.0)
    crest = (support.left + support.right) / 2
    highest = support.top_at(min(max(crest, frame[0]), frame[2]))
    return frame[3] > highest - MIN_GAP / 2


def _branch_extent(support: Support) -> tuple[float, float, float, float]:
    """Frame in scene units that holds the bough with its twigs and leaves."""
    reach = 1.6 * support.thickness
    left, right = (0.0, 0.7 * reach) if support.style == "left" else (0.7 * reach, 0.0)
    bottom = support.top + support.thickness + 0.8 * reach
    return support.left - left, support.top - support.rise - 0.6 * reach, support.right + right, bottom


def _too_close(first: tuple, second: tuple, gap: float) -> bool:
    return (
        first[0] < second[2] + gap
        and second[0] < first[2] + gap
        and first[1] < second[3] + gap
        and second[1] < first[3] + gap
    )


def _sample_background(rng: random.Random, support: Support | None) -> Background:
    tones = (rng.uniform(0.05, 0.2), rng.uniform(0.92, 1.0)), (rng.uniform(0.02, 0.1), 0.98)
    top, bottom = (_pastel(rng.random(), *tone) for tone in tones)
    return Background(top, bottom, rng.randrange(1 << 30), () if support is None else (support,))


def _pastel(hue: float, saturation: float, value: float) -> tuple[int, int, int]:
    red, green, blue = colorsys.hsv_to_rgb(hue, saturation, value)
    return round(255 * red), round(255 * green), round(255 * blue)
