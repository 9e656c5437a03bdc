"""How sure a selection frequency is: pictures drawn again, trials, and the frequency against the number of samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from lab.heads.dataset_selection import count_choices
from lab.heads.head_scores import DatasetScores, DatasetSelection, SelectionRules
from lab.heads.ranking import allowed_heads, elbow_threshold
from lab.heads.trials import TrialStatistics, summarize_trials
from lab.statistics.bootstrap import FEWEST_CLUSTERS, resample_weights

RESAMPLES = 1_000
RESAMPLES_OF_A_SIZE = 200
SETS_LISTED = 5


@dataclass(frozen=True)
class FrequencySpread:
    """How much selection frequencies vary when pictures are drawn again.

    Attributes:
        num_pictures: Number of pictures.
        resamples: Number of resamples.
        se: `[layers, heads]` standard error; NaN with fewer than six pictures.
        low: `[layers, heads]` lower end of the 95 % interval; NaN likewise, as the next.
        high: `[layers, heads]` upper end.
        repeat_rate: Share of the resamples whose top heads are just the chosen ones.
        sets: The sets that came out most often, as names of heads, with their share.
    """

    num_pictures: int
    resamples: int
    se: np.ndarray
    low: np.ndarray
    high: np.ndarray
    repeat_rate: float
    sets: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the frequencies of single heads."""
        return {
            "num_pictures": self.num_pictures,
            "resamples": self.resamples,
            "repeat_rate": self.repeat_rate,
            "sets": [{"heads": names, "share": share} for names, share in self.sets],
        }


def resample_frequency(
    scores: DatasetScores,
    selection: DatasetSelection,
    pictures: np.ndarray,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> FrequencySpread:
    """Draw the pictures again, with all their samples, and choose the heads anew.

    Args:
        scores: Scores of every head on every sample.
        selection: What all samples choose.
        pictures: `[samples]` int, number of the picture of each sample, from 0.
        resamples: Number of resamples.
        seed: Their seed.

    Returns:
        The spread.
    """
    num_heads = selection.counts.shape[1]
    frequencies = np.concatenate(list(_resampled(scores, selection.rules, pictures, resamples=resamples, seed=seed)))
    top = _top_heads(frequencies, selection)
    chosen = sorted(layer * num_heads + head for layer, head in selection.heads)
    counts = Counter(map(tuple, top.tolist()))
    names = {members: " ".join("L{}H{}".format(*divmod(head, num_heads)) for head in members) for members in counts}
    low, high = np.quantile(frequencies, (0.025, 0.975), axis=0)
    num_pictures, unknown = int(pictures.max()) + 1, np.nan
    spread = [frequencies.std(axis=0, ddof=1), low, high]
    se, low, high = (
        (part if num_pictures >= FEWEST_CLUSTERS else np.full(part.shape, unknown)).reshape(selection.counts.shape)
        for part in spread
    )
    return FrequencySpread(
        num_pictures=num_pictures,
        resamples=resamples,
        se=se,
        low=low,
        high=high,
        repeat_rate=counts[tuple(chosen)] / resamples,
        sets=tuple((names[members], count / resamples) for members, count in counts.most_common(SETS_LISTED)),
    )


def _top_heads(frequencies: np.ndarray, selection: DatasetSelection) -> np.ndarray:
    """The top heads of each resample `[resamples, heads]`, ascending: `[resamples, K]`; ties as in the selection."""
    shape = frequencies.shape
    entropies = np.broadcast_to(selection.mean_entropies.ravel(), shape)
    sums = np.broadcast_to(selection.mean_sums.ravel(), shape)
    order = np.lexsort((-sums, entropies, -frequencies), axis=1)
    return np.sort(order[:, : len(selection.heads)], axis=1)


def _resampled(
    scores: DatasetScores,
    rules: SelectionRules,
    pictures: np.ndarray,
    *,
    resamples: int,
    seed: int,
    num_drawn: int | None = None,
) -> Iterator[np.ndarray]:
    """Selection frequency of every head in resamples of the pictures, in chunks `[some, heads]`.

    With thresholds of their own, samples choose the same in every resample. With the data set's, each resample has
    other mean sums, and an elbow of its own.
    """
    num_pictures = int(pictures.max()) + 1
    rows = np.bincount(pictures, minlength=num_pictures).astype(np.float64)
    weights = resample_weights(num_pictures, resamples, seed, num_drawn)
    if rules.threshold_scope == "sample":
        counts = _counts_by_picture(count_choices(scores, rules).chosen, pictures, scores.attn_sum[0].size)
        for drawn in weights:
            yield drawn @ counts / (drawn @ rows)[:, None]
        return
    chooser = _ChooserByMeans(scores, rules)
    sums = np.zeros((num_pictures, scores.attn_sum[0].size))
    np.add.at(sums, pictures, scores.attn_sum.reshape(len(pictures), -1).astype(np.float64))
    for drawn in weights:
        means = drawn @ sums / (drawn @ rows)[:, None]
        yield np.stack([chooser.frequency(mean, weight[pictures]) for mean, weight in zip(means, drawn)])


class _ChooserByMeans:
    """What samples choose by mean sums, which change with every resample, while the order of entropies does not.

    All keys are whole numbers: the rank of a sample's entropies, equal ones sharing it, and behind it the rank of the
    mean sums, so that the smallest keys are those that `rank_all` puts first, without sorting all heads anew.
    """

    def __init__(self, scores: DatasetScores, rules: SelectionRules) -> None:
        entropies = scores.spatial_entropy.reshape(scores.num_samples, -1)
        allowed = allowed_heads(scores.bottom_row_focus, rules.skip_layers, rules.bottom_row_filter)
        self._rules, self._num_heads = rules, entropies.shape[1]
        self._usable = allowed.reshape(entropies.shape) & np.isfinite(entropies)
        order = np.argsort(entropies, axis=1, kind="stable")
        rises = np.diff(np.take_along_axis(entropies, order, axis=1), axis=1, prepend=-1.0) > 0
        self._ranks = np.empty(entropies.shape, dtype=np.int64)
        np.put_along_axis(self._ranks, order, np.cumsum(rises, axis=1), axis=1)

    def frequency(self, means: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """Selection frequency `[heads]` by mean sums `[heads]`, samples counting as often as `weights` `[samples]`."""
        size = self._num_heads
        by_sum = np.empty(size, dtype=np.int64)
        by_sum[np.argsort(-means, kind="stable")] = np.arange(size)
        fixed = self._rules.threshold_value
        survives = self._usable & (means >= (elbow_threshold(means) if fixed is None else fixed))
        last = (size + 2) * size
        keys = np.where(survives, self._ranks * size + by_sum, np.where(self._usable, last + by_sum, 2 * last))
        count = min(self._rules.num_counted, size)
        chosen = np.argpartition(keys, count - 1, axis=1)[:, :count]
        chosen_keys = np.take_along_axis(keys, chosen, axis=1)
        num_survivors = survives.sum(axis=1)
        kept = np.maximum(num_survivors, np.minimum(self._rules.min_keep, self._usable.sum(axis=1)))
        place = chosen_keys.argsort(axis=1).argsort(axis=1)
        counted = (place < kept[:, None]) * weights[:, None]
        total = np.bincount(chosen.reshape(-1), weights=counted.reshape(-1), minlength=size)
        result: np.ndarray = total / weights.sum()
        return result


def _counts_by_picture(chosen: np.ndarray, pictures: np.ndarray, num_heads: int) -> np.ndarray:
    """How many samples of each picture chose each head: `[pictures, heads]` float64, `chosen` being `[samples, n]`."""
    counts = np.zeros((int(pictures.max()) + 1, num_heads + 1))
    np.add.at(counts, (pictures[:, None], chosen), 1.0)  # -1, for none, is the last column
    return counts[:, :-1]


def run_trials(scores: DatasetScores, rules: SelectionRules, trials: Sequence[np.ndarray]) -> TrialStatistics:
    """Choose the heads anew in every trial, thresholds included, and compare.

    Args:
        scores: Scores of every head on every sample.
        rules: How to choose.
        trials: Indices of each trial's samples, as `lab.heads.trials.trial_indices` draws them, or those of each
            directory.

    Returns:
        Mean and standard deviation of each frequency, and which heads came out on top.
    """
    selections = [count_choices(scores.take(indices), rules) for indices in trials]
    return summarize_trials(
        np.stack([selection.frequency for selection in selections]), [selection.heads for selection in selections]
    )


def frequency_by_size(
    scores: DatasetScores,
    rules: SelectionRules,
    heads: Sequence[tuple[int, int]],
    pictures: np.ndarray,
    *,
    sizes: Sequence[int],
    resamples: int = RESAMPLES_OF_A_SIZE,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Selection frequency of some heads from so many samples, and how sure it would be.

    Pictures are drawn with replacement, as many as hold about so many samples, so that the band says how much the
    frequency varies from one data set of that size to another, also at the size of the whole data set.

    Args:
        scores: Scores of every head on every sample.
        rules: How to choose.
        heads: (layer, head) of the K heads.
        pictures: `[samples]` int, number of the picture of each sample, from 0.
        sizes: Numbers of samples.
        resamples: Resamples of each size.
        seed: Seed of the resamples.

    Returns:
        Mean, and ends of the band that holds 95 % of the resamples, `[K, len(sizes)]` each.

    Raises:
        ValueError: If a size is not from 1 to the number of samples.
    """
    if not all(1 <= size <= scores.num_samples for size in sizes):
        raise ValueError(
            f"Expected sizes from 1 to the {scores.num_samples} samples that there are, but got {list(sizes)}. "
            "Ask for smaller sizes."
        )
    flat = [layer * scores.attn_sum.shape[2] + head for layer, head in heads]
    rows_a_picture = scores.num_samples / (int(pictures.max()) + 1)
    means, lows, highs = [], [], []
    for number, size in enumerate(sizes):
        num_drawn = max(1, round(size / rows_a_picture))
        parts = _resampled(scores, rules, pictures, resamples=resamples, seed=seed + number, num_drawn=num_drawn)
        found = np.concatenate([part[:, flat] for part in parts])
        low, high = np.quantile(found, (0.025, 0.975), axis=0)
        means.append(found.mean(axis=0))
        lows.append(low)
        highs.append(high)
    return np.stack(means, axis=1), np.stack(lows, axis=1), np.stack(highs, axis=1)
