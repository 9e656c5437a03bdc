"""One picture on a page, and the boxes and masks drawn over it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patches import Rectangle

from figures.layout import Label, Slot
from figures.overlay import border_segments
from figures.page import Page, draw_frame, paint, put_text
from figures.records import Box
from figures.text import line_height, text_width
from figures.theme import FAINT, LABEL_PT, MASK_INSET_PT, MOST_INSET, QUIET, SMALL_PT, STROKES
from lab.records import Grid


@dataclass(frozen=True)
class _Place:
    """Where a picture lies on the page: offset and scale from pixels of the original image to pixels of the page."""

    offset_xy: tuple[float, float]
    scale_xy: tuple[float, float]
    image_size_wh: tuple[int, int]

    def points(self, points_xy: np.ndarray) -> np.ndarray:
        """Points `[..., 2]` of the original image, cut to it, on the page."""
        return np.asarray(np.clip(points_xy, 0, self.image_size_wh) * self.scale_xy + self.offset_xy)

    def box(self, box_xyxy: Box) -> Box:
        """A box of the original image, cut to it, on the page."""
        (x0, y0), (x1, y1) = self.points(np.reshape(box_xyxy, (2, 2)))
        return float(x0), float(y0), float(x1), float(y1)


def draw_panel(
    page: Page, slot: Slot, label: Label, rows: int, pixels: np.ndarray, image_size_wh: tuple[int, int]
) -> _Place:
    """Draw a picture under its label of so many lines."""
    left, top = page.left + slot.left, page.top + slot.top - rows * line_height(LABEL_PT)
    for row, (name, details) in enumerate(label.lines(rows)):
        offset = text_width(f"{name}  ", LABEL_PT, "bold") if name else 0.0
        line_top = top + row * line_height(LABEL_PT)
        put_text(page, left, line_top, name, LABEL_PT, weight="bold")
        put_text(page, left + offset, line_top, details, SMALL_PT, color=QUIET)
    return draw_picture(page, slot, pixels, image_size_wh)


def draw_picture(page: Page, slot: Slot, pixels: np.ndarray, image_size_wh: tuple[int, int]) -> _Place:
    """Paint finished pixels into a slot of the body, with a thin frame."""
    height, width = pixels.shape[:2]
    offset = paint(page, Slot(page.left + slot.left, page.top + slot.top, slot.width, slot.height), pixels)
    frame = Rectangle(offset, width, height, fill=False, edgecolor=FAINT, linewidth=0.6, transform=page.to_figure)
    page.figure.add_artist(frame)
    return _Place(offset, (width / image_size_wh[0], height / image_size_wh[1]), image_size_wh)


def draw_box(page: Page, place: _Place, sign: str, box_xyxy: Box | None, weight: float = 1.0) -> None:
    """Draw a box of the original image, if there is one; `weight` scales the width of its lines."""
    if box_xyxy is not None:
        draw_frame(page, sign, place.box(box_xyxy), weight)


def draw_cell_outline(page: Page, place: _Place, cell_mask: np.ndarray, grid: Grid) -> None:
    """Draw the border of the mask, just within it, so that it does not lie on the line of its tight box."""
    inset = [
        min(MASK_INSET_PT / 72 * page.figure.dpi / scale, MOST_INSET * cell)
        for scale, cell in zip(place.scale_xy, (grid.cell_w, grid.cell_h))
    ]
    segments = place.points(border_segments(cell_mask, grid, (inset[0], inset[1])))
    segments = segments[np.any(segments[:, 0] != segments[:, 1], axis=1)]
    for color, line_width, _ in STROKES["mask"]:
        lines = LineCollection(list(segments), colors=color, linewidths=line_width, capstyle="projecting")
        lines.set(transform=page.to_figure, zorder=Rectangle.zorder)  # then boxes drawn later lie above
        page.figure.add_artist(lines)
