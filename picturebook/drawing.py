"""Draws the scenes of the picture-book world, with the exact mask and box of every object."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw

from picturebook.scenes import COLORS, Background, Rendered, Scene, SceneObject, Support
from picturebook.shapes import kind_parts, support_parts

MIN_LONG_SIDE = 32
PATTERN_PERIOD = 0.062
PATTERN_DARKNESS = 0.4
OUTLINE_WIDTH = 0.005

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
    labels = _draw_labels(_labelled(kind_parts(thing.kind, thing.collar)), extent, view, stretch, shift)
    solid = labels > 0
    outline = max(1, round(OUTLINE_WIDTH * max(view.scale_xy) * view.supersample))
    labels[solid & ~_eroded(solid, outline)] = _LABELS["outline"]
    dark = _pattern_field(thing, extent, view)
    if dark is not None:
        labels += dark * np.uint8(len(_PAINTS))
    layer = _average(_object_palette(thing.color, thing.shade)[labels], view.supersample)
    _composite(canvas, layer[:, :, :3] * _soft_light(layer.shape), layer[:, :, 3], extent, mask)


def _labelled(parts: Iterable[tuple[str, np.ndarray]]) -> list[tuple[int, np.ndarray]]:
    return [(_LABELS[paint], points) for paint, points in parts]


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
    parts = _labelled(support_parts(support, scene))
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
