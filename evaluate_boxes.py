"""Predictions against ground truth -> scores. Imports neither torch nor transformers.

    python evaluate_boxes.py --dataset-jsonl data.jsonl --pred-root outputs/results/<model>

Every row of the data set counts: one whose prediction is missing, null or unreadable has an IoU of 0.
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional, Union

from command_line.streams import explain_lost_output, forgiving_streams
from lab.datasets.box_reading import AUTO, BOX_FORMATS
from lab.storage.files import atomic_write, save_json
from scores.evaluation import (
    DEFAULT_THRESHOLDS,
    OVERLAPS,
    RESAMPLES,
    UNITS,
    Rules,
    SampleScore,
    ScoredRows,
    group_names,
    group_rows,
    score_rows,
    summarize,
    trivial_baselines,
)
from scores.formatting import format_csv, format_latex, format_markdown, format_problems, format_report, format_samples
from scores.predictions import Prediction, read_directory, read_predictions_file
from scores.report import EvaluationReport
from scores.truths import Size, Truth, Truths, parse_rows, settle_truths

if TYPE_CHECKING:
    from scores.comparison import Comparison
    from scores.rows_of_masks import MaskReport

PathLike = Union[str, "os.PathLike[str]"]


@dataclass(frozen=True)
class Sources:
    """Where predictions come from.

    Attributes:
        pred_root: Directory with `<id>_bbox.json`, or with one directory for each id that holds it.
        file: A file that another tool wrote, in its place.
        id_field: Key of that file's ids; None for one of the usual ones.
        box_format: How that file's boxes are written, or `auto`.
    """

    pred_root: Optional[PathLike] = None
    file: Optional[PathLike] = None
    id_field: Optional[str] = None
    box_format: str = AUTO

    def __post_init__(self) -> None:
        """Reject none and both."""
        if (self.pred_root is None) == (self.file is None):
            got = "neither" if self.file is None else "both"
            raise ValueError(f"Expected either --pred-root or --predictions, but got {got}. Give one of them.")

    def directory(self, option: str) -> PathLike:
        """The directory, for what only it holds.

        Raises:
            ValueError: Predictions come from a file.
        """
        if self.pred_root is None:
            raise ValueError(f"Expected --pred-root with {option}, but got a file of --predictions, which lacks it.")
        return self.pred_root


@dataclass(frozen=True)
class Evaluation:
    """A report with the rows that it is about.

    Attributes:
        report: The scores.
        rows: The rows with one target, beside their predictions.
    """

    report: EvaluationReport
    rows: ScoredRows


def evaluate(dataset_jsonl: PathLike, pred_root: PathLike, **options: Any) -> EvaluationReport:
    """Score a directory of predicted boxes against the ground truth of a data set.

    Args:
        dataset_jsonl: JSON lines, a JSON array, or a CSV or TSV table of rows with an id and a ground truth, `bbox` or
            `bbox_xyxy`.
        pred_root: Directory with `<id>_bbox.json`.
        options: As those of `evaluate_sources`.

    Returns:
        The report.
    """
    return evaluate_sources(dataset_jsonl, Sources(pred_root), **options).report


def evaluate_sources(
    dataset_jsonl: PathLike,
    sources: Sources,
    *,
    id_field: str = "id",
    box_format: str = AUTO,
    iou_thresholds: Sequence[float] = DEFAULT_THRESHOLDS,
    rule: str = "ge",
    overlap: str = "iou",
    per: str = "expression",
    resamples: int = RESAMPLES,
    group_by: Optional[str] = None,
    against: Optional[PathLike] = None,
    ceiling: bool = False,
    baselines: bool = False,
    masks: bool = False,
) -> Evaluation:
    """Score predicted boxes against the ground truth of a data set.

    Args:
        dataset_jsonl: JSON lines, a JSON array, or a CSV or TSV table of rows with an id and a ground truth, `bbox` or
            `bbox_xyxy`.
        sources: Where predictions come from.
        id_field: Field of the rows that holds the id.
        box_format: How the data set's boxes are written (`lab.datasets.box_reading.BOX_FORMATS`), or `auto`.
        iou_thresholds: An overlap that reaches one of these is a success.
        rule: `ge`, at least the threshold, or `gt`, more than it.
        overlap: `iou` or `giou`.
        per: `expression`, `ref` or `first`.
        resamples: Bootstrap resamples of the pictures for intervals; 0 for none.
        group_by: Field of the rows to score by; `orientation`, `size:coco` and `size:ref-l4` also work without one.
        against: Directory of another run on the same rows, to compare with.
        ceiling: Also score the best boxes of whole cells.
        baselines: Also score the whole picture and its middle half.
        masks: Also score `<id>_mask.png` against the rows' masks.

    Returns:
        The report, and the rows.

    Raises:
        ValueError: If no row has a ground truth, an id is there twice, a threshold is out of range, the boxes' reading
            cannot be told, the field to group by is unknown, or no prediction is there for any row.
        FileNotFoundError: If the data set or the directory does not exist.
    """
    rules = Rules(tuple(sorted({float(value) for value in iou_thresholds})), rule, overlap, per, resamples)
    truths, kept = _read(dataset_jsonl, sources, id_field, box_format)
    rows = score_rows(truths.rows, kept)
    if not rows.truths:
        raise ValueError(f"Expected {dataset_jsonl} to hold rows with one target box, but got none that can be used.")
    best, unknown = None, 0
    if ceiling:
        from scores.ceiling import summarize_ceiling

        best, unknown = summarize_ceiling(rows, sources.directory("--ceiling"), rules)
    report = EvaluationReport(
        samples=_samples(rows, group_by),
        rules=rules,
        overall=summarize(rows, rules),
        groups={name: summarize(part, rules) for name, part in group_rows(rows, group_by).items()} if group_by else {},
        broken_rows=truths.broken,
        unreadable_predictions=tuple(prediction.problem for prediction in kept if prediction.problem),
        reading=truths.reading,
        ceiling=best,
        num_without_grid=unknown,
        baselines=trivial_baselines(rows, rules) if baselines else {},
        sets=_score_sets(truths.rows, kept, overlap),
        masks=_score_masks(truths.rows, sources, dataset_jsonl) if masks else None,
        comparison=None if against is None else _compare(rows, against, truths.rows, rules),
    )
    return Evaluation(report, rows)


def _read(dataset_jsonl: PathLike, sources: Sources, id_field: str, box_format: str) -> tuple[Truths, list[Prediction]]:
    """Rows and their predictions; the sizes that predictions state help to tell how the rows' boxes are written."""
    parsed, broken = parse_rows(dataset_jsonl, id_field)
    ids = [row.id for row in parsed]
    if sources.pred_root is not None:
        found = dict(zip(ids, read_directory(sources.pred_root, ids)))
        sizes = {key: _size(each.image_size_wh) for key, each in found.items() if each.image_size_wh is not None}
        truths = settle_truths(parsed, broken, dataset_jsonl, box_format=box_format, sizes=sizes)
    else:
        assert sources.file is not None, "there is a directory or a file"
        truths = settle_truths(parsed, broken, dataset_jsonl, box_format=box_format)
        known = {truth.id: truth.image_size_wh for truth in truths.rows if truth.image_size_wh is not None}
        read = read_predictions_file(sources.file, ids, known, id_field=sources.id_field, box_format=sources.box_format)
        found = dict(zip(ids, read))
    return truths, [found[truth.id] for truth in truths.rows]


def _size(image_size_wh: tuple[int, int]) -> Size:
    return float(image_size_wh[0]), float(image_size_wh[1])


def _compare(rows: ScoredRows, against: PathLike, truths: Sequence[Truth], rules: Rules) -> Comparison:
    from scores.comparison import compare

    others = score_rows(truths, read_directory(against, [truth.id for truth in truths]))
    return compare(rows, others, rules, str(against))


def _score_masks(truths: Sequence[Truth], sources: Sources, dataset_jsonl: PathLike) -> Optional[MaskReport]:
    from scores.rows_of_masks import score_masks

    return score_masks(truths, sources.directory("--masks"), dataset_jsonl)


def _samples(rows: ScoredRows, group_by: Optional[str]) -> tuple[SampleScore, ...]:
    groups = group_names(rows, group_by) if group_by else [""] * len(rows.truths)
    return tuple(
        SampleScore(
            truth.id, truth.line_number, group, prediction.status, float(iou), truth.box_xyxy, prediction.box_xyxy
        )
        for truth, prediction, group, iou in zip(rows.truths, rows.predictions, groups, rows.ious)
        if truth.box_xyxy is not None
    )


def _score_sets(
    truths: Sequence[Truth], predictions: Sequence[Prediction], overlap: str
) -> Optional[Mapping[str, Union[float, int, None]]]:
    """Over all rows, those with one target included, where some have several or none."""
    if all(truth.box_xyxy is not None for truth in truths):
        return None
    from scores.sets_of_boxes import score_set, summarize_sets

    scores = [score_set(each.boxes_xyxy, truth.boxes_xyxy, overlap=overlap) for truth, each in zip(truths, predictions)]
    return {"num_rows": len(scores), **summarize_sets(scores)}


# ---------------------------------------------------------------------------------------------------------------------
# Command line
# ---------------------------------------------------------------------------------------------------------------------

_EVALUATION_OPTIONS = (
    "id_field",
    "box_format",
    "iou_thresholds",
    "rule",
    "overlap",
    "per",
    "resamples",
    "group_by",
    "against",
    "ceiling",
    "baselines",
    "masks",
)
_OUTPUTS = ("json", "csv", "markdown", "latex", "per_sample_csv", "predictions_table")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        Exit status: 0, 1 if some rows or predictions could not be read (the rest is scored), 2 if nothing was scored.
    """
    with forgiving_streams() as (stdout, _), _no_garbage_hunt():
        status = _run(arguments)
        lost = explain_lost_output(stdout)
        if lost is not None:
            print(f"evaluate_boxes: {lost}", file=sys.stderr)
    return status


@contextmanager
def _no_garbage_hunt() -> Iterator[None]:
    """Spare a short program the search for cycles among rows that it keeps to its end."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _run(arguments: Sequence[str] | None) -> int:
    options = _parse_arguments(arguments)
    try:
        _check_outputs(options)
        evaluation = evaluate_sources(
            options.dataset_jsonl,
            Sources(options.pred_root, options.predictions, options.prediction_id_field, options.prediction_box_format),
            **{name: getattr(options, name) for name in _EVALUATION_OPTIONS},
        )
        _write_outputs(evaluation, options)
    except (ValueError, OSError) as error:
        print(f"evaluate_boxes: {error}", file=sys.stderr)
        return 2
    report = evaluation.report
    print(format_report(report))
    for title, problems in (("not scored", report.broken_rows), ("scored as misses", report.unreadable_predictions)):
        if problems:
            print(format_problems(title, problems), file=sys.stderr)
    return 0 if report.is_complete else 1


def _check_outputs(options: argparse.Namespace) -> None:
    """Find out before the work whether its results can be written."""
    for name in _OUTPUTS:
        path = getattr(options, name)
        parent = None if path is None else next(p for p in Path(path).absolute().parents if p.exists())
        if parent is not None and not (parent.is_dir() and os.access(parent, os.W_OK)):
            flag = "--" + name.replace("_", "-")
            raise ValueError(f"Expected {flag} to be in a directory that can be written, but {parent} cannot.")


def _write_outputs(evaluation: Evaluation, options: argparse.Namespace) -> None:
    report = evaluation.report
    if options.json:
        save_json(options.json, report.to_dict())
    texts = {"csv": format_csv, "markdown": format_markdown, "latex": format_latex}
    for name, format_text in texts.items():
        if getattr(options, name):
            atomic_write(getattr(options, name), format_text(report))
    if options.per_sample_csv:
        atomic_write(options.per_sample_csv, format_samples(report.samples))
    if options.predictions_table:
        from scores.tables import write_predictions_table

        write_predictions_table(Path(options.predictions_table), evaluation.rows, report.samples)


def _parse_arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Score predicted boxes against ground-truth boxes.")
    _add_inputs(parser)
    _add_rules(parser)
    outputs = {
        "--json": "the scores as JSON",
        "--csv": "the table as CSV",
        "--markdown": "the table as Markdown",
        "--latex": "the table as LaTeX",
        "--per-sample-csv": "one line for each row",
        "--predictions-table": "all predictions as one .csv or .parquet",
    }
    for flag, what in outputs.items():
        parser.add_argument(flag, metavar="PATH", help=f"write {what}")
    options = parser.parse_args(arguments)
    options.iou_thresholds = [threshold for part in options.iou_thresholds for threshold in part]
    return options


def _add_inputs(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--dataset-jsonl", required=True, help="JSON lines, a JSON array or a table of rows with an id and a box")
    add("--pred-root", help="the model's output directory, with <id>_bbox.json")
    add("--predictions", metavar="FILE", help="a file of another tool: Ref-L4's, COCO results, or JSON lines")
    add("--prediction-id-field", metavar="KEY", help="key of its ids (default: id, question_id or image_id)")
    add("--prediction-box-format", default=AUTO, choices=BOX_FORMATS, help="how its boxes are written")
    add("--id-field", default="id", help="field of the rows that holds the id (default: id)")
    add("--box-format", default=AUTO, choices=BOX_FORMATS, help="how the rows' boxes are written (default: auto)")
    add("--against", metavar="DIR", help="another run on the same rows: differences with their intervals")


def _add_rules(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    thresholds: dict[str, Any] = {"nargs": "+", "type": _thresholds, "default": [DEFAULT_THRESHOLDS], "metavar": "T"}
    add("--iou-thresholds", help="separated by commas or spaces (default: 0.25,0.5,0.75)", **thresholds)
    add("--rule", default="ge", choices=("ge", "gt"), help="a hit is at least (ge) or more than (gt) the threshold")
    add("--overlap", default="iou", choices=OVERLAPS, help="IoU or generalized IoU")
    add("--per", default="expression", choices=UNITS, help="unit: expression, ref (mean of its expressions) or first")
    add("--resamples", type=int, default=RESAMPLES, help=f"resamples of pictures, 0 for none (default: {RESAMPLES})")
    add("--group-by", metavar="FIELD", help="also score by this field, orientation, size:coco or size:ref-l4")
    add("--ceiling", action="store_true", help="also score the best boxes of whole cells, on each picture's grid")
    add("--baselines", action="store_true", help="also score the whole picture and its middle half as boxes")
    add("--masks", action="store_true", help="also score <id>_mask.png against the rows' masks")


def _thresholds(text: str) -> tuple[float, ...]:
    return tuple(float(part) for part in text.split(",") if part.strip())


if __name__ == "__main__":
    sys.exit(main())
