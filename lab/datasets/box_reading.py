"""How the four numbers of a box are to be read: decided for a whole file, never for a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Optional

import numpy as np

Box = tuple[float, float, float, float]

_UNITS = {
    "pixels": "pixels",
    "unit": "shares of the picture, 0 to 1",
    "thousand": "thousandths of the picture",
    "padded": "shares of the padded square, 0 to 1",
}
SCALES = {"pixels": None, "unit": 1.0, "thousand": 1000.0, "padded": 1.0}
AUTO = "auto"
BOX_FIELDS = ("bbox_xyxy", "bbox")
EDGE_TOLERANCE = 1.0
"""A box may lie this many pixels outside its picture: annotations are rounded, and drawn to the last pixel."""
BAD_SHARE = 0.01
"""A reading is possible as long as no larger share of the rows contradicts it."""
CLEARLY_WORSE = 3.0
"""Where some rows contradict every reading, one is taken if all others have so many times as many against them."""
BAD_SHARE_AT_MOST = 0.1


@dataclass(frozen=True)
class BoxReading:
    """One way to read four numbers.

    Attributes:
        corners: `xywh` (left, top, width, height) or `xyxy` (left, top, right, bottom; the second corner exclusive).
        scale: `pixels`, `unit` (shares of the picture's width and height), `thousand` (thousandths of them), or
            `padded` (shares of the square that the picture, centred, is padded to, as in LLaVA-1.5's training data).
    """

    corners: str
    scale: str = "pixels"

    @property
    def name(self) -> str:
        """As options spell it: `xywh`, `xyxy_unit`, `xyxy_thousand`, ..."""
        return self.corners if self.scale == "pixels" else f"{self.corners}_{self.scale}"

    @property
    def description(self) -> str:
        """For people."""
        corners = "[x, y, width, height]" if self.corners == "xywh" else "[x0, y0, x1, y1]"
        return f"{corners} in {_UNITS[self.scale]}"

    def to_xyxy(self, numbers: np.ndarray, image_sizes_wh: np.ndarray) -> np.ndarray:
        """Turn boxes as written into half-open boxes in pixels.

        Args:
            numbers: `[n, 4]` as they stand in the file.
            image_sizes_wh: `[n, 2]` width and height of each picture; NaN where unknown, which only pixels can do with.

        Returns:
            `[n, 4]` x0, y0, x1, y1 in pixels of the picture.
        """
        boxes: np.ndarray = np.array(numbers, dtype=np.float64, copy=True).reshape(-1, 4)
        if self.corners == "xywh":
            boxes[:, 2:] += boxes[:, :2]
        full = SCALES[self.scale]
        if full is None:
            return boxes
        if self.scale == "padded":
            side = image_sizes_wh.max(axis=1, keepdims=True)
            return np.asarray(boxes * side - np.tile((side - image_sizes_wh) / 2, 2))
        return np.asarray(boxes / full * np.tile(image_sizes_wh, 2))


READINGS = {
    reading.name: reading
    for reading in (BoxReading(corners, scale) for scale in SCALES for corners in ("xywh", "xyxy"))
}
BOX_FORMATS = (AUTO, *READINGS)
# No known data set writes widths and heights in thousandths, and shares of the padded square are a matter of the
# format: such readings are taken where they are declared.
_FOUND_BY_ITSELF = {
    "bbox": ("xywh", "xyxy", "xywh_unit", "xyxy_unit", "xyxy_thousand"),
    "bbox_xyxy": ("xyxy", "xyxy_unit", "xyxy_thousand"),
}


@dataclass(frozen=True)
class ReadBoxes:
    """The boxes of a file, as they were read.

    Attributes:
        boxes_xyxy: `[n, 4]` half-open, in pixels, not clipped; NaN where a row cannot be read this way.
        reading: How they were read.
        why: One sentence that says what spoke for it.
        outside: Numbers (from 0) of the rows whose box leaves its picture by more than a pixel.
        unreadable: Numbers of the rows whose box has no extent, or whose picture's size is needed and unknown.
    """

    boxes_xyxy: np.ndarray
    reading: BoxReading
    why: str
    outside: tuple[int, ...]
    unreadable: tuple[int, ...]


def read_boxes(
    numbers: np.ndarray,
    image_sizes_wh: np.ndarray,
    *,
    field: str,
    where: str,
    box_format: str = AUTO,
    candidates: Optional[Sequence[str]] = None,
    option: str = "--box-format",
) -> ReadBoxes:
    """Read the boxes of a file in one way, the declared one or the only one that is possible.

    A reading is contradicted by a row whose box would have no extent (x1 <= x0 or y1 <= y0) or would leave its picture.
    Numbers that never exceed 1 are shares of the picture.

    Args:
        numbers: `[n, 4]` finite numbers as they stand in the file.
        image_sizes_wh: `[n, 2]` width and height of each row's picture; NaN where unknown.
        field: The field that they stand in, `bbox` or `bbox_xyxy`; the latter is never read as width and height.
        where: The file, for messages.
        box_format: `auto`, or one of `BOX_FORMATS` to take it as declared.
        candidates: Names of the readings to choose from, where the kind of file leaves fewer or others than the field.
        option: How the user declares it, for messages.

    Returns:
        The boxes and how they were read.

    Raises:
        ValueError: No reading is possible, or two are possible and disagree.
    """
    check_box_format(box_format, option)
    if field == "bbox_xyxy" and box_format.startswith("xywh"):
        raise ValueError(
            f"Expected {option} to be xyxy for boxes under 'bbox_xyxy' in {where}, but got {box_format}. "
            "Rename the field to 'bbox', or leave the option out."
        )
    if box_format != AUTO:
        return _read_as(READINGS[box_format], numbers, image_sizes_wh, f"declared with {option}={box_format}")
    readings = [READINGS[name] for name in candidates or _FOUND_BY_ITSELF[field]]
    tried = _worth_trying(readings, numbers, image_sizes_wh, field)
    reading, why = _decide(numbers, image_sizes_wh, tried, where, option)
    return _read_as(reading, numbers, image_sizes_wh, why)


def check_box_format(box_format: str, option: str = "--box-format") -> None:
    """Refuse an unknown name.

    Raises:
        ValueError: It is none of `BOX_FORMATS`.
    """
    if box_format not in BOX_FORMATS:
        raise ValueError(f"Expected {option} to be one of {', '.join(BOX_FORMATS)}, but got {box_format[:40]!r}.")


def box_numbers(row: Mapping[str, Any]) -> Optional[tuple[str, Box]]:
    """The field and the four numbers of a row's box; `bbox_xyxy` goes before `bbox`.

    Returns:
        None where the row has neither.

    Raises:
        ValueError: What stands there is not four finite numbers.
    """
    field = next((name for name in BOX_FIELDS if row.get(name) is not None), None)
    if field is None:
        return None
    value: Any = row[field]
    try:
        x, y, third, fourth = (_number(entry) for entry in value)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"Expected {field!r} to be four finite numbers, but got {str(value)[:60]!r}.") from None
    return field, (x, y, third, fourth)


def has_extent(numbers: Box, field: str) -> bool:
    """Whether four numbers are a box in some reading; corners under `bbox_xyxy`, corners or sizes under `bbox`."""
    x, y, third, fourth = numbers
    return (third > x and fourth > y) or (field != "bbox_xyxy" and third > 0 and fourth > 0)


def row_size(row: Mapping[str, Any]) -> tuple[float, float]:
    """Width and height that a row states, as `image_size` or as `width` and `height`; NaN where it does not."""
    size: Any = row.get("image_size")
    if size is None:
        size = (row.get("width"), row.get("height"))
    try:
        width, height = (_number(entry) for entry in size)
    except (TypeError, ValueError, OverflowError):
        return math.nan, math.nan
    return (width, height) if width > 0 and height > 0 else (math.nan, math.nan)


def _number(entry: Any) -> float:
    if isinstance(entry, bool) or not isinstance(entry, (int, float, np.integer, np.floating)):
        raise TypeError(entry)
    value = float(entry)
    if not math.isfinite(value):
        raise ValueError(entry)
    return value


# ---------------------------------------------------------------------------------------------------------------------
# Deciding
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Verdict:
    """What speaks against one reading: rows without extent, rows outside, and how many it was tried on."""

    reading: BoxReading
    without_extent: int
    outside: int
    share: float

    @property
    def possible(self) -> bool:
        return self.share <= BAD_SHARE

    def __str__(self) -> str:
        against = []
        if self.without_extent:
            against.append(f"{self.without_extent} without extent")
        if self.outside:
            against.append(f"{self.outside} outside the picture")
        return f"{self.reading.name}: {' and '.join(against) or 'all possible'}"


def _worth_trying(
    readings: Sequence[BoxReading], numbers: np.ndarray, image_sizes_wh: np.ndarray, field: str
) -> list[BoxReading]:
    """The readings to try: shares where nothing exceeds 1, thousandths only where pixels do not settle it."""
    shares = numbers.max(initial=0.0) <= 1.0
    tried = [reading for reading in readings if (SCALES[reading.scale] == 1.0) == shares]
    in_pixels = any(reading.scale == "pixels" for reading in tried)
    if in_pixels and not _may_be_thousandths(numbers, image_sizes_wh, field):
        tried = [reading for reading in tried if reading.scale != "thousand"]
    return tried or list(readings)


def _may_be_thousandths(numbers: np.ndarray, image_sizes_wh: np.ndarray, field: str) -> bool:
    """Whether whole numbers up to 1000 may be thousandths.

    Where pixels fit and every picture has at most 1,000 on a side, they are pixels: thousandths would leave such
    pictures almost at once. On larger pictures both fit. `bbox_xyxy` promises pixels by its name.
    """
    whole = bool((numbers == np.round(numbers)).all()) and bool((numbers >= 0).all()) and bool((numbers <= 1000).all())
    if not whole or not np.isfinite(image_sizes_wh).all():
        return False
    if not _judge(BoxReading("xyxy"), numbers, image_sizes_wh).possible:
        return True
    return field != "bbox_xyxy" and not bool((image_sizes_wh <= 1000).all())


def _decide(
    numbers: np.ndarray, image_sizes_wh: np.ndarray, candidates: Sequence[BoxReading], where: str, option: str
) -> tuple[BoxReading, str]:
    verdicts = _judge_all(candidates, numbers, image_sizes_wh)
    possible = [verdict for verdict in verdicts if verdict.possible] or _clearly_best(verdicts)
    told = "; ".join(map(str, verdicts))
    if not possible:
        raise ValueError(
            f"Expected the {len(numbers)} boxes of {where} to fit their pictures in one reading, but got none "
            f"that does ({told}). Mend the file, or say how to read it with {option}."
        )
    if len(possible) > 1 and not _agree(possible, numbers, image_sizes_wh):
        names = " or ".join(verdict.reading.name for verdict in possible)
        raise ValueError(
            f"Expected the {len(numbers)} boxes of {where} to fit in one reading only, but they could be {names} "
            f"({told}). Say which with {option}."
        )
    return possible[0].reading, f"found in {len(numbers)} boxes ({told})"


def _clearly_best(verdicts: Sequence[_Verdict]) -> list[_Verdict]:
    best, *others = sorted(verdicts, key=lambda verdict: verdict.share)
    limit = CLEARLY_WORSE * best.share
    clear = best.share <= BAD_SHARE_AT_MOST and all(other.share >= limit for other in others)
    return [best] if clear else []


def _judge_all(candidates: Sequence[BoxReading], numbers: np.ndarray, image_sizes_wh: np.ndarray) -> list[_Verdict]:
    """Judge every reading on the rows that have an extent in some; a row that has none is broken, and tells nothing."""
    telling = ~np.logical_and.reduce([_without_extent(reading, numbers) for reading in candidates])
    return [_judge(reading, numbers[telling], image_sizes_wh[telling]) for reading in candidates]


def _judge(reading: BoxReading, numbers: np.ndarray, image_sizes_wh: np.ndarray) -> _Verdict:
    # Extent is judged in the file's own numbers, so that it needs no size.
    without_extent = _without_extent(reading, numbers)
    outside = _outside(reading.to_xyxy(numbers, image_sizes_wh), image_sizes_wh) & ~without_extent
    share = float((without_extent | outside).mean()) if len(numbers) else 0.0
    return _Verdict(reading, int(without_extent.sum()), int(outside.sum()), share)


def _without_extent(reading: BoxReading, numbers: np.ndarray) -> np.ndarray:
    far = numbers[:, 2:] if reading.corners == "xywh" else numbers[:, 2:] - numbers[:, :2]
    return np.asarray((far <= 0).any(axis=1))


def _outside(boxes_xyxy: np.ndarray, image_sizes_wh: np.ndarray) -> np.ndarray:
    """`[n]` bool; False where the size is unknown, since comparisons with NaN are."""
    before = (boxes_xyxy[:, :2] < -EDGE_TOLERANCE).any(axis=1)
    return np.asarray(before | (boxes_xyxy[:, 2:] > image_sizes_wh + EDGE_TOLERANCE).any(axis=1))


def _agree(verdicts: Sequence[_Verdict], numbers: np.ndarray, image_sizes_wh: np.ndarray) -> bool:
    """Whether all readings give the same boxes, as [0, 0, w, h] does."""
    first, *others = (verdict.reading.to_xyxy(numbers, image_sizes_wh) for verdict in verdicts)
    usable = ~_without_extent(verdicts[0].reading, numbers)
    return all(np.allclose(first[usable], other[usable], atol=1e-9) for other in others)


def _read_as(reading: BoxReading, numbers: np.ndarray, image_sizes_wh: np.ndarray, why: str) -> ReadBoxes:
    boxes_xyxy = reading.to_xyxy(numbers, image_sizes_wh)
    unreadable = _without_extent(reading, numbers) | ~np.isfinite(boxes_xyxy).all(axis=1)
    outside = _outside(boxes_xyxy, image_sizes_wh) & ~unreadable
    boxes_xyxy[unreadable] = np.nan
    if outside.any():  # said where the reading was declared, too: a wrong declaration shows here
        why = f"{why}; {int(outside.sum())} of {len(numbers)} leave their picture"
    return ReadBoxes(
        boxes_xyxy, reading, why, tuple(map(int, np.flatnonzero(outside))), tuple(map(int, np.flatnonzero(unreadable)))
    )
