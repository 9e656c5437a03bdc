"""The page of one picture: its box, each chosen head's map, and the combined map."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from figures.layout import Label, Slot, plan_body
from figures.overlay import fade, fit, lay_over
from figures.page import KeyItem, Page, finish_page, heat_item, pixel_size, start_page
from figures.panels import draw_box, draw_cell_outline, draw_panel
from figures.records import FigurePath, TopHeads
from figures.text import quote
from figures.theme import MOST_ASPECT, MOST_PANELS, NO_BOX
from lab.records import HeadChoice, HeadScore

SOURCES = {"automatic": "heads chosen per image", "manual": "manual heads", "heads_file": "fixed heads"}


def draw_top_heads(path: FigurePath, image: Image.Image, shown: TopHeads, *, dpi: int) -> Figure:
    """Draw the picture with its box, each chosen head's map over it, and the combined map with the mask's outline.

    Args:
        path: Where to write; None draws only.
        image: The original picture.
        shown: What is known of it, checked.
        dpi: Pixels per inch of the page.

    Returns:
        The figure.
    """
    panels = _panels(shown)
    aspect = image.width / image.height
    hero_label = _prediction_label(shown)
    body = plan_body(min(max(aspect, 1 / MOST_ASPECT), MOST_ASPECT), [hero_label, *(label for label, _ in panels)])
    page = start_page(body.size_wh, quote(shown.query), _subtitle(shown, image.size), _key_items(shown), dpi)

    hero_pixels = fit(image, pixel_size(page, body.hero))
    place = draw_panel(page, body.hero, hero_label, body.hero_rows, hero_pixels, image.size)
    draw_box(page, place, "predicted", shown.localization.box_xyxy)
    draw_box(page, place, "truth", shown.truth_box_xyxy)
    _draw_maps(page, image, body.slots, panels, body.label_rows, shown)
    return finish_page(page, path)


def _draw_maps(
    page: Page,
    image: Image.Image,
    slots: Sequence[Slot],
    panels: Sequence[tuple[Label, np.ndarray]],
    label_rows: int,
    shown: TopHeads,
) -> None:
    """Draw the maps in their places, all on one scale; the last one is the combined map, with mask and box."""
    faded = fade(fit(image, pixel_size(page, slots[0])))
    for slot, (label, map_) in zip(slots, panels):
        pixels = lay_over(faded, map_, shown.grid, image.size, shown.peak)
        place = draw_panel(page, slot, label, label_rows, pixels, image.size)
        if slot is slots[-1]:
            # The box comes last: nothing may cut its line.
            draw_cell_outline(page, place, shown.localization.cell_mask, shown.grid)
            draw_box(page, place, "predicted", shown.localization.box_xyxy, weight=0.7)
        draw_box(page, place, "truth", shown.truth_box_xyxy, weight=0.7)


def _panels(shown: TopHeads) -> list[tuple[Label, np.ndarray]]:
    """Label and map of each head that has room, then of the mean of all, which has the same unit as each."""
    heads = list(zip(shown.choice.heads, shown.shares, shown.maps))[:MOST_PANELS]
    panels = [(_head_label(score, share), map_) for score, share, map_ in heads]
    count = len(shown.maps)
    smoothing = f"sigma {shown.sigma:g}" if shown.sigma else "not smoothed"
    label = Label("Combined", (f"mean of {count} heads" if count > 1 else "1 head", smoothing))
    return [*panels, (label, shown.localization.combined_map / count)]


def _head_label(score: HeadScore, share: float) -> Label:
    """Name, entropy and sum of a head, and how much of its attention lies on the picture."""
    entropy = "∞" if math.isinf(score.spatial_entropy) else f"{score.spatial_entropy:.3f}"
    return Label(score.name, (f"entropy {entropy}", f"sum {score.attn_sum:.3f}", f"{_percent(share)} on picture"))


def _percent(share: float) -> str:
    """A share as a percentage that is 0 or 100 only if it is."""
    if 0 < share < 0.0005:
        return "< 0.1%"
    return "> 99.9%" if 0.9995 <= share < 1 else f"{share:.1%}"


def _prediction_label(shown: TopHeads) -> Label:
    """What the first panel shows."""
    if shown.localization.box_xyxy is None:
        return Label("Picture", (NO_BOX,) if shown.truth_box_xyxy is None else (NO_BOX, "IoU 0.00"))
    return Label("Picture", () if shown.iou is None else (f"IoU {shown.iou:.2f}",))


def _subtitle(shown: TopHeads, image_size_wh: tuple[int, int]) -> str:
    """The quiet line below the query."""
    box_xyxy = shown.localization.box_xyxy
    parts = [
        short_model_name(shown.model_name),
        _size_text(image_size_wh),
        SOURCES[shown.choice.source],
        _shortfall(shown.choice, shown.top_k),
        NO_BOX if box_xyxy is None else "box " + ", ".join(f"{edge:.0f}" for edge in box_xyxy),
    ]
    return " · ".join(part for part in parts if part)


def short_model_name(model_name: str | None) -> str:
    """The last part of a repository's name or of a path, without what the cache of a hub adds to it."""
    parts = [part for part in re.split(r"[/\\]", model_name or "") if part not in {"", "."}]
    for part in parts:
        if part.startswith("models--"):
            return part.split("--")[-1]
    return parts[-1] if parts else ""


def _size_text(image_size_wh: tuple[int, int]) -> str:
    """Size of the picture, and whether it is drawn in another shape."""
    width, height = image_size_wh
    size = f"{width} × {height} px"
    if max(width / height, height / width) <= MOST_ASPECT:
        return size
    side = "wider" if height > width else "taller"
    return f"{size}, drawn {side} than it is"


def _shortfall(choice: HeadChoice, top_k: int | None) -> str:
    """Which of the heads are missing, if some are."""
    count = len(choice.heads)
    if count > MOST_PANELS:
        return f"first {MOST_PANELS} of {count} heads shown"
    return f"{count} of {top_k} heads: no others passed" if top_k is not None and top_k > count else ""


def _key_items(shown: TopHeads) -> list[KeyItem]:
    """What the footer explains."""
    truth = [] if shown.truth_box_xyxy is None else [KeyItem("truth", "ground truth")]
    heat = "attention in a cell" + (", smoothed" if shown.sigma else "") + "; one scale for all maps"
    return [KeyItem("predicted", "predicted box"), *truth, KeyItem("mask", "mask"), heat_item(shown.peak, heat)]
