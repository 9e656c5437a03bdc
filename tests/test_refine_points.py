from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lab.records import Grid
from refine.points import agreement, interior_points

GRID = Grid(8, 8, 0.0, -20.0, 10.0, 10.0)  # over 80 x 40 pixels, padded to a square
SIZE = (80, 40)


def region(rows: slice, cols: slice) -> np.ndarray:
    mask = np.zeros((8, 8), dtype=bool)
    mask[rows, cols] = True
    return mask


def test_the_peak_comes_first_even_at_an_edge() -> None:
    mask, a_map = region(np.s_[2:7], np.s_[1:6]), np.full((8, 8), 0.1)
    a_map[2, 1] = 0.5
    a_map[0, 7] = 0.9  # outside the region
    points_xy = interior_points(a_map, mask, GRID, SIZE, 1)
    np.testing.assert_array_equal(points_xy, [[15, 5]])


def test_others_lie_in_the_interior_and_far_apart() -> None:
    mask, a_map = region(np.s_[1:6], np.s_[0:8]), np.full((8, 8), 0.1)
    mask[:, :2] = mask[:, 7] = False  # columns 2 to 6: five cells wide, five high
    a_map[3, 4] = 0.5  # the middle
    points_xy = interior_points(a_map, mask, GRID, SIZE, 3)
    # Deep are the 3 x 3 cells of the middle, whose corners are all as far from it: they follow in order.
    np.testing.assert_array_equal(points_xy, [[45, 15], [35, 5], [55, 5]])


def test_ties_go_to_the_brighter_cell() -> None:
    mask, a_map = region(np.s_[1:6], np.s_[2:7]), np.full((8, 8), 0.1)
    a_map[3, 4], a_map[4, 3] = 0.5, 0.2
    np.testing.assert_array_equal(interior_points(a_map, mask, GRID, SIZE, 2), [[45, 15], [35, 25]])


def test_the_edge_of_the_grid_is_no_edge_of_the_object() -> None:
    mask, a_map = region(np.s_[0:5], np.s_[2:7]), np.full((8, 8), 0.1)
    a_map[2, 4] = 0.5
    grid = Grid(8, 8, 0.0, 0.0, 10.0, 10.0)
    points_xy = interior_points(a_map, mask, grid, (80, 80), 9)
    assert {(35, 5), (45, 5), (55, 5)} <= {tuple(point) for point in points_xy}


def test_small_regions_have_fewer_points_and_empty_ones_none() -> None:
    a_map = np.ones((8, 8))
    assert len(interior_points(a_map, region(np.s_[3:4], np.s_[2:4]), GRID, SIZE, 5)) == 2
    assert interior_points(a_map, region(np.s_[0:0], np.s_[0:0]), GRID, SIZE, 5).shape == (0, 2)


def test_a_region_that_is_the_whole_grid() -> None:
    assert (
        len(interior_points(np.ones((8, 8)), np.ones((8, 8), dtype=bool), Grid(8, 8, 0, 0, 10, 10), (80, 80), 4)) == 4
    )


def test_points_are_in_the_picture_where_a_cell_is_cut() -> None:
    grid = Grid(8, 8, -7.0, -7.0, 10.0, 10.0)
    points_xy = interior_points(np.ones((8, 8)), region(np.s_[0:1], np.s_[0:1]), grid, (60, 60), 1)
    np.testing.assert_array_equal(points_xy, [[1.5, 1.5]])


@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 9))
def test_points_are_distinct_and_within_the_region(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    mask, a_map = rng.random((8, 8)) < 0.6, rng.random((8, 8))
    grid = Grid(8, 8, 0.0, 0.0, 10.0, 5.0)
    points_xy = interior_points(a_map, mask, grid, (80, 40), count)
    assert len(points_xy) == min(count, len(points_xy))
    assert len(np.unique(points_xy, axis=0)) == len(points_xy)
    cols, rows = (points_xy // (10, 5)).astype(int).T
    assert mask[rows, cols].all()
    if mask.any():
        assert (rows[0], cols[0]) == np.unravel_index(np.where(mask, a_map, -1).argmax(), (8, 8))


# Agreement of masks with the attention


def pixels(rows: slice, cols: slice) -> np.ndarray:
    mask = np.zeros((40, 80), dtype=bool)
    mask[rows, cols] = True
    return mask


def test_the_mask_that_covers_the_attention_and_nothing_else_agrees_best() -> None:
    cells, a_map = region(np.s_[3:5], np.s_[2:6]), np.full((8, 8), 0.5)
    masks = np.stack([
        pixels(np.s_[10:30], np.s_[20:60]),  # just the region
        pixels(np.s_[10:20], np.s_[20:40]),  # a part
        pixels(np.s_[:], np.s_[:]),  # everything
        pixels(np.s_[0:10], np.s_[20:60]),  # beside it
        pixels(np.s_[0:0], np.s_[0:0]),  # nothing
    ])  # fmt: skip
    expected = [1, 2 / np.sqrt(2 * 8), 8 / np.sqrt(32 * 8), 0, 0]
    np.testing.assert_allclose(agreement(masks, a_map, cells, GRID), expected, atol=1e-12)


def test_cells_that_are_half_covered_count_half() -> None:
    cells, a_map = region(np.s_[3:4], np.s_[2:4]), np.ones((8, 8))
    half = pixels(np.s_[10:20], np.s_[20:35])
    assert agreement(half[None], a_map, cells, GRID)[0] == pytest.approx(1.5 / np.sqrt(1.25 * 2))


def test_bright_cells_weigh_more() -> None:
    cells, a_map = region(np.s_[3:4], np.s_[2:4]), np.zeros((8, 8))
    a_map[3, 2:4] = (0.9, 0.1)
    masks = np.stack([pixels(np.s_[10:20], np.s_[20:30]), pixels(np.s_[10:20], np.s_[30:40])])
    bright, faint = agreement(masks, a_map, cells, GRID)
    assert bright == pytest.approx(0.9 / np.hypot(0.9, 0.1))
    assert faint == pytest.approx(0.1 / np.hypot(0.9, 0.1))
