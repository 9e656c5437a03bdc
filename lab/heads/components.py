"""Maps of attention -> their 8-connected components above a threshold, and the entropy over them, all maps at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BOTTOM_ROW_SHARE = 0.5
"""A head looks at the bottom row when more than this share of its map's excess over the mean lies there."""


@dataclass(frozen=True)
class Runs:
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


def foreground_runs(maps: np.ndarray, means: np.ndarray, excess: np.ndarray | np.float32) -> Runs:
    """Binarise all maps `[maps, rows, cols]` at an excess over their means, and gather the cells of each row into runs.

    Both are float32, of each map `[maps]` or the same for all.
    """
    num_maps, rows, cols = maps.shape
    cutoff = means + excess
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
    return Runs(
        map_index=map_index,
        row=row_of_all - map_of_run * rows,
        start=start,
        end=start + num_cells.astype(start.dtype) - 1,
        num_cells=num_cells,
        mass=total - num_cells * means.astype(np.float64)[map_index],
    )


def _label_runs(runs: Runs, row_stride: int) -> tuple[np.ndarray, int]:
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


def component_entropy(runs: Runs, row_stride: int, entropy_shares: str, num_maps: int) -> tuple[np.ndarray, np.ndarray]:
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


def bottom_row_focus(runs: Runs, rows: int, num_maps: int) -> np.ndarray:
    """Whether more than `BOTTOM_ROW_SHARE` of the components' excess lies in the last row, `[maps]` bool."""
    if rows < 2:
        return np.zeros(num_maps, dtype=bool)
    total = np.bincount(runs.map_index, weights=runs.mass, minlength=num_maps)
    bottom = runs.row == rows - 1
    in_bottom_row = np.bincount(runs.map_index[bottom], weights=runs.mass[bottom], minlength=num_maps)
    return in_bottom_row > BOTTOM_ROW_SHARE * total
