"""The page of one picture: its box, each chosen head's map, and the combined map."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from figures.layout import Label, plan_body
from figures.overlay import fade, fit, lay_over
from figures.page import finish_page, key_items, pixel_size, start_page
from figures.panels import draw_box, draw_cell_outline, draw_panel
from figures.records import Box, FigurePath
from figures.text import quote
from figures.theme import NO_BOX
from lab.records import Grid, HeadChoice, HeadScore, Localization


def draw_top_heads(
    path: FigurePath,
    image: Image.Image,
    maps: np.ndarray,
    grid: Grid,
    choice: HeadChoice,
    localization: Localization,
    query: str,
    *,
    sigma: float,
    truth_xyxy: Box | None,
    iou: float | None,
    model_name: str | None,
    dpi: int,
) -> Figure:
    """Draw the picture with its box, each chosen head's map over it, and the combined map with the mask's outline.

    Arguments are those of `viz.draw_top_heads`, checked, with `maps` smoothed and `iou` of the two boxes, if there are.
    """
    panels = [(_head_label(score), map_) for score, map_ in zip(choice.heads, maps)]
    panels.append((_combined_label(len(maps), sigma), localization.combined_map))
    hero_label = _prediction_label(localization.box_xyxy, iou)

    body = plan_body(image.width / image.height, [hero_label, *(label for label, _ in panels)])
    subtitle = _subtitle(model_name, image.size, choice, localization.box_xyxy)
    page = start_page(body.size_wh, quote(query), subtitle, key_items(truth_xyxy), dpi)

    hero_pixels = fit(image, pixel_size(page, body.hero))
    place = draw_panel(page, body.hero, hero_label, body.hero_rows, hero_pixels, image.size)
    draw_box(page, place, "predicted", localization.box_xyxy)
    draw_box(page, place, "truth", truth_xyxy)
    faded = fade(fit(hero_pixels, pixel_size(page, body.slots[0])))
    for slot, (label, map_) in zip(body.slots, panels):
        pixels = lay_over(faded, map_, grid, image.size)
        place = draw_panel(page, slot, label, body.label_rows, pixels, image.size)
    draw_box(page, place, "predicted", localization.box_xyxy, weight=0.7)
    draw_cell_outline(page, place, localization.cell_mask, grid)
    return finish_page(page, path)


def _head_label(score: HeadScore) -> Label:
    """Name, entropy and sum of a head."""
    entropy = "∞" if math.isinf(score.spatial_entropy) else f"{score.spatial_entropy:.3f}"
    return Label(score.name, (f"entropy {entropy}", f"sum {score.attn_sum:.3f}"))


def _combined_label(num_heads: int, sigma: float) -> Label:
    """What the last panel shows."""
    return Label("Combined", (f"{num_heads} head{'s' if num_heads > 1 else ''}", f"sigma {sigma:g}"))


def _prediction_label(box_xyxy: Box | None, iou: float | None) -> Label:
    """What the first panel shows."""
    if box_xyxy is None:
        return Label("Picture", (NO_BOX,))
    return Label("Picture", () if iou is None else (f"IoU {iou:.2f}",))


def _subtitle(model_name: str | None, image_size_wh: tuple[int, int], choice: HeadChoice, box_xyxy: Box | None) -> str:
    """The quiet line below the query."""
    source = {"automatic": "heads chosen on this picture", "manual": "heads named by hand", "heads_file": "fixed heads"}
    box = NO_BOX if box_xyxy is None else "box " + ", ".join(f"{edge:.0f}" for edge in box_xyxy)
    parts = [model_name, f"{image_size_wh[0]} × {image_size_wh[1]} px", source[choice.source], box]
    return " · ".join(part for part in parts if part)
