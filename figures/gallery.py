"""Many pictures in rows, each under its query."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure
from PIL import Image

from figures.layout import Slot
from figures.overlay import fade, fit, lay_over
from figures.page import Page, finish_page, key_items, pixel_size, put_text, start_page
from figures.panels import draw_box, draw_picture
from figures.records import FigurePath, GalleryEntry
from figures.text import line_height, wrap
from figures.theme import CAPTION_GAP, GAP, INK, LABEL_PT, NO_BOX, QUIET


def draw_gallery(
    path: FigurePath,
    entries: Sequence[GalleryEntry],
    ious: Sequence[float | None],
    *,
    title: str | None,
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
    captions = [_gallery_caption(*entry) for row in rows for entry in _row_rooms(entries, ious, row)]
    tops, body_height = _gallery_tops(rows, captions)
    truth_known = next((entry.truth_xyxy for entry in entries if entry.truth_xyxy is not None), None)
    maps_shown = any(entry.map is not None for entry in entries)
    items = key_items(truth_known, mask=False, heat=maps_shown)
    page = start_page((width, body_height), title or "", "", items, dpi)
    for row, top in zip(rows, tops):
        left = 0.0
        for index in row.indices:
            room = row.height * _slot_aspect(entries[index].image)
            _draw_gallery_entry(page, entries[index], captions[index], Slot(left, top, room, row.height))
            left += room + GAP
    return finish_page(page, path)


def _gallery_caption(entry: GalleryEntry, iou: float | None, room: float) -> list[str]:
    """Lines above a picture of a gallery: the query in at most three lines, and the IoU."""
    lines = wrap(entry.query.strip(), room, LABEL_PT, "bold", max_lines=3)
    if entry.box_xyxy is None:
        return [*lines, NO_BOX]
    return lines if iou is None else [*lines, f"IoU {iou:.2f}"]


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


def _row_rooms(
    entries: Sequence[GalleryEntry], ious: Sequence[float | None], row: _GalleryRow
) -> list[tuple[GalleryEntry, float | None, float]]:
    """The row's entries, each with its IoU and the width of its place."""
    return [(entries[index], ious[index], row.height * _slot_aspect(entries[index].image)) for index in row.indices]


def _gallery_tops(rows: Sequence[_GalleryRow], captions: Sequence[Sequence[str]]) -> tuple[list[float], float]:
    """Top of each row's pictures, and the height of all; captions stand above their pictures."""
    tops, cursor = [], 0.0
    for row in rows:
        cursor += line_height(LABEL_PT) * max(len(captions[index]) for index in row.indices) + CAPTION_GAP
        tops.append(cursor)
        cursor += row.height + 1.5 * GAP
    return tops, cursor - 1.5 * GAP


def _draw_gallery_entry(page: Page, entry: GalleryEntry, caption: Sequence[str], slot: Slot) -> None:
    """Draw one picture of a gallery under its caption, as large as its place allows."""
    top = page.top + slot.top - CAPTION_GAP - len(caption) * line_height(LABEL_PT)
    for row, line in enumerate(caption):
        is_score = row == len(caption) - 1 and (line == NO_BOX or line.startswith("IoU "))
        weight, color = ("normal", QUIET) if is_score else ("bold", INK)
        line_top = top + row * line_height(LABEL_PT)
        put_text(page, page.left + slot.left, line_top, line, LABEL_PT, weight=weight, color=color)
    scale = min(slot.width / entry.image.width, slot.height / entry.image.height)
    fitted = Slot(slot.left, slot.top, entry.image.width * scale, entry.image.height * scale)
    pixels = fit(entry.image, pixel_size(page, fitted))
    if entry.map is not None and entry.grid is not None:
        pixels = lay_over(fade(pixels), entry.map, entry.grid, entry.image.size)
    place = draw_picture(page, fitted, pixels, entry.image.size)
    draw_box(page, place, "predicted", entry.box_xyxy, weight=0.7)
    draw_box(page, place, "truth", entry.truth_xyxy, weight=0.8)
