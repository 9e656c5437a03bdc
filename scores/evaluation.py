"""Rows and predictions -> scores with intervals, by groups, beside their ceiling and trivial baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Optional

import numpy as np

from lab.boxes import Box, box_ious
from lab.statistics.bootstrap import Interval, cluster_intervals, cluster_numbers
from scores.box_measures import (
    centres_inside,
    generalized_ious,
    hits,
    mean_accuracy,
    points_inside,
    size_classes,
)
from scores.predictions import Prediction
from scores.truths import Truth

DEFAULT_THRESHOLDS = (0.25, 0.5, 0.75)
STATUSES = ("box", "null", "missing", "unreadable")
NO_GROUP = "(none)"
OVERLAPS = ("iou", "giou")
UNITS = ("expression", "ref", "first")
RESAMPLES = 10_000
MOST_DRAWS = 200_000_000
"""Pictures drawn in all resamples together: 10,000 resamples of 20,000 pictures take some 15 s on one core."""
FEWEST_RESAMPLES = 1_000


@dataclass(frozen=True)
class Rules:
    """How a score is counted.

    Attributes:
        thresholds: What an overlap must reach, ascending.
        rule: `ge`, at least the threshold, or `gt`, more than it.
        overlap: `iou`, or `giou`, generalized IoU.
        per: `expression`; `ref`, the mean over an object's expressions; or `first`, its first expression only.
        resamples: Bootstrap resamples of the pictures; 0 for no intervals.
        seed: Seed of the resamples.
    """

    thresholds: tuple[float, ...] = DEFAULT_THRESHOLDS
    rule: str = "ge"
    overlap: str = "iou"
    per: str = "expression"
    resamples: int = RESAMPLES
    seed: int = 0

    def __post_init__(self) -> None:
        """Reject unknown rules and thresholds out of range."""
        if not self.thresholds or not all(0 < threshold <= 1 for threshold in self.thresholds):
            raise ValueError(
                f"Expected the IoU thresholds to be above 0 and at most 1, but got {list(self.thresholds)}. "
                "Write them as 0.25,0.5,0.75."
            )
        for name, value, allowed in (("overlap", self.overlap, OVERLAPS), ("per", self.per, UNITS)):
            if value not in allowed:
                raise ValueError(f"Expected --{name} to be one of {', '.join(allowed)}, but got {value!r}.")
        hits(np.zeros(0), 0.5, self.rule)
        if self.resamples < 0:
            raise ValueError(f"Expected --resamples to be at least 0, but got {self.resamples}.")

    def resamples_of(self, num_pictures: int) -> int:
        """Resamples for so many pictures: fewer where they are so many that 10,000 would take minutes."""
        return min(self.resamples, max(FEWEST_RESAMPLES, MOST_DRAWS // max(1, num_pictures)))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the hit rates, such as `Acc@0.5`."""
        return tuple(f"Acc@{threshold:g}" for threshold in self.thresholds)


@dataclass(frozen=True)
class SampleScore:
    """How one row fared.

    Attributes:
        id: Identifier of the row.
        line_number: 1-based line of the data set.
        group: Value of the field to group by, or an empty string.
        status: `box`, or why there is none: `null` (nothing found), `missing` (no file) or `unreadable`.
        iou: Intersection over union, 0 without a box.
        truth_xyxy: Ground truth, half-open, in pixels.
        predicted_xyxy: Prediction, or None.
    """

    id: str
    line_number: int
    group: str
    status: str
    iou: float
    truth_xyxy: Box
    predicted_xyxy: Optional[Box]


@dataclass(frozen=True)
class Summary:
    """Scores over some rows.

    Attributes:
        num_rows: Expressions.
        num_refs: Objects that they refer to, as far as the data set numbers them.
        num_pictures: Pictures that they are about, over which intervals are resampled.
        mean_iou: Mean IoU; rows without a box count as 0.
        median_iou: Median IoU, likewise.
        success_rates: Share of rows that reach each threshold, in the order of the thresholds.
        mean_accuracy: Mean of the shares at 0.50, 0.55, ..., 0.95: mAcc 0.5:0.95.
        centre_accuracy: Share of rows whose predicted centre lies in the true box.
        pointing_accuracy: Share of rows whose strongest point lies in the true box; None where no prediction says one.
        intervals: 95 % intervals of the means by name; empty without resamples.
    """

    num_rows: int
    num_refs: int
    num_pictures: int
    mean_iou: float
    median_iou: float
    success_rates: tuple[float, ...]
    mean_accuracy: float
    centre_accuracy: float
    pointing_accuracy: Optional[float]
    intervals: Mapping[str, Interval] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoredRows:
    """Every row of a data set beside its prediction, as arrays.

    Attributes:
        truths: The rows with one target box.
        predictions: Theirs.
        truth_xyxy: `[rows, 4]`.
        predicted_xyxy: `[rows, 4]`, NaN without a box.
        ious: `[rows]`, 0 without a box.
    """

    truths: tuple[Truth, ...]
    predictions: tuple[Prediction, ...]
    truth_xyxy: np.ndarray
    predicted_xyxy: np.ndarray
    ious: np.ndarray

    def take(self, indices: Sequence[int] | np.ndarray) -> ScoredRows:
        """The rows of these numbers."""
        chosen = [int(index) for index in indices]
        return ScoredRows(
            tuple(self.truths[index] for index in chosen),
            tuple(self.predictions[index] for index in chosen),
            self.truth_xyxy[chosen],
            self.predicted_xyxy[chosen],
            self.ious[chosen],
        )


def score_rows(truths: Sequence[Truth], predictions: Sequence[Prediction]) -> ScoredRows:
    """Set rows and predictions side by side; rows with several or no targets are scored elsewhere.

    Args:
        truths: The rows.
        predictions: One for each.

    Returns:
        The rows with one target.
    """
    pairs = [(truth, prediction) for truth, prediction in zip(truths, predictions) if truth.box_xyxy is not None]
    truth_xyxy = np.array([truth.box_xyxy for truth, _ in pairs], dtype=np.float64).reshape(-1, 4)
    no_box = (np.nan,) * 4
    boxes = [prediction.box_xyxy or no_box for _, prediction in pairs]
    predicted_xyxy = np.array(boxes, dtype=np.float64).reshape(-1, 4)
    return ScoredRows(
        tuple(truth for truth, _ in pairs),
        tuple(prediction for _, prediction in pairs),
        truth_xyxy,
        predicted_xyxy,
        box_ious(predicted_xyxy, truth_xyxy),
    )


def columns(rows: ScoredRows, rules: Rules) -> dict[str, np.ndarray]:
    """The measures of every row, `[rows]` each, whose means are the scores; NaN where a row has none."""
    overlaps = rows.ious if rules.overlap == "iou" else generalized_ious(rows.predicted_xyxy, rows.truth_xyxy)
    measured: dict[str, np.ndarray] = {"mean IoU": rows.ious}
    for name, threshold in zip(rules.names, rules.thresholds):
        measured[name] = hits(overlaps, threshold, rules.rule).astype(np.float64)
    measured["mAcc"] = mean_accuracy(overlaps, rules.rule)
    measured["centre"] = centres_inside(rows.predicted_xyxy, rows.truth_xyxy).astype(np.float64)
    peaks = np.array([prediction.peak_xy or (np.nan, np.nan) for prediction in rows.predictions]).reshape(-1, 2)
    if np.isfinite(peaks).any():
        measured["pointing"] = points_inside(peaks, rows.truth_xyxy).astype(np.float64)
    return measured


def summarize(rows: ScoredRows, rules: Rules) -> Summary:
    """Scores over rows, in the unit that the rules name.

    Args:
        rows: At least one.
        rules: How they are counted.

    Returns:
        The scores.
    """
    measured = columns(rows, rules)
    unit, first = _units(rows, rules.per)
    values = _by_unit(np.column_stack(list(measured.values())), unit, rules.per)
    clusters = cluster_numbers([rows.truths[index].picture for index in first])
    means = dict(zip(measured, np.nanmean(values, axis=0).tolist()))
    intervals: dict[str, Interval] = {}
    if rules.resamples:
        resamples = rules.resamples_of(int(clusters.max()) + 1)
        found = cluster_intervals(values, clusters, resamples=resamples, seed=rules.seed)
        intervals = dict(zip(measured, found))
    return Summary(
        num_rows=len(rows.truths),
        num_refs=len({truth.ref for truth in rows.truths}),
        num_pictures=len({truth.picture for truth in rows.truths}),
        mean_iou=means["mean IoU"],
        median_iou=float(np.median(values[:, 0])),
        success_rates=tuple(means[name] for name in rules.names),
        mean_accuracy=means["mAcc"],
        centre_accuracy=means["centre"],
        pointing_accuracy=means.get("pointing"),
        intervals=intervals,
    )


def group_rows(rows: ScoredRows, group_by: str) -> dict[str, ScoredRows]:
    """Rows by the value of a field, sorted by it.

    Args:
        rows: The rows.
        group_by: A field of the rows; `orientation` also works by the picture's size, `size:coco` and `size:ref-l4` by
            that of the true box.

    Returns:
        The rows of each value.

    Raises:
        ValueError: No row has the field.
    """
    names = group_names(rows, group_by)
    if all(name == NO_GROUP for name in names):
        raise ValueError(f"Expected rows with the field {group_by!r} to group by, but got none. Check --group-by.")
    members: dict[str, list[int]] = {}
    for index, name in enumerate(names):
        members.setdefault(name, []).append(index)
    order = ("small", "medium", "large") if group_by.startswith("size:") else sorted(members)
    return {name: rows.take(members[name]) for name in order if name in members}


def group_names(rows: ScoredRows, group_by: str) -> list[str]:
    """The group of every row; `(none)` where it has none."""
    if group_by.startswith("size:"):
        return size_classes(rows.truth_xyxy, group_by.partition(":")[2])
    return [_group_of(truth, prediction, group_by) for truth, prediction in zip(rows.truths, rows.predictions)]


def trivial_baselines(rows: ScoredRows, rules: Rules) -> dict[str, Summary]:
    """What no model is needed for: the whole picture as box, and the middle half of it in both directions.

    Args:
        rows: The rows.
        rules: How they are counted.

    Returns:
        Their scores, over the rows whose picture's size is known; nothing where none is.
    """
    sizes = [truth.image_size_wh or (np.nan, np.nan) for truth in rows.truths]
    known = np.flatnonzero(np.isfinite(np.array(sizes)).all(axis=1)) if sizes else np.zeros(0, int)
    if not len(known):
        return {}
    chosen, full = rows.take(known), np.array(sizes, dtype=np.float64)[known]
    shares = {"the whole picture": (0.0, 0.0, 1.0, 1.0), "the middle half": (0.25, 0.25, 0.75, 0.75)}
    return {name: summarize(_with_boxes(chosen, np.tile(full, 2) * share), rules) for name, share in shares.items()}


def _with_boxes(rows: ScoredRows, predicted_xyxy: np.ndarray) -> ScoredRows:
    ious = box_ious(predicted_xyxy, rows.truth_xyxy)
    blank = tuple(Prediction("box") for _ in rows.truths)
    return ScoredRows(rows.truths, blank, rows.truth_xyxy, predicted_xyxy, ious)


def _units(rows: ScoredRows, per: str) -> tuple[np.ndarray, list[int]]:
    """Number of each row's unit, and the first row of each unit."""
    names = [f"{i}" if per == "expression" else truth.ref for i, truth in enumerate(rows.truths)]
    unit = cluster_numbers(names)
    _, first = np.unique(unit, return_index=True)
    return unit, [int(index) for index in first]


def _by_unit(values: np.ndarray, unit: np.ndarray, per: str) -> np.ndarray:
    """One row a unit: its mean, or its first."""
    if per == "expression":
        return values
    if per == "first":
        return np.asarray(values[np.unique(unit, return_index=True)[1]])
    sums = np.zeros((int(unit.max()) + 1, values.shape[1]))
    np.add.at(sums, unit, values)
    return np.asarray(sums / np.bincount(unit)[:, None])


def _group_of(truth: Truth, prediction: Prediction, group_by: str) -> str:
    value: Any = truth.row.get(group_by)
    if value is None and group_by == "orientation":
        value = _orientation(truth.image_size_wh or prediction.image_size_wh)
    return NO_GROUP if value is None else str(value)


def _orientation(image_size_wh: Optional[tuple[float, float]]) -> Optional[str]:
    if image_size_wh is None:
        return None
    width, height = image_size_wh
    return "square" if width == height else "landscape" if width > height else "portrait"
