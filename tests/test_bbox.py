from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import LOCALIZATION_HEADS, plant_sample

from analyze import SelectionRules, choose_heads, score_heads
from bbox import (
    box_iou,
    box_ious,
    cell_coverage,
    cells_to_box,
    cells_to_mask,
    localize,
    localize_each,
    localize_heads,
    smooth_maps,
    xywh_to_xyxy,
    xyxy_to_xywh,
)
from finer.edges import FractionalEdges
from lab.records import Grid

SQUARE = Grid(8, 8, 0.0, 0.0, 10.0, 10.0)
LANDSCAPE = Grid(8, 8, 0.0, -20.0, 10.0, 10.0)  # 80 x 40 pixels, padded to a square: two rows above, two below


def block(rows: slice, cols: slice, value: float = 0.1, shape: tuple[int, int] = (8, 8)) -> np.ndarray:
    a_map = np.zeros(shape, dtype=np.float32)
    a_map[rows, cols] = value
    return a_map


def find(*maps: np.ndarray, grid: Grid = SQUARE, size: tuple[int, int] = (80, 80), sigma: float = 0.0, **options):
    return localize(np.stack(maps), grid, size, sigma=sigma, **options)


class TestLocalize:
    def test_planted_block_gives_just_its_box_and_mask(self):
        found = find(block(np.s_[2:5], np.s_[3:7]))
        assert found.box_xyxy == (30, 20, 70, 50)
        expected = np.zeros((80, 80), dtype=bool)
        expected[20:50, 30:70] = True
        np.testing.assert_array_equal(found.mask, expected)
        np.testing.assert_array_equal(found.cell_mask, block(np.s_[2:5], np.s_[3:7]) > 0)
        assert found.combined_map.dtype == np.float32

    def test_maps_are_summed(self):
        # Neither head's own block is the answer: what two of three share is.
        maps = (block(np.s_[0:4], np.s_[0:4]), block(np.s_[2:6], np.s_[2:6]), block(np.s_[2:4], np.s_[2:4]))
        assert find(*maps, relative_threshold=4.0).box_xyxy == (20, 20, 40, 40)
        np.testing.assert_allclose(find(*maps).combined_map, np.sum(maps, axis=0), rtol=1e-6)

    def test_one_stray_cell_never_spoils_the_box(self):
        for row, col in np.ndindex(8, 8):
            a_map = block(np.s_[2:5], np.s_[3:6])
            if (a_map[max(row - 1, 0) : row + 2, max(col - 1, 0) : col + 2] > 0).any():
                continue
            a_map[row, col] = 0.9
            assert find(a_map).box_xyxy == (30, 20, 60, 50)
            x0, y0, x1, y1 = find(a_map, region="all").box_xyxy
            assert x0 <= 10 * col
            assert x1 >= 10 * (col + 1)
            assert y0 <= 10 * row
            assert y1 >= 10 * (row + 1)

    def test_regions_are_8_connected(self):
        a_map = block(np.s_[1:3], np.s_[1:3]) + block(np.s_[3:5], np.s_[3:5])
        assert find(a_map).box_xyxy == (10, 10, 50, 50)

    def test_region_with_most_cells_then_with_most_attention_then_the_first(self):
        small_and_strong = block(np.s_[0:1], np.s_[0:2], 0.9) + block(np.s_[4:6], np.s_[4:6], 0.4)
        assert find(small_and_strong).box_xyxy == (40, 40, 60, 60)
        equal_cells = block(np.s_[0:1], np.s_[0:2], 0.4) + block(np.s_[4:6], np.s_[4:5], 0.5)
        assert find(equal_cells).box_xyxy == (40, 40, 50, 60)
        equal = block(np.s_[0:1], np.s_[0:2], 0.5) + block(np.s_[4:6], np.s_[4:5], 0.5)
        assert find(equal).box_xyxy == (0, 0, 20, 10)

    def test_heaviest_region_is_the_one_with_most_attention_then_the_first(self):
        smear_and_object = block(np.s_[0:1], np.s_[0:2], 0.9) + block(np.s_[4:6], np.s_[4:6], 0.4)
        assert find(smear_and_object, region="heaviest").box_xyxy == (0, 0, 20, 10)
        heavier_by_size = block(np.s_[0:1], np.s_[0:2], 0.7) + block(np.s_[4:6], np.s_[4:6], 0.4)
        assert find(heavier_by_size, region="heaviest").box_xyxy == (40, 40, 60, 60)
        equal = block(np.s_[0:1], np.s_[0:2], 0.5) + block(np.s_[4:6], np.s_[4:5], 0.5)
        assert find(equal, region="heaviest").box_xyxy == (0, 0, 20, 10)

    @pytest.mark.parametrize("value", [0.0, 1.0, 1 / 64, 0.1, 3e-5])
    @pytest.mark.parametrize("sigma", [0.0, 0.7, 1.0])
    @pytest.mark.parametrize("heads", [1, 3, 7])
    def test_flat_map_has_no_box(self, value: float, sigma: float, heads: int):
        found = find(*[np.full((8, 8), value, dtype=np.float32)] * heads, sigma=sigma)
        assert found.box_xyxy is None
        assert not found.mask.any()
        assert not found.cell_mask.any()

    @pytest.mark.parametrize("shape", [(3, 7), (24, 24), (5, 11)])
    @pytest.mark.parametrize("relative_threshold", [0.5, 1.0])
    def test_flat_map_never_has_a_box(self, shape: tuple[int, int], relative_threshold: float):
        grid, size = Grid(*shape, 0.0, 0.0, 10.0, 10.0), (10 * shape[1], 10 * shape[0])
        flat = np.full(shape, 0.1)
        assert find(flat, grid=grid, size=size, relative_threshold=relative_threshold).box_xyxy is None

    def test_cell_at_the_mean_is_not_in_the_mask(self):
        a_map = block(np.s_[0:8], np.s_[0:8], 0.5)
        a_map[2, 2], a_map[5, 5] = 0.75, 0.25  # the mean is exactly 0.5
        assert find(a_map).box_xyxy == (20, 20, 30, 30)

    def test_relative_threshold_is_times_the_mean(self):
        a_map = block(np.s_[0:4], np.s_[0:8], 0.1) + block(np.s_[1:2], np.s_[1:3], 0.1)
        mean = float(a_map.mean())
        assert find(a_map).box_xyxy == (0, 0, 80, 40)
        assert find(a_map, relative_threshold=0.15 / mean).box_xyxy == (10, 10, 30, 20)
        assert find(a_map, relative_threshold=0.21 / mean).box_xyxy is None

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_nan_is_an_error_and_never_a_box(self, value: float):
        a_map = block(np.s_[2:5], np.s_[3:6])
        a_map[0, 0] = value
        with pytest.raises(ValueError, match="Expected maps to be finite, but got NaN or infinity in 1 of 2"):
            find(block(np.s_[2:5], np.s_[3:6]), a_map)

    def test_wrong_shapes_and_options_are_errors(self):
        a_map = block(np.s_[2:5], np.s_[3:6])
        with pytest.raises(ValueError, match=r"shape \[maps, 8, 8\] of the grid, but got \[1, 8, 9\]"):
            find(np.zeros((8, 9)))
        with pytest.raises(ValueError, match="at least one head to combine, but got none"):
            localize(np.zeros((0, 8, 8)), SQUARE, (80, 80))
        with pytest.raises(ValueError, match="region to be one of largest, heaviest, all, but got 'best'"):
            find(a_map, region="best")
        with pytest.raises(ValueError, match="sigma to be 0 or more and truncate to be above 0, but got sigma=-1"):
            find(a_map, sigma=-1)
        with pytest.raises(ValueError, match="truncate=0"):
            find(a_map, truncate=0)
        with pytest.raises(ValueError, match="relative_threshold to be 0 or more, but got nan"):
            find(a_map, relative_threshold=np.nan)
        with pytest.raises(ValueError, match="Expected the grid to lie over the image of 80 x 80"):
            find(a_map, grid=Grid(8, 8, 80.0, 0.0, 1.0, 1.0))

    def test_input_is_not_changed(self):
        maps = np.stack([block(np.s_[2:5], np.s_[3:6])])
        before = maps.copy()
        localize(maps, SQUARE, (80, 80))
        np.testing.assert_array_equal(maps, before)


class TestPadding:
    def test_box_is_in_pixels_of_the_image_and_clipped_to_it(self):
        assert find(block(np.s_[3:5], np.s_[1:4]), grid=LANDSCAPE, size=(80, 40)).box_xyxy == (10, 10, 40, 30)
        assert find(block(np.s_[5:8], np.s_[1:4]), grid=LANDSCAPE, size=(80, 40)).box_xyxy == (10, 30, 40, 40)

    def test_attention_in_the_padding_is_no_object(self):
        a_map = block(np.s_[3:5], np.s_[1:4]) + block(np.s_[0:2], np.s_[0:8], 5.0) + block(np.s_[7:8], np.s_[0:8], 5.0)
        for region in ("largest", "heaviest", "all"):
            found = find(a_map, grid=LANDSCAPE, size=(80, 40), region=region)
            assert found.box_xyxy == (10, 10, 40, 30)
        assert find(block(np.s_[0:2], np.s_[0:3]), grid=LANDSCAPE, size=(80, 40)).box_xyxy is None

    def test_padding_does_not_lower_the_mean(self):
        # A weak halo around the object: with the empty padding in the mean it would pass.
        inside = block(np.s_[2:6], np.s_[0:8], 0.1) + block(np.s_[3:5], np.s_[2:5], 0.3)
        inside[2:6, 6:8] = 0.0
        cropped = find(inside[2:6], grid=Grid(4, 8, 0.0, 0.0, 10.0, 10.0), size=(80, 40))
        padded = find(inside, grid=LANDSCAPE, size=(80, 40))
        assert cropped.box_xyxy == padded.box_xyxy == (20, 10, 50, 30)

    def test_landscape_portrait_and_square_give_the_same_box(self):
        content = np.random.default_rng(0).gamma(0.3, 1.0, (4, 8)).astype(np.float32)
        wide, tall = np.zeros((8, 8), dtype=np.float32), np.zeros((8, 8), dtype=np.float32)
        wide[2:6], tall[:, 2:6] = content, content.T
        x0, y0, x1, y1 = find(wide, grid=LANDSCAPE, size=(80, 40)).box_xyxy
        assert find(tall, grid=Grid(8, 8, -20.0, 0.0, 10.0, 10.0), size=(40, 80)).box_xyxy == (y0, x0, y1, x1)

    @pytest.mark.parametrize("size", [(640, 427), (427, 640), (333, 500), (1000, 3), (3, 1000), (1, 1), (17, 16)])
    @pytest.mark.parametrize("side", [16, 24])
    def test_cells_that_touch_the_image_only_by_rounding_are_outside(self, size: tuple[int, int], side: int):
        longest = max(size)
        grid = Grid(side, side, (size[0] - longest) / 2, (size[1] - longest) / 2, longest / side, longest / side)
        a_map = np.zeros((side, side), dtype=np.float32)
        a_map[side // 2, side // 2] = 1.0
        x0, y0, x1, y1 = find(a_map, grid=grid, size=size).box_xyxy
        assert 0 <= x0 < x1 <= size[0]
        assert 0 <= y0 < y1 <= size[1]

    def test_edge_that_lies_on_the_image_up_to_rounding(self):
        # 3 * 0.1 is a little more than 0.3: the third row from the top ends at 5.6e-17 instead of 0.
        grid = Grid(8, 8, 0.0, -0.3, 0.1, 0.1)
        assert grid.y0 + 3 * grid.cell_h > 0
        a_map = block(np.s_[2:3], np.s_[0:8], 1.0) + block(np.s_[5:6], np.s_[1:3], 0.5)
        found = find(a_map, grid=grid, size=(1, 1), region="all")
        assert found.box_xyxy == pytest.approx((0.1, 0.2, 0.3, 0.3))

    def test_crop_and_grid_of_other_shape(self):
        grid = Grid(3, 5, 12.5, 4.0, 6.0, 7.0)
        found = find(block(np.s_[0:2], np.s_[3:5], shape=(3, 5)), grid=grid, size=(50, 30))
        assert found.box_xyxy == (30.5, 4.0, 42.5, 18.0)
        rows, cols = np.nonzero(found.mask)
        # Pixel 30 has its centre on the edge itself, which belongs to the cell; pixel 42 on the next.
        assert (cols.min(), cols.max(), rows.min(), rows.max()) == (30, 41, 4, 17)


class TestSmoothing:
    def test_keeps_the_mass_and_the_maps_apart(self):
        maps = np.stack([block(np.s_[0:1], np.s_[0:1], 1.0), np.zeros((8, 8), dtype=np.float32)])
        smoothed = smooth_maps(maps, sigma=1.0)
        assert smoothed.sum(axis=(1, 2)) == pytest.approx([1.0, 0.0])
        assert smoothed[0, 0, 0] < 1

    def test_kernel_of_seven_cells_is_truncate_3(self):
        impulse = np.zeros((1, 15, 15))
        impulse[0, 7, 7] = 1.0
        assert (smooth_maps(impulse, sigma=1.0, truncate=3.0)[0].max(axis=0) > 0).sum() == 7
        assert (smooth_maps(impulse, sigma=1.0)[0].max(axis=0) > 0).sum() == 9

    def test_weights_are_those_of_a_gaussian(self):
        impulse = np.zeros((1, 15, 15))
        impulse[0, 7, 7] = 1.0
        offsets = np.arange(-4, 5)
        weights = np.exp(-(offsets**2) / 2) / np.exp(-(offsets**2) / 2).sum()
        expected = np.outer(weights, weights)
        np.testing.assert_allclose(smooth_maps(impulse, sigma=1.0)[0, 3:12, 3:12], expected, atol=1e-12)

    def test_sigma_zero_changes_nothing(self):
        maps = np.random.default_rng(0).random((2, 4, 4))
        np.testing.assert_array_equal(smooth_maps(maps, sigma=0.0), maps)


class TestLocalizeEach:
    @pytest.mark.parametrize("region", ["largest", "heaviest", "all"])
    def test_equals_localize_one_by_one(self, region: str):
        maps = np.random.default_rng(0).gamma(0.2, 1.0, (40, 8, 8))
        maps[7] = 0.25
        masks, boxes = localize_each(maps, LANDSCAPE, (80, 40), region=region, relative_threshold=1.5)
        for a_map, mask, box in zip(maps, masks, boxes):
            alone = find(a_map, grid=LANDSCAPE, size=(80, 40), region=region, relative_threshold=1.5)
            np.testing.assert_array_equal(mask, alone.cell_mask)
            assert alone.box_xyxy is None if np.isnan(box).all() else alone.box_xyxy == tuple(box)
        assert np.isnan(boxes[7]).all()
        assert cells_to_box(masks[0], LANDSCAPE, (80, 40)) == tuple(boxes[0])

    def test_equals_localize_with_fractional_edges_too(self):
        maps = np.random.default_rng(3).gamma(0.3, 1.0, (20, 8, 8))
        _, boxes_xyxy = localize_each(maps, LANDSCAPE, (80, 40), edges=FractionalEdges())
        for a_map, box_xyxy in zip(maps, boxes_xyxy):
            found = find(a_map, grid=LANDSCAPE, size=(80, 40), edges=FractionalEdges())
            assert tuple(box_xyxy) == found.box_xyxy

    def test_no_maps(self):
        masks, boxes = localize_each(np.zeros((0, 8, 8)), SQUARE, (80, 80))
        assert masks.shape == (0, 8, 8)
        assert boxes.shape == (0, 4)


grids = st.builds(
    Grid,
    rows=st.integers(1, 12),
    cols=st.integers(1, 12),
    x0=st.floats(-50, 20),
    y0=st.floats(-50, 20),
    cell_w=st.floats(2, 40),
    cell_h=st.floats(2, 40),
)


def cell_block(draw_from: tuple[int, int, int, int], grid: Grid) -> np.ndarray:
    row, col, height, width = draw_from
    cells = np.zeros(grid.shape, dtype=bool)
    row, col = row % grid.rows, col % grid.cols
    cells[row : row + height, col : col + width] = True
    return cells


class TestFractionalEdges:
    def test_by_hand(self):
        a_map = block(np.s_[2:5], np.s_[3:7])
        a_map[:, 6] /= 10
        # Columns hold 3, 3, 3 and .3 of a mean of 2.325; the outer rows are as full as the inner one.
        moved = 0.5 * (1 - (0.3 / 2.325) ** 0.5)
        found = find(a_map, relative_threshold=0.1, edges=FractionalEdges(0.5, 0.5))
        assert found.box_xyxy == pytest.approx((30, 20, 70 - 10 * moved, 50))
        assert find(a_map, relative_threshold=0.1).box_xyxy == (30, 20, 70, 50)

    def test_mask_ends_where_the_box_does(self):
        a_map = block(np.s_[2:5], np.s_[3:7])
        a_map[:, 6] /= 10
        found = find(a_map, relative_threshold=0.1, edges=FractionalEdges(0.5, 0.5))
        x1 = found.box_xyxy[2]
        assert 66 < x1 < 67
        expected = np.zeros((80, 80), dtype=bool)
        expected[20:50, 30 : int(np.floor(x1 + 0.5))] = True
        np.testing.assert_array_equal(found.mask, expected)
        np.testing.assert_array_equal(found.cell_mask, a_map > 0)

    def test_other_regions_do_not_count(self):
        a_map = block(np.s_[2:5], np.s_[3:7])
        a_map[2:4, 0] = 0.9
        assert find(a_map, edges=FractionalEdges()).box_xyxy == (30, 20, 70, 50)

    def test_every_head_and_set_of_heads_has_them_too(self):
        attention = np.random.default_rng(5).gamma(0.3, 1.0, (2, 3, 64))
        rule = {"sigma": 1.0, "truncate": 4.0, "region": "heaviest", "relative_threshold": 1.0}
        rule["edges"] = FractionalEdges(0.6, 0.5)
        sets = np.array([[0, 4], [2, 3]])
        heads = localize_heads(attention, SQUARE, (80, 80), head_sets=sets, per_image_heads=((1, 0),), **rule)
        maps = attention.reshape(6, 8, 8)
        expected = [localize(maps[[number]], SQUARE, (80, 80), **rule).box_xyxy for number in range(6)]
        np.testing.assert_allclose(heads.boxes_xyxy, expected)
        expected = [localize(maps[list(members)], SQUARE, (80, 80), **rule).box_xyxy for members in sets]
        np.testing.assert_allclose(heads.set_boxes_xyxy, expected)
        np.testing.assert_allclose(heads.per_image_xyxy, localize(maps[[3]], SQUARE, (80, 80), **rule).box_xyxy)

    def test_flat_map_has_no_box(self):
        assert find(np.ones((8, 8)), edges=FractionalEdges()).box_xyxy is None

    @settings(deadline=None, max_examples=200)
    @given(
        seed=st.integers(0, 2**32 - 1),
        most=st.floats(0, 0.99),
        power=st.floats(0.01, 5),
        x0=st.floats(-40, 4),
        y0=st.floats(-40, 4),
        width=st.integers(1, 90),
        height=st.integers(1, 90),
        region=st.sampled_from(["largest", "heaviest", "all"]),
    )
    def test_box_lies_within_that_of_whole_cells_and_keeps_an_extent(
        self, seed, most, power, x0, y0, width, height, region
    ):
        maps = np.random.default_rng(seed).gamma(0.3, 1.0, (4, 8, 8))
        grid, size = Grid(8, 8, x0, y0, 10.0, 7.0), (width, height)
        try:
            masks, whole = localize_each(maps, grid, size, region=region)
        except ValueError:  # the grid does not reach the image
            return
        masks_too, boxes = localize_each(maps, grid, size, region=region, edges=FractionalEdges(most, power))
        np.testing.assert_array_equal(masks, masks_too)
        found = masks.any(axis=(1, 2))
        assert (boxes[found, :2] >= whole[found, :2]).all()
        assert (boxes[found, 2:] <= whole[found, 2:]).all()
        assert (boxes[found, :2] < boxes[found, 2:]).all()
        assert np.isnan(boxes[~found]).all()


class TestCells:
    @settings(max_examples=150, deadline=None)
    @given(grids, st.tuples(*[st.integers(0, 11)] * 2, *[st.integers(1, 12)] * 2))
    def test_cells_to_box_to_cells(self, grid: Grid, where: tuple[int, int, int, int]):
        cells = cell_block(where, grid)
        size = (int(grid.box_xyxy[2]) + 60, int(grid.box_xyxy[3]) + 60)  # reaches beyond the grid
        if grid.box_xyxy[2] <= 1 or grid.box_xyxy[3] <= 1:
            return
        visible = cell_coverage((0, 0, *size), grid)
        box = cells_to_box(cells, grid, size)
        if box is None:
            assert not (cells & (visible > 1e-6)).any()
            return
        coverage = cell_coverage(box, grid)
        np.testing.assert_allclose(coverage[cells & (visible > 1e-6)], visible[cells & (visible > 1e-6)], atol=1e-6)
        assert coverage[~cells].max(initial=0) < 1e-6
        again = cells_to_box(coverage > 1e-6, grid, size)
        assert again == pytest.approx(box)

    @settings(max_examples=60, deadline=None)
    @given(grids, st.integers(0, 2**32 - 1), st.integers(1, 90), st.integers(1, 90))
    def test_pixel_belongs_to_the_cell_that_holds_its_centre(self, grid: Grid, seed: int, width: int, height: int):
        cells = np.random.default_rng(seed).random(grid.shape) < 0.5
        mask = cells_to_mask(cells, grid, (width, height))
        assert mask.shape == (height, width)
        for y in range(0, height, 7):
            for x in range(0, width, 5):
                owners = [
                    cells[row, col]
                    for row in range(grid.rows)
                    for col in range(grid.cols)
                    if grid.x0 + col * grid.cell_w <= x + 0.5 < grid.x0 + (col + 1) * grid.cell_w
                    and grid.y0 + row * grid.cell_h <= y + 0.5 < grid.y0 + (row + 1) * grid.cell_h
                ]
                assert mask[y, x] == (bool(owners) and owners[0])

    def test_coverage_by_hand(self):
        coverage = cell_coverage((5, 10, 25, 15), SQUARE)
        assert coverage[1, :4].tolist() == [0.25, 0.5, 0.25, 0.0]
        assert coverage.sum() == 1.0

    @settings(max_examples=60, deadline=None)
    @given(grids, st.tuples(*[st.floats(-60, 300)] * 4))
    def test_coverage_adds_up_to_the_area_inside_the_grid(self, grid: Grid, edges: tuple[float, ...]):
        x0, x1 = sorted(edges[:2])
        y0, y1 = sorted(edges[2:])
        gx0, gy0, gx1, gy1 = grid.box_xyxy
        area = max(0, min(x1, gx1) - max(x0, gx0)) * max(0, min(y1, gy1) - max(y0, gy0))
        coverage = cell_coverage((x0, y0, x1, y1), grid)
        assert coverage.sum() * grid.cell_w * grid.cell_h == pytest.approx(area, abs=1e-6)
        assert coverage.min() >= 0
        assert coverage.max() <= 1 + 1e-9


boxes = st.tuples(*[st.integers(0, 20)] * 4).map(
    lambda e: (min(e[0], e[2]), min(e[1], e[3]), max(e[0], e[2]), max(e[1], e[3]))
)


class TestBoxes:
    @settings(max_examples=200, deadline=None)
    @given(boxes, boxes)
    def test_iou_equals_counting_pixels(self, box_a, box_b):
        painted = np.zeros((2, 20, 20), dtype=bool)
        for layer, (x0, y0, x1, y1) in zip(painted, (box_a, box_b)):
            layer[y0:y1, x0:x1] = True
        union = int(painted.any(axis=0).sum())
        expected = int(painted.all(axis=0).sum()) / union if union else 0.0
        assert box_iou(box_a, box_b) == pytest.approx(expected)
        assert box_iou(box_b, box_a) == pytest.approx(expected)

    def test_iou_by_hand(self):
        assert box_iou((0, 0, 2, 2), (1, 1, 3, 3)) == pytest.approx(1 / 7)
        assert box_iou((0, 0, 2, 2), (2, 0, 4, 2)) == 0.0  # half-open: they share an edge, no area
        assert box_iou((1, 2, 4, 9), (1, 2, 4, 9)) == 1.0
        assert box_iou((3, 3, 1, 1), (0, 0, 4, 4)) == 0.0  # turned inside out
        assert box_iou((1, 1, 1, 1), (1, 1, 1, 1)) == 0.0

    def test_arrays_broadcast_and_nan_is_no_box(self):
        many = np.array([[0, 0, 2, 2], [1, 1, 3, 3], [np.nan] * 4])
        assert box_ious(many, np.array([0, 0, 2, 2])) == pytest.approx([1, 1 / 7, 0])

    def test_conversions(self):
        assert xywh_to_xyxy([1, 2, 3, 4]) == (1, 2, 4, 6)
        assert xyxy_to_xywh(xywh_to_xyxy([1.5, 2, 3, 4])) == (1.5, 2, 3, 4)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.3])
@pytest.mark.parametrize("seed", range(5))
def test_planted_attention_through_analysis_gives_the_planted_box(seed: int, noise: float):
    sample = plant_sample(seed, noise)
    grid = Grid(16, 16, -40.0, 0.0, 10.0, 10.0)
    choice = choose_heads(score_heads(sample.attention, (16, 16)), rules=SelectionRules())
    assert set(choice.indices) == set(LOCALIZATION_HEADS)
    maps = np.stack([sample.attention[head].reshape(16, 16) for head in choice.indices])
    row0, col0, row1, col1 = sample.target
    expected = (max(-40 + 10 * col0, 0), 10 * row0, min(-40 + 10 * col1, 80), 10 * row1)
    if expected[0] < expected[2]:
        assert localize(maps, grid, (80, 160), sigma=0.0).box_xyxy == pytest.approx(expected)
