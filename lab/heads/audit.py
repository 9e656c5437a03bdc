"""The head audit: do the chosen heads look at what was asked for? All that a data set with boxes says of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lab.heads.comparisons import (
    PER_IMAGE,
    Control,
    PhraseControl,
    Rival,
    Scores,
    compare_rivals,
    control_phrase,
    correct_family,
    score_rows,
)
from lab.heads.head_scores import kept_heads
from lab.heads.measures import SampleAudit
from lab.heads.verdict import MARGIN, Condition, Verdict, give_verdict
from lab.statistics.bootstrap import cluster_numbers
from lab.statistics.head_sets import HeadSets
from lab.statistics.p_values import benjamini_hochberg
from lab.statistics.rank_correlation import RankCorrelation, correlate_heads, spearman_over_pictures

PARTNERS = {"box_iou": "IoU", "enrichment": "enrichment", "auroc": "AUROC", "pointing": "pointing"}


@dataclass(frozen=True)
class HeadAudit:
    """The audit of a model's heads over a data set.

    Attributes:
        num_samples: Rows with a ground truth; all means of heads are over them unless `num_rows` says otherwise.
        num_pictures: Pictures that they are about.
        num_files: Files that the selection frequency is over.
        means: `[layers, heads]` mean of each measure, by its name.
        num_rows: `[layers, heads]` int, rows of the mean of enrichment and AUROC: those whose target the grid reaches.
        num_looking: `[layers, heads]` int, rows on which a head looks at the image at all.
        rank: `[layers, heads]` int, rank by mean IoU of the own box; 1 is best, equal heads share the better rank.
        frequency: `[layers, heads]` selection frequency.
        fixed: (layer, head) of the fixed heads.
        scores: Scores of the fixed heads' boxes.
        rivals: What they are compared with.
        control: The phrase control.
        follows_phrase_q: `[layers, heads]` of the control of each head's enrichment, corrected over all heads
            (Benjamini-Hochberg); NaN without a control.
        correlations: Of selection frequency and each measure, over the heads that the rules may choose.
        spearman_p_holm: P-value of the first correlation, corrected with the rivals' and the control's.
        ceiling: Scores of the best box of whole cells; its largest possible value of pointing stands in `summary`.
        summary: More means over rows, by name.
        sets: The sets of heads that were compared with.
        verdict: The verdict.
        layers_without_map: Layers without attention to the image; their numbers mean nothing.
    """

    num_samples: int
    num_pictures: int
    num_files: int
    means: dict[str, np.ndarray]
    num_rows: np.ndarray
    num_looking: np.ndarray
    rank: np.ndarray
    frequency: np.ndarray
    fixed: tuple[tuple[int, int], ...]
    scores: Scores
    rivals: tuple[Rival, ...]
    control: PhraseControl
    follows_phrase_q: np.ndarray
    correlations: dict[str, RankCorrelation]
    spearman_p_holm: float
    ceiling: Scores
    summary: dict[str, float]
    sets: HeadSets
    verdict: Verdict
    layers_without_map: tuple[int, ...] = ()

    @property
    def looks_at_target(self) -> bool | None:
        """True, False, or None where there are too few rows to tell."""
        return self.verdict.looks_at_target

    def rival(self, name: str) -> Rival:
        """The rival of a name."""
        return next(rival for rival in self.rivals if rival.name == name)

    def to_dict(self) -> dict[str, Any]:
        """The summary as plain data for JSON; NaN is None."""
        return {
            "num_rows": self.num_samples,
            "num_pictures": self.num_pictures,
            "num_files": self.num_files,
            "fixed": [f"L{layer}H{head}" for layer, head in self.fixed],
            "verdict": self.verdict.to_dict(),
            "scores": self.scores.to_dict(),
            "rivals": [rival.to_dict() for rival in self.rivals],
            "sets_of_heads": {
                "compared": len(self.sets.members),
                "possible": self.sets.num_possible,
                "layer_matched": self.sets.layer_matched,
                "note": self.sets.note,
            },
            "control": {
                "num_rows": self.control.num_rows,
                "fixed": [control.to_dict() for control in self.control.fixed],
                "by_head": [control.to_dict() for head in self.control.by_head for control in head],
            },
            "correlations": {name: found.to_dict() for name, found in self.correlations.items()},
            "spearman_p_holm": _plain(self.spearman_p_holm),
            "ceiling": self.ceiling.to_dict(),
            **{name: _plain(value) for name, value in self.summary.items()},
            "figure": self.figure_values(),
        }

    def figure_values(self) -> dict[str, Any]:
        """Bars with their intervals, for a figure: IoU of the fixed heads and their rivals, and own against other."""
        bars = [("fixed heads", self.scores), *((rival.name, rival.scores) for rival in self.rivals)]
        return {
            "bars": [{"name": name, **scores.iou.to_dict()} for name, scores in bars],
            "control": [
                {"measure": c.measure, "heads": c.heads, "own": c.own.to_dict(), "other": c.other.to_dict()}
                for c in [*self.control.fixed, *(c for head in self.control.by_head for c in head)]
            ],
        }

    def ranked_heads(self) -> list[tuple[int, int]]:
        """(layer, head) of every head that has a map, best IoU of the own box first."""
        order = np.argsort(self.rank, axis=None, kind="stable")
        heads = (divmod(int(index), self.rank.shape[1]) for index in order)
        return [(layer, head) for layer, head in heads if layer not in self.layers_without_map]

    def rows(self) -> list[dict[str, Any]]:
        """Rows of `head_audit.csv`, best rank first."""
        return [self._row(*head) for head in self.ranked_heads()]

    def _row(self, layer: int, head: int) -> dict[str, Any]:
        at = (layer, head)
        flat = layer * self.rank.shape[1] + head
        control = {name: _plain(values[flat]) for name, values in self.control.other_means.items()}
        return {
            "layer": layer,
            "head": head,
            "name": f"L{layer}H{head}",
            "fixed": int(at in self.fixed),
            "frequency": float(self.frequency[at]),
            "num_files": self.num_files,
            **{f"mean_{name}": _plain(values[at]) for name, values in self.means.items()},
            "num_rows": self.num_samples,
            "num_pictures": self.num_pictures,
            "num_rows_in_reach": int(self.num_rows[at]),
            "num_rows_looking": int(self.num_looking[at]),
            **control,
            "num_rows_control": self.control.num_rows,
            "follows_phrase_q": _plain(self.follows_phrase_q[at]),
            "rank": int(self.rank[at]),
        }


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


# ---------------------------------------------------------------------------------------------------------------------
# From the samples
# ---------------------------------------------------------------------------------------------------------------------


def summarize_audit(
    samples: Iterable[SampleAudit],
    *,
    frequency: np.ndarray,
    chosen: np.ndarray,
    num_files: int,
    fixed: Sequence[tuple[int, int]],
    sets: HeadSets,
    skip_layers: int = 0,
    layers_without_map: Sequence[int] = (),
    margin: float = MARGIN,
    seed: int = 0,
) -> HeadAudit:
    """Average over the samples, compare and judge.

    Args:
        samples: Measures of each sample.
        frequency: `[layers, heads]` selection frequency.
        chosen: `[samples, n]` int, heads that each sample chose as `layer * num_heads + head`, -1 for none.
        num_files: Files that the frequency is over.
        fixed: (layer, head) of the fixed heads.
        sets: Sets of heads to compare with; the measures of the samples are in their order.
        skip_layers: First layers that the rules leave out; their frequency is 0 whatever their heads do, so that the
            rank correlations leave them out, too.
        layers_without_map: Layers without attention to the image, left out of correlations and tables.
        margin: Difference in IoU that counts.
        seed: Seed of resamples, flips and permutations.

    Returns:
        The audit.

    Raises:
        ValueError: If there is no sample.
    """
    rows, chosen, clusters = _by_picture(list(samples), chosen)
    fixed = tuple((int(layer), int(head)) for layer, head in fixed)
    names = ["L{}H{}".format(*head) for head in fixed]
    flat = [layer * frequency.shape[1] + head for layer, head in fixed]
    means, num_rows, num_looking = _head_means(rows, frequency.shape)
    scores, rivals = compare_rivals(rows, clusters, sets, seed)
    control = control_phrase(rows, clusters, flat, names, seed)
    kept = kept_heads(frequency.shape, skip_layers, layers_without_map)
    correlations = _correlate(rows, chosen, clusters, frequency, means, kept, seed)
    rivals, control, spearman_p = _correct(rivals, control, correlations["IoU"])
    return HeadAudit(
        num_samples=len(rows),
        num_pictures=int(clusters[-1]) + 1,
        num_files=num_files,
        means=means,
        num_rows=num_rows,
        num_looking=num_looking,
        rank=_ranks(means["box_iou"]),
        frequency=frequency,
        fixed=fixed,
        scores=scores,
        rivals=rivals,
        control=control,
        follows_phrase_q=benjamini_hochberg(_head_tests(control, frequency.size)).reshape(frequency.shape),
        correlations=correlations,
        spearman_p_holm=spearman_p,
        ceiling=score_rows(np.array([[row.ceiling_iou] for row in rows]), clusters, seed)[0],
        summary=_summary(rows),
        sets=sets,
        verdict=give_verdict(_conditions(rivals, control, names, margin), len(rows), int(clusters[-1]) + 1),
        layers_without_map=tuple(layers_without_map),
    )


def _head_tests(control: PhraseControl, size: int) -> Sequence[float] | np.ndarray:
    """P-value of the control of each head; NaN without a control."""
    return [test.value for test in control.head_p_values] or np.full(size, np.nan)


def _correct(
    rivals: tuple[Rival, ...], control: PhraseControl, correlation: RankCorrelation
) -> tuple[tuple[Rival, ...], PhraseControl, float]:
    """Correct the p-values of all tests that are printed: rivals, phrase control of the fixed heads, correlation."""
    first = control.fixed[0] if control.fixed else None
    rivals, first, (spearman_p,) = correct_family(rivals, first, [correlation.p_value])
    return rivals, replace(control, fixed=(first, *control.fixed[1:]) if first else ()), spearman_p


def _by_picture(samples: list[SampleAudit], chosen: np.ndarray) -> tuple[list[SampleAudit], np.ndarray, np.ndarray]:
    """The samples with those of one picture together, and the number of the picture of each."""
    if not samples:
        raise ValueError(
            "Expected at least one sample with a ground truth to audit heads with, but got none. "
            "Check that data.ground_truth has the ids of the attention files."
        )
    clusters = cluster_numbers([sample.picture for sample in samples])
    order = np.argsort(clusters, kind="stable")
    return [samples[at] for at in order], chosen[order], clusters[order]


def _head_means(
    rows: Sequence[SampleAudit], shape: tuple[int, ...]
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray]:
    """Mean of each measure, rows of those that need the target in reach, and rows on which heads look at all."""
    share = np.stack([row.share for row in rows])
    columns = {
        "box_iou": np.stack([row.iou_on[row.own] for row in rows]),
        "mask_iou_box": np.stack([row.mask_iou_box for row in rows]),
        "mask_iou_object": np.stack([row.mask_iou_object for row in rows]),
        "pointing": np.stack([row.pointing_on[row.own] for row in rows]),
        "attention_on_target": share,
        "enrichment": np.stack([row.enrichment_on[row.own] for row in rows]),
        "auroc": np.stack([row.auroc for row in rows]),
    }
    means = {name: _mean_of_known(values).reshape(shape) for name, values in columns.items()}
    area = float(np.sum([row.area_share for row in rows]))
    means["enrichment_of_means"] = (share.sum(axis=0) / area if area else np.full(share.shape[1], np.nan)).reshape(
        shape
    )
    num_rows = (~np.isnan(columns["auroc"])).sum(axis=0).reshape(shape)
    return means, num_rows, np.stack([row.looks for row in rows]).sum(axis=0).reshape(shape)


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Mean over the rows `[rows, heads]`, NaN left out; NaN where no row is known."""
    known = ~np.isnan(values)
    total = np.where(known, values, 0).sum(axis=0, dtype=np.float64)
    return np.asarray(np.divide(total, known.sum(axis=0), out=np.full(total.shape, np.nan), where=known.any(axis=0)))


def _correlate(
    rows: Sequence[SampleAudit],
    chosen: np.ndarray,
    clusters: np.ndarray,
    frequency: np.ndarray,
    means: dict[str, np.ndarray],
    kept: np.ndarray,
    seed: int,
) -> dict[str, RankCorrelation]:
    """Rank correlation of selection frequency with each partner, over the heads that the rules may choose."""
    per_row = {
        "box_iou": [row.iou_on[row.own] for row in rows],
        "enrichment": [row.enrichment_on[row.own] for row in rows],
        "auroc": [row.auroc for row in rows],
        "pointing": [row.pointing_on[row.own] for row in rows],
    }
    was_chosen = (chosen[:, :, None] == kept).any(axis=1)
    return {
        shown: correlate_heads(
            frequency.reshape(-1)[kept],
            means[name].reshape(-1)[kept],
            kept // frequency.shape[1],
            ends_over_pictures=spearman_over_pictures(was_chosen, np.stack(per_row[name])[:, kept], clusters),
            seed=seed,
        )
        for name, shown in PARTNERS.items()
    }


def _summary(rows: Sequence[SampleAudit]) -> dict[str, float]:
    """Means that no head has of its own: masks of the fixed heads, the target's size, what pointing could reach."""
    shared, union = np.array([row.fixed_mask_areas for row in rows]).T
    known = ~np.isnan(shared)
    return {
        "fixed_mask_iou_box": float(np.mean([row.fixed_mask_iou_box for row in rows])),
        "fixed_mask_iou_object": float((shared[known] / union[known]).mean()) if known.any() else float("nan"),
        "fixed_mask_ciou_object": float(shared[known].sum() / union[known].sum()) if known.any() else float("nan"),
        "num_rows_with_mask": float(known.sum()),
        "mean_area_share": float(np.mean([row.area_share for row in rows])),
        "pointing_ceiling": float(np.mean([row.pointing_ceiling for row in rows])),
    }


def _ranks(values: np.ndarray) -> np.ndarray:
    """1 for the largest value; equal values share the better rank."""
    flat = values.reshape(-1)
    return (1 + np.searchsorted(np.sort(-flat), -flat, side="left")).reshape(values.shape)


def _conditions(
    rivals: Sequence[Rival], control: PhraseControl, names: Sequence[str], margin: float
) -> list[Condition]:
    """The conditions of `lab.heads.verdict`; the whole image is too weak a rival to be one."""
    by_name = {rival.name: rival for rival in rivals}
    over_sets = rivals[0]
    per_image = by_name[PER_IMAGE].difference.iou
    conditions = [
        Condition(f"better than {over_sets.name}", over_sets.difference.iou, margin),
        Condition("better than all heads", by_name["all heads"].difference.iou, margin),
        Condition("no worse than per image heads", per_image, -margin),
    ]
    if not control.fixed:
        return [*conditions, Condition("better on the own target than on the picture's other targets", None, margin)]
    heads: list[tuple[str, Control]] = [("the fixed heads", control.fixed[0])]
    heads += [(name, found[0]) for name, found in zip(names, control.by_head)]
    return conditions + [
        Condition(f"{name} better on the own target than on the picture's other targets", found.delta, margin)
        for name, found in heads
    ]
