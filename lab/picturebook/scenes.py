"""The picture-book world: draws scenes of several objects, with their exact masks and boxes.

All geometry is in scene units: the long side of the picture is 1.0 and the origin is its top-left corner, so one scene
looks the same at every resolution. A scene is a frozen record; `sample_scene` makes one from a random generator and
`render` draws it. Objects never overlap one another; what they stand on is part of the background.
"""

from __future__ import annotations

import colorsys
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from PIL import Image, ImageDraw

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
MIN_LONG_SIDE = 32
PATTERN_PERIOD = 0.062
PATTERN_DARKNESS = 0.4
OUTLINE_WIDTH = 0.005
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


def render(
    scene: Scene,
    image_size_wh: tuple[int, int] | None = None,
    long_side: int | None = None,
    supersample: int = 3,
) -> Rendered:
    """Draws a scene.

    Args:
        scene: What to draw.
        image_size_wh: Width and height in pixels, of the scene's aspect.
        long_side: Pixels of the longer side, in place of `image_size_wh`; 640 when both are None.
        supersample: Drawn this many times larger, then averaged down.

    Returns:
        The picture with one mask and one box per object.

    Raises:
        ValueError: If the size is too small, has another aspect than the scene, or is given twice.
    """
    image_size_wh = _resolve_size(scene.aspect, image_size_wh, long_side)
    if supersample < 1:
        raise ValueError(f"Expected supersample to be at least 1, but got {supersample}. Use 2 or 3.")
    view = _View(
        image_size_wh, (image_size_wh[0] / scene.aspect[0], image_size_wh[1] / scene.aspect[1]), int(supersample)
    )
    canvas = _paint_page(scene.background, image_size_wh)
    for support in scene.background.supports:
        _paint_support(canvas, support, scene, view)
    masks = np.zeros((len(scene.objects), image_size_wh[1], image_size_wh[0]), dtype=bool)
    for mask, thing in zip(masks, scene.objects):
        _paint_object(canvas, mask, thing, scene, view)
    image = Image.fromarray(np.clip(canvas + 0.5, 0, 255).astype(np.uint8))
    return Rendered(image, masks, tuple(_tight_box(mask) for mask in masks))


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
        _thing("ball", "red", "dotted", "small", (0.735, 0.48, 0.925, 0.67), support="floor"),
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


def _resolve_size(
    aspect: tuple[float, float], image_size_wh: tuple[int, int] | None, long_side: int | None
) -> tuple[int, int]:
    if image_size_wh is not None and long_side is not None:
        raise ValueError(
            f"Expected image_size_wh or long_side to be given, but got both {image_size_wh} and {long_side}. Drop one."
        )
    if image_size_wh is None:
        long_side = 640 if long_side is None else long_side
        image_size_wh = (max(1, round(aspect[0] * long_side)), max(1, round(aspect[1] * long_side)))
    width, height = (int(side) for side in image_size_wh)
    if max(width, height) < MIN_LONG_SIDE:
        raise ValueError(
            f"Expected the long side to be at least {MIN_LONG_SIDE} pixels, but got {max(width, height)}. Draw larger."
        )
    ideal = max(width, height)
    error = max(abs(width - aspect[0] * ideal), abs(height - aspect[1] * ideal))
    if error > max(1.0, 0.02 * ideal):
        raise ValueError(
            f"Expected image_size_wh to be of the scene's aspect {aspect}, but got {(width, height)}. "
            "Pass long_side, or sample the scene with this aspect."
        )
    return width, height


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


# ---------------------------------------------------------------------------------------------------------------------
# Drawing
# ---------------------------------------------------------------------------------------------------------------------

# A drawing is a stack of polygons, each with a paint. Paints of the first group tint the object's own colour, so its
# pattern shows in them: (brightness, share of white). The others are fixed colours.
_TINTS = {
    "fill": (1.0, 0.0),
    "soft": (0.88, 0.0),
    "deep": (0.76, 0.0),
    "crease": (0.55, 0.0),
    "gleam": (1.0, 0.3),
    "pale": (1.0, 0.55),
}
_FIXED = {
    "ink": (44, 36, 44),
    "white": (255, 253, 246),
    "bark": (112, 78, 54),
    "bark_dark": (86, 58, 42),
    "amber": (244, 172, 60),
    "blush": (240, 150, 140),
    "collar": (255, 250, 236),
    "tag": (250, 196, 60),
    "glass": (206, 234, 246),
    "leaf": (136, 176, 104),
    "leaf_dark": (108, 150, 84),
    "grass": (176, 208, 138),
    "grass_dark": (156, 192, 120),
    "wood": (226, 198, 160),
    "wood_dark": (202, 170, 132),
    "tile": (226, 224, 216),
    "tile_dark": (204, 204, 200),
}
_PAINTS = ("outside", "outline", *_TINTS, *_FIXED)
_LABELS = {name: label for label, name in enumerate(_PAINTS)}


@dataclass(frozen=True)
class _View:
    """How scene units become pixels."""

    image_size_wh: tuple[int, int]
    scale_xy: tuple[float, float]
    supersample: int


def _paint_page(background: Background, image_size_wh: tuple[int, int]) -> np.ndarray:
    """The empty page: float32 `[height, width, 3]` in [0, 255]."""
    width, height = image_size_wh
    down = np.linspace(0.0, 1.0, height, dtype=np.float32)[:, None, None]
    top, bottom = np.array((background.sky_top, background.sky_bottom), dtype=np.float32)
    noise = np.random.RandomState(background.seed % (1 << 32))
    clouds = Image.fromarray(noise.uniform(-1, 1, (5, 5)).astype(np.float32)).resize(
        image_size_wh, Image.Resampling.BICUBIC
    )
    paper = 4 * np.asarray(clouds) + noise.randint(-2, 3, (height, width), dtype=np.int8)
    return paper[:, :, None] + (top + down * (bottom - top))


def _paint_object(canvas: np.ndarray, mask: np.ndarray, thing: SceneObject, scene: Scene, view: _View) -> None:
    """Draws one object into `canvas` and its pixels into `mask`."""
    if thing.support in ("floor", "hill"):
        _paint_shadow(canvas, thing.frame, next(s for s in scene.background.supports if s.kind == thing.support), view)
    x0, y0, x1, y1 = thing.frame
    stretch, shift = ((x0 - x1, y1 - y0), (x1, y0)) if thing.flipped else ((x1 - x0, y1 - y0), (x0, y0))
    extent = _pixel_extent(thing.frame, view, OUTLINE_WIDTH)
    labels = _draw_labels(_kind_parts(thing.kind, thing.collar), extent, view, stretch, shift)
    solid = labels > 0
    outline = max(1, round(OUTLINE_WIDTH * max(view.scale_xy) * view.supersample))
    labels[solid & ~_eroded(solid, outline)] = _LABELS["outline"]
    dark = _pattern_field(thing, extent, view)
    if dark is not None:
        labels += dark * np.uint8(len(_PAINTS))
    layer = _average(_object_palette(thing.color, thing.shade)[labels], view.supersample)
    _composite(canvas, layer[:, :, :3] * _soft_light(layer.shape), layer[:, :, 3], extent, mask)


def _pixel_extent(frame: tuple[float, float, float, float], view: _View, margin: float) -> tuple[int, int, int, int]:
    """Whole-pixel box round a frame, with a margin in scene units and one pixel more."""
    (scale_x, scale_y), extra = view.scale_xy, math.ceil(margin * max(view.scale_xy)) + 1
    return (
        math.floor(frame[0] * scale_x) - extra,
        math.floor(frame[1] * scale_y) - extra,
        math.ceil(frame[2] * scale_x) + extra,
        math.ceil(frame[3] * scale_y) + extra,
    )


def _draw_labels(
    parts: Sequence[tuple[int, np.ndarray]],
    extent: tuple[int, int, int, int],
    view: _View,
    stretch: tuple[float, float] = (1.0, 1.0),
    shift: tuple[float, float] = (0.0, 0.0),
) -> np.ndarray:
    """Draws polygons, later ones on top, after stretching and shifting them to scene units.

    Args:
        parts: (label, points `[n, 2]`) of each polygon.
        extent: Pixel box to draw.
        view: How scene units become pixels.
        stretch: Scene units per unit of the points, in x and y.
        shift: Where the points' origin lies, in scene units.

    Returns:
        uint8 paint labels at the supersampled size of `extent`, 0 where nothing is drawn.
    """
    factor = view.supersample
    image = Image.new("L", ((extent[2] - extent[0]) * factor, (extent[3] - extent[1]) * factor), 0)
    draw = ImageDraw.Draw(image)
    scale = np.array(view.scale_xy) * factor
    # A pixel's centre is half a pixel from its index.
    slope, origin = scale * stretch, scale * shift - np.array(extent[:2]) * factor - 0.5
    for label, points in parts:
        draw.polygon((points * slope + origin).ravel().tolist(), fill=label)
    return np.array(image)


def _eroded(solid: np.ndarray, radius: int) -> np.ndarray:
    """Takes a rim of `radius` pixels off a mask whose border of that width is empty."""
    height, width = solid.shape
    diagonal = max(1, round(0.7 * radius))
    inner = np.zeros_like(solid)
    core = inner[radius:-radius, radius:-radius]
    core[...] = solid[radius:-radius, radius:-radius]
    for dy, dx in ((0, radius), (radius, 0), (diagonal, diagonal), (diagonal, -diagonal)):
        for y, x in ((radius + dy, radius + dx), (radius - dy, radius - dx)):
            core &= solid[y : y + height - 2 * radius, x : x + width - 2 * radius]
    return inner


def _pattern_field(thing: SceneObject, extent: tuple[int, int, int, int], view: _View) -> np.ndarray | None:
    """True where the pattern is dark, anchored to the object's frame; None for a plain object."""
    if thing.pattern == "plain":
        return None
    factor = view.supersample
    x, y = (
        ((np.arange(low * factor, high * factor, dtype=np.float32) + 0.5) / (factor * scale) - anchor) / PATTERN_PERIOD
        for low, high, scale, anchor in (
            (extent[0], extent[2], view.scale_xy[0], thing.frame[0]),
            (extent[1], extent[3], view.scale_xy[1], thing.frame[1]),
        )
    )
    if thing.pattern == "striped":
        return ((x[None, :] + y[:, None]) * np.float32(math.sqrt(0.5))) % 1.0 < 0.45
    if thing.pattern == "checked":
        return (x % 1.0 < 0.5)[None, :] ^ (y % 1.0 < 0.5)[:, None]
    return ((x % 1.0 - 0.5) ** 2)[None, :] + ((y % 1.0 - 0.5) ** 2)[:, None] < 0.34**2


@lru_cache(maxsize=1024)
def _object_palette(color: str, shade: float) -> np.ndarray:
    """Colours of all paints, then of all paints where the pattern is dark: packed RGBA, uint32 `[2 * paints]`."""
    pure = np.array(COLORS[color], dtype=float)
    rows = []
    for darkness in (1.0, PATTERN_DARKNESS):
        tints = [pure * shade * darkness * factor * (1 - white) + 255 * white for factor, white in _TINTS.values()]
        rows += [(0, 0, 0), 0.42 * pure, *tints, *_FIXED.values()]
    return _packed(rows)


def _packed(rows: list) -> np.ndarray:
    """RGBA in one number per colour, opaque but for the paint "outside"."""
    rgba = np.full((len(rows), 4), 255, dtype=np.uint8)
    rgba[:, :3] = np.clip(np.array(rows, dtype=float), 0, 255)
    rgba[:: len(_PAINTS), 3] = 0
    packed = rgba.view(np.uint32)[:, 0]
    packed.setflags(write=False)
    return packed


def _average(packed: np.ndarray, factor: int) -> np.ndarray:
    """Averages packed RGBA down: uint8 `[height, width, 4]`, the last channel being the share that is covered."""
    height, width = packed.shape
    # Pillow weights the colours by alpha here, so the empty part does not tint the rim.
    return np.asarray(Image.fromarray(packed.view(np.uint8).reshape(height, width, 4)).reduce(factor))


def _soft_light(shape: tuple[int, ...]) -> np.ndarray:
    """Light from the top left: a gentle fall-off, `[height, width, 1]`."""
    down = np.linspace(0.07, -0.07, shape[0], dtype=np.float32)[:, None]
    return (1.0 + down + np.linspace(0.03, -0.03, shape[1], dtype=np.float32)[None, :])[:, :, None]


def _composite(
    canvas: np.ndarray,
    rgb: np.ndarray,
    coverage: np.ndarray,
    extent: tuple[int, int, int, int],
    mask: np.ndarray | None = None,
) -> None:
    """Lays a layer over the canvas, cut off at the picture's edge."""
    height, width = canvas.shape[:2]
    x0, y0, x1, y1 = max(extent[0], 0), max(extent[1], 0), min(extent[2], width), min(extent[3], height)
    inside = (slice(y0 - extent[1], y1 - extent[1]), slice(x0 - extent[0], x1 - extent[0]))
    alpha = coverage[inside].astype(np.float32)[:, :, None] / 255.0
    region = canvas[y0:y1, x0:x1]
    region += alpha * (rgb[inside] - region)
    if mask is not None:
        mask[y0:y1, x0:x1] = coverage[inside] >= 128


def _paint_shadow(canvas: np.ndarray, frame: tuple[float, float, float, float], support: Support, view: _View) -> None:
    """Darkens the ground under a standing object softly, and nothing above the ground."""
    (scale_x, scale_y), (height, width) = view.scale_xy, canvas.shape[:2]
    radius_x, radius_y = 0.56 * (frame[2] - frame[0]) * scale_x, 0.1 * (frame[3] - frame[1]) * scale_y
    center_x, center_y = (frame[0] + frame[2]) / 2 * scale_x, frame[3] * scale_y - 0.2 * radius_y
    x0, x1 = max(0, int(center_x - 1.3 * radius_x)), min(width, int(center_x + 1.3 * radius_x) + 1)
    y0, y1 = max(0, int(center_y - 1.5 * radius_y)), min(height, int(center_y + 1.5 * radius_y) + 1)
    x, y = np.arange(x0, x1, dtype=np.float32) + 0.5, np.arange(y0, y1, dtype=np.float32) + 0.5
    horizon = np.array([support.top_at(column / scale_x) * scale_y for column in x], dtype=np.float32)
    ground = np.clip(y[:, None] - horizon[None, :] + 0.5, 0, 1)
    across, down = ((x - center_x) / radius_x) ** 2, ((y - center_y) / radius_y) ** 2
    strength = 0.34 * ground * np.exp(-2.0 * (across[None, :] ** 2 + down[:, None]))
    canvas[y0:y1, x0:x1] *= 1.0 - strength[:, :, None]


def _paint_support(canvas: np.ndarray, support: Support, scene: Scene, view: _View) -> None:
    builder = {"branch": _branch_parts, "floor": _floor_parts, "hill": _hill_parts}[support.kind]
    parts = [(_LABELS[paint], points) for paint, points in builder(support, scene)]
    corners = np.concatenate([points for _, points in parts])
    low, high = np.maximum(corners.min(axis=0), 0), np.minimum(corners.max(axis=0), scene.aspect)
    extent = _pixel_extent((*low, *high), view, 0.0)
    # Supports use fixed paints only, which are the same in every palette.
    layer = _average(_object_palette("brown", 1.0)[_draw_labels(parts, extent, view)], view.supersample)
    _composite(canvas, layer[:, :, :3].astype(np.float32), layer[:, :, 3], extent)


def _tight_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
    if columns.size == 0:
        return (0, 0, 0, 0)
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


# ---------------------------------------------------------------------------------------------------------------------
# Shapes of the supports, in scene units
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
# Shapes of the objects: drawn on a sheet of about 100 x 100, facing left, then fitted to the unit square
# ---------------------------------------------------------------------------------------------------------------------


@cache
def _kind_parts(kind: str, collar: bool) -> tuple[tuple[int, np.ndarray], ...]:
    """The polygons of a kind in the unit square, whose four sides they touch, as (label, points `[n, 2]`)."""
    parts = _DRAWINGS[kind](collar)
    corners = np.concatenate([points for _, points in parts])
    low, high = corners.min(axis=0), corners.max(axis=0)
    return tuple((_LABELS[paint], (points - low) / (high - low)) for paint, points in parts)


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
