"""Attention -> scored and ranked heads; over a data set -> threshold, selection frequency, fixed heads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from lab.heads.head_scores import (
    ENTROPY_SHARES,
    DatasetScores,
    DatasetSelection,
    HeadTable,
    SelectionRules,
    check_at_least,
    check_one_of,
)
from lab.heads.trials import TrialStatistics, summarize_trials, trial_indices
from lab.records import HeadChoice, HeadScore

BOTTOM_ROW_SHARE = 0.5
"""A head looks at the bottom row when more than this share of its map's excess over the mean lies there."""
ELBOW_TOLERANCE = 1e-9
"""Distances from the chord closer than this share of the range of values are ties."""
_AFTER_SURVIVORS = np.finfo(np.float64).max
"""Ranks heads that fail by the threshold alone behind every entropy, and before those that the filters leave out."""


# ---------------------------------------------------------------------------------------------------------------------
# One sample: scores
# ---------------------------------------------------------------------------------------------------------------------


def score_heads(
    attention: np.ndarray,
    grid_shape: tuple[int, int],
    *,
    binarize_threshold: float = 0.001,
    entropy_shares: str = "mass",
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

    Returns:
        The table of scores, `[layers, heads]` each.

    Raises:
        ValueError: If shapes do not fit, a value is NaN or infinite, or an option is unknown.
    """
    check_at_least("binarize_threshold", binarize_threshold, 0)
    check_one_of("entropy_shares", entropy_shares, ENTROPY_SHARES)
    maps = _stack_maps(attention, grid_shape)
    # Summed in float64: the mean of a constant map is then exact, and no cell exceeds it.
    sums = np.einsum("mc->m", maps.reshape(len(maps), -1), dtype=np.float64)
    _check_finite(sums, attention.shape[1])
    runs = _foreground_runs(maps, sums / (grid_shape[0] * grid_shape[1]), binarize_threshold)
    entropy, num_components = _component_entropy(runs, grid_shape[1] + 1, entropy_shares, num_maps=len(maps))
    shape = attention.shape[:2]
    return HeadTable(
        attn_sum=sums.reshape(shape),
        spatial_entropy=entropy.reshape(shape),
        bottom_row_focus=_bottom_row_focus(runs, grid_shape[0], num_maps=len(maps)).reshape(shape),
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


@dataclass(frozen=True)
class _Runs:
    """Horizontal runs of neighbouring cells above the cutoff, of all maps, in the order of the maps and their cells.

    Attributes:
        map_index: `[runs]` which map.
        row: `[runs]` which row of the grid.
        start: `[runs]` position of the first cell, in maps with an empty column and an empty row after them.
        end: `[runs]` position of the last cell.
        num_cells: `[runs]`.
        mass: `[runs]` float64, excess over the map's mean.
    """

    map_index: np.ndarray
    row: np.ndarray
    start: np.ndarray
    end: np.ndarray
    num_cells: np.ndarray
    mass: np.ndarray


def _foreground_runs(maps: np.ndarray, means: np.ndarray, binarize_threshold: float) -> _Runs:
    """Binarise all maps `[maps, rows, cols]` and gather the cells of each row into runs."""
    num_maps, rows, cols = maps.shape
    means = means.astype(np.float32)
    cutoff = means + np.float32(binarize_threshold)
    cells = np.flatnonzero(maps > cutoff[:, None, None])
    # 32-bit integers divide several times as fast; positions are doubled once.
    index = cells.astype(np.int32) if num_maps * (rows + 1) * (cols + 1) < 2**30 else cells
    row_of_all = index // cols
    position = index + row_of_all  # an empty column after each row parts its last cell from the first of the next
    is_first = np.ones(len(cells), dtype=bool)
    np.not_equal(position[1:], position[:-1] + 1, out=is_first[1:])
    first = np.flatnonzero(is_first)
    num_cells = np.diff(first, append=len(cells))

    row_of_all = row_of_all[first]
    map_of_run = row_of_all // rows
    start = position[first] + map_of_run * (cols + 1)  # and an empty row parts one map from the next
    map_index = map_of_run.astype(np.intp)  # once, and not wherever it serves as an index
    # Sums of a few float32 are exact in float64, so that no run comes out at or below the mean that it exceeds.
    total = np.bincount(np.cumsum(is_first), weights=maps.reshape(-1)[cells], minlength=1)[1:]
    return _Runs(
        map_index=map_index,
        row=row_of_all - map_of_run * rows,
        start=start,
        end=start + num_cells.astype(start.dtype) - 1,
        num_cells=num_cells,
        mass=total - num_cells * means.astype(np.float64)[map_index],
    )


def _label_runs(runs: _Runs, row_stride: int) -> tuple[np.ndarray, int]:
    """Number the 8-connected components of all maps with one call: `[runs]` component, from 0, and how many there are.

    Runs that touch are linked, and scipy labels the graph: it has far fewer nodes than the maps have cells.
    `row_stride` is the number of positions from a cell to the one below it.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    # Each run is linked to those of the row above that end no further left than one column before it ...
    first_above = _count_below(runs.end, runs.start - (row_stride + 1))
    furthest = runs.end - (row_stride - 1)
    touches = runs.start[first_above] <= furthest
    num_above = touches.astype(np.int32)
    below = np.flatnonzero(touches)
    while len(below):  # ... and begin no further right than one column after it.
        below = below[runs.start[first_above[below] + num_above[below]] <= furthest[below]]
        num_above[below] += 1
    pointers = np.zeros(len(num_above) + 1, dtype=np.int32)
    np.cumsum(num_above, out=pointers[1:])
    links = np.repeat(first_above.astype(np.int32) - pointers[:-1], num_above)
    links += np.arange(len(links), dtype=np.int32)
    graph = csr_array((np.ones(len(links)), links, pointers), shape=2 * (len(first_above),))
    num_components, component = connected_components(graph, directed=False)
    return component, num_components


def _count_below(values: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """How many values lie below each limit, both ascending integers: `np.searchsorted` takes twice as long.

    Values become odd and limits even, so that a sort mixes them with equal ones behind their limit; the place of the
    k-th limit, less the k limits before it, is the number of values before it.
    """
    mixed = np.sort(np.concatenate([2 * limits, 2 * values + 1]))
    return np.flatnonzero((mixed & 1) == 0) - np.arange(len(limits))


def _component_entropy(
    runs: _Runs, row_stride: int, entropy_shares: str, num_maps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Entropy over components, and number of components, `[maps]` each."""
    component, num_components = _label_runs(runs, row_stride)
    weights = runs.mass if entropy_shares == "mass" else runs.num_cells
    sizes = np.bincount(component, weights=weights, minlength=num_components)
    map_of_component = np.empty(num_components, dtype=np.intp)
    map_of_component[component] = runs.map_index
    shares = sizes / np.bincount(map_of_component, weights=sizes, minlength=num_maps)[map_of_component]
    entropy = np.bincount(map_of_component, weights=-shares * np.log(shares), minlength=num_maps)
    components_each = np.bincount(map_of_component, minlength=num_maps)
    return np.where(components_each > 0, entropy, np.inf), components_each


def _bottom_row_focus(runs: _Runs, rows: int, num_maps: int) -> np.ndarray:
    """Whether more than `BOTTOM_ROW_SHARE` of the components' excess lies in the last row, `[maps]` bool."""
    if rows < 2:
        return np.zeros(num_maps, dtype=bool)
    total = np.bincount(runs.map_index, weights=runs.mass, minlength=num_maps)
    bottom = runs.row == rows - 1
    in_bottom_row = np.bincount(runs.map_index[bottom], weights=runs.mass[bottom], minlength=num_maps)
    return in_bottom_row > BOTTOM_ROW_SHARE * total


# ---------------------------------------------------------------------------------------------------------------------
# One sample: choice
# ---------------------------------------------------------------------------------------------------------------------


def elbow_threshold(values: np.ndarray) -> float:
    """The value at the elbow of the ascending values: the point farthest from the chord between first and last.

    All points lie over equally spaced ranks, so that the farthest point in the direction of y is also the farthest
    from the chord, whatever the scale of the axes. Of several equally far points the lowest value wins, which keeps
    more heads. Without an elbow (fewer than three values, equal values, values on a line) it is the lowest value.

    Args:
        values: Any shape; a copy is sorted.

    Returns:
        The threshold, one of the values: keep what is at or above it.

    Raises:
        ValueError: If there is no value, or one is NaN or infinite.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if len(ordered) == 0 or not np.isfinite(ordered).all():
        raise ValueError(
            "Expected the values to find an elbow in to be finite and at least one, "
            f"but got {len(ordered)} values, {int((~np.isfinite(ordered)).sum())} of them NaN or infinite."
        )
    distances = np.abs(ordered - np.linspace(ordered[0], ordered[-1], len(ordered)))
    tolerance = ELBOW_TOLERANCE * (ordered[-1] - ordered[0])
    if distances.max() <= tolerance:
        return float(ordered[0])
    return float(ordered[np.argmax(distances >= distances.max() - tolerance)])


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


@dataclass(frozen=True)
class _Ranking:
    """`order`: `[samples, heads]` flat head indices, best first; `num_kept`: `[samples]` how many of them count."""

    order: np.ndarray
    num_kept: np.ndarray


def _rank_indices(
    table: HeadTable, threshold: float, min_keep: int, skip_layers: int, bottom_row_filter: bool
) -> np.ndarray:
    """Flat indices `[kept heads]` of one sample's ranked heads, best first; see `rank_heads` for the rule."""
    allowed = _allowed_heads(table.bottom_row_focus[None], skip_layers, bottom_row_filter)
    ranking = _rank(table.attn_sum[None], table.spatial_entropy[None], allowed, np.array([threshold]), min_keep)
    return ranking.order[0, : ranking.num_kept[0]]


def _scores_at(table: HeadTable, indices: np.ndarray) -> list[HeadScore]:
    """The scores of the heads at flat indices, in their order."""
    # Columns as lists first: reading hundreds of heads out of the arrays number by number takes several times as long.
    arrays = (table.attn_sum, table.spatial_entropy, table.bottom_row_focus, table.num_components)
    columns = [*np.divmod(indices, table.num_heads), *(array.reshape(-1)[indices] for array in arrays)]
    return list(map(HeadScore._make, zip(*(column.tolist() for column in columns))))


def _allowed_heads(bottom_row_focus: np.ndarray, skip_layers: int, bottom_row_filter: bool) -> np.ndarray:
    """Which heads the filters allow, `[samples, layers, heads]` bool like `bottom_row_focus`."""
    num_layers = bottom_row_focus.shape[1]
    if skip_layers >= num_layers:
        raise ValueError(
            f"Expected skip_layers to leave at least one of the model's {num_layers} layers, but got {skip_layers}. "
            "Set logic.skip_layers lower."
        )
    allowed = ~bottom_row_focus if bottom_row_filter else np.ones(bottom_row_focus.shape, dtype=bool)
    allowed[:, :skip_layers] = False
    return allowed


def _rank(
    sums: np.ndarray, entropies: np.ndarray, allowed: np.ndarray, thresholds: np.ndarray, min_keep: int
) -> _Ranking:
    """Rank the heads of every sample at once; see `rank_heads` for the rule.

    Args:
        sums: `[samples, layers, heads]`, what criterion 1 compares.
        entropies: The same shape.
        allowed: The same shape, bool.
        thresholds: `[samples]`.
        min_keep: Number of heads to fill up to.
    """
    flat = (len(sums), -1)
    sums, entropies, allowed = sums.reshape(flat), entropies.reshape(flat), allowed.reshape(flat)
    usable = allowed & np.isfinite(entropies)
    survives = usable & (sums >= thresholds[:, None])
    # The last key sorts first: survivors by entropy, then usable heads, then the others. lexsort is stable, so that
    # remaining ties go by (layer, head).
    order = np.lexsort((-sums, np.where(survives, entropies, np.where(usable, _AFTER_SURVIVORS, np.inf))))
    num_kept = np.maximum(survives.sum(axis=1), np.minimum(min_keep, usable.sum(axis=1)))
    return _Ranking(order, num_kept)


# ---------------------------------------------------------------------------------------------------------------------
# A data set
# ---------------------------------------------------------------------------------------------------------------------


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
    selection = _count_choices(scores, rules)
    if len(selection.heads) < rules.top_k:
        raise ValueError(
            f"Expected at least top_k={rules.top_k} heads to be chosen by some sample, but got {len(selection.heads)}. "
            "Lower logic.top_k, raise logic.lowest_n or logic.threshold.min_keep, or use more samples."
        )
    return selection


def _count_choices(scores: DatasetScores, rules: SelectionRules) -> DatasetSelection:
    """The selection, be there as many as `top_k` heads or fewer."""
    num_samples, num_layers, num_heads = scores.attn_sum.shape
    mean_sums = scores.attn_sum.mean(axis=0, dtype=np.float64)
    by_dataset = rules.threshold_scope == "dataset"
    sums = np.broadcast_to(mean_sums, scores.attn_sum.shape) if by_dataset else scores.attn_sum
    thresholds = _dataset_thresholds(mean_sums[None] if by_dataset else scores.attn_sum, rules)
    thresholds = np.broadcast_to(thresholds, num_samples)
    allowed = _allowed_heads(scores.bottom_row_focus, rules.skip_layers, rules.bottom_row_filter)
    ranking = _rank(sums, scores.spatial_entropy, allowed, thresholds, rules.min_keep)

    chosen = ranking.order[:, : rules.num_counted].copy()
    chosen[np.arange(chosen.shape[1]) >= ranking.num_kept[:, None]] = -1
    counts = np.bincount(chosen[chosen >= 0], minlength=num_layers * num_heads).reshape(num_layers, num_heads)
    selection = DatasetSelection(
        (), counts, chosen, thresholds, mean_sums, _mean_of_finite(scores.spatial_entropy), rules
    )
    num_chosen = min(rules.top_k, int((counts > 0).sum()))
    return replace(selection, heads=tuple(selection.ranked_heads()[:num_chosen]))


def _dataset_thresholds(sums: np.ndarray, rules: SelectionRules) -> np.ndarray:
    """The fixed threshold, or the elbow of each sample's sums `[samples, layers, heads]`: `[samples]` float64."""
    if rules.threshold_value is not None:
        return np.full(len(sums), rules.threshold_value, dtype=np.float64)
    return np.array([elbow_threshold(sample_sums) for sample_sums in sums])


def _mean_of_finite(entropies: np.ndarray) -> np.ndarray:
    """Mean over the samples of the finite entropies, infinite for a head that has none: `[layers, heads]` float64."""
    finite = np.isfinite(entropies)
    total = np.where(finite, entropies, 0).sum(axis=0, dtype=np.float64)
    return np.divide(total, finite.sum(axis=0), out=np.full(total.shape, np.inf), where=finite.any(axis=0))


def run_trials(scores: DatasetScores, rules: SelectionRules, trials: Sequence[np.ndarray]) -> TrialStatistics:
    """Choose the heads anew in every trial, thresholds included, and compare.

    Args:
        scores: Scores of every head on every sample.
        rules: How to choose.
        trials: Indices of each trial's samples, as `lab.heads.trials.trial_indices` draws them, or those of each
            directory.

    Returns:
        Mean and standard deviation of each frequency, and how often the same heads came out on top.
    """
    selections = [_count_choices(scores.take(indices), rules) for indices in trials]
    return summarize_trials(
        np.stack([selection.frequency for selection in selections]), [selection.heads for selection in selections]
    )


def frequency_by_size(
    scores: DatasetScores,
    rules: SelectionRules,
    heads: Sequence[tuple[int, int]],
    *,
    sizes: Sequence[int],
    repeats: int = 5,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Selection frequency of some heads when only so many samples, drawn without replacement, are used.

    Args:
        scores: Scores of every head on every sample.
        rules: How to choose.
        heads: (layer, head) of the K heads.
        sizes: Numbers of samples.
        repeats: Draws of each size.
        seed: Seed of the draws.

    Returns:
        Mean and standard deviation over the draws, `[K, len(sizes)]` each.

    Raises:
        ValueError: If a size is not from 1 to the number of samples.
    """
    layers, numbers = np.array(heads).T
    means, deviations = [], []
    for size in sizes:
        trials = trial_indices(scores.num_samples, repeats, trial_size=size, seed=seed)
        selections = [_count_choices(scores.take(indices), rules) for indices in trials]
        frequencies = np.stack([selection.frequency[layers, numbers] for selection in selections])
        means.append(frequencies.mean(axis=0))
        deviations.append(frequencies.std(axis=0, ddof=1) if repeats > 1 else np.zeros(len(heads)))
    return np.stack(means, axis=1), np.stack(deviations, axis=1)
