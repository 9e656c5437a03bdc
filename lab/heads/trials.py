"""Trials: parts or draws of a data set, and how much what they choose differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

HeadIndex = tuple[int, int]


@dataclass(frozen=True)
class TrialStatistics:
    """How much the selection differs between trials.

    Attributes:
        num_trials: Number of trials.
        frequency_mean: `[layers, heads]` mean over the trials of each head's selection frequency.
        frequency_sd: `[layers, heads]` standard deviation over the trials (n - 1 in the denominator).
        top_sets: (layer, head) of each trial's top heads, sorted, as the order among them does not matter.
        common_set: The set that came out most often; of equally frequent ones the first.
    """

    num_trials: int
    frequency_mean: np.ndarray
    frequency_sd: np.ndarray
    top_sets: tuple[tuple[HeadIndex, ...], ...]
    common_set: tuple[HeadIndex, ...]

    def agreement_with(self, heads: Sequence[HeadIndex]) -> float:
        """Share of the trials whose top heads are just these, in any order."""
        return self.top_sets.count(tuple(sorted(heads))) / self.num_trials

    def agreement_bound(self, heads: Sequence[HeadIndex]) -> float:
        """Lower 95 % bound of that share (Clopper and Pearson): five trials of five say no more than .55."""
        from scipy.stats import beta

        agreeing = self.top_sets.count(tuple(sorted(heads)))
        return float(beta.ppf(0.05, agreeing, self.num_trials - agreeing + 1)) if agreeing else 0.0

    def to_dict(self, heads: Sequence[HeadIndex]) -> dict[str, Any]:
        """Plain data for JSON, without the frequencies of single heads; `heads` are those that all samples chose."""
        return {
            "num_trials": self.num_trials,
            "top_sets": [[list(head) for head in heads] for heads in self.top_sets],
            "common_set": [list(head) for head in self.common_set],
            "agreement": self.agreement_with(heads),
            "agreement_bound": self.agreement_bound(heads),
        }


def trial_indices(
    pictures: np.ndarray, num_trials: int, *, trial_size: int | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Choose the samples of each trial, all samples of a picture together.

    Args:
        pictures: `[samples]` int, number of the picture of each sample, from 0.
        num_trials: Number of trials.
        trial_size: Samples of each trial: pictures are drawn with replacement until there are so many samples, and what
            the last one has too many is left out, so that trials vary as data sets of that size would; None to split
            the shuffled pictures into `num_trials` parts of almost equal number that share none.
        seed: Seed of the shuffle or of the draws.

    Returns:
        Sorted indices of each trial's samples; with a `trial_size` some are there more than once.

    Raises:
        ValueError: If there are too few pictures or samples for the trials.
    """
    rng = np.random.default_rng(seed)
    num_samples, num_pictures = len(pictures), len(np.unique(pictures))
    samples_of = np.split(np.argsort(pictures, kind="stable"), np.cumsum(np.bincount(pictures))[:-1])
    if trial_size is None:
        if not 1 <= num_trials <= num_pictures:
            raise ValueError(
                f"Expected 1 to {num_pictures} trials, as there are {num_pictures} pictures to split, "
                f"but got {num_trials}. Set data.trials lower, or data.trial_size to draw pictures again."
            )
        parts = np.array_split(rng.permutation(num_pictures), num_trials)
        return [np.sort(np.concatenate([samples_of[picture] for picture in part])) for part in parts]
    if num_trials < 1 or not 1 <= trial_size <= num_samples:
        raise ValueError(
            f"Expected at least 1 trial of 1 to {num_samples} samples, but got {num_trials} trials of {trial_size}. "
            "Set data.trials or data.trial_size accordingly."
        )
    draws = [rng.integers(0, num_pictures, trial_size) for _ in range(num_trials)]
    return [np.sort(np.concatenate([samples_of[picture] for picture in draw])[:trial_size]) for draw in draws]


def summarize_trials(frequencies: np.ndarray, top_heads: Sequence[Sequence[HeadIndex]]) -> TrialStatistics:
    """Compare what the trials chose.

    Args:
        frequencies: `[trials, layers, heads]` selection frequency of every head in every trial.
        top_heads: (layer, head) of the top heads of every trial.

    Returns:
        The statistics.

    Raises:
        ValueError: If there are fewer than two trials, or not one list of heads for each.
    """
    if len(frequencies) < 2 or len(frequencies) != len(top_heads):
        raise ValueError(
            "Expected at least two trials, each with its top heads, to compare, "
            f"but got {len(frequencies)} with {len(top_heads)} lists of heads. Set data.trials to 2 or more."
        )
    top_sets = tuple(tuple(sorted((int(layer), int(head)) for layer, head in heads)) for heads in top_heads)
    common_set = Counter(top_sets).most_common(1)[0][0]
    return TrialStatistics(
        num_trials=len(frequencies),
        frequency_mean=frequencies.mean(axis=0),
        frequency_sd=frequencies.std(axis=0, ddof=1),
        top_sets=top_sets,
        common_set=common_set,
    )
