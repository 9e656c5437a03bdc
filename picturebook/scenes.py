"""The scenes of the picture-book world: which objects a picture holds and where they lie.

All geometry is in scene units: the long side of the picture is 1.0 and the origin is its top-left corner, so one scene
looks the same at every resolution. A scene is a frozen record; `sampling.sample_scene` makes one from a random
generator and `drawing.render` draws it. Objects never overlap one another; what they stand on is background.
"""

from __future__ import annotations

import math
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
COLLARED_KINDS = ("cat", "dog")

MIN_GAP = 0.02


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
        check_member("support kind", self.kind, SUPPORTS)
        styles = {"branch": ("left", "right"), "floor": ("wood", "tile"), "hill": ("grass",)}
        check_member(f"style of a {self.kind}", self.style, styles[self.kind])
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
        check_member("kind", self.kind, KINDS)
        check_member("color", self.color, tuple(COLORS))
        check_member("pattern", self.pattern, PATTERNS)
        check_member("size", self.size, SIZES)
        if self.support is not None:
            check_member("support", self.support, SUPPORTS)
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
        check_aspect(self.aspect)
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


def check_member(what: str, value: object, allowed: tuple) -> None:
    """Refuse a value that is not among those allowed."""
    if value not in allowed:
        raise ValueError(f"Expected {what} to be one of {', '.join(allowed)}, but got '{value}'. Choose one of these.")


def check_aspect(aspect: tuple[float, float]) -> None:
    """Refuse a shape whose longer side is not 1.0, or that is too narrow."""
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
    if too_close(first_frame, second_frame, MIN_GAP - 1e-6):
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


def too_close(first: tuple, second: tuple, gap: float) -> bool:
    """Whether two frames overlap, or lie less than `gap` scene units apart."""
    return (
        first[0] < second[2] + gap
        and second[0] < first[2] + gap
        and first[1] < second[3] + gap
        and second[1] < first[3] + gap
    )
