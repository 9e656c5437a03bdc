"""Many pictures in rows, each under its query."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from figures.layout import Slot
from figures.overlay import fade, fit, lay_over
from figures.page import KeyItem, Page, finish_page, heat_item, pixel_size, put_text, start_page
from figures.panels import draw_box, draw_picture
from figures.records import FigurePath, GalleryEntry
from figures.text import line_height, wrap
from figures.theme import CAPTION_GAP, GAP, LABEL_PT, NO_BOX, QUIET, VERMILION


def draw_gallery(
    path: FigurePath,
    entries: Sequence[GalleryEntry],
    ious: Sequence[float | None],
    *,
    title: str | None,
    subtitle: str,
    hit_at: float,
    width: float,
    row_height: float,
    dpi: int,
) -> Figure:
    """Draw many pictures in rows, each under its query, with predicted box, ground truth, IoU and, if given, its map.

    Arguments are those of `viz.draw_gallery`, and the IoU of each entry's two boxes, where there are.
    """
    if not entries:
        raise ValueError("Expected at least one entry for a gallery, but got none. Give it some results.")
    rows = _gallery_rows([_slot_aspect(entry.image) for entry in entries], width, row_height)
    captions: dict[int, _Caption] = {}
    for row in rows:
        for index in row.indices:
            captions[index] = _gallery_caption(entries[index], ious[index], hit_at, _room(entries[index], row))
    tops, body_height = _gallery_tops(rows, captions)
    peak = _peak(entries)
    page = start_page((width, body_height), title or "", subtitle, _key_items(entries, peak), dpi)
    for row, top in zip(rows, tops):
        left = 0.0
        for index in row.indices:
            slot = Slot(left, top, _room(entries[index], row), row.height)
            _draw_gallery_entry(page, entries[index], captions[index], slot, peak)
            left += slot.width + GAP
    return finish_page(page, path)


def _peak(entries: Sequence[GalleryEntry]) -> float:
    """The end of the one scale of all maps."""
    return max((float(entry.map.max()) for entry in entries if entry.map is not None), default=0.0)


def _key_items(entries: Sequence[GalleryEntry], peak: float) -> list[KeyItem]:
    """What the footer explains."""
    items = [KeyItem("predicted", "predicted box")]
    if any(entry.truth_xyxy is not None for entry in entries):
        items.append(KeyItem("truth", "ground truth"))
    if any(entry.map is not None for entry in entries):
        items.append(heat_item(peak, "attention in a cell; one scale for all maps"))
    return items


@dataclass(frozen=True)
class _Caption:
    """Lines above a picture: the query, then its score; a miss stands out."""

    query: tuple[str, ...]
    score: str
    missed: bool

    @property
    def num_lines(self) -> int:
        """Number of lines."""
        return len(self.query) + bool(self.score)


def _gallery_caption(entry: GalleryEntry, iou: float | None, hit_at: float, room: float) -> _Caption:
    """The query in at most three lines, and the IoU; with a ground truth, whether it is a miss."""
    lines = tuple(wrap(entry.query.strip(), room, LABEL_PT, "bold", max_lines=3))
    if entry.box_xyxy is None:
        missed = entry.truth_xyxy is not None
        return _Caption(lines, f"{NO_BOX}, miss" if missed else NO_BOX, missed)
    if iou is None:
        return _Caption(lines, "", False)
    missed = iou < hit_at
    return _Caption(lines, f"IoU {iou:.2f}{', miss' if missed else ''}", missed)


@dataclass(frozen=True)
class _GalleryRow:
    """Pictures of one row of a gallery, all of one height."""

    indices: tuple[int, ...]
    height: float


def _slot_aspect(image: Image.Image) -> float:
    """Width over height of the place of a picture in a gallery; extremes get a place that captions fit over."""
    return min(max(image.width / image.height, 0.55), 3.0)


def _gallery_rows(aspects: Sequence[float], width: float, row_height: float) -> list[_GalleryRow]:
    """Break the pictures into rows that, stretched to the full width, are all nearly `row_height` tall."""
    costs, starts = [0.0], [0]
    for end in range(1, len(aspects) + 1):
        options = [
            (costs[start] + math.log(_row_stretch(aspects[start:end], width) / row_height) ** 2, start)
            for start in range(end)
            if _row_stretch(aspects[start:end], width) > 0
        ]
        cost, start = min(options)
        costs.append(cost)
        starts.append(start)
    rows: list[_GalleryRow] = []
    end = len(aspects)
    while end > 0:
        height = min(_row_stretch(aspects[starts[end] : end], width), 1.25 * row_height)
        rows.insert(0, _GalleryRow(tuple(range(starts[end], end)), height))
        end = starts[end]
    return rows


def _row_stretch(aspects: Sequence[float], width: float) -> float:
    """Height at which pictures of these aspects fill a row; at most 0 where the gaps alone do."""
    return (width - GAP * (len(aspects) - 1)) / sum(aspects)


def _room(entry: GalleryEntry, row: _GalleryRow) -> float:
    """Width of an entry's place in its row."""
    return row.height * _slot_aspect(entry.image)


def _gallery_tops(rows: Sequence[_GalleryRow], captions: Mapping[int, _Caption]) -> tuple[list[float], float]:
    """Top of each row's pictures, and the height of all; captions stand above their pictures."""
    tops, cursor = [], 0.0
    for row in rows:
        cursor += line_height(LABEL_PT) * max(captions[index].num_lines for index in row.indices) + CAPTION_GAP
        tops.append(cursor)
        cursor += row.height + 1.5 * GAP
    return tops, cursor - 1.5 * GAP


def _draw_gallery_entry(page: Page, entry: GalleryEntry, caption: _Caption, slot: Slot, peak: float) -> None:
    """Draw one picture of a gallery under its caption, as large as its place allows."""
    top = page.top + slot.top - CAPTION_GAP - caption.num_lines * line_height(LABEL_PT)
    for row, line in enumerate(caption.query):
        put_text(page, page.left + slot.left, top + row * line_height(LABEL_PT), line, LABEL_PT, weight="bold")
    score_top = top + len(caption.query) * line_height(LABEL_PT)
    color = VERMILION if caption.missed else QUIET
    put_text(page, page.left + slot.left, score_top, caption.score, LABEL_PT, color=color)
    scale = min(slot.width / entry.image.width, slot.height / entry.image.height)
    fitted = Slot(slot.left, slot.top, entry.image.width * scale, entry.image.height * scale)
    pixels = fit(entry.image, pixel_size(page, fitted))
    if entry.map is not None and entry.grid is not None:
        pixels = lay_over(fade(pixels), entry.map, entry.grid, entry.image.size, peak)
    place = draw_picture(page, fitted, pixels, entry.image.size)
    draw_box(page, place, "predicted", entry.box_xyxy, weight=0.7)
    draw_box(page, place, "truth", entry.truth_xyxy, weight=0.8)
