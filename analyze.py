"""Attention -> scored and ranked heads; over a data set -> threshold, selection frequency, fixed heads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lab.heads.components import bottom_row_focus, component_entropy, foreground_runs
from lab.heads.dataset_selection import select_dataset_heads, stack_scores
from lab.heads.frequency import frequency_by_size, resample_frequency, run_trials
from lab.heads.head_scores import (
    ENTROPY_SHARES,
    THRESHOLD_SCALES,
    DatasetScores,
    DatasetSelection,
    HeadTable,
    SelectionRules,
    check_at_least,
    check_one_of,
)
from lab.heads.ranking import allowed_heads, elbow_threshold, rank_all
from lab.records import HeadChoice, HeadScore

__all__ = [
    "DatasetScores",
    "DatasetSelection",
    "HeadTable",
    "SelectionRules",
    "choose_heads",
    "elbow_threshold",
    "frequency_by_size",
    "rank_heads",
    "resample_frequency",
    "run_trials",
    "score_heads",
    "select_dataset_heads",
    "selection_threshold",
    "stack_scores",
]


# ---------------------------------------------------------------------------------------------------------------------
# One sample: scores
# ---------------------------------------------------------------------------------------------------------------------


def score_heads(
    attention: np.ndarray,
    grid_shape: tuple[int, int],
    *,
    binarize_threshold: float = 0.001,
    entropy_shares: str = "mass",
    threshold_scale: str = "absolute",
    sums: np.ndarray | None = None,
) -> HeadTable:
    """Score every head of one sample by both criteria, all heads at once.

    Criterion 1 is the sum of attention over the image. Criterion 2 is the spatial entropy `-sum p_i ln p_i` over the
    8-connected components of `relu(A - mean(A)) > binarize_threshold`, where `p_i` is component i's share of all
    components: one component gives 0, two equal ones ln 2, none infinity (arXiv 2503.06287, section 3).

    Bottom-row focus: more than half of the components' excess over the mean lies in the last row of the grid. The share
    is relative, so it depends neither on the size of the grid nor on how much the head looks at the image at all, and a
    head on an object that merely stands on the lower edge keeps most of its mass above. A grid of one row has none.

    Args:
        attention: `[layers, heads, visual_tokens]`, after softmax, row-major over the grid.
        grid_shape: Rows and columns of the grid.
        binarize_threshold: Excess over the mean above which a cell belongs to a component.
        entropy_shares: `mass` or `area`.
        threshold_scale: Whether that excess is `absolute`, or `relative` to the map's mean: an absolute one means
            another rule on a grid of another size, since the mean of a map falls with the number of its cells.
        sums: `[layers, heads]` sums of the attention before it was rounded for storage; None to take those of
            `attention`.

    Returns:
        The table of scores, `[layers, heads]` each.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or infinite, or an option is unknown.
    """
    check_at_least("binarize_threshold", binarize_threshold, 0)
    check_one_of("entropy_shares", entropy_shares, ENTROPY_SHARES)
    check_one_of("threshold_scale", threshold_scale, THRESHOLD_SCALES)
    maps = _stack_maps(attention, grid_shape)
    # Summed in float64: the mean of a constant map is then exact, and no cell exceeds it.
    map_sums = np.einsum("mc->m", maps.reshape(len(maps), -1), dtype=np.float64)
    _check_finite(map_sums, attention.shape[1])
    means = (map_sums / (grid_shape[0] * grid_shape[1])).astype(np.float32)
    excess = np.float32(binarize_threshold) * (means if threshold_scale == "relative" else np.float32(1))
    runs = foreground_runs(maps, means, excess)
    entropy, num_components = component_entropy(runs, grid_shape[1] + 1, entropy_shares, num_maps=len(maps))
    shape = attention.shape[:2]
    return HeadTable(
        attn_sum=map_sums.reshape(shape) if sums is None else np.asarray(sums, dtype=np.float64).reshape(shape),
        spatial_entropy=entropy.reshape(shape),
        bottom_row_focus=bottom_row_focus(runs, grid_shape[0], num_maps=len(maps)).reshape(shape),
        num_components=num_components.reshape(shape),
    )


def _stack_maps(attention: np.ndarray, grid_shape: tuple[int, int]) -> np.ndarray:
    """Attention `[layers, heads, visual_tokens]` as float32 maps `[layers * heads, rows, cols]`."""
    rows, cols = grid_shape
    if attention.ndim != 3 or 0 in attention.shape:
        raise ValueError(
            f"Expected attention to have the shape [layers, heads, visual_tokens], but got {list(attention.shape)}."
        )
    if attention.shape[2] != rows * cols:
        raise ValueError(
            f"Expected attention to have one value for each cell of the {rows} x {cols} grid, "
            f"but got {attention.shape[2]} visual tokens. Pass the grid that the attention was collected with."
        )
    return np.asarray(attention, dtype=np.float32).reshape(-1, rows, cols)


def _check_finite(sums: np.ndarray, num_heads: int) -> None:
    """Reject NaN and infinity, which every sum over a map that holds one shows as well."""
    bad = np.flatnonzero(~np.isfinite(sums))
    if len(bad):
        layer, head = divmod(int(bad[0]), num_heads)
        raise ValueError(
            f"Expected attention to be finite, but got NaN or infinity in {len(bad)} of {len(sums)} heads, "
            f"first in layer {layer}, head {head}. Collect again with model.dtype=bfloat16 or float32."
        )


# ---------------------------------------------------------------------------------------------------------------------
# One sample: choice
# ---------------------------------------------------------------------------------------------------------------------


def selection_threshold(table: HeadTable, rules: SelectionRules) -> float:
    """The threshold of criterion 1 for one sample: the rules' fixed value, or the elbow of the sample's own sums."""
    return elbow_threshold(table.attn_sum) if rules.threshold_value is None else rules.threshold_value


def rank_heads(
    table: HeadTable,
    *,
    threshold: float | None = None,
    min_keep: int = 0,
    skip_layers: int = 2,
    bottom_row_filter: bool = True,
) -> list[HeadScore]:
    """Rank the heads that pass both criteria, best first, then fill up.

    A head survives when its sum is at least the threshold, its map has a component, its layer is not skipped and it
    does not look at the bottom row. Survivors go by ascending entropy; ties by larger sum, then (layer, head). Fewer
    than `min_keep`: those that fail by the threshold alone follow, largest sum first.

    Args:
        table: Scores of one sample.
        threshold: Smallest attention sum that passes; None for the elbow of the table's own sums.
        min_keep: Number to fill up to.
        skip_layers: The first layers, left out.
        bottom_row_filter: Whether heads that look at the bottom row are left out.

    Returns:
        The ranked heads; empty when the filters leave none.

    Raises:
        ValueError: If `skip_layers` leaves no layer.
    """
    threshold = elbow_threshold(table.attn_sum) if threshold is None else threshold
    return _scores_at(table, _rank_indices(table, threshold, min_keep, skip_layers, bottom_row_filter))


def choose_heads(
    table: HeadTable,
    *,
    rules: SelectionRules,
    fixed_heads: Sequence[tuple[int, int]] | None = None,
    manual_heads: Sequence[tuple[int, int]] = (),
    force_manual: bool = False,
    ranked: Sequence[HeadScore] | None = None,
) -> HeadChoice:
    """Choose the heads to use for one sample: fixed ones unchanged, else manual ones that pass, else the best ranked.

    Args:
        table: Scores of the sample.
        rules: How to choose.
        fixed_heads: (layer, head) of the model's fixed heads, used unchanged and in this order.
        manual_heads: (layer, head) in order; those that pass the threshold and the filters are used, at most `top_k`.
            If none passes, the heads are chosen automatically.
        force_manual: Use all manual heads as they are; notes say which criteria they fail.
        ranked: What `rank_heads` gave for this table by the same rules, where that is known already.

    Returns:
        The choice, its source, and notes on everything that did not go the plain way.

    Raises:
        ValueError: If both lists are given, a listed head is unknown or listed twice, or no head passes the filters.
    """
    if fixed_heads is not None and len(manual_heads):
        raise ValueError("Expected either logic.heads_file or logic.manual_heads, but got both. Take one of them out.")
    if fixed_heads is not None:
        return HeadChoice(_scores_of(table, fixed_heads, "heads_file"), "heads_file")
    threshold = selection_threshold(table, rules)
    if not len(manual_heads):
        return _choose_automatically(table, rules, threshold, (), ranked)
    if force_manual:
        return _force_manual(table, rules, threshold, manual_heads)
    passing, notes = _split_manual(table, rules, threshold, manual_heads)
    if passing:
        if len(passing) > rules.top_k:
            notes += (f"{len(passing)} manual heads passed; top_k={rules.top_k} uses the first {rules.top_k}.",)
        return HeadChoice(passing[: rules.top_k], "manual", notes)
    notes += ("No manual head passed, so the heads were chosen automatically.",)
    return _choose_automatically(table, rules, threshold, notes, ranked)


def _choose_automatically(
    table: HeadTable,
    rules: SelectionRules,
    threshold: float,
    notes: tuple[str, ...],
    ranked: Sequence[HeadScore] | None,
) -> HeadChoice:
    """The `top_k` best ranked heads, with notes on filling up and on too few."""
    if ranked is None:
        best = _rank_indices(table, threshold, rules.min_keep, rules.skip_layers, rules.bottom_row_filter)
        ranked = _scores_at(table, best[: rules.top_k])
    if not len(ranked):
        raise ValueError(
            f"Expected at least one head of layers {rules.skip_layers} to {table.num_layers - 1} to have a map with a "
            "component away from the bottom row, but got none. Check the attention, or set another "
            "logic.entropy.binarize_threshold."
        )
    chosen = tuple(ranked[: rules.top_k])
    filled = [score.name for score in chosen if score.attn_sum < threshold]
    if filled:
        notes += (f"Filled up below the threshold {threshold:.4g} with the largest sums: {', '.join(filled)}.",)
    if len(chosen) < rules.top_k:
        notes += (f"top_k is {rules.top_k}, but only {len(chosen)} heads passed; raise min_keep to fill up.",)
    return HeadChoice(chosen, "automatic", notes)


def _split_manual(
    table: HeadTable, rules: SelectionRules, threshold: float, manual_heads: Sequence[tuple[int, int]]
) -> tuple[tuple[HeadScore, ...], tuple[str, ...]]:
    """The manual heads that pass, and one sentence for each that does not."""
    scores = _scores_of(table, manual_heads, "manual_heads")
    failures = [_reason_to_reject(score, rules, threshold) for score in scores]
    passing = tuple(score for score, failure in zip(scores, failures) if failure is None)
    notes = tuple(f"Manual head {score.name} was not used: {why}." for score, why in zip(scores, failures) if why)
    return passing, notes


def _force_manual(
    table: HeadTable, rules: SelectionRules, threshold: float, manual_heads: Sequence[tuple[int, int]]
) -> HeadChoice:
    """The manual heads as they are, with one sentence for each that fails the criteria."""
    scores = _scores_of(table, manual_heads, "manual_heads")
    failures = [_reason_to_reject(score, rules, threshold) for score in scores]
    notes = (f"Manual head {score.name} is used although {why}." for score, why in zip(scores, failures) if why)
    return HeadChoice(scores, "manual", tuple(notes))


def _reason_to_reject(score: HeadScore, rules: SelectionRules, threshold: float) -> str | None:
    """Why a head fails the filters, or None if it passes."""
    if score.layer < rules.skip_layers:
        return f"the first {rules.skip_layers} layers are left out"
    if score.attn_sum < threshold:
        return f"its attention sum {score.attn_sum:.4g} is below the threshold {threshold:.4g}"
    if not np.isfinite(score.spatial_entropy):
        return "its map has no component"
    if rules.bottom_row_filter and score.bottom_row_focus:
        return "it looks at the bottom row"
    return None


def _scores_of(table: HeadTable, heads: Sequence[tuple[int, int]], where: str) -> tuple[HeadScore, ...]:
    """The scores of listed heads, in the list's order."""
    pairs = [(int(layer), int(head)) for layer, head in heads]
    if not pairs or len(set(pairs)) < len(pairs):
        raise ValueError(f"Expected {where} to list at least one head, each once, but got {pairs}.")
    return tuple(table.score(layer, head) for layer, head in pairs)


def _rank_indices(
    table: HeadTable, threshold: float, min_keep: int, skip_layers: int, bottom_row_filter: bool
) -> np.ndarray:
    """Flat indices `[kept heads]` of one sample's ranked heads, best first; see `rank_heads` for the rule."""
    allowed = allowed_heads(table.bottom_row_focus[None], skip_layers, bottom_row_filter)
    ranking = rank_all(table.attn_sum[None], table.spatial_entropy[None], allowed, np.array([threshold]), min_keep)
    return ranking.order[0, : ranking.num_kept[0]]


def _scores_at(table: HeadTable, indices: np.ndarray) -> list[HeadScore]:
    """The scores of the heads at flat indices, in their order."""
    # Columns as lists first: reading hundreds of heads out of the arrays number by number takes several times as long.
    arrays = (table.attn_sum, table.spatial_entropy, table.bottom_row_focus, table.num_components)
    columns = [*np.divmod(indices, table.num_heads), *(array.reshape(-1)[indices] for array in arrays)]
    return list(map(HeadScore._make, zip(*(column.tolist() for column in columns))))
