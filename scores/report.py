"""All that an evaluation found, as plain data and as the one sentence that says how it was counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from scores.evaluation import STATUSES, Rules, SampleScore, Summary

if TYPE_CHECKING:
    from scores.comparison import Comparison
    from scores.rows_of_masks import MaskReport

UNIT_WORDS = {
    "expression": "per expression",
    "ref": "per object, as the mean over its expressions",
    "first": "per object, its first expression only",
}


@dataclass(frozen=True)
class EvaluationReport:
    """All that an evaluation found.

    Attributes:
        samples: One score for each row with one target, in the data set's order.
        rules: How they were counted.
        overall: Scores over all of them.
        groups: Scores by group; empty without a field to group by.
        broken_rows: Sentences that name rows without a usable id or ground truth; they are not scored.
        unreadable_predictions: Sentences that name prediction files that could not be read; they are scored as misses.
        reading: How the boxes of the data set were read, and why.
        ceiling: Scores of the best boxes of whole cells, if asked for.
        num_without_grid: Rows that these leave out, since their grid is not known.
        baselines: Scores of boxes that need no model.
        sets: Scores over rows with several or no targets, if there are any, with their number.
        masks: Scores of masks, if asked for.
        comparison: Differences to another run, if asked for.
    """

    samples: tuple[SampleScore, ...]
    rules: Rules
    overall: Summary
    groups: Mapping[str, Summary] = field(default_factory=dict)
    broken_rows: tuple[str, ...] = ()
    unreadable_predictions: tuple[str, ...] = ()
    reading: tuple[str, ...] = ()
    ceiling: Optional[Summary] = None
    num_without_grid: int = 0
    baselines: Mapping[str, Summary] = field(default_factory=dict)
    sets: Optional[Mapping[str, Any]] = None
    masks: Optional[MaskReport] = None
    comparison: Optional[Comparison] = None

    @property
    def iou_thresholds(self) -> tuple[float, ...]:
        """Thresholds of the hit rates, ascending."""
        return self.rules.thresholds

    def count(self, status: str) -> int:
        """Number of rows with a status: `box`, `null`, `missing` or `unreadable`."""
        return sum(sample.status == status for sample in self.samples)

    @property
    def is_complete(self) -> bool:
        """Whether every row and every prediction file could be read."""
        return not self.broken_rows and not self.unreadable_predictions

    @property
    def how(self) -> str:
        """How the scores were counted, in one sentence to cite."""
        rules, overall = self.rules, self.overall
        overlap = "IoU" if rules.overlap == "iou" else "generalized IoU"
        relation = ">=" if rules.rule == "ge" else ">"
        sentence = (
            f"A hit is {overlap} {relation} threshold, half-open boxes in pixels, {UNIT_WORDS[rules.per]}, a missing "
            f"box counts as a miss; {overall.num_rows:,} expressions, {overall.num_refs:,} objects, "
            f"{overall.num_pictures:,} pictures"
        )
        if any(interval.method != "none" for interval in overall.intervals.values()):
            resamples = rules.resamples_of(overall.num_pictures)
            sentence += f"; in brackets the 95 % interval of {resamples:,} resamples of the pictures"
        return f"{sentence}."

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the single rows."""
        masks = self.masks
        return {
            "num_rows": self.overall.num_rows,
            **{f"num_{status}": self.count(status) for status in STATUSES},
            "num_broken_rows": len(self.broken_rows),
            "iou_thresholds": list(self.iou_thresholds),
            "how": self.how,
            "box_reading": list(self.reading),
            "overall": self._summary_to_dict(self.overall),
            "groups": {name: self._summary_to_dict(summary) for name, summary in self.groups.items()},
            "ceiling": None if self.ceiling is None else self._ceiling_to_dict(self.ceiling),
            "baselines": {name: self._summary_to_dict(summary) for name, summary in self.baselines.items()},
            "sets": None if self.sets is None else dict(self.sets),
            "masks": None if masks is None else _masks_to_dict(masks),
            "comparison": None if self.comparison is None else _comparison_to_dict(self.comparison),
            "broken_rows": list(self.broken_rows),
            "unreadable_predictions": list(self.unreadable_predictions),
        }

    def _ceiling_to_dict(self, summary: Summary) -> dict[str, Any]:
        return {**self._summary_to_dict(summary), "num_rows_without_grid": self.num_without_grid}

    def _summary_to_dict(self, summary: Summary) -> dict[str, Any]:
        names = [f"{threshold:g}" for threshold in self.iou_thresholds]
        return {
            "num_rows": summary.num_rows,
            "num_refs": summary.num_refs,
            "num_pictures": summary.num_pictures,
            "mean_iou": summary.mean_iou,
            "median_iou": summary.median_iou,
            "success_rates": dict(zip(names, summary.success_rates)),
            "mean_accuracy": summary.mean_accuracy,
            "centre_accuracy": summary.centre_accuracy,
            "pointing_accuracy": summary.pointing_accuracy,
            "intervals": {name: interval.to_dict() for name, interval in summary.intervals.items()},
        }


def _masks_to_dict(masks: MaskReport) -> dict[str, Any]:
    return {
        "num_rows": masks.num_rows,
        "num_missing": masks.num_missing,
        **masks.scores,
        "lisa": masks.lisa,
        "gres": masks.gres,
    }


def _comparison_to_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "against": comparison.name,
        "num_rows": comparison.num_rows,
        "differences": {name: interval.to_dict() for name, interval in comparison.differences.items()},
        "rows_only_here": comparison.better,
        "rows_only_there": comparison.worse,
    }
