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
        repeat_rate: Share of the trials that gave the common set.
    """

    num_trials: int
    frequency_mean: np.ndarray
    frequency_sd: np.ndarray
    top_sets: tuple[tuple[HeadIndex, ...], ...]
    common_set: tuple[HeadIndex, ...]
    repeat_rate: float

    def agreement_with(self, heads: Sequence[HeadIndex]) -> float:
        """Share of the trials whose top heads are just these, in any order."""
        return self.top_sets.count(tuple(sorted(heads))) / self.num_trials

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, without the frequencies of single heads."""
        return {
            "num_trials": self.num_trials,
            "top_sets": [[list(head) for head in heads] for heads in self.top_sets],
            "common_set": [list(head) for head in self.common_set],
            "repeat_rate": self.repeat_rate,
        }


def trial_indices(
    num_samples: int, num_trials: int, *, trial_size: int | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Choose the samples of each trial.

    Args:
        num_samples: Number of samples.
        num_trials: Number of trials.
        trial_size: Samples of each trial, drawn without replacement, every trial from all samples; None to split the
            shuffled samples into `num_trials` parts of almost equal size that share none.
        seed: Seed of the shuffle or of the draws.

    Returns:
        Sorted indices of each trial's samples.

    Raises:
        ValueError: If there are too few samples for the trials.
    """
    rng = np.random.default_rng(seed)
    if trial_size is None:
        if not 1 <= num_trials <= num_samples:
            raise ValueError(
                f"Expected 1 to {num_samples} trials, as there are {num_samples} samples to split, "
                f"but got {num_trials}. Set data.trials lower, or data.trial_size to draw samples again."
            )
        return [np.sort(part) for part in np.array_split(rng.permutation(num_samples), num_trials)]
    if num_trials < 1 or not 1 <= trial_size <= num_samples:
        raise ValueError(
            f"Expected at least 1 trial of 1 to {num_samples} samples, but got {num_trials} trials of {trial_size}. "
            "Set data.trials or data.trial_size accordingly."
        )
    return [np.sort(rng.choice(num_samples, trial_size, replace=False)) for _ in range(num_trials)]


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
    common_set, times = Counter(top_sets).most_common(1)[0]
    return TrialStatistics(
        num_trials=len(frequencies),
        frequency_mean=frequencies.mean(axis=0),
        frequency_sd=frequencies.std(axis=0, ddof=1),
        top_sets=top_sets,
        common_set=common_set,
        repeat_rate=times / len(frequencies),
    )
