"""Statistics over arrays, against values by hand, by brute force and on the picture-book test split.

`tests/data/picturebook_test_rows.csv` holds, for the 1,020 rows of `picturebook.export --split test --scenes 340`, the
target, the picture's size and the IoU of the boxes that `stage=batch_analyze` measures (`logic.heads_file=
conf/heads/picturebook.yaml`); `picturebook_test_set_means.json` the mean IoU of all 1,920 layer-matched sets.
"""

from __future__ import annotations

import csv
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.boxes import box_iou, mask_coverage
from lab.records import Grid
from lab.statistics.bootstrap import cluster_interval, cluster_intervals, cluster_numbers, resample_weights
from lab.statistics.box_permutation import PictureMeasures, own_and_other, permutation_tests
from lab.statistics.ceiling import best_cell_box, pointing_reachable
from lab.statistics.head_sets import HeadSets, comparison_sets, set_p_value
from lab.statistics.p_values import benjamini_hochberg, drawn, holm
from lab.statistics.rank_correlation import (
    bonett_wright,
    correlate_heads,
    spearman_over_pictures,
    spearman_rows,
    stratified_p_value,
)
from lab.statistics.sign_flips import clusters_needed, sign_flip_test, sign_flip_tests, smallest_p_value
from picturebook.ceiling import padded_grid

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(__file__).resolve().parent / "data"


@pytest.fixture(scope="module")
def rows() -> dict[str, np.ndarray]:
    """Columns of the 1,020 test rows."""
    with open(DATA / "picturebook_test_rows.csv", newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    columns = {name: np.array([float(line[name]) for line in lines]) for name in lines[0]}
    return {**columns, "picture": columns["picture"].astype(int)}


class TestBootstrap:
    def test_intervals_of_the_test_split(self, rows):
        fixed, per_image, everything = rows["fixed"], rows["per_image"], rows["all_heads"]
        limits = (0.25, 0.5, 0.75)
        columns = [fixed, *((fixed >= limit).astype(float) for limit in limits), per_image, per_image >= 0.5]
        columns += [fixed - per_image, (fixed >= 0.5) - 1.0 * (per_image >= 0.5), fixed - everything]
        found = cluster_intervals(np.stack(columns, axis=1).astype(float), rows["picture"])
        expected = [
            (0.717, 0.706, 0.727), (0.964, 0.952, 0.975), (0.925, 0.908, 0.940), (0.502, 0.470, 0.535),
            (0.693, 0.680, 0.707), (0.885, 0.863, 0.907), (0.023, 0.013, 0.034), (0.039, 0.021, 0.059),
            (0.106, 0.090, 0.123),
        ]  # fmt: skip
        for interval, values in zip(found, expected):
            assert (interval.estimate, interval.low, interval.high) == pytest.approx(values, abs=0.0015)
            assert (interval.num_rows, interval.num_clusters, interval.method) == (1020, 340, "percentile")

    def test_standard_errors_of_the_selection_frequencies(self, rows):
        # Half of a 95 % interval over 1.96, for a mean of many rows.
        for name, error in (("L2H6", 0.0141), ("L3H8", 0.0159), ("L3H10", 0.0169)):
            interval = cluster_interval(rows[f"chose_{name}"], rows["picture"])
            assert (interval.high - interval.low) / (2 * 1.96) == pytest.approx(error, abs=0.0006)

    def test_equals_a_plain_loop_over_the_same_weights(self):
        rng = np.random.default_rng(0)
        values, clusters = rng.random(40), np.repeat(np.arange(60), 2)[:40] % 55
        clusters = cluster_numbers(clusters.tolist())
        clusters = np.concatenate([clusters, np.arange(20, 80)])
        values = np.concatenate([values, rng.random(60)])
        weights = np.concatenate(list(resample_weights(80, 600, seed=4)))
        plain = [(w[clusters] * values).sum() / w[clusters].sum() for w in weights]
        interval = cluster_interval(values, clusters, resamples=600, seed=4)
        assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(plain, (0.025, 0.975))))

    def test_rows_of_one_picture_are_no_independent_evidence(self):
        rng = np.random.default_rng(1)
        by_picture = rng.random(100)
        alone = cluster_interval(by_picture, np.arange(100))
        copied = cluster_interval(np.repeat(by_picture, 40), np.repeat(np.arange(100), 40))
        assert (copied.low, copied.high) == pytest.approx((alone.low, alone.high))

    def test_coverage_with_rows_that_go_together(self):
        rng = np.random.default_rng(2)
        hits = 0
        clusters = np.repeat(np.arange(120), 3)
        for trial in range(200):
            values = np.repeat(rng.normal(size=120), 3) + 0.5 * rng.normal(size=360)
            interval = cluster_interval(values, clusters, resamples=400, seed=trial)
            hits += interval.low <= 0 <= interval.high
        assert 180 <= hits <= 199  # 95 % of 200, give or take three standard errors

    def test_few_pictures_are_corrected_for_skewness(self):
        values = np.array([0.0] * 10 + [1.0, 5.0])
        interval = cluster_interval(values, np.arange(12))
        weights = np.concatenate(list(resample_weights(12, 10_000)))
        low, high = np.quantile(weights @ values / 12, (0.025, 0.975))
        assert interval.method == "bca"
        assert interval.low >= low
        assert interval.high > high

    def test_few_pictures_have_no_interval_and_nan_is_left_out(self):
        five = cluster_interval(np.array([0.2, 0.4] * 5), np.arange(10) // 2)
        assert math.isnan(five.low)
        assert not math.isnan(cluster_interval(np.array([0.2, 0.3] * 3), np.arange(6)).low)
        alone = cluster_interval(np.array([0.2, 0.4]), np.array([0, 0]))
        assert alone.estimate == pytest.approx(0.3)
        assert math.isnan(alone.low)
        assert alone.to_dict()["low"] is None
        assert str(alone) == "0.300 [no interval]"
        values = np.array([[1.0, np.nan], [2.0, 3.0], [3.0, 5.0]])
        both = cluster_intervals(values, np.arange(3), resamples=200)
        assert [found.estimate for found in both] == [2, 4]
        assert [found.num_rows for found in both] == [3, 2]

    def test_needs_rows_with_a_cluster_each(self):
        with pytest.raises(ValueError, match="a cluster for each row, but got"):
            cluster_intervals(np.zeros((2, 1)), np.zeros(3, int))

    @pytest.mark.parametrize("module", ["bootstrap", "sign_flips", "p_values", "head_sets", "ceiling"])
    def test_imports_neither_torch_nor_scipy(self, module):
        code = f"import sys, lab.statistics.{module}; print(sorted({{'torch', 'scipy'}} & set(sys.modules)))"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
        assert done.stdout.strip() == "[]"


class TestSignFlips:
    def test_three_pictures_copied_forty_times_change_no_p(self):
        differences = np.array([0.6, 0.7, 0.65])
        alone = sign_flip_test(differences, np.arange(3))
        copied = sign_flip_test(np.repeat(differences, 40), np.repeat(np.arange(3), 40))
        assert alone.value == copied.value == 0.25
        assert alone.exact
        assert str(copied) == "p = 0.25"

    def test_all_flips_against_a_loop(self):
        sums = np.array([0.3, 0.1, -0.05, 0.2, 0.4, 0.1, 0.02, 0.3])
        flips = np.array(list(itertools.product([-1, 1], repeat=8)))
        exact = (np.abs(flips @ sums) >= abs(sums.sum()) - 1e-12).mean()
        assert sign_flip_test(sums, np.arange(8)).value == exact
        assert sign_flip_test(-sums, np.arange(8)).value == exact
        assert sign_flip_test(np.zeros(5), np.arange(5)).value == 1

    def test_random_flips_agree_with_all_flips(self):
        rng = np.random.default_rng(3)
        values = rng.normal(0.2, 1, 16)
        flips = np.array(list(itertools.product([-1, 1], repeat=16)))
        exact = (np.abs(flips @ values) >= abs(values.sum()) - 1e-12).mean()
        found = sign_flip_test(values, np.arange(16))
        assert not found.exact
        assert found.value == pytest.approx(exact, abs=0.02)

    def test_on_the_test_split_the_smallest_value_is_a_bound(self, rows):
        found = sign_flip_test(rows["fixed"] - rows["per_image"], rows["picture"])
        assert (found.num_reached, found.num_draws) == (0, 10_000)
        assert found.value == pytest.approx(1 / 10_001)
        assert str(found) == "p <= 0.0001"
        # No difference of Acc@0.75, and about as much of Acc@0.5 as a McNemar test by picture gives.
        reached = [(rows[name] >= limit) for limit in (0.5, 0.75) for name in ("fixed", "per_image")]
        half, three_quarters = (
            sign_flip_test(1.0 * one - 1.0 * two, rows["picture"]) for one, two in (reached[:2], reached[2:])
        )
        assert half.value < 0.001
        assert three_quarters.value == pytest.approx(0.84, abs=0.02)

    @pytest.mark.parametrize("icc", [0.0, 0.15, 0.35, 1.0])
    def test_false_rejections_stay_at_the_nominal_rate(self, icc):
        rng = np.random.default_rng(int(100 * icc))
        num_sets, clusters = 400, np.repeat(np.arange(340), 3)
        shared = rng.normal(size=(340, num_sets)).repeat(3, axis=0)
        values = math.sqrt(icc) * shared + math.sqrt(1 - icc) * rng.normal(size=(1020, num_sets))
        p_values = np.array([found.value for found in sign_flip_tests(values, clusters, flips=2000)])
        # Three standard errors of a rate over 400 data sets; by row, .14 are rejected at an ICC of 1.
        assert (p_values <= 0.01).mean() <= 0.01 + 3 * math.sqrt(0.01 * 0.99 / num_sets)
        assert (p_values <= 0.05).mean() == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / num_sets))

    def test_smallest_p_and_pictures_needed(self):
        assert [smallest_p_value(count) for count in (1, 2, 3, 7, 8)] == [1, 0.5, 0.25, 2 / 128, 2 / 256]
        assert (clusters_needed(0.01), clusters_needed(0.05)) == (8, 6)
        assert sign_flip_test(np.ones(7), np.arange(7)).smallest == sign_flip_test(np.ones(7), np.arange(7)).value


class TestCorrections:
    def test_holm_by_hand(self):
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
        assert holm([0.9, 0.8]) == pytest.approx([1, 1])
        adjusted = holm([0.01, math.nan, 0.02])
        assert adjusted[[0, 2]] == pytest.approx([0.02, 0.02])
        assert math.isnan(adjusted[1])

    def test_benjamini_hochberg_by_hand(self):
        assert benjamini_hochberg([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.02, 0.04, 0.04, 0.02])
        adjusted = benjamini_hochberg([math.nan, 0.5])
        assert math.isnan(adjusted[0])
        assert adjusted[1] == 0.5

    def test_nothing_to_correct(self):
        assert len(holm([])) == len(benjamini_hochberg([])) == 0
        assert np.isnan(holm([math.nan])).all()


class TestHeadSets:
    picturebook = ((2, 6), (3, 8), (3, 10))

    def test_exact_p_of_the_test_split(self):
        sets = comparison_sets(self.picturebook, 4, 16)
        means = np.array(json.loads((DATA / "picturebook_test_set_means.json").read_text(encoding="utf-8")))
        assert (len(sets.members), sets.num_possible, sets.exact) == (1920, 1920, True)
        found = set_p_value(means, sets)
        assert (found.num_reached, found.num_draws, found.sides) == (6, 1920, 1)
        assert found.value == pytest.approx(0.0031, abs=5e-5)
        assert str(found) == "p = 0.0031"
        assert means[1:].mean() == pytest.approx(0.372, abs=5e-4)

    def test_every_set_of_the_same_layers_once_the_fixed_one_first(self):
        sets = comparison_sets(((1, 2), (2, 0), (2, 3)), 3, 8).members
        assert sets[0].tolist() == [10, 16, 19]
        assert len(sets) == len({tuple(row) for row in sets.tolist()}) == 8 * math.comb(8, 2)
        assert (sets // 8 == [1, 2, 2]).all()
        assert (sets[:, 1] != sets[:, 2]).all()
        # Sets that share heads with the fixed one belong to them.
        assert ((sets[1:] == 10).any(axis=1) & (sets[1:] == 16).any(axis=1)).sum() == 6

    def test_llava_has_4960_sets_in_one_layer(self):
        assert len(comparison_sets(((14, 24), (14, 13), (14, 26)), 32, 32).members) == 4960

    def test_many_sets_are_drawn_without_replacement(self):
        fixed = ((0, 0), (1, 0), (2, 0))
        sets = comparison_sets(fixed, 3, 40, num_drawn=500, seed=1)
        assert (sets.num_possible, sets.exact, len(sets.members)) == (64_000, False, 501)
        assert len({tuple(row) for row in sets.members.tolist()}) == 501
        assert (sets.members // 40 == [0, 1, 2]).all()
        again = comparison_sets(fixed, 3, 40, num_drawn=500, seed=1)
        assert (sets.members == again.members).all()
        best = set_p_value(np.arange(501)[::-1].astype(float), sets)
        assert (best.value, str(best)) == (pytest.approx(1 / 501), "p <= 0.002")

    def test_a_layer_with_too_few_heads_is_not_called_layer_matched(self):
        sets = comparison_sets(((2, 0), (2, 1), (2, 2)), 4, 4)
        assert not sets.layer_matched
        assert sets.name == "random heads of any layer"
        assert "3 of 4 in layer 2: there are only 4 sets of the same layers" in sets.note
        assert len(sets.members) == math.comb(16, 3)

    def test_uniform_under_the_null(self):
        # Whichever set is the fixed one, its place among all is as likely: the p-values are 1/n, 2/n, ... 1.
        values = np.random.default_rng(5).random(6)
        p_values = []
        for first, second in itertools.combinations(range(6), 2):
            sets = comparison_sets(((0, first), (0, second)), 1, 30)
            members = np.array([m for m in sets.members if (m < 6).all()])
            small = HeadSets(members, len(members), True)
            p_values.append(set_p_value(values[members].sum(axis=1), small).value)
        assert sorted(p_values) == pytest.approx(np.arange(1, 16) / 15)

    @pytest.mark.parametrize("fixed", [(), ((0, 0), (0, 0)), ((0, 9),)], ids=["none", "twice", "unknown"])
    def test_impossible_fixed_heads(self, fixed):
        with pytest.raises(ValueError, match="the fixed heads to be at least one of 2 layers of 4 heads, each once"):
            comparison_sets(fixed, 2, 4)


class TestBoxPermutation:
    def picture(self, values, own=(0, 1)):
        return PictureMeasures(np.array(own), np.array(values, dtype=float)[:, :, None])

    def test_own_and_other_by_hand(self):
        own, other = own_and_other([self.picture([[0.9, 0.1, 0.3], [0.2, 0.8, 0.4]]), self.picture([[0.5]], own=[0])])
        assert own[:, 0].tolist() == [0.9, 0.8, 0.5]
        assert other[:2, 0].tolist() == pytest.approx([0.2, 0.3])
        assert np.isnan(other[2, 0])

    def test_against_all_permutations(self):
        rng = np.random.default_rng(6)
        pictures = [self.picture(rng.random((3, 3)) + 0.4 * np.eye(3), own=(0, 1, 2)) for _ in range(2)]
        values = [p.values[:, :, 0] for p in pictures]
        gains = [v - (v.sum(axis=1, keepdims=True) - v) / 2 for v in values]
        orders = list(itertools.permutations(range(3)))
        totals = np.array([[gain[range(3), list(order)].sum() for order in orders] for gain in gains])
        exact = ((totals[0][:, None] + totals[1]) >= totals[:, 0].sum() - 1e-12).mean()
        assert permutation_tests(pictures)[0].value == pytest.approx(exact, abs=0.015)

    def test_a_head_on_the_most_salient_thing_does_not_pass(self):
        rng = np.random.default_rng(7)
        salient, follows = [], []
        for _ in range(60):
            noise = 0.02 * rng.random((3, 3, 1))
            salient.append(PictureMeasures(np.arange(3), np.broadcast_to([[[0.9], [0.0], [0.0]]], (3, 3, 1)) + noise))
            follows.append(PictureMeasures(np.arange(3), 0.9 * np.eye(3)[:, :, None] + noise))
        assert permutation_tests(salient, permutations=1000)[0].value > 0.05
        assert permutation_tests(follows, permutations=1000)[0].num_reached == 0

    def test_rows_of_one_target_hold_together(self):
        # Two rows mean the same target: exchanging their boxes changes nothing, as half of the permutations do.
        pictures = [self.picture([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]], own=(0, 0, 1))]
        assert permutation_tests(pictures)[0].value == pytest.approx(1 / 3, abs=0.02)

    def test_pictures_with_one_target_say_nothing(self):
        assert permutation_tests([self.picture([[0.5]], own=[0])]) == []


class TestRankCorrelation:
    def test_bonett_wright_interval_of_the_page(self):
        assert bonett_wright(0.7036, 32) == pytest.approx((0.44, 0.86), abs=0.005)
        assert all(np.isnan(bonett_wright(0.5, 3)))

    def test_against_scipy(self):
        from scipy.stats import kendalltau, spearmanr

        rng = np.random.default_rng(8)
        first, second = rng.integers(0, 6, 20).astype(float), rng.random(20)
        found = correlate_heads(first, second, np.zeros(20, int), permutations=500)
        assert found.spearman == pytest.approx(float(spearmanr(first, second)[0]))
        assert found.kendall == pytest.approx(float(kendalltau(first, second)[0]))
        assert found.num_heads == 20

    def test_within_layers_a_difference_between_layers_is_no_evidence(self):
        rng = np.random.default_rng(9)
        layers = np.repeat([0, 1], 20)
        first, second = layers + 0.1 * rng.random(40), layers + 0.1 * rng.random(40)
        assert spearman_rows(first[None], second[None])[0] > 0.6
        assert stratified_p_value(first, second, layers, permutations=2000).value > 0.05
        assert stratified_p_value(first, second, 0 * layers, permutations=2000).value < 0.002

    def test_stratified_p_against_all_permutations(self):
        first, second, layers = np.array([1.0, 2, 3, 4, 5]), np.array([2.0, 1, 3, 5, 4]), np.array([0, 0, 0, 1, 1])
        orders = [(*a, *b) for a in itertools.permutations(range(3)) for b in itertools.permutations((3, 4))]
        rhos = np.array([spearman_rows(first[list(order)][None], second[None])[0] for order in orders])
        exact = (np.abs(rhos) >= abs(rhos[0]) - 1e-12).mean()
        assert stratified_p_value(first, second, layers).value == pytest.approx(exact, abs=0.02)

    def test_interval_over_pictures_narrows_with_pictures(self):
        rng = np.random.default_rng(10)
        skill = np.linspace(0.2, 0.8, 12)
        widths = []
        for pictures in (20, 320):
            clusters = np.repeat(np.arange(pictures), 3)
            chosen = rng.random((len(clusters), 12)) < skill
            values = np.clip(skill + 0.3 * rng.normal(size=chosen.shape), 0, 1)
            low, high = spearman_over_pictures(chosen, values, clusters, resamples=300)
            widths.append(high - low)
        assert widths[1] < widths[0] / 2

    def test_constant_values_have_no_correlation(self):
        found = correlate_heads(np.ones(5), np.arange(5.0), np.zeros(5, int))
        assert math.isnan(found.spearman)
        assert found.p_value is None
        json.dumps(found.to_dict(), allow_nan=False)
        assert all(np.isnan(spearman_over_pictures(np.ones((2, 3)), np.ones((2, 3)), np.zeros(2, int))))


class TestCeiling:
    def test_of_the_test_split(self, rows):
        ious = []
        for x, y, w, h, width, height in zip(*(rows[name] for name in ("x", "y", "w", "h", "width", "height"))):
            size = (int(width), int(height))
            ious.append(best_cell_box((x, y, x + w, y + h), padded_grid(size), size)[0])
        assert np.mean(ious) == pytest.approx(0.7922, abs=5e-5)
        assert np.mean(np.array(ious) >= 0.75) == pytest.approx(0.7137, abs=5e-5)
        assert min(ious) >= 0.5

    def test_against_all_boxes_of_cells(self):
        rng = np.random.default_rng(11)
        for _ in range(40):
            size = (int(rng.integers(40, 120)), int(rng.integers(40, 120)))
            grid = Grid(5, 6, *rng.uniform(-20, 5, 2), *rng.uniform(8, 25, 2))
            x0, y0 = rng.uniform(0, size[0] - 2), rng.uniform(0, size[1] - 2)
            truth = (x0, y0, rng.uniform(x0 + 1, size[0]), rng.uniform(y0 + 1, size[1]))
            best = 0.0
            for top, bottom in itertools.combinations(range(6), 2):
                for left, right in itertools.combinations(range(7), 2):
                    cells = np.zeros((5, 6), bool)
                    cells[top:bottom, left:right] = True
                    x, y = (
                        grid.x0 + grid.cell_w * np.array([left, right]),
                        grid.y0 + grid.cell_h * np.array([top, bottom]),
                    )
                    x, y = np.clip(x, 0, size[0]), np.clip(y, 0, size[1])
                    if x[0] < x[1] and y[0] < y[1]:
                        best = max(best, box_iou((x[0], y[0], x[1], y[1]), truth))
            assert best_cell_box(truth, grid, size)[0] == pytest.approx(best)

    def test_rounding_edges_to_the_nearest_line_is_often_worse(self, rows):
        best, rounded = [], []
        for x, y, w, h, width, height in zip(*(rows[name] for name in ("x", "y", "w", "h", "width", "height"))):
            size, truth = (int(width), int(height)), np.array([x, y, x + w, y + h])
            grid = padded_grid(size)
            origin, cell = np.array([grid.x0, grid.y0] * 2), grid.cell_w
            lines = np.round((truth - origin) / cell)
            lines[2:] = np.maximum(lines[2:], lines[:2] + 1)
            edges = np.clip(origin + lines * cell, 0, [*size, *size])
            rounded.append(box_iou(edges, truth))
            best.append(best_cell_box(truth, grid, size)[0])
        assert np.mean(rounded) == pytest.approx(0.7836, abs=5e-5)
        assert np.mean(np.array(best) > np.array(rounded) + 1e-9) == pytest.approx(0.244, abs=5e-4)
        assert (np.array(best) >= np.array(rounded) - 1e-12).all()

    def test_a_target_off_the_grid(self):
        assert best_cell_box((80, 0, 90, 10), Grid(1, 5, 0, 0, 10, 10), (100, 10)) == (0.0, (0.0, 0.0, 0.0, 0.0))

    def test_pointing_needs_a_centre_in_the_target(self):
        grid = Grid(2, 2, 0, 0, 10, 10)
        assert pointing_reachable((4, 4, 6, 6), grid)
        assert not pointing_reachable((0, 0, 4, 10), grid)
        assert not pointing_reachable((5.5, 4, 9, 6), grid)


class TestMaskCoverage:
    def test_whole_and_split_pixels(self):
        mask = np.zeros((4, 6), bool)
        mask[1:3, 2:5] = True
        whole = mask_coverage(mask, Grid(2, 3, 0, 0, 2, 2))
        assert whole.tolist() == [[0, 0.5, 0.25], [0, 0.5, 0.25]]
        split = mask_coverage(mask, Grid(1, 2, 0.5, 0.5, 3, 3))
        assert split[0].tolist() == pytest.approx([1.5 * 2 / 9, 1.5 * 2 / 9])
        beyond = mask_coverage(np.ones((2, 2), bool), Grid(1, 2, -1, 0, 2, 2))
        assert beyond[0].tolist() == [0.5, 0.5]

    def test_a_mask_of_cells_comes_back(self):
        grid, cells = Grid(3, 3, 0, 0, 4, 4), np.eye(3, dtype=bool)
        pixels = np.kron(cells, np.ones((4, 4), bool)).astype(bool)
        assert (mask_coverage(pixels, grid) == cells).all()


def test_drawn_p_values_are_never_zero():
    assert drawn(0, 99, sides=1).value == 0.01
    assert drawn(99, 99, sides=1).value == 1
