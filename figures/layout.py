"""Where the pictures of a page lie: a large first one and equal others under their labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from figures.text import line_height, text_width
from figures.theme import GAP, LABEL_PT, MAX_BODY_WH, MIN_ROOM, PANEL_AREA, PANELS_OF_A_SCREEN, SMALL_PT

DETAIL_SEPARATOR = " · "


@dataclass(frozen=True)
class Label:
    """What stands above a picture: a name in bold, then details."""

    name: str
    details: tuple[str, ...]

    def rows_needed(self, room: float) -> int:
        """Lines that it takes within `room` inches: one, or two, or one for the name and each detail."""
        name_width = text_width(f"{self.name}  ", LABEL_PT, "bold")
        details_width = text_width(DETAIL_SEPARATOR.join(self.details), SMALL_PT)
        if name_width + details_width <= room:
            return 1
        return 2 if details_width <= room else 1 + len(self.details)

    def lines(self, rows: int) -> list[tuple[str, str]]:
        """The (bold part, plain part) of each line when it may take so many."""
        details = DETAIL_SEPARATOR.join(self.details)
        if rows == 1:
            return [(self.name, details)]
        if rows == 2:
            return [(self.name, ""), ("", details)]
        return [(self.name, ""), *(("", detail) for detail in self.details)]


@dataclass(frozen=True)
class Slot:
    """A rectangle of the page's body, in inches from the body's top left corner."""

    left: float
    top: float
    width: float
    height: float


@dataclass(frozen=True)
class _Body:
    """Where the pictures of a page lie: the hero is the first one, larger than the others where that saves paper.

    Attributes:
        size_wh: Width and height of all, labels included.
        hero: The first picture.
        hero_rows: Lines of the label above it.
        slots: The others, in reading order.
        label_rows: Lines of the labels above the others.
    """

    size_wh: tuple[float, float]
    hero: Slot
    hero_rows: int
    slots: tuple[Slot, ...]
    label_rows: int


def plan_body(aspect: float, labels: Sequence[Label]) -> _Body:
    """The arrangement with the best mix of large pictures, little empty paper and a page shaped like a screen.

    Args:
        aspect: Width over height of the picture.
        labels: The hero's label, then those of the others.
    """
    count = len(labels) - 1
    ways = [(_even_body, across) for across in range(1, count + 2)]
    # A hero beside a single row, or above a single column, would be as large as the others, but out of line.
    ways += [(_hero_left_body, across) for across in range(1, count)]
    ways += [(_hero_above_body, across) for across in range(2, count + 1)]
    limits_wh = MAX_BODY_WH[0], MAX_BODY_WH[1] * max(1.0, (count + 1) / PANELS_OF_A_SCREEN)
    bodies = (_shrunk(planner, aspect, labels, across, limits_wh) for planner, across in ways)
    return max(bodies, key=lambda body: _merit(body, limits_wh))


def _merit(body: _Body, limits_wh: tuple[float, float]) -> float:
    """Share of the paper used well, times size of the small pictures, less for pages far from 1.7 : 1.

    A hero of more than four times the others' area is no more use to the eye.
    """
    width, height = body.size_wh
    small = body.slots[0].width * body.slots[0].height
    covered = (min(body.hero.width * body.hero.height, 4.3 * small) + small * len(body.slots)) / (width * height)
    oversize = max(1.0, width / limits_wh[0], height / limits_wh[1])
    shape = math.exp(-0.3 * abs(math.log(width / height / 1.7)))
    return float(oversize**-6 * covered**3 * (small / PANEL_AREA) ** 0.7 * shape)


def _shrunk(
    planner: Callable[..., _Body], aspect: float, labels: Sequence[Label], across: int, limits_wh: tuple[float, float]
) -> _Body:
    """The planner's arrangement with pictures of `PANEL_AREA`, or as much smaller as the largest page demands."""
    height = math.sqrt(PANEL_AREA / aspect)
    for _ in range(6):
        body = planner(aspect, labels, across, height)
        shrink = min(limits_wh[0] / body.size_wh[0], limits_wh[1] / body.size_wh[1])
        if shrink >= 1:
            break
        height *= shrink
    return body


def _even_body(aspect: float, labels: Sequence[Label], across: int, height: float) -> _Body:
    """All pictures of one size, `across` in a row."""
    (hero, *slots), rows, size_wh = _even_slots(aspect, labels, across, height, 0.0, 0.0)
    return _Body(size_wh, hero, rows, tuple(slots), rows)


def _hero_left_body(aspect: float, labels: Sequence[Label], across: int, height: float) -> _Body:
    """The hero at the left, as tall as all rows of the others together."""
    _, _, block_wh = _even_slots(aspect, labels[1:], across, height, 0.0, 0.0)
    hero_rows = labels[0].rows_needed(max(block_wh[1] * aspect, MIN_ROOM))
    hero_height = block_wh[1] - hero_rows * line_height(LABEL_PT)
    hero = Slot(0.0, hero_rows * line_height(LABEL_PT), hero_height * aspect, hero_height)
    left = max(hero.width, MIN_ROOM) + GAP
    slots, rows, _ = _even_slots(aspect, labels[1:], across, height, left, 0.0)
    return _Body((left + block_wh[0], block_wh[1]), hero, hero_rows, slots, rows)


def _hero_above_body(aspect: float, labels: Sequence[Label], across: int, height: float) -> _Body:
    """The hero above, as wide as a row of the others."""
    _, _, block_wh = _even_slots(aspect, labels[1:], across, height, 0.0, 0.0)
    hero_rows = labels[0].rows_needed(block_wh[0])
    hero = Slot(0.0, hero_rows * line_height(LABEL_PT), block_wh[0], block_wh[0] / aspect)
    top = hero.top + hero.height + GAP
    slots, rows, _ = _even_slots(aspect, labels[1:], across, height, 0.0, top)
    return _Body((block_wh[0], top + block_wh[1]), hero, hero_rows, slots, rows)


def _even_slots(
    aspect: float, labels: Sequence[Label], across: int, height: float, left: float, top: float
) -> tuple[tuple[Slot, ...], int, tuple[float, float]]:
    """Slots for equal pictures under their labels, the rows of a label, and the size of all together."""
    width = height * aspect
    room = max(width, MIN_ROOM)
    rows = max(label.rows_needed(room) for label in labels)
    label_height = rows * line_height(LABEL_PT)
    step = height + label_height + GAP
    slots = tuple(
        Slot(left + (index % across) * (room + GAP), top + label_height + (index // across) * step, width, height)
        for index in range(len(labels))
    )
    return slots, rows, (across * (room + GAP) - GAP, math.ceil(len(labels) / across) * step - GAP)
