from __future__ import annotations

import numpy as np
import pytest

from finer.edges import FractionalEdges, edge_insets


def insets(a_map: np.ndarray, mask: np.ndarray | None = None, **options: float) -> np.ndarray:
    mask = a_map > 0 if mask is None else mask
    return edge_insets(a_map[None], mask[None], FractionalEdges(**options))[0]


def test_full_lines_do_not_move() -> None:
    a_map = np.zeros((6, 6))
    a_map[1:4, 2:5] = 0.2
    np.testing.assert_array_equal(insets(a_map), 0)


def test_each_side_moves_by_its_own_line() -> None:
    a_map = np.zeros((8, 8))
    a_map[2:6, 1:7] = 1.0
    a_map[2:6, 1] = 0.5  # left
    a_map[5, 1:7] = 0.25  # bottom
    left, top, right, bottom = insets(a_map, most=0.6, power=1.0)
    columns = a_map[2:6, 1:7].sum(axis=0)
    rows = a_map[2:6, 1:7].sum(axis=1)
    assert left == pytest.approx(0.6 * (1 - columns[0] / columns.mean()))
    assert bottom == pytest.approx(0.6 * (1 - rows[-1] / rows.mean()))
    assert (top, right) == (0, 0)


def test_a_single_line_stays() -> None:
    a_map = np.zeros((5, 5))
    a_map[2, 1:4] = (0.1, 0.5, 0.1)
    left, top, right, bottom = insets(a_map)
    assert left == right > 0
    assert top == bottom == 0


def test_attention_outside_the_mask_does_not_count() -> None:
    a_map = np.full((5, 5), 0.9)
    mask = np.zeros((5, 5), dtype=bool)
    mask[1:3, 1:4] = True
    np.testing.assert_array_equal(insets(a_map, mask), 0)


def test_empty_masks_and_no_maps() -> None:
    np.testing.assert_array_equal(insets(np.zeros((4, 4))), 0)
    assert edge_insets(np.zeros((0, 4, 4)), np.zeros((0, 4, 4), dtype=bool), FractionalEdges()).shape == (0, 4)


def test_zero_most_is_whole_cells() -> None:
    a_map = np.random.default_rng(0).random((6, 6))
    np.testing.assert_array_equal(insets(a_map, most=0.0), 0)


@pytest.mark.parametrize(
    ("most", "power"), [(1.0, 0.25), (-0.1, 0.25), (0.7, 0.0), (0.7, float("inf")), (float("nan"), 1.0)],
    ids=["most of one", "negative most", "no power", "infinite power", "nan"],
)  # fmt: skip
def test_parameters_out_of_range_are_refused(most: float, power: float) -> None:
    with pytest.raises(ValueError, match=r"most in \[0, 1\) and power above 0, but got"):
        FractionalEdges(most, power)
