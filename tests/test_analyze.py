from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analyze import (
    HeadTable,
    SelectionRules,
    choose_heads,
    elbow_threshold,
    rank_heads,
    score_heads,
    selection_threshold,
)
from lab.heads.components import _count_below

INF = math.inf


def attention_of(*maps: np.ndarray) -> np.ndarray:
    """One layer whose heads have these maps: `[1, heads, cells]`."""
    return np.stack([np.asarray(a_map, dtype=np.float32).reshape(-1) for a_map in maps])[None]


def blank(rows: int = 8, cols: int = 8) -> np.ndarray:
    return np.zeros((rows, cols), dtype=np.float32)


def table_of(sums, entropies, bottom=None, components=None) -> HeadTable:
    sums = np.asarray(sums, dtype=np.float64)
    return HeadTable(
        sums,
        np.broadcast_to(np.asarray(entropies, dtype=np.float64), sums.shape),
        np.zeros(sums.shape, dtype=bool) if bottom is None else np.asarray(bottom),
        np.ones(sums.shape, dtype=int) if components is None else np.asarray(components),
    )


def flood_fill_oracle(a_map: np.ndarray, threshold: float, shares: str) -> tuple[float, int, bool]:
    """Entropy, number of components and bottom-row focus the slow way: one map, one cell at a time."""
    excess = a_map.astype(np.float64) - a_map.astype(np.float64).mean()
    left = {(int(row), int(col)) for row, col in np.argwhere(excess > threshold)}
    sizes, in_bottom_row, mass = [], 0.0, 0.0
    while left:
        stack, size = [left.pop()], 0.0
        while stack:
            row, col = stack.pop()
            size += excess[row, col] if shares == "mass" else 1
            mass += excess[row, col]
            in_bottom_row += excess[row, col] if row == a_map.shape[0] - 1 else 0
            around = {(row + down, col + right) for down in (-1, 0, 1) for right in (-1, 0, 1)} & left
            left -= around
            stack.extend(around)
        sizes.append(size)
    if not sizes:
        return INF, 0, False
    parts = [size / sum(sizes) for size in sizes]
    return (
        -sum(p * math.log(p) for p in parts),
        len(sizes),
        a_map.shape[0] > 1 and in_bottom_row > 0.5 * mass * (1 + 1e-9),
    )


@given(st.lists(st.integers(-50, 50), max_size=30), st.lists(st.integers(-50, 50), max_size=30))
def test_counting_below_equals_searchsorted(values: list[int], limits: list[int]):
    ascending, wanted = np.sort(np.array(values, dtype=np.int32)), np.sort(np.array(limits, dtype=np.int32))
    np.testing.assert_array_equal(_count_below(ascending, wanted), np.searchsorted(ascending, wanted))


class TestScoreHeads:
    def test_one_component_gives_exactly_zero(self):
        a_map = blank()
        a_map[2:5, 3:6] = 0.03
        a_map[5, 6] = 0.02  # touches by a corner: 8-connected
        table = score_heads(attention_of(a_map), (8, 8))
        assert table.spatial_entropy[0, 0] == 0.0
        assert math.copysign(1, table.spatial_entropy[0, 0]) == 1
        assert table.num_components[0, 0] == 1

    def test_two_equal_components_give_ln_2(self):
        a_map = blank()
        a_map[1, 1] = a_map[5, 6] = 0.2
        table = score_heads(attention_of(a_map), (8, 8))
        assert table.spatial_entropy[0, 0] == pytest.approx(math.log(2), abs=1e-12)
        assert table.num_components[0, 0] == 2

    def test_shares_by_mass_and_by_area_differ_as_they_should(self):
        a_map = blank()
        a_map[1, 1:4] = 0.1  # three cells of .1
        a_map[5, 6] = 0.3  # one of .3
        mean = 0.6 / 64
        by_mass = score_heads(attention_of(a_map), (8, 8)).spatial_entropy[0, 0]
        by_area = score_heads(attention_of(a_map), (8, 8), entropy_shares="area").spatial_entropy[0, 0]
        share = 3 * (0.1 - mean) / (3 * (0.1 - mean) + 0.3 - mean)
        assert by_mass == pytest.approx(-share * math.log(share) - (1 - share) * math.log(1 - share), rel=1e-5)
        assert by_area == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25), rel=1e-12)

    @pytest.mark.parametrize("value", [0.0, 1 / 64, 0.1, 0.7 / 576, 1e-7])
    @pytest.mark.parametrize("threshold", [0.0, 0.001])
    @pytest.mark.parametrize("shape", [(8, 8), (24, 24), (7, 9), (5, 11)])
    def test_flat_map_has_no_component(self, value: float, threshold: float, shape: tuple[int, int]):
        table = score_heads(attention_of(np.full(shape, value)), shape, binarize_threshold=threshold)
        assert table.spatial_entropy[0, 0] == INF
        assert table.num_components[0, 0] == 0
        assert not table.bottom_row_focus[0, 0]

    def test_neighbouring_maps_and_lines_do_not_touch(self):
        right, left = blank(4, 4), blank(4, 4)
        right[:, 3] = left[:, 0] = 0.1
        top, bottom = blank(4, 4), blank(4, 4)
        top[0], bottom[3] = 0.1, 0.1
        table = score_heads(attention_of(right, left, bottom, top), (4, 4))
        assert table.num_components.tolist() == [[1, 1, 1, 1]]

    def test_sum_is_that_of_the_row_and_order_is_kept(self):
        rng = np.random.default_rng(0)
        attention = rng.random((3, 5, 20)).astype(np.float32) / 20
        table = score_heads(attention, (4, 5))
        np.testing.assert_allclose(table.attn_sum, attention.sum(axis=2), rtol=1e-6)
        assert table.score(2, 4).attn_sum == pytest.approx(attention[2, 4].sum(), rel=1e-6)

    @pytest.mark.parametrize("shares", ["mass", "area"])
    @pytest.mark.parametrize("threshold", [0.0, 0.001, 0.02])
    @pytest.mark.parametrize("shape", [(24, 24), (7, 13), (1, 30), (30, 1), (1, 1), (2, 2)])
    def test_equals_flood_fill(self, shape: tuple[int, int], threshold: float, shares: str):
        rng = np.random.default_rng(shape[0] * 100 + shape[1])
        maps = rng.gamma(0.4, 1.0, (3, 4, shape[0] * shape[1]))
        maps *= rng.uniform(0.05, 0.9, (3, 4, 1)) / maps.sum(axis=2, keepdims=True)
        maps[1, 2] = 0.0
        attention = maps.astype(np.float32)
        table = score_heads(attention, shape, binarize_threshold=threshold, entropy_shares=shares)
        for layer in range(3):
            for head in range(4):
                entropy, components, bottom = flood_fill_oracle(
                    attention[layer, head].reshape(shape), threshold, shares
                )
                assert table.num_components[layer, head] == components
                assert table.spatial_entropy[layer, head] == pytest.approx(entropy, abs=1e-5)
                assert table.bottom_row_focus[layer, head] == bottom

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 2**32 - 1), st.floats(0.05, 0.95), st.integers(1, 4))
    def test_equals_flood_fill_on_random_patterns(self, rows, cols, seed, density, num_maps):
        pattern = np.random.default_rng(seed).random((1, num_maps, rows * cols)) < density
        attention = (pattern / (rows * cols)).astype(np.float32)
        table = score_heads(attention, (rows, cols), binarize_threshold=0.0, entropy_shares="area")
        for head in range(num_maps):
            entropy, components, bottom = flood_fill_oracle(attention[0, head].reshape(rows, cols), 0.0, "area")
            assert table.num_components[0, head] == components
            assert table.spatial_entropy[0, head] == pytest.approx(entropy, abs=1e-9)
            assert table.bottom_row_focus[0, head] == bottom

    def test_does_not_change_its_input_and_takes_float16(self):
        attention = np.random.default_rng(0).random((2, 2, 16)).astype(np.float16) / 16
        before = attention.copy()
        score_heads(attention, (4, 4))
        np.testing.assert_array_equal(attention, before)

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
    def test_nan_is_an_error_that_names_the_head(self, value: float):
        attention = np.full((4, 3, 16), 0.01, dtype=np.float32)
        attention[2, 1, 5] = value
        with pytest.raises(ValueError, match=r"finite, but got NaN or infinity in 1 of 12 heads.*layer 2, head 1"):
            score_heads(attention, (4, 4))

    def test_wrong_shapes_and_options_are_errors(self):
        attention = np.full((2, 2, 16), 0.01, dtype=np.float32)
        with pytest.raises(ValueError, match=r"one value for each cell of the 4 x 5 grid, but got 16"):
            score_heads(attention, (4, 5))
        with pytest.raises(ValueError, match=r"shape \[layers, heads, visual_tokens\], but got \[2, 2, 1, 16\]"):
            score_heads(attention[:, :, None], (4, 4))
        with pytest.raises(ValueError, match=r"entropy_shares to be one of mass, area, but got 'volume'"):
            score_heads(attention, (4, 4), entropy_shares="volume")
        with pytest.raises(ValueError, match=r"binarize_threshold to be at least 0, but got -1"):
            score_heads(attention, (4, 4), binarize_threshold=-1)


class TestBottomRowFocus:
    def focus(self, a_map: np.ndarray) -> bool:
        return bool(score_heads(attention_of(a_map), a_map.shape).bottom_row_focus[0, 0])

    def test_most_mass_in_the_last_row(self):
        a_map = blank()
        a_map[-1, 2:5] = 0.1
        a_map[3, 3] = 0.15
        assert self.focus(a_map)

    def test_object_that_stands_on_the_lower_edge(self):
        a_map = blank()
        a_map[5:, 2:5] = 0.1
        assert not self.focus(a_map)

    def test_it_is_the_last_row_and_not_the_first_or_last_column(self):
        for where in (np.s_[0, 2:5], np.s_[2:5, -1], np.s_[-2, 2:5]):
            a_map = blank()
            a_map[where] = 0.1
            assert not self.focus(a_map)

    def test_does_not_depend_on_how_much_the_head_looks_at_the_image(self):
        a_map = blank()
        a_map[-1, 2:5] = 0.2
        assert self.focus(a_map)
        assert self.focus(a_map / 10)

    def test_exactly_half_is_not_most_and_one_row_is_no_bottom_row(self):
        a_map = blank()
        a_map[-1, 0] = a_map[0, 0] = 0.25
        assert not self.focus(a_map)
        assert not self.focus(np.array([[0.0, 0.0, 0.5, 0.0]]))


class TestElbow:
    def test_value_at_the_knee(self):
        assert elbow_threshold(np.array([0.9, 0.01, 0.02, 0.8, 0.0, 0.03])) == 0.03

    def test_knee_above_the_chord(self):
        assert elbow_threshold(np.array([0.0, 0.8, 0.85, 0.9, 0.95, 1.0])) == 0.8

    def test_unit_of_the_values_does_not_matter(self):
        values = np.random.default_rng(1).gamma(0.3, 1.0, 200)
        assert elbow_threshold(values * 1e-6) == pytest.approx(elbow_threshold(values) * 1e-6)
        assert elbow_threshold(values + 5) == pytest.approx(elbow_threshold(values) + 5)

    def test_is_one_of_the_values_and_any_order_and_shape_will_do(self):
        values = np.random.default_rng(2).random(60)
        threshold = elbow_threshold(values)
        assert threshold in values
        assert elbow_threshold(values[::-1].reshape(3, 4, 5)) == threshold

    @pytest.mark.parametrize("values", [[0.3], [0.3, 0.3], [0.7, 0.1], [0.5] * 9, list(np.linspace(0.1, 0.7, 33))])
    def test_without_an_elbow_it_is_the_lowest_value(self, values: list[float]):
        assert elbow_threshold(np.array(values)) == min(values)

    def test_ties_go_to_the_lowest_value(self):
        # 0, 0, 1, 1: the second and the third point are equally far from the chord.
        assert elbow_threshold(np.array([0.0, 0.0, 1.0, 1.0])) == 0.0
        assert elbow_threshold(np.array([0.0, 0.1, 0.9, 1.0])) == 0.1

    def test_farthest_point_by_brute_force(self):
        rng = np.random.default_rng(3)
        for _ in range(50):
            values = np.sort(rng.gamma(0.5, 1.0, 30))
            start, end = np.array([0, values[0]]), np.array([29, values[-1]])
            along = (end - start) / np.linalg.norm(end - start)
            points = np.stack([np.arange(30), values], axis=1) - start
            distances = np.linalg.norm(points - np.outer(points @ along, along), axis=1)
            assert elbow_threshold(values) == values[distances.argmax()]

    @pytest.mark.parametrize("values", [[], [0.1, np.nan], [np.inf, 0.2, 0.1]])
    def test_nothing_and_nan_are_errors(self, values: list[float]):
        with pytest.raises(ValueError, match="Expected the values to find an elbow in to be finite and at least one"):
            elbow_threshold(np.array(values))


class TestRankHeads:
    def test_by_entropy_then_sum_then_index(self):
        table = table_of(
            [[0.1, 0.1, 0.1]] * 2 + [[0.5, 0.6, 0.6], [0.6, 0.7, 0.1]],
            [[0, 0, 0]] * 2 + [[0.2, 0.1, 0.1], [0.1, 0.3, 0.0]],
        )
        ranked = rank_heads(table, threshold=0.4)
        assert [score.name for score in ranked] == ["L2H1", "L2H2", "L3H0", "L2H0", "L3H1"]

    def test_scores_are_those_of_the_table_as_plain_numbers(self):
        bottom = [[False] * 3] * 2 + [[True, False, False], [False, True, False]]
        table = table_of(np.arange(12.0).reshape(4, 3) / 12, np.arange(12.0)[::-1].reshape(4, 3), bottom)
        ranked = rank_heads(table, threshold=0.0, bottom_row_filter=False)
        assert ranked == [table.score(layer, head) for layer in (3, 2) for head in (2, 1, 0)]
        kinds = [int, int, float, float, bool, int]
        assert all([type(value) for value in score] == kinds for score in ranked)

    def test_sums_are_compared_by_value_and_not_by_head_number(self):
        # Heads with low numbers hold the high sums and the reverse: a mixed-up index keeps just the wrong ones.
        sums = np.linspace(0.9, 0.01, 4 * 8).reshape(4, 8)
        ranked = rank_heads(table_of(sums, 0.5), threshold=float(sums[2, 3]), skip_layers=0)
        assert [score.name for score in ranked[:3]] == ["L0H0", "L0H1", "L0H2"]
        assert len(ranked) == 2 * 8 + 4
        assert all(score.attn_sum >= sums[2, 3] for score in ranked)

    def test_head_at_the_threshold_is_kept(self):
        assert len(rank_heads(table_of([[0.0], [0.0], [0.3]], 0.1), threshold=0.3)) == 1

    def test_without_threshold_it_is_the_elbow(self):
        table = table_of([[0.05, 0.06, 0.04, 0.8, 0.9, 0.05]], 0.1)
        assert [s.head for s in rank_heads(table, skip_layers=0)] == [4, 3, 1]

    def test_filters(self):
        bottom = [[False, False], [False, False], [True, False], [False, False]]
        table = table_of([[0.5, 0.5]] * 4, [[0, 0], [0, 0], [0.1, 0.2], [0.3, INF]], bottom)
        assert [s.name for s in rank_heads(table, threshold=0.1)] == ["L2H1", "L3H0"]
        assert [s.name for s in rank_heads(table, threshold=0.1, bottom_row_filter=False)] == ["L2H0", "L2H1", "L3H0"]
        assert len(rank_heads(table, threshold=0.1, skip_layers=0)) == 6

    def test_fill_up_with_the_largest_sums_among_the_allowed(self):
        bottom = [[False] * 4, [False] * 4, [False, False, True, False]]
        table = table_of([[0.9] * 4, [0.9] * 4, [0.2, 0.3, 0.8, 0.6]], [[0] * 4, [0] * 4, [0.0, 0.5, 0.0, 0.9]], bottom)
        ranked = rank_heads(table, threshold=0.5, min_keep=3)
        assert [s.name for s in ranked] == ["L2H3", "L2H1", "L2H0"]
        assert len(rank_heads(table, threshold=0.5, min_keep=2)) == 2
        assert len(rank_heads(table, threshold=0.5, min_keep=9)) == 3

    def test_head_without_a_component_fills_no_gap(self):
        table = table_of([[0.4, 0.3, 0.2]], [[INF, 0.5, 0.9]])
        assert [s.head for s in rank_heads(table, threshold=0.5, min_keep=1, skip_layers=0)] == [1]
        assert [s.head for s in rank_heads(table, threshold=0.5, min_keep=3, skip_layers=0)] == [1, 2]

    @pytest.mark.parametrize(("layers", "skip"), [(1, 2), (2, 2), (3, 5)])
    def test_no_layer_left_is_an_error(self, layers: int, skip: int):
        with pytest.raises(ValueError, match=rf"leave at least one of the model's {layers} layers, but got {skip}"):
            rank_heads(table_of([[0.5]] * layers, 0.1), threshold=0.1, skip_layers=skip)


class TestChooseHeads:
    table = table_of(
        [[0.9, 0.9, 0.9], [0.9, 0.9, 0.9], [0.5, 0.6, 0.1], [0.7, 0.6, 0.5]],
        [[0.0] * 3, [0.0] * 3, [0.4, 0.1, 0.0], [0.3, INF, 0.2]],
        [[False] * 3] * 3 + [[False, False, True]],
    )
    rules = SelectionRules(top_k=2, min_keep=1, threshold_value=0.4)

    def test_automatic(self):
        choice = choose_heads(self.table, rules=self.rules)
        assert (choice.indices, choice.source, choice.notes) == (((2, 1), (3, 0)), "automatic", ())

    @pytest.mark.parametrize("manual", [(), [(0, 0)]])
    @pytest.mark.parametrize("min_keep", [0, 2, 9])
    @pytest.mark.parametrize("value", [None, 0.4, 0.95])
    def test_a_ranking_made_before_gives_the_same_choice(self, value, min_keep, manual):
        rng = np.random.default_rng(3)
        table = table_of(rng.random((4, 6)), rng.random((4, 6)), rng.random((4, 6)) < 0.2)
        rules = SelectionRules(min_keep=min_keep, threshold_value=value)
        ranked = rank_heads(table, threshold=value, min_keep=min_keep)
        if not ranked:
            with pytest.raises(ValueError, match="at least one head"):
                choose_heads(table, rules=rules, manual_heads=manual, ranked=ranked)
            return
        chosen = choose_heads(table, rules=rules, manual_heads=manual, ranked=ranked)
        assert chosen == choose_heads(table, rules=rules, manual_heads=manual)
        assert chosen.heads == tuple(ranked[:3])

    def test_fixed_heads_are_used_unchanged(self):
        choice = choose_heads(self.table, rules=self.rules, fixed_heads=[(3, 2), (0, 0), (2, 2), (3, 1)])
        assert choice.indices == ((3, 2), (0, 0), (2, 2), (3, 1))
        assert (choice.source, choice.notes) == ("heads_file", ())

    def test_manual_heads_that_pass_are_used_in_their_order(self):
        choice = choose_heads(self.table, rules=self.rules, manual_heads=[(3, 0), (2, 2), (2, 0)])
        assert (choice.indices, choice.source) == (((3, 0), (2, 0)), "manual")
        assert choice.notes == ("Manual head L2H2 was not used: its attention sum 0.1 is below the threshold 0.4.",)

    def test_manual_head_at_the_threshold_passes(self):
        rules = replace(self.rules, threshold_value=0.5)
        assert choose_heads(self.table, rules=rules, manual_heads=[(2, 0)]).source == "manual"

    def test_one_note_for_each_reason_and_automatic_if_none_passes(self):
        choice = choose_heads(self.table, rules=self.rules, manual_heads=[(1, 1), (2, 2), (3, 1), (3, 2)])
        assert (choice.indices, choice.source) == (((2, 1), (3, 0)), "automatic")
        assert choice.notes == (
            "Manual head L1H1 was not used: the first 2 layers are left out.",
            "Manual head L2H2 was not used: its attention sum 0.1 is below the threshold 0.4.",
            "Manual head L3H1 was not used: its map has no component.",
            "Manual head L3H2 was not used: it looks at the bottom row.",
            "No manual head passed, so the heads were chosen automatically.",
        )

    def test_forced_manual_heads_are_used_whatever_the_criteria_say(self):
        manual = [(1, 1), (2, 2), (3, 1)]
        choice = choose_heads(self.table, rules=self.rules, manual_heads=manual, force_manual=True)
        assert (choice.indices, choice.source) == (tuple(manual), "manual")
        assert choice.notes == (
            "Manual head L1H1 is used although the first 2 layers are left out.",
            "Manual head L2H2 is used although its attention sum 0.1 is below the threshold 0.4.",
            "Manual head L3H1 is used although its map has no component.",
        )

    def test_more_manual_heads_than_top_k(self):
        choice = choose_heads(self.table, rules=self.rules, manual_heads=[(2, 0), (2, 1), (3, 0)])
        assert choice.indices == ((2, 0), (2, 1))
        assert choice.notes == ("3 manual heads passed; top_k=2 uses the first 2.",)

    def test_filling_up_is_noted(self):
        choice = choose_heads(self.table, rules=replace(self.rules, threshold_value=0.65, min_keep=2))
        assert choice.indices == ((3, 0), (2, 1))
        assert choice.notes == ("Filled up below the threshold 0.65 with the largest sums: L2H1.",)

    def test_too_few_heads_are_noted(self):
        choice = choose_heads(self.table, rules=replace(self.rules, top_k=9))
        assert len(choice.heads) == 3
        assert choice.notes == ("top_k is 9, but only 3 heads passed; raise min_keep to fill up.",)

    def test_no_head_at_all_is_an_error(self):
        with pytest.raises(ValueError, match="Expected at least one head of layers 2 to 3 to have a map"):
            choose_heads(table_of([[0.5]] * 4, INF), rules=self.rules)

    def test_unknown_double_and_contradicting_lists_are_errors(self):
        with pytest.raises(ValueError, match=r"layer from 0 to 3 and a head from 0 to 2, but got layer 4, head 0"):
            choose_heads(self.table, rules=self.rules, manual_heads=[(4, 0)])
        with pytest.raises(ValueError, match=r"but got layer 0, head -1"):
            choose_heads(self.table, rules=self.rules, fixed_heads=[(0, -1)])
        with pytest.raises(ValueError, match=r"manual_heads to list at least one head, each once, but got \[\(2, 1\)"):
            choose_heads(self.table, rules=self.rules, manual_heads=[(2, 1), (2, 1)])
        with pytest.raises(ValueError, match=r"heads_file to list at least one head"):
            choose_heads(self.table, rules=self.rules, fixed_heads=[])
        with pytest.raises(ValueError, match=r"either logic.heads_file or logic.manual_heads, but got both"):
            choose_heads(self.table, rules=self.rules, fixed_heads=[(2, 0)], manual_heads=[(2, 1)])

    def test_threshold_of_the_rules_or_elbow(self):
        assert selection_threshold(self.table, self.rules) == 0.4
        elbow = selection_threshold(self.table, replace(self.rules, threshold_value=None))
        assert elbow == elbow_threshold(self.table.attn_sum)


class TestSelectionRules:
    @pytest.mark.parametrize(
        ("field", "value", "message"),
        [
            ("top_k", 0, "top_k to be at least 1, but got 0"),
            ("min_keep", -1, "min_keep to be at least 0"),
            ("skip_layers", -1, "skip_layers to be at least 0"),
            ("binarize_threshold", math.nan, "binarize_threshold to be at least 0, but got nan"),
            ("entropy_shares", "x", "entropy_shares to be one of mass, area"),
            ("threshold_method", "otsu", "threshold_method to be one of chord"),
            ("threshold_scope", "x", "threshold_scope to be one of sample, dataset"),
            ("threshold_value", INF, "threshold_value to be a finite number"),
            ("lowest_n", 0, "lowest_n to be at least 1"),
        ],
    )
    def test_values_out_of_range(self, field: str, value: object, message: str):
        with pytest.raises(ValueError, match=message):
            SelectionRules(**{field: value})

    def test_table_with_arrays_of_different_shape(self):
        with pytest.raises(ValueError, match="share one shape"):
            table_of([[0.1, 0.2]], [[0.1, 0.2]], [[True]])
