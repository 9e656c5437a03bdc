from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from finer.views import SHIFTS, average_maps, view_places
from lab.records import Grid


def square_grid(side: int, cells: int) -> Grid:
    """What a model that pads to squares sees of a canvas."""
    return Grid(cells, cells, 0.0, 0.0, side / cells, side / cells)


@settings(deadline=None, max_examples=200)
@given(width=st.integers(1, 900), height=st.integers(1, 900), cells=st.integers(2, 40))
def test_the_picture_is_whole_on_every_canvas_and_in_every_cell_of_the_common_grid(width, height, cells) -> None:
    places = view_places((width, height), cells)
    assert len(places) == len(SHIFTS)
    grids = []
    for place in places:
        x, y = place.corner_xy
        assert x >= 0
        assert y >= 0
        assert x + width <= place.side
        assert y + height <= place.side
        grids.append(place.grid_of_picture(square_grid(place.side, cells)))
    _, grid = average_maps([np.ones((cells, cells))] * 4, grids)
    x0, y0, x1, y1 = grid.box_xyxy
    assert x0 <= 0
    assert y0 <= 0
    assert x1 >= width
    assert y1 >= height


def test_shifts_are_half_a_cell_up_to_half_a_pixel() -> None:
    places = view_places((480, 270), 16)
    assert places[0].side == 512
    assert [place.corner_xy for place in places] == [(0, 105), (16, 105), (0, 121), (16, 121)]
    for size in ((333, 500), (1000, 77)):
        places = view_places(size, 24)
        cell = places[0].side / 24
        assert abs(places[1].corner_xy[0] - places[0].corner_xy[0] - cell / 2) <= 0.5
        assert places[3].corner_xy == (places[1].corner_xy[0], places[2].corner_xy[1])


def test_render_puts_the_picture_where_the_grid_says() -> None:
    image = Image.new("RGB", (30, 20), (255, 0, 0))
    for place in view_places(image.size, 4):
        canvas = np.asarray(place.render(image, (1, 2, 3)))
        rows, cols = np.nonzero((canvas == (255, 0, 0)).all(axis=2))
        assert (cols.min(), rows.min(), cols.max() + 1, rows.max() + 1) == (
            place.corner_xy[0],
            place.corner_xy[1],
            place.corner_xy[0] + 30,
            place.corner_xy[1] + 20,
        )
        assert (canvas[-1, -1] == (1, 2, 3)).all() or place.corner_xy[0] + 30 == place.side
        grid = place.grid_of_picture(square_grid(place.side, 4))
        assert (grid.x0, grid.y0) == (-place.corner_xy[0], -place.corner_xy[1])


def test_average_by_hand() -> None:
    first, second = np.array([[4.0, 8.0]]), np.array([[1.0, 2.0]])
    grids = [Grid(1, 2, 0.0, 0.0, 2.0, 2.0), Grid(1, 2, -1.0, 0.0, 2.0, 2.0)]
    averaged, grid = average_maps([first, second], grids)
    assert grid == Grid(1, 3, 0.0, 0.0, 1.0, 1.0)
    # A new cell is half as wide and half as high: a quarter of its cell's attention.
    np.testing.assert_allclose(averaged, [[(4 + 1) / 8, (4 + 2) / 8, (8 + 2) / 8]])


def test_what_all_views_show_keeps_its_sum_and_leading_axes() -> None:
    maps = np.zeros((4, 2, 3, 5, 5), dtype=np.float32)
    maps[..., 1:4, 1:4] = np.random.default_rng(0).random((4, 2, 3, 3, 3))
    grids = [Grid(5, 5, -half_x, -half_y, 2.0, 2.0) for half_x, half_y in SHIFTS]
    averaged, grid = average_maps(list(maps), grids)
    assert averaged.shape == (2, 3, 9, 9)
    assert averaged.dtype == np.float32
    np.testing.assert_allclose(averaged.sum(axis=(2, 3)), maps.sum(axis=(3, 4)).mean(axis=0), rtol=1e-5)


def test_an_object_that_ends_within_cells_ends_at_half_cells() -> None:
    # An object over 3 to 7 on cells of 2: each view sees of it what its cells share with it.
    grids = [Grid(1, 6, -shift, 0.0, 2.0, 2.0) for shift in (0.0, 1.0)]
    maps = []
    for grid in grids:
        edges = grid.x0 + 2 * np.arange(7)
        maps.append(np.clip(np.minimum(edges[1:], 7) - np.maximum(edges[:-1], 3), 0, None)[None])
    averaged, grid = average_maps(maps, grids)
    peak = averaged[0] >= averaged.max() * 0.7
    x0 = grid.x0 + np.flatnonzero(peak)[0]
    x1 = grid.x0 + np.flatnonzero(peak)[-1] + 1
    assert (x0, x1) == (3, 7)


@pytest.mark.parametrize(
    ("maps", "grids", "message"),
    [
        ([], [], "one map for each view"),
        ([np.ones((2, 2))], [Grid(2, 3, 0, 0, 1, 1)], "one map for each view"),
        ([np.ones((2, 2))] * 2, [Grid(2, 2, 0, 0, 1, 1), Grid(2, 2, 0, 0, 2, 1)], "equal cells"),
    ],
    ids=["no view", "another shape", "another size"],
)
def test_views_that_do_not_fit_are_refused(maps, grids, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        average_maps(maps, grids)


def test_one_cell_has_no_half_to_shift_by() -> None:
    with pytest.raises(ValueError, match="at least 2 cells a side, but got 1"):
        view_places((10, 10), 1)
