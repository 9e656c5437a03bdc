"""What a data set chooses: scores of many samples -> threshold, selection frequency, fixed heads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from lab.heads.head_scores import DatasetScores, DatasetSelection, HeadTable, SelectionRules
from lab.heads.ranking import Ranking, allowed_heads, elbow_threshold, rank_all


def stack_scores(tables: Iterable[HeadTable]) -> DatasetScores:
    """Gather the scores of many samples, keeping nothing else; `tables` may be an iterator over files.

    Raises:
        ValueError: If there is no table, or tables are of models of different size.
    """
    sums: list[np.ndarray] = []
    entropies: list[np.ndarray] = []
    bottom_rows: list[np.ndarray] = []
    for number, table in enumerate(tables):
        if sums and table.attn_sum.shape != sums[0].shape:
            raise ValueError(
                f"Expected all samples to be of one model with {sums[0].shape[0]} layers of {sums[0].shape[1]} heads, "
                f"but got {table.num_layers} layers of {table.num_heads} heads in sample {number} (counting from 0). "
                "Keep the files of each model in a directory of their own."
            )
        sums.append(table.attn_sum.astype(np.float32))
        entropies.append(table.spatial_entropy.astype(np.float32))
        bottom_rows.append(table.bottom_row_focus)
    if not sums:
        raise ValueError("Expected the scores of at least one sample, but got none. Check the directory.")
    return DatasetScores(np.stack(sums), np.stack(entropies), np.stack(bottom_rows))


def select_dataset_heads(scores: DatasetScores, rules: SelectionRules) -> DatasetSelection:
    """Choose the model's heads over a data set (arXiv 2503.06287, section 3).

    Scope `dataset`: criterion 1 keeps the heads whose mean sum is at or above the elbow of all mean sums, the same for
    every sample. Scope `sample`: each sample's sums and their elbow, so that each sample chooses as `choose_heads`
    would. Of the heads that are left, each sample counts the `lowest_n` of lowest entropy; the `top_k` heads counted
    most often are the model's.

    Args:
        scores: Scores of every head on every sample.
        rules: How to choose.

    Returns:
        The selection.

    Raises:
        ValueError: If fewer than `top_k` heads were ever chosen.
    """
    selection = count_choices(scores, rules)
    if len(selection.heads) < rules.top_k:
        raise ValueError(
            f"Expected at least top_k={rules.top_k} heads to be chosen by some sample, but got {len(selection.heads)}. "
            "Lower logic.top_k, raise logic.lowest_n or logic.threshold.min_keep, or use more samples."
        )
    return selection


def count_choices(scores: DatasetScores, rules: SelectionRules) -> DatasetSelection:
    """The selection, be there as many as `top_k` heads or fewer."""
    num_samples, num_layers, num_heads = scores.attn_sum.shape
    mean_sums = scores.attn_sum.mean(axis=0, dtype=np.float64)
    by_dataset = rules.threshold_scope == "dataset"
    sums = np.broadcast_to(mean_sums, scores.attn_sum.shape) if by_dataset else scores.attn_sum
    thresholds = _dataset_thresholds(mean_sums[None] if by_dataset else scores.attn_sum, rules)
    thresholds = np.broadcast_to(thresholds, num_samples)
    allowed = allowed_heads(scores.bottom_row_focus, rules.skip_layers, rules.bottom_row_filter)
    chosen = _first(rank_all(sums, scores.spatial_entropy, allowed, thresholds, rules.min_keep), rules.num_counted)
    counts = np.bincount(chosen[chosen >= 0], minlength=num_layers * num_heads).reshape(num_layers, num_heads)
    selection = DatasetSelection(
        (), counts, chosen, thresholds, mean_sums, _mean_of_finite(scores.spatial_entropy), rules
    )
    num_chosen = min(rules.top_k, int((counts > 0).sum()))
    return replace(selection, heads=tuple(selection.ranked_heads()[:num_chosen]))


def _first(ranking: Ranking, count: int) -> np.ndarray:
    """The first heads of each sample's ranking, `[samples, count]` at most; -1 where fewer are kept."""
    chosen = ranking.order[:, :count].copy()
    chosen[np.arange(chosen.shape[1]) >= ranking.num_kept[:, None]] = -1
    result: np.ndarray = chosen
    return result


def _dataset_thresholds(sums: np.ndarray, rules: SelectionRules) -> np.ndarray:
    """The fixed threshold, or the elbow of each sample's sums `[samples, layers, heads]`: `[samples]` float64."""
    if rules.threshold_value is not None:
        return np.full(len(sums), rules.threshold_value, dtype=np.float64)
    return np.array([elbow_threshold(sample_sums) for sample_sums in sums])


def _mean_of_finite(entropies: np.ndarray) -> np.ndarray:
    """Mean over the samples of the finite entropies, infinite for a head that has none: `[layers, heads]` float64."""
    finite = np.isfinite(entropies)
    total = np.where(finite, entropies, 0).sum(axis=0, dtype=np.float64)
    result: np.ndarray = np.divide(
        total, finite.sum(axis=0), out=np.full(total.shape, np.inf), where=finite.any(axis=0)
    )
    return result
