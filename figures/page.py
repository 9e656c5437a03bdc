"""A page of pictures: its header, its footer, and the pixels that lie under lines and letters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.backend_bases import RendererBase
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import BboxImage
from matplotlib.patches import Rectangle
from matplotlib.transforms import Affine2D, Transform

from figures.layout import Slot
from figures.overlay import blend
from figures.records import Box, FigurePath
from figures.text import font_families, line_height, printable, text_width, wrap
from figures.theme import FOOTER_LINE, INK, KEY_GAP, MARGIN, MIN_PAGE_WIDTH, QUIET, SMALL_PT, STROKES, TITLE_PT
from figures.writing import write_figure


@dataclass(frozen=True)
class Page:
    """A figure with its header and footer drawn.

    All pictures are painted into one array and handed to matplotlib together, which takes half the time that axes for
    each would take.

    Attributes:
        figure: The figure.
        to_figure: From pixels of the page, counted from its top left corner, to where matplotlib draws.
        pixels: `[height, width, 3]` uint8, what lies under lines and letters; painted in place.
        left: Where the body begins, in inches.
        top: The same, from above.
    """

    figure: Figure
    to_figure: Transform
    pixels: np.ndarray
    left: float
    top: float


class _PagePixels(BboxImage):
    """Pixels that fill a figure, handed over as they are where each is one pixel of the figure."""

    def make_image(
        self, renderer: RendererBase, magnification: float = 1.0, unsampled: bool = False
    ) -> tuple[np.ndarray, float, float, Affine2D]:
        """The image as matplotlib draws it, from below; resampled for other resolutions, as in a PDF."""
        pixels = np.asarray(self.get_array())
        shape = round(self.figure.bbox.height * magnification), round(self.figure.bbox.width * magnification)
        if pixels.shape[:2] != shape:
            return super().make_image(renderer, magnification, unsampled)
        opaque = np.full((*shape, 4), 255, np.uint8)
        opaque[..., :3] = pixels[::-1]
        return opaque, 0.0, 0.0, Affine2D()


@dataclass(frozen=True)
class KeyItem:
    """One entry of the footer: the kind of sign, what it means, and the numbers at the ends of a colour bar."""

    sign: str
    text: str
    ends: tuple[str, str] = ("", "")

    @property
    def sign_left(self) -> float:
        """Where the sign begins, in inches: after a colour bar's lower number."""
        return text_width(self.ends[0], SMALL_PT) + 0.05 if self.ends[0] else 0.0

    @property
    def sign_width(self) -> float:
        """Width of the sign in inches."""
        return 1.3 if self.sign == "heat" else 0.26

    @property
    def words(self) -> str:
        """What stands behind the sign."""
        return f"{self.ends[1]}  {self.text}" if self.ends[1] else self.text

    @property
    def width(self) -> float:
        """Width of sign and text in inches."""
        return self.sign_left + self.sign_width + 0.07 + text_width(self.words, SMALL_PT)


def heat_item(peak: float, text: str) -> KeyItem:
    """The colour bar from 0 to `peak`, the attention with the strongest colour."""
    return KeyItem("heat", text, ("0", f"{peak:.2g}"))


def start_page(body_wh: tuple[float, float], title: str, subtitle: str, items: Sequence[KeyItem], dpi: int) -> Page:
    """Make a figure around a body of the given size and draw its header and footer."""
    width = max(body_wh[0], MIN_PAGE_WIDTH)
    header = [(line, TITLE_PT, "bold", INK) for line in wrap(title, width, TITLE_PT, "bold")]
    header += [(line, SMALL_PT, "normal", QUIET) for line in wrap(subtitle, width, SMALL_PT)]
    footer = _flow(items, width)
    top = MARGIN + sum(line_height(size) for _, size, _, _ in header) + (0.07 if header else 0.0)
    height = top + body_wh[1] + 0.08 + len(footer) * FOOTER_LINE + 0.7 * MARGIN
    page = _empty_page(width + 2 * MARGIN, height, top, dpi)
    cursor = MARGIN
    for line, size, weight, color in header:
        put_text(page, MARGIN, cursor, line, size, weight=weight, color=color)
        cursor += line_height(size)
    for row, row_items in enumerate(footer):
        _draw_key_row(page, row_items, top + body_wh[1] + 0.08 + row * FOOTER_LINE)
    return page


def _empty_page(width: float, height: float, top: float, dpi: int) -> Page:
    """A white page of at least the given size; whole pixels, so that pictures are not resampled."""
    width_px, height_px = math.ceil(width * dpi), math.ceil(height * dpi)
    figure = Figure(figsize=(width_px / dpi, height_px / dpi), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    to_figure = Affine2D().scale(1 / width_px, -1 / height_px).translate(0, 1) + figure.transFigure
    return Page(figure, to_figure, np.full((height_px, width_px, 3), 255, np.uint8), MARGIN, top)


def finish_page(page: Page, path: FigurePath) -> Figure:
    """Lay the painted pixels under lines and letters, and write the figure."""
    image = _PagePixels(page.figure.bbox, interpolation="nearest")
    image.set_data(page.pixels)
    page.figure.add_artist(image)
    write_figure(page.figure, path)
    return page.figure


def _flow(items: Sequence[KeyItem], width: float) -> list[list[KeyItem]]:
    """Break the footer's entries into rows that fit."""
    rows: list[list[KeyItem]] = [[]]
    used = 0.0
    for item in items:
        if rows[-1] and used + item.width > width:
            rows.append([])
            used = 0.0
        rows[-1].append(item)
        used += item.width + KEY_GAP
    return rows


def _draw_key_row(page: Page, items: Sequence[KeyItem], top: float) -> None:
    """Draw a row of the footer."""
    left = MARGIN
    for item in items:
        slot = Slot(left + item.sign_left + 0.01, top + 0.03, item.sign_width - 0.02, 0.12)
        if item.sign == "heat":
            _paint_heat_bar(page, slot)
        else:
            paint(page, slot, np.full((*pixel_size(page, slot)[::-1], 3), 0xB9, np.uint8))
            left_px, top_px = slot.left * page.figure.dpi, slot.top * page.figure.dpi
            width_px, height_px = pixel_size(page, slot)
            draw_frame(page, item.sign, (left_px, top_px, left_px + width_px, top_px + height_px), 0.8)
        put_text(page, left, top + 0.015, item.ends[0], SMALL_PT, color=QUIET)
        words_left = left + item.sign_left + item.sign_width + 0.07
        put_text(page, words_left, top + 0.015, item.words, SMALL_PT, color=QUIET)
        left += item.width + KEY_GAP


def _paint_heat_bar(page: Page, slot: Slot) -> None:
    """Paint the one colour bar: what a rising map looks like over a grey picture."""
    width, height = pixel_size(page, slot)
    ramp = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (height, width))
    paint(page, slot, blend(np.full((height, width, 3), 200, np.uint8), ramp))


def put_text(
    page: Page, left: float, top: float, text: str, size: float, *, weight: str = "normal", color: str = INK
) -> None:
    """Write a line whose upper edge is `top`; `$` is a character like others."""
    if not text:
        return
    width, height = page.figure.get_size_inches()
    page.figure.text(
        left / width,
        1 - (top + 0.78 * line_height(size)) / height,
        printable(text),
        fontsize=size,
        fontweight=weight,
        fontfamily=font_families(),
        color=color,
        va="baseline",
        parse_math=False,
    )


def pixel_size(page: Page, slot: Slot) -> tuple[int, int]:
    """Width and height of a slot in whole pixels."""
    dpi = page.figure.dpi
    return max(round(slot.width * dpi), 1), max(round(slot.height * dpi), 1)


def paint(page: Page, slot: Slot, pixels: np.ndarray) -> tuple[int, int]:
    """Paint pixels onto the page at a slot given from the page's corner; returns their left and top pixel."""
    left, top = round(slot.left * page.figure.dpi), round(slot.top * page.figure.dpi)
    page.pixels[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return left, top


def draw_frame(page: Page, sign: str, box_xyxy: Box, weight: float) -> None:
    """Draw a frame given in pixels of the page, in the strokes of its sign."""
    x0, y0, x1, y1 = box_xyxy
    for color, line_width, line_style in STROKES[sign]:
        frame = Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=color, linewidth=line_width * weight)
        frame.set(linestyle=line_style, transform=page.to_figure)
        page.figure.add_artist(frame)
