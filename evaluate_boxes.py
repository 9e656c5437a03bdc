"""Predictions against ground truth -> scores. Imports neither torch nor transformers.

    python evaluate_boxes.py --dataset-jsonl data.jsonl --pred-root outputs/results/<model>

Every row of the data set counts: one whose prediction is missing, null or unreadable has an IoU of 0.
"""

from __future__ import annotations

import argparse
import csv
import io
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bbox import Box, box_iou, box_ious, cell_coverage, localize_each, smooth_maps, xywh_to_xyxy
from lab.heads.audit import SampleAudit, measure_auroc, measure_enrichment, measure_masks, measure_pointing
from lab.records import Grid
from lab.storage.files import JsonlLine, atomic_write, load_bbox_json, read_jsonl, save_json
from lab.storage.paths import find_stem, safe_name

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
    predictions = _read_predictions(pred_root, truths)
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


# ---------------------------------------------------------------------------------------------------------------------
# Ground truth
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Truth:
    """The ground truth of one row: its id, its line, its half-open box in pixels, and the row itself."""

    id: str
    line_number: int
    box_xyxy: Box
    row: Mapping[str, Any]


def read_truths(dataset_jsonl: str | os.PathLike[str], id_field: str) -> tuple[list[Truth], tuple[str, ...]]:
    """The rows with a ground truth, and a sentence for each row that is broken."""
    truths, broken = [], []
    for line in read_jsonl(dataset_jsonl):
        try:
            truths.append(_parse_truth(line, id_field))
        except ValueError as error:
            broken.append(str(error))
    if not truths:
        reason = f"but none of its {len(broken)} rows has them: {broken[0]}" if broken else "but it is empty."
        raise ValueError(f"Expected {dataset_jsonl} to hold rows with an id and a ground-truth box, {reason}")
    _check_no_duplicates(truths, id_field)
    return truths, tuple(broken)


def _parse_truth(line: JsonlLine, id_field: str) -> Truth:
    if line.row is None:
        raise ValueError(line.error)
    row, where = line.row, f"line {line.number}"
    sample_id = row.get(id_field)
    if isinstance(sample_id, bool) or not isinstance(sample_id, (str, int)) or not str(sample_id).strip():
        raise ValueError(
            f"Expected {where} to have an id, text or a whole number, in the field {id_field!r}, "
            f"but got {sample_id!r}. Its fields are {', '.join(map(repr, row))}: choose one with --id-field."
        )
    return Truth(str(sample_id), line.number, _parse_box(row, where), row)


def _parse_box(row: Mapping[str, Any], where: str) -> Box:
    """The ground-truth box of a row; `bbox_xyxy` goes before `bbox`."""
    field = "bbox_xyxy" if row.get("bbox_xyxy") is not None else "bbox"
    form = "[x0, y0, x1, y1] with x0 < x1 and y0 < y1" if field == "bbox_xyxy" else "[x, y, width, height]"
    value: Any = row.get(field)
    try:
        x0, y0, x1, y1 = (float(number) for number in value) if field == "bbox_xyxy" else xywh_to_xyxy(value)
        usable = all(map(math.isfinite, (x0, y0, x1, y1))) and x0 < x1 and y0 < y1
    except (TypeError, ValueError):
        usable = False
    if not usable:
        raise ValueError(f"Expected {where} to have a ground-truth box {field!r} as {form}, but got {value!r}.")
    return x0, y0, x1, y1


def _check_no_duplicates(truths: Sequence[Truth], id_field: str) -> None:
    first_line: dict[str, int] = {}
    for truth in truths:
        if truth.id in first_line:
            raise ValueError(
                f"Expected every {id_field!r} to be there once, but got {truth.id!r} in line {first_line[truth.id]} "
                f"and again in line {truth.line_number}. Choose another --id-field, or take one of the rows out."
            )
        first_line[truth.id] = truth.line_number


# ---------------------------------------------------------------------------------------------------------------------
# Predictions
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Prediction:
    status: str
    box_xyxy: Box | None = None
    image_size_wh: tuple[int, int] | None = None
    problem: str = ""


_ENDINGS = ("_bbox.json", "")  # a file, or a directory of the id's own


def _read_predictions(pred_root: str | os.PathLike[str], truths: Sequence[Truth]) -> list[_Prediction]:
    """One prediction for each row; an error if none of them is there."""
    root = Path(pred_root)
    if not root.is_dir():
        raise FileNotFoundError(f"Expected --pred-root to be a directory, but there is none at {root}. Check the path.")
    present = set(os.listdir(root))
    predictions = [_read_prediction(str(root), find_stem(truth.id, present, _ENDINGS), present) for truth in truths]
    if all(prediction.status == "missing" for prediction in predictions):
        raise ValueError(_explain_no_match(root, present, truths))
    return predictions


def _read_prediction(root: str, name: str, present: set[str]) -> _Prediction:
    file_name = f"{name}_bbox.json"
    if file_name in present:
        path = os.path.join(root, file_name)
    elif name in present and os.path.isfile(os.path.join(root, name, file_name)):
        path = os.path.join(root, name, file_name)
    else:
        return _Prediction("missing")
    try:
        record = load_bbox_json(path)
    except (ValueError, OSError) as error:
        return _Prediction("unreadable", problem=str(error))
    size = record.get("image_size")
    image_size_wh = (size[0], size[1]) if isinstance(size, list) and len(size) == 2 else None
    if record["bbox_xyxy"] is None:
        return _Prediction("null", None, image_size_wh)
    return _Prediction("box", tuple(record["bbox_xyxy"]), image_size_wh)


def _explain_no_match(root: Path, present: set[str], truths: Sequence[Truth]) -> str:
    """Say what was looked for, what is there instead, and what may be meant."""
    wanted = ", ".join(f"{safe_name(truth.id)}_bbox.json" for truth in truths[:3])
    message = f"Expected {root} to hold predictions such as {wanted}, but got none for any of the {len(truths)} rows."
    others = sorted(name for name in present if name.endswith("_bbox.json"))
    if others:
        return f"{message} It holds {len(others)} others, such as {others[0]}: choose their field with --id-field."
    directories = [name for name in sorted(present) if (root / name).is_dir()]
    holders = [name for name in directories if any((root / name).glob("*_bbox.json"))]
    if holders:
        return f"{message} Its directory {holders[0]} holds some: did you mean --pred-root {root / holders[0]}?"
    return f"{message} It holds no *_bbox.json at all: run stage=batch first, or check the path."


def _ious(truths: Sequence[Truth], predictions: Sequence[_Prediction]) -> np.ndarray:
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


def _group_of(truth: Truth, prediction: _Prediction, group_by: str | None) -> str:
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
# Heads against ground truth
# ---------------------------------------------------------------------------------------------------------------------


def audit_sample(
    attention: np.ndarray,
    grid: Grid,
    image_size_wh: tuple[int, int],
    truth_xyxy: Box,
    *,
    head_sets: np.ndarray,
    per_image_heads: Sequence[tuple[int, int]],
    sigma: float,
    truncate: float,
    region: str,
    relative_threshold: float,
) -> SampleAudit:
    """Measure every head, and sets of heads, against the ground truth of one sample, all heads at once.

    Args:
        attention: `[layers, heads, visual_tokens]`.
        grid: Where the cells lie in the image.
        image_size_wh: Width and height of the original image.
        truth_xyxy: Ground-truth box, half-open, in pixels.
        head_sets: `[sets, K]` int, heads as `layer * num_heads + head`: first the fixed ones, then random draws.
        per_image_heads: (layer, head) of the heads that the criteria choose for this sample; none where they find none.
        sigma: Smoothing, as in `bbox.localize`; so are the other three.
        truncate: See there.
        region: See there.
        relative_threshold: See there.

    Returns:
        The measures.
    """
    shape = attention.shape[:2]
    maps = attention.reshape(-1, *grid.shape)
    image_xyxy = (0.0, 0.0, float(image_size_wh[0]), float(image_size_wh[1]))
    visible = cell_coverage(image_xyxy, grid)
    coverage = np.minimum(cell_coverage(truth_xyxy, grid), visible)
    smoothed = smooth_maps(maps, sigma=sigma, truncate=truncate)
    localized = partial(
        localize_each, grid=grid, image_size_wh=image_size_wh, region=region, relative_threshold=relative_threshold
    )
    masks, boxes_xyxy = localized(smoothed)
    # Smoothing is linear, so that the sum of smoothed maps serves every set.
    per_image = [layer * shape[1] + head for layer, head in per_image_heads]
    sums = [smoothed[head_sets].sum(axis=1), smoothed.sum(axis=0)[None], smoothed[per_image].sum(axis=0)[None]]
    _, set_boxes_xyxy = localized(np.concatenate(sums))
    *set_ious, all_heads_iou, per_image_iou = box_ious(set_boxes_xyxy, np.array(truth_xyxy))
    return SampleAudit(
        box_iou=box_ious(boxes_xyxy, np.array(truth_xyxy)).reshape(shape),
        mask_iou=measure_masks(masks, coverage, visible, truth_xyxy, grid).reshape(shape),
        pointing=measure_pointing(maps, truth_xyxy, grid).reshape(shape),
        enrichment=measure_enrichment(maps, coverage, visible).reshape(shape),
        auroc=measure_auroc(maps, coverage, visible).reshape(shape),
        set_ious=np.array(set_ious),
        all_heads_iou=float(all_heads_iou),
        per_image_iou=float(per_image_iou),
        image_iou=box_iou(image_xyxy, truth_xyxy),
    )


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
    except (ValueError, OSError) as error:
        print(f"evaluate_boxes: {error}", file=sys.stderr)
        return 2
    print(_format_report(report))
    for title, problems in (("not scored", report.broken_rows), ("scored as misses", report.unreadable_predictions)):
        if problems:
            print(_format_problems(title, problems), file=sys.stderr)
    if options.json:
        save_json(options.json, report.to_dict())
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
