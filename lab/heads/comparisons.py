"""The fixed heads against rivals and against the other targets of the same pictures, with intervals and tests."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

import numpy as np

from lab.heads.measures import SampleAudit
from lab.statistics.bootstrap import Interval, cluster_intervals
from lab.statistics.box_permutation import PictureMeasures, own_and_other, permutation_tests
from lab.statistics.head_sets import HeadSets, set_p_value
from lab.statistics.p_values import PValue, holm
from lab.statistics.sign_flips import sign_flip_tests

IOU_THRESHOLDS = (0.25, 0.5, 0.75)
ALL_HEADS, WHOLE_IMAGE, PER_IMAGE = "all heads", "whole image", "per image heads"


def acc_name(threshold: float) -> str:
    """Name of the share of rows whose IoU reaches a threshold, such as `Acc@0.5`."""
    return f"Acc@{threshold:g}"


@dataclass(frozen=True)
class Scores:
    """Mean IoU, and share of rows whose IoU reaches each threshold, with intervals over pictures.

    Attributes:
        iou: Mean IoU.
        acc: For each of `IOU_THRESHOLDS` the share of rows.
    """

    iou: Interval
    acc: tuple[Interval, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        named = {acc_name(limit): found.to_dict() for limit, found in zip(IOU_THRESHOLDS, self.acc)}
        return {"mean_iou": self.iou.to_dict(), **named}


@dataclass(frozen=True)
class Rival:
    """What the fixed heads are compared with.

    Attributes:
        name: Name for people.
        scores: Its own scores; for sets of heads the mean over the sets other than the fixed one.
        difference: Fixed heads less rival, paired by row.
        p_value: Of the difference in IoU: over pictures, by flipping signs; for sets of heads over the sets.
        p_holm: The same, corrected for the family of tests that are printed.
        over: What the p-value is over: `pictures` or `sets of heads`.
    """

    name: str
    scores: Scores
    difference: Scores
    p_value: PValue
    p_holm: float
    over: str

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            **self.scores.to_dict(),
            "difference": self.difference.to_dict(),
            "p_value": self.p_value.to_dict(),
            "p_holm": self.p_holm,
            "p_over": self.over,
        }


@dataclass(frozen=True)
class Control:
    """One measure of the same attention on the own target and on the other targets of the same pictures.

    Attributes:
        measure: `IoU`, `Acc@0.5`, `enrichment` or `pointing`.
        heads: Name of the head, or `fixed heads` for all together.
        own: Mean over the rows of pictures with two targets or more.
        other: Mean on the other targets, over the same rows.
        delta: Own less other, paired by row.
        own_above: Share of the rows where own exceeds other; ties count half.
        p_value: One-sided, by permuting boxes within pictures.
        p_holm: The same, corrected with the family of printed tests where it belongs to it; NaN otherwise.
    """

    measure: str
    heads: str
    own: Interval
    other: Interval
    delta: Interval
    own_above: float
    p_value: PValue
    p_holm: float = float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "measure": self.measure,
            "heads": self.heads,
            "own": self.own.to_dict(),
            "other": self.other.to_dict(),
            "delta": self.delta.to_dict(),
            "own_above": self.own_above,
            "p_value": self.p_value.to_dict(),
            "p_holm": None if np.isnan(self.p_holm) else self.p_holm,
        }


# ---------------------------------------------------------------------------------------------------------------------
# Rivals
# ---------------------------------------------------------------------------------------------------------------------


def score_rows(ious: np.ndarray, clusters: np.ndarray, seed: int = 0) -> list[Scores]:
    """Scores of several boxes a row: IoU `[rows, columns]` gives one record for each column."""
    reached = [(ious >= limit).astype(np.float64) for limit in IOU_THRESHOLDS]
    return _scores(np.stack([ious, *reached], axis=1), clusters, seed)


def compare_rivals(
    samples: Sequence[SampleAudit], clusters: np.ndarray, sets: HeadSets, seed: int = 0
) -> tuple[Scores, tuple[Rival, ...]]:
    """Compare the fixed heads with sets of heads, all heads, per image heads and the whole image.

    Args:
        samples: Measures of every row.
        clusters: `[rows]` int, picture of each row.
        sets: The sets of heads; the fixed one is the first.
        seed: Seed of resamples and flips.

    Returns:
        Scores of the fixed heads; the rivals in this order, without a correction of their p-values.
    """
    set_ious = np.stack([sample.set_ious for sample in samples])
    fixed = np.array([sample.fixed_iou_on[sample.own] for sample in samples])
    others = np.stack(
        [[getattr(s, name) for s in samples] for name in ("all_heads_iou", "per_image_iou", "image_iou")], axis=1
    ).astype(np.float64)
    columns = np.stack([_measures(fixed), _sets_measures(set_ious), *(_measures(ious) for ious in others.T)], axis=2)
    scored = _scores(columns, clusters, seed)
    differences = _scores(columns[:, :, :1] - columns[:, :, 1:], clusters, seed)
    flipped = sign_flip_tests(fixed[:, None] - others, clusters, seed=seed)
    tests = [set_p_value(set_ious.mean(axis=0, dtype=np.float64), sets), *flipped]
    names = [sets.name, ALL_HEADS, PER_IMAGE, WHOLE_IMAGE]
    rivals = [
        Rival(name, scores, difference, test, float("nan"), "sets of heads" if name == sets.name else "pictures")
        for name, scores, difference, test in zip(names, scored[1:], differences, tests)
    ]
    return scored[0], tuple(rivals)


def _measures(ious: np.ndarray) -> np.ndarray:
    """IoU and what it reaches: `[rows, 1 + thresholds]`."""
    return np.stack([ious, *(ious >= limit for limit in IOU_THRESHOLDS)], axis=1).astype(np.float64)


def _sets_measures(set_ious: np.ndarray) -> np.ndarray:
    """The same as a mean over all sets but the first, `set_ious` being `[rows, sets]`; NaN where there is no other."""
    others = set_ious[:, 1:]
    if others.shape[1] == 0:
        return np.full((len(others), 1 + len(IOU_THRESHOLDS)), np.nan)
    reached = [(others >= limit).mean(axis=1) for limit in IOU_THRESHOLDS]
    return np.stack([others.mean(axis=1, dtype=np.float64), *reached], axis=1)


def _scores(measures: np.ndarray, clusters: np.ndarray, seed: int) -> list[Scores]:
    """Scores from measures `[rows, 1 + thresholds, columns]`, all with the same resamples."""
    num_rows, num_measures, num_columns = measures.shape
    flat = cluster_intervals(measures.reshape(num_rows, -1), clusters, seed=seed)
    by_measure = [flat[at * num_columns : (at + 1) * num_columns] for at in range(num_measures)]
    return [Scores(column[0], tuple(column[1:])) for column in zip(*by_measure)]


def correct_family(
    rivals: Sequence[Rival], control: Control | None, more: Sequence[PValue | None]
) -> tuple[tuple[Rival, ...], Control | None, tuple[float, ...]]:
    """Holm's correction over all tests that are printed together: rivals, control, and others such as correlations."""
    tests = [*(rival.p_value for rival in rivals), control.p_value if control else None, *more]
    adjusted = holm([float("nan") if test is None else test.value for test in tests])
    corrected = tuple(replace(rival, p_holm=float(value)) for rival, value in zip(rivals, adjusted))
    at = len(rivals)
    return (
        corrected,
        replace(control, p_holm=float(adjusted[at])) if control else None,
        tuple(float(value) for value in adjusted[at + 1 :]),
    )


# ---------------------------------------------------------------------------------------------------------------------
# The phrase control
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class PhraseControl:
    """Whether attention follows the phrase from target to target within a picture.

    Attributes:
        fixed: For the fixed heads together: `IoU`, then `Acc@0.5`; empty where no picture has two targets.
        by_head: For each fixed head: `IoU` of the own box, `enrichment`, `pointing`.
        other_means: For every head by measure, mean on the other targets, `[heads]`; and `own_` means on the same rows.
        head_p_values: For every head, of the enrichment; empty likewise.
        num_rows: Rows of pictures with two targets or more.
    """

    fixed: tuple[Control, ...]
    by_head: tuple[tuple[Control, ...], ...]
    other_means: dict[str, np.ndarray]
    head_p_values: tuple[PValue, ...]
    num_rows: int


_HEAD_MEASURES: dict[str, Callable[[SampleAudit], np.ndarray]] = {
    "box_iou": lambda sample: sample.iou_on,
    "acc50": lambda sample: (sample.iou_on >= 0.5).astype(np.float32),
    "enrichment": lambda sample: np.nan_to_num(sample.enrichment_on, nan=0.0),
    "pointing": lambda sample: sample.pointing_on,
}
_SHOWN = {"box_iou": "IoU", "enrichment": "enrichment", "pointing": "pointing"}


def control_phrase(
    samples: Sequence[SampleAudit], clusters: np.ndarray, fixed: Sequence[int], names: Sequence[str], seed: int = 0
) -> PhraseControl:
    """Score the same attention against the other targets of the same picture.

    Args:
        samples: Measures of every row; rows of one picture stand together.
        clusters: `[rows]` int, picture of each row, from 0.
        fixed: The fixed heads, as `layer * num_heads + head`.
        names: Their names.
        seed: Seed of resamples and permutations.

    Returns:
        The control.
    """
    fixed = list(fixed)
    columns = [
        lambda s: s.fixed_iou_on[:, None],
        lambda s: (s.fixed_iou_on[:, None] >= 0.5).astype(np.float64),
        *((lambda s, measure=_HEAD_MEASURES[m]: measure(s)[:, fixed]) for m in _SHOWN),
    ]
    labels = [("IoU", "fixed heads"), (acc_name(0.5), "fixed heads")]
    labels += [(shown, name) for shown in _SHOWN.values() for name in names]
    controls = _controls(samples, clusters, columns, labels, seed)
    means, num_rows = _means_of_all_heads(samples, clusters)
    enrichment = _by_picture(samples, clusters, [_HEAD_MEASURES["enrichment"]])
    by_head = tuple(tuple(c for c in controls if c.heads == name) for name in names)
    tests = tuple(permutation_tests(enrichment, seed=seed))
    return PhraseControl(tuple(controls[:2]), by_head, means, tests, num_rows)


def _by_picture(
    samples: Sequence[SampleAudit], clusters: np.ndarray, columns: Sequence[Callable[[SampleAudit], np.ndarray]]
) -> list[PictureMeasures]:
    """The measures of each picture, in the order of the rows."""
    starts = np.flatnonzero(np.diff(clusters, prepend=-1))
    pictures = []
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(samples)]):
        rows = samples[start:end]
        values = np.stack([np.concatenate([column(row) for column in columns], axis=1) for row in rows])
        pictures.append(PictureMeasures(np.array([row.own for row in rows]), values))
    return pictures


def _controls(
    samples: Sequence[SampleAudit],
    clusters: np.ndarray,
    columns: Sequence[Callable[[SampleAudit], np.ndarray]],
    labels: Sequence[tuple[str, str]],
    seed: int,
) -> list[Control]:
    pictures = _by_picture(samples, clusters, columns)
    tests = permutation_tests(pictures, seed=seed)
    if not tests:
        return []
    own, other = own_and_other(pictures)
    own = np.where(np.isnan(other), np.nan, own)
    above = np.nanmean(np.where(np.isnan(other), np.nan, (own > other) + 0.5 * (own == other)), axis=0)
    found = cluster_intervals(np.concatenate([own, other, own - other], axis=1), clusters, seed=seed)
    count = len(labels)
    return [
        Control(*label, found[at], found[count + at], found[2 * count + at], float(above[at]), tests[at])
        for at, label in enumerate(labels)
    ]


def _means_of_all_heads(samples: Sequence[SampleAudit], clusters: np.ndarray) -> tuple[dict[str, np.ndarray], int]:
    """Mean on own and on other targets for every head, `[heads]` by measure, over rows with both; how many rows."""
    means, num_rows = {}, 0
    for name, measure in _HEAD_MEASURES.items():
        own, other = own_and_other(_by_picture(samples, clusters, [measure]))
        both = ~np.isnan(other[:, 0])
        num_rows = int(both.sum())
        means[f"own_{name}"], means[f"other_{name}"] = (
            values[both].mean(axis=0) if num_rows else np.full(values.shape[1], np.nan) for values in (own, other)
        )
    return means, num_rows
