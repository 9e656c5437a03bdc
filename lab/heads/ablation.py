"""What each criterion contributes: heads chosen by attention sum alone, by entropy alone, and by both."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.heads.head_scores import DatasetScores, DatasetSelection
from lab.heads.ranking import allowed_heads
from lab.statistics.bootstrap import Interval
from lab.statistics.rank_correlation import RankCorrelation, correlate_heads, spearman_over_pictures

BOTH, SUM_ONLY, ENTROPY_ONLY = "both criteria", "attention sum only", "entropy only, ties shared"


@dataclass(frozen=True)
class Variant:
    """One way to choose heads.

    Attributes:
        name: Name for people.
        weights: `[samples, layers, heads]` float64, how far a sample counts a head: 1 or 0, or a part where ties share.
        heads: (layer, head) of the heads counted most often, best first.
    """

    name: str
    weights: np.ndarray
    heads: tuple[tuple[int, int], ...]

    @property
    def frequency(self) -> np.ndarray:
        """`[layers, heads]` mean weight."""
        result: np.ndarray = self.weights.mean(axis=0)
        return result


@dataclass(frozen=True)
class AblationRow:
    """What one way of choosing gives against ground truth.

    Attributes:
        name: Name for people.
        heads: Names of the chosen heads, with their frequency.
        correlations: Rank correlation of selection frequency with each measure of a head, by the measure's name.
        acc50: Acc@0.5 of the box of the chosen heads together.
    """

    name: str
    heads: tuple[tuple[str, float], ...]
    correlations: dict[str, RankCorrelation]
    acc50: Interval

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "name": self.name,
            "heads": [{"head": name, "frequency": share} for name, share in self.heads],
            "correlations": {name: found.to_dict() for name, found in self.correlations.items()},
            "acc@0.5": self.acc50.to_dict(),
        }


def ablate(scores: DatasetScores, selection: DatasetSelection) -> tuple[Variant, ...]:
    """Choose by both criteria, by the attention sum only, and by entropy only.

    Filters and threshold are the same in all three. By sum only: of the heads with a component that pass, the largest
    sums. By entropy only: the lowest entropies, those that tie for the last places sharing them equally.

    Args:
        scores: Scores of every head on every sample.
        selection: What the data set chooses by both.

    Returns:
        The three ways.
    """
    rules = selection.rules
    allowed = allowed_heads(scores.bottom_row_focus, rules.skip_layers, rules.bottom_row_filter)
    sums = scores.attn_sum
    if rules.threshold_scope == "dataset":
        sums = np.broadcast_to(selection.mean_sums, sums.shape)
    usable = allowed & np.isfinite(scores.spatial_entropy)
    passes = (usable & (sums >= selection.thresholds[:, None, None])).reshape(len(sums), -1)
    # Where fewer pass than are counted, the largest sums of the usable ones fill up, as in the rules.
    usable = usable.reshape(passes.shape)
    count, shape = rules.num_counted, scores.attn_sum.shape
    own_sums, entropies = (array.reshape(len(sums), -1) for array in (scores.attn_sum, scores.spatial_entropy))
    by_sum = _shared_places(np.where(passes, -own_sums - 2, np.where(usable, -own_sums, np.inf)), count)
    filled = np.finfo(np.float32).max / 2 - own_sums
    by_entropy = _shared_places(np.where(passes, entropies, np.where(usable, filled, np.inf)), count)
    both = np.zeros((len(sums), entropies.shape[1] + 1))
    np.put_along_axis(both, selection.chosen, 1.0, axis=1)
    named = ((BOTH, both[:, :-1]), (SUM_ONLY, by_sum), (ENTROPY_ONLY, by_entropy))
    return tuple(_variant(name, weights.reshape(shape), selection) for name, weights in named)


def _shared_places(keys: np.ndarray, count: int) -> np.ndarray:
    """Give `count` places a row to the smallest keys `[rows, heads]`; equal keys at the end share what is left."""
    ordered = np.sort(keys, axis=1)
    last = ordered[:, min(count, keys.shape[1]) - 1][:, None]
    surely = (keys < last) & np.isfinite(keys)
    tied = (keys == last) & np.isfinite(keys)
    num_tied = tied.sum(axis=1, keepdims=True)
    left = np.minimum(count - surely.sum(axis=1, keepdims=True), num_tied)
    share = np.divide(left, num_tied, out=np.zeros(num_tied.shape), where=num_tied > 0)
    result: np.ndarray = surely + tied * share
    return result


def _variant(name: str, weights: np.ndarray, selection: DatasetSelection) -> Variant:
    frequency = weights.mean(axis=0)
    order = np.lexsort((-selection.mean_sums.ravel(), selection.mean_entropies.ravel(), -frequency.ravel()))
    heads = [divmod(int(index), frequency.shape[1]) for index in order[: len(selection.heads)]]
    return Variant(name, weights, tuple(selection.heads) if name == BOTH else tuple(heads))


def compare_variants(
    variants: Sequence[Variant],
    measures: dict[str, np.ndarray],
    acc50: Sequence[Interval],
    rows: np.ndarray,
    clusters: np.ndarray,
    *,
    skip_layers: int,
    seed: int = 0,
) -> tuple[AblationRow, ...]:
    """Compare ways of choosing by how well they tell which heads look at the target.

    Args:
        variants: The ways.
        measures: By name, `[rows, heads]` measure of each head on each row with a ground truth.
        acc50: For each way Acc@0.5 of its heads' box.
        rows: `[rows]` int, which of the samples the rows are.
        clusters: `[rows]` int, picture of each row.
        skip_layers: First layers that the rules leave out.
        seed: Seed of resamples and permutations.

    Returns:
        One row for each way.
    """
    found = []
    for variant, reached in zip(variants, acc50):
        num_layers, num_heads = variant.frequency.shape
        first = skip_layers * num_heads
        layers = np.repeat(np.arange(num_layers), num_heads)[first:]
        weights = variant.weights.reshape(len(variant.weights), -1)[rows, first:]
        correlations = {
            name: correlate_heads(
                variant.frequency.ravel()[first:],
                np.nanmean(values[:, first:], axis=0),
                layers,
                ends_over_pictures=spearman_over_pictures(weights, values[:, first:], clusters),
                seed=seed,
            )
            for name, values in measures.items()
        }
        heads = tuple((f"L{layer}H{head}", float(variant.frequency[layer, head])) for layer, head in variant.heads)
        found.append(AblationRow(variant.name, heads, correlations, reached))
    return tuple(found)
