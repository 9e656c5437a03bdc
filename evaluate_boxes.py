"""Predictions against ground truth -> scores. Imports neither torch nor transformers.

    python evaluate_boxes.py --dataset-jsonl data.jsonl --pred-root outputs/results/<model>

Every row of the data set counts: one whose prediction is missing, null or unreadable has an IoU of 0.
"""

from __future__ import annotations

import argparse
import csv
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from lab.boxes import Box, box_ious
from lab.storage.files import atomic_write, save_json
from scores.ceiling import read_ceiling
from scores.predictions import Prediction, read_predictions
from scores.truths import Truth, read_truths

DEFAULT_THRESHOLDS = (0.25, 0.5, 0.75)
STATUSES = ("box", "null", "missing", "unreadable")
NO_GROUP = "(none)"
NAMED = 5
"""So many offending rows or files are named in a message; the rest is counted."""


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
    predicted_xyxy: Box | None


@dataclass(frozen=True)
class Summary:
    """Scores over some rows.

    Attributes:
        num_rows: Number of rows.
        mean_iou: Mean IoU; rows without a box count as 0.
        median_iou: Median IoU, likewise.
        success_rates: Share of rows with an IoU of at least each threshold, in the order of the thresholds.
    """

    num_rows: int
    mean_iou: float
    median_iou: float
    success_rates: tuple[float, ...]


@dataclass(frozen=True)
class EvaluationReport:
    """All that an evaluation found.

    Attributes:
        samples: One score for each row with a ground truth, in the data set's order.
        iou_thresholds: Thresholds of the success rates, ascending.
        overall: Scores over all rows.
        groups: Scores by group, sorted by name; empty without a field to group by.
        broken_rows: Sentences that name rows without a usable id or ground truth; they are not scored.
        unreadable_predictions: Sentences that name prediction files that could not be read; they are scored as misses.
    """

    samples: tuple[SampleScore, ...]
    iou_thresholds: tuple[float, ...]
    overall: Summary
    groups: Mapping[str, Summary]
    broken_rows: tuple[str, ...] = ()
    unreadable_predictions: tuple[str, ...] = ()

    def count(self, status: str) -> int:
        """Number of rows with a status: `box`, `null`, `missing` or `unreadable`."""
        return sum(sample.status == status for sample in self.samples)

    @property
    def is_complete(self) -> bool:
        """Whether every row and every prediction file could be read."""
        return not self.broken_rows and not self.unreadable_predictions

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the single rows."""
        return {
            "num_rows": self.overall.num_rows,
            **{f"num_{status}": self.count(status) for status in STATUSES},
            "num_broken_rows": len(self.broken_rows),
            "iou_thresholds": list(self.iou_thresholds),
            "overall": self._summary_to_dict(self.overall),
            "groups": {name: self._summary_to_dict(summary) for name, summary in self.groups.items()},
            "broken_rows": list(self.broken_rows),
            "unreadable_predictions": list(self.unreadable_predictions),
        }

    def _summary_to_dict(self, summary: Summary) -> dict[str, Any]:
        names = [f"{threshold:g}" for threshold in self.iou_thresholds]
        return {**asdict(summary), "success_rates": dict(zip(names, summary.success_rates))}


def evaluate(
    dataset_jsonl: str | os.PathLike[str],
    pred_root: str | os.PathLike[str],
    *,
    id_field: str = "id",
    iou_thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
    group_by: str | None = None,
) -> EvaluationReport:
    """Score predicted boxes against the ground truth of a data set.

    Args:
        dataset_jsonl: One object a line with an id and a ground truth: `bbox` as [x, y, width, height], or `bbox_xyxy`.
        pred_root: Directory with `<id>_bbox.json`, or with one directory for each id that holds it.
        id_field: Field of the rows that holds the id.
        iou_thresholds: An IoU of at least this much is a success.
        group_by: Field of the rows to score by; `orientation` also works on rows without it, by the image's size.

    Returns:
        The report.

    Raises:
        ValueError: If no row has a ground truth, an id is there twice, a threshold is out of range, the field to group
            by is unknown, or no prediction is there for any row.
        FileNotFoundError: If the data set or the directory does not exist.
    """
    thresholds = _check_thresholds(iou_thresholds)
    truths, broken_rows = read_truths(dataset_jsonl, id_field)
    predictions = read_predictions(pred_root, truths)
    ious = _ious(truths, predictions)
    samples = tuple(
        SampleScore(
            id=truth.id,
            line_number=truth.line_number,
            group=_group_of(truth, prediction, group_by),
            status=prediction.status,
            iou=float(iou),
            truth_xyxy=truth.box_xyxy,
            predicted_xyxy=prediction.box_xyxy,
        )
        for truth, prediction, iou in zip(truths, predictions, ious)
    )
    return EvaluationReport(
        samples=samples,
        iou_thresholds=thresholds,
        overall=_summarize(ious, thresholds),
        groups=_summarize_groups(samples, thresholds, group_by) if group_by else {},
        broken_rows=broken_rows,
        unreadable_predictions=tuple(prediction.problem for prediction in predictions if prediction.problem),
    )


def _ious(truths: Sequence[Truth], predictions: Sequence[Prediction]) -> np.ndarray:
    """IoU of every row, 0 without a box: `[rows]`."""
    no_box = (np.nan,) * 4
    predicted_xyxy = np.array([prediction.box_xyxy or no_box for prediction in predictions], dtype=np.float64)
    return box_ious(predicted_xyxy, np.array([truth.box_xyxy for truth in truths], dtype=np.float64))


# ---------------------------------------------------------------------------------------------------------------------
# Scores
# ---------------------------------------------------------------------------------------------------------------------


def _check_thresholds(iou_thresholds: Sequence[float]) -> tuple[float, ...]:
    thresholds = tuple(sorted({float(threshold) for threshold in iou_thresholds}))
    if not thresholds or not all(0 < threshold <= 1 for threshold in thresholds):
        raise ValueError(
            f"Expected the IoU thresholds to be above 0 and at most 1, but got {list(iou_thresholds)}. "
            "Write them as 0.25,0.5,0.75."
        )
    return thresholds


def _summarize(ious: np.ndarray, thresholds: Sequence[float]) -> Summary:
    return Summary(
        num_rows=len(ious),
        mean_iou=float(ious.mean()),
        median_iou=float(np.median(ious)),
        success_rates=tuple(float((ious >= threshold).mean()) for threshold in thresholds),
    )


def _summarize_groups(samples: Sequence[SampleScore], thresholds: Sequence[float], group_by: str) -> dict[str, Summary]:
    if all(sample.group == NO_GROUP for sample in samples):
        raise ValueError(f"Expected rows with the field {group_by!r} to group by, but got none. Check --group-by.")
    ious_of: dict[str, list[float]] = {}
    for sample in samples:
        ious_of.setdefault(sample.group, []).append(sample.iou)
    return {name: _summarize(np.array(ious_of[name]), thresholds) for name in sorted(ious_of)}


def _group_of(truth: Truth, prediction: Prediction, group_by: str | None) -> str:
    if group_by is None:
        return ""
    value = truth.row.get(group_by)
    if value is None and group_by == "orientation":
        value = _orientation(truth.row.get("image_size") or prediction.image_size_wh)
    return NO_GROUP if value is None else str(value)


def _orientation(image_size_wh: Any) -> str | None:
    try:
        width, height = image_size_wh
        return "square" if width == height else "landscape" if width > height else "portrait"
    except (TypeError, ValueError):
        return None


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0, 1 if some rows or predictions could not be read (the rest is scored), 2 if nothing was scored.
    """
    options = _parse_arguments(arguments)
    try:
        report = evaluate(
            options.dataset_jsonl,
            options.pred_root,
            id_field=options.id_field,
            iou_thresholds=options.iou_thresholds,
            group_by=options.group_by,
        )
        truths = read_truths(options.dataset_jsonl, options.id_field)[0] if options.ceiling else []
        ceiling = read_ceiling(options.pred_root, truths) if options.ceiling else None
    except (ValueError, OSError) as error:
        print(f"evaluate_boxes: {error}", file=sys.stderr)
        return 2
    print(_format_report(report))
    for title, problems in (("not scored", report.broken_rows), ("scored as misses", report.unreadable_predictions)):
        if problems:
            print(_format_problems(title, problems), file=sys.stderr)
    ceiling = (
        read_ceiling(options.pred_root, read_truths(options.dataset_jsonl, options.id_field)[0])
        if options.ceiling
        else None
    )
    if ceiling is not None:
        print(ceiling.sentence())
    if options.json:
        save_json(options.json, {**report.to_dict(), **({} if ceiling is None else {"ceiling": ceiling.to_dict()})})
    if options.per_sample_csv:
        atomic_write(options.per_sample_csv, _to_csv(report.samples).encode("utf-8"))
    return 0 if report.is_complete else 1


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Score predicted boxes against ground-truth boxes.")
    parser.add_argument("--dataset-jsonl", required=True, help="rows with an id and bbox [x, y, w, h] or bbox_xyxy")
    parser.add_argument("--pred-root", required=True, help="the model's output directory, with <id>_bbox.json")
    parser.add_argument("--id-field", default="id", help="field of the rows that holds the id (default: id)")
    parser.add_argument(
        "--iou-thresholds",
        nargs="+",
        type=_thresholds,
        default=[DEFAULT_THRESHOLDS],
        metavar="T",
        help="separated by commas or spaces (default: 0.25,0.5,0.75)",
    )
    parser.add_argument("--group-by", metavar="FIELD", help="also score by this field, such as split or orientation")
    parser.add_argument("--ceiling", action="store_true", help="also say what the grid of the model allows at best")
    parser.add_argument("--json", metavar="PATH", help="write the scores as JSON")
    parser.add_argument("--per-sample-csv", metavar="PATH", help="write one line for each row")
    options = parser.parse_args(arguments)
    options.iou_thresholds = [threshold for part in options.iou_thresholds for threshold in part]
    return options


def _thresholds(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part.strip())


def _format_report(report: EvaluationReport) -> str:
    header = ["", "rows", "mean IoU", "median IoU", *(f"IoU>={threshold:g}" for threshold in report.iou_thresholds)]
    summaries = {"all": report.overall, **report.groups}
    table = [header, *(_format_summary(name, summary) for name, summary in summaries.items())]
    widths = [max(map(len, column)) for column in zip(*table)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths)) for row in table]
    return "\n".join([*lines, _format_counts(report)])


def _format_summary(name: str, summary: Summary) -> list[str]:
    scores = (summary.mean_iou, summary.median_iou, *summary.success_rates)
    return [name, str(summary.num_rows), *(f"{score:.4f}" for score in scores)]


def _format_counts(report: EvaluationReport) -> str:
    return (
        f"{report.overall.num_rows} rows: {report.count('box')} with a box, {report.count('null')} null, "
        f"{report.count('missing')} missing, {report.count('unreadable')} unreadable; "
        "without a box the IoU is 0."
    )


def _format_problems(title: str, problems: Sequence[str]) -> str:
    lines = [f"{len(problems)} {title}:", *(f"  {problem}" for problem in problems[:NAMED])]
    return "\n".join(lines if len(problems) <= NAMED else [*lines, f"  and {len(problems) - NAMED} more"])


def _to_csv(samples: Sequence[SampleScore]) -> str:
    edges = ("x0", "y0", "x1", "y1")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["id", "line", "group", "status", "iou", *(f"truth_{e}" for e in edges), *(f"predicted_{e}" for e in edges)]
    )
    for sample in samples:
        predicted = sample.predicted_xyxy or ("",) * 4
        writer.writerow(
            [sample.id, sample.line_number, sample.group, sample.status, sample.iou, *sample.truth_xyxy, *predicted]
        )
    return text.getvalue()


if __name__ == "__main__":
    sys.exit(main())
