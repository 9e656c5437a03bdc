from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import numpy as np
import pytest
import yaml
from planted import (
    BOTTOM_ROW_HEADS,
    DIFFUSE_HEADS,
    EARLY_HEADS,
    GRID_SHAPE,
    LOCALIZATION_HEADS,
    NUM_HEADS,
    NUM_LAYERS,
    SINK_HEADS,
    plant_dataset,
    planted_scores,
)

from analyze import (
    DatasetScores,
    HeadTable,
    SelectionRules,
    choose_heads,
    elbow_threshold,
    frequency_by_size,
    resample_frequency,
    run_trials,
    score_heads,
    select_dataset_heads,
    stack_scores,
)
from lab.heads.head_sums import TieShares, count_ties
from lab.heads.heads_file import (
    FixedHead,
    HeadsFile,
    check_heads_file,
    hash_inputs,
    heads_file_from_selection,
    read_heads_file,
    write_heads_file,
)
from lab.heads.selection_records import SelectionSpread, count_rows, describe_head, head_record, selection_record
from lab.heads.trials import summarize_trials, trial_indices
from lab.statistics.bootstrap import resample_weights

README_RULES = SelectionRules()
PAPER_RULES = SelectionRules(
    min_keep=1, bottom_row_filter=False, binarize_threshold=0.0, entropy_shares="area", threshold_scope="dataset",
    lowest_n=10,
)  # fmt: skip


def scores_for(samples, rules: SelectionRules) -> DatasetScores:
    return planted_scores(samples, binarize_threshold=rules.binarize_threshold, entropy_shares=rules.entropy_shares)


def scores_of(sums, entropies, bottom=None) -> DatasetScores:
    """Scores from nested lists `[samples, layers, heads]`."""
    sums = np.asarray(sums, dtype=np.float32)
    entropies = np.broadcast_to(np.asarray(entropies, dtype=np.float32), sums.shape)
    return DatasetScores(sums, entropies, np.zeros(sums.shape, bool) if bottom is None else np.asarray(bottom))


@pytest.fixture(scope="module")
def planted_60():
    return plant_dataset(60, noise=0.1)


class TestSelection:
    @pytest.mark.parametrize("noise", [0.0, 0.05, 0.2, 0.4])
    @pytest.mark.parametrize("rules", [README_RULES, PAPER_RULES], ids=["selection_v1", "paper"])
    def test_finds_exactly_the_planted_heads(self, rules: SelectionRules, noise: float):
        selection = select_dataset_heads(scores_for(plant_dataset(30, noise, seed=1), rules), rules)
        assert set(selection.heads) == set(LOCALIZATION_HEADS)
        for head in LOCALIZATION_HEADS:
            assert selection.frequency[head] > 0.9
        for head in EARLY_HEADS:
            assert selection.frequency[head] == 0

    def test_what_the_paper_preset_leaves_to_entropy_the_readme_filters(self, planted_60):
        by_readme = select_dataset_heads(scores_for(planted_60, README_RULES), replace(README_RULES, lowest_n=5))
        by_paper = select_dataset_heads(scores_for(planted_60, PAPER_RULES), PAPER_RULES)
        assert all(by_readme.frequency[head] == 0 for head in BOTTOM_ROW_HEADS)
        assert all(by_paper.frequency[head] == 1 for head in BOTTOM_ROW_HEADS + SINK_HEADS)

    def test_scope_sample_equals_choosing_for_each_sample(self, planted_60):
        for rules in (README_RULES, replace(README_RULES, top_k=2, min_keep=4, bottom_row_filter=False)):
            selection = select_dataset_heads(scores_for(planted_60, rules), rules)
            for sample, chosen in zip(planted_60, selection.chosen):
                expected = choose_heads(score_heads(sample.attention, GRID_SHAPE), rules=rules).indices
                assert tuple(divmod(int(index), NUM_HEADS) for index in chosen if index >= 0) == expected

    def test_threshold_is_the_elbow_of_the_mean_sums(self, planted_60):
        scores = scores_for(planted_60, PAPER_RULES)
        selection = select_dataset_heads(scores, PAPER_RULES)
        assert selection.threshold == elbow_threshold(scores.attn_sum.astype(np.float64).mean(axis=0))
        np.testing.assert_allclose(selection.mean_sums, scores.attn_sum.mean(axis=0), rtol=1e-5)

    def test_fixed_threshold_serves_both_scopes(self, planted_60):
        for scope in ("sample", "dataset"):
            rules = replace(PAPER_RULES, threshold_scope=scope, threshold_value=0.55, min_keep=0)
            selection = select_dataset_heads(scores_for(planted_60, rules), rules)
            assert selection.threshold == 0.55
            assert (selection.mean_sums[selection.counts > 0] > 0.55).all()

    def test_frequency_decides_where_more_heads_pass_than_are_counted(self, planted_60):
        rules = replace(PAPER_RULES, lowest_n=3)
        selection = select_dataset_heads(scores_for(planted_60, PAPER_RULES), rules)
        assert set(selection.heads) == set(LOCALIZATION_HEADS)
        assert selection.short_share == 0
        assert selection.counts.sum() == 3 * 60
        assert all(selection.frequency[head] < 0.1 for head in (*SINK_HEADS, *BOTTOM_ROW_HEADS, *DIFFUSE_HEADS))

    def test_ties_of_frequency_go_to_the_lower_entropy(self):
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0, threshold_value=0.5, lowest_n=9)
        selection = select_dataset_heads(scores_of([[[0.9, 0.6, 0.7]]] * 2, [[[0.5, 0.2, 0.2]]]), rules)
        assert selection.ranked_heads() == [(0, 2), (0, 1), (0, 0)]
        assert selection.short_share == 0
        one_fails = select_dataset_heads(scores_of([[[0.9, 0.6, 0.7]], [[0.9, 0.6, 0.1]]], 0.2), rules)
        assert one_fails.short_share == 0.5

    def test_counts_by_hand(self):
        # Three samples, one layer of four heads. Head 3 has the lowest entropy but never the sum.
        sums = [[[0.6, 0.7, 0.8, 0.1]], [[0.6, 0.7, 0.8, 0.1]], [[0.6, 0.3, 0.8, 0.1]]]
        entropies = [[[0.1, 0.2, 0.3, 0.0]], [[0.3, math.inf, 0.1, 0.0]], [[0.1, 0.0, 0.1, 0.0]]]
        rules = SelectionRules(top_k=2, min_keep=0, skip_layers=0, threshold_value=0.5)
        selection = select_dataset_heads(scores_of(sums, entropies), rules)
        # 0 and 1; 2 and 0; then 2 before 0, equal in entropy, larger in sum.
        assert selection.chosen.tolist() == [[0, 1], [2, 0], [2, 0]]
        assert selection.counts.tolist() == [[3, 1, 2, 0]]
        assert selection.frequency[0].tolist() == pytest.approx([1, 1 / 3, 2 / 3, 0])
        assert selection.heads == ((0, 0), (0, 2))
        assert selection.mean_entropies[0].tolist() == pytest.approx([0.5 / 3, 0.1, 0.5 / 3, 0])

    def test_fewer_heads_than_lowest_n_leave_gaps(self):
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0, threshold_value=0.5, lowest_n=3)
        selection = select_dataset_heads(scores_of([[[0.6, 0.7, 0.1]], [[0.1, 0.6, 0.1]]], 0.2), rules)
        assert selection.chosen.tolist() == [[1, 0, -1], [1, -1, -1]]

    def test_sums_are_compared_by_value_and_not_by_head_number(self):
        sums = np.broadcast_to(np.linspace(0.9, 0.02, 32).reshape(1, 4, 8), (5, 4, 8))
        rules = SelectionRules(min_keep=0, skip_layers=0, threshold_value=0.7, threshold_scope="dataset", lowest_n=32)
        counts = select_dataset_heads(scores_of(sums, 0.1), rules).counts
        np.testing.assert_array_equal(counts > 0, sums[0] >= 0.7)

    def test_scope_dataset_ignores_a_single_sample_s_sum(self):
        sums = [[[0.9, 0.1]], [[0.3, 0.1]]]
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0, threshold_value=0.5, threshold_scope="dataset")
        assert select_dataset_heads(scores_of(sums, 0.1), rules).counts.tolist() == [[2, 0]]
        assert select_dataset_heads(scores_of(sums, 0.1), replace(rules, threshold_scope="sample")).counts.tolist() == [
            [1, 0]
        ]

    def test_too_few_heads_is_an_error(self):
        rules = SelectionRules(top_k=2, min_keep=0, skip_layers=0, threshold_value=0.5)
        with pytest.raises(ValueError, match=r"at least top_k=2 heads to be chosen by some sample, but got 1"):
            select_dataset_heads(scores_of([[[0.9, 0.1]]], 0.1), rules)

    def test_gathering_refuses_mixed_models_nothing_and_nan(self):
        def table(layers: int) -> HeadTable:
            return HeadTable(*(np.zeros((layers, 2)) for _ in range(2)), *(np.zeros((layers, 2), int),) * 2)

        with pytest.raises(
            ValueError, match="one model with 3 layers of 2 heads, but got 4 layers of 2 heads in sample 1"
        ):
            stack_scores(iter([table(3), table(4)]))
        with pytest.raises(ValueError, match="scores of at least one sample, but got none"):
            stack_scores(iter([]))
        with pytest.raises(ValueError, match="sums to be finite and entropies not to be NaN"):
            scores_of([[[0.1, np.nan]]], 0.1)
        with pytest.raises(ValueError, match="share one shape"):
            DatasetScores(np.zeros((1, 2, 3)), np.zeros((1, 2, 3)), np.zeros((1, 2, 2)))


class TestTrials:
    def test_split_parts_share_no_picture_and_leave_nothing_out(self):
        pictures = np.repeat(np.arange(35), 3)[:103]
        parts = trial_indices(pictures, 5, seed=3)
        assert sorted(np.concatenate(parts)) == list(range(103))
        held = [set(pictures[part].tolist()) for part in parts]
        assert [len(part) for part in held] == [7] * 5
        assert not any(one & two for at, one in enumerate(held) for two in held[at + 1 :])
        assert held[0] != set(range(7))

    def test_draws_are_of_whole_pictures_with_replacement_and_seeded(self):
        pictures = np.repeat(np.arange(25), 2)
        draws = trial_indices(pictures, 4, trial_size=30, seed=1)
        assert all(len(draw) == 30 for draw in draws)
        for draw in draws:
            rows = np.bincount(draw, minlength=50).reshape(25, 2)
            assert (rows[:, 0] == rows[:, 1]).all()
        assert any(np.bincount(draw).max() > 1 for draw in draws)
        again = trial_indices(pictures, 4, trial_size=30, seed=1)
        assert all((one == two).all() for one, two in zip(draws, again))
        assert trial_indices(pictures, 4, trial_size=30, seed=2)[0].tolist() != draws[0].tolist()

    def test_trials_as_large_as_the_data_still_differ(self, planted_60):
        # Drawn without replacement they would all be the data, and their standard deviation 0.
        rng = np.random.default_rng(0)
        sums = np.where(rng.random((300, 1, 1)) < 0.6, 0.9, 0.1) * np.array([[[1.0, 0.0]]]) + 0.05
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0, threshold_value=0.5)
        scores = scores_of(sums, 0.1)
        trials = trial_indices(np.arange(300), 40, trial_size=300)
        sd = run_trials(scores, rules, trials).frequency_sd[0, 0]
        assert sd == pytest.approx(math.sqrt(0.6 * 0.4 / 300), rel=0.4)

    def test_statistics_by_hand(self):
        frequencies = np.array([[[0.5, 0.2]], [[0.7, 0.2]], [[0.9, 0.5]]])
        statistics = summarize_trials(frequencies, [[(0, 1), (0, 0)], [(0, 0), (0, 2)], [(0, 0), (0, 1)]])
        assert statistics.frequency_mean[0].tolist() == pytest.approx([0.7, 0.3])
        assert statistics.frequency_sd[0].tolist() == pytest.approx([0.2, math.sqrt(0.03)])
        assert statistics.common_set == ((0, 0), (0, 1))
        assert statistics.agreement_with([(0, 2), (0, 0)]) == pytest.approx(1 / 3)
        # Three trials of three would still bound the share at .05 ** (1 / 3).
        assert statistics.agreement_bound([(0, 0), (0, 1)]) == pytest.approx(0.1353, abs=1e-4)
        assert statistics.to_dict([(0, 2), (0, 0)]) == {
            "num_trials": 3,
            "top_sets": [[[0, 0], [0, 1]], [[0, 0], [0, 2]], [[0, 0], [0, 1]]],
            "common_set": [[0, 0], [0, 1]],
            "agreement": pytest.approx(1 / 3),
            "agreement_bound": pytest.approx(0.01695, abs=1e-5),
        }

    def test_five_of_five_bound_the_agreement_at_55_percent(self):
        statistics = summarize_trials(np.zeros((5, 1, 4)), [[(0, 1)]] * 5)
        assert statistics.agreement_bound([(0, 1)]) == pytest.approx(0.05 ** (1 / 5))
        assert statistics.agreement_bound([(0, 2)]) == 0

    def test_each_trial_equals_a_selection_of_its_own(self, planted_60):
        scores = scores_for(planted_60, PAPER_RULES)
        trials = trial_indices(np.arange(60), 3)
        statistics = run_trials(scores, PAPER_RULES, trials)
        own = [select_dataset_heads(scores_for([planted_60[i] for i in t], PAPER_RULES), PAPER_RULES) for t in trials]
        np.testing.assert_allclose(statistics.frequency_mean, np.mean([s.frequency for s in own], axis=0))
        np.testing.assert_allclose(statistics.frequency_sd, np.std([s.frequency for s in own], axis=0, ddof=1))
        assert statistics.common_set == tuple(sorted(LOCALIZATION_HEADS))
        assert statistics.agreement_with(LOCALIZATION_HEADS) == 1

    def test_frequency_against_number_of_samples(self, planted_60):
        scores = scores_for(planted_60, README_RULES)
        heads = [*LOCALIZATION_HEADS, SINK_HEADS[0]]
        means, low, high = frequency_by_size(
            scores, README_RULES, heads, np.arange(60), sizes=[5, 20, 60], resamples=200
        )
        assert means.shape == low.shape == high.shape == (4, 3)
        full = select_dataset_heads(scores, README_RULES)
        assert means[:, -1].tolist() == pytest.approx([full.frequency[head] for head in heads], abs=0.02)
        assert ((low <= means) & (means <= high)).all()

    def test_the_band_at_all_samples_is_that_of_another_data_set(self):
        rng = np.random.default_rng(1)
        sums = np.where(rng.random((400, 1, 1)) < 0.7, 0.9, 0.1) * np.array([[[1.0, 0.0]]]) + 0.05
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0, threshold_value=0.5)
        scores = scores_of(sums, 0.1)
        mean, low, high = frequency_by_size(scores, rules, [(0, 0)], np.arange(400), sizes=[100, 400], resamples=2000)
        expected = 2 * 1.96 * np.sqrt(mean * (1 - mean) / [[100, 400]])
        np.testing.assert_allclose(high - low, expected, rtol=0.1)
        # Rows that go together by four are a quarter as much evidence.
        together = np.repeat(sums[:100], 4, axis=0)
        _, low, high = frequency_by_size(scores_of(together, 0.1), rules, [(0, 0)], np.arange(400) // 4, sizes=[400])
        assert (high - low)[0, 0] == pytest.approx(2 * expected[0, 1], rel=0.2)

    def test_a_trial_with_fewer_heads_than_top_k_counts_as_another_set(self):
        rules = SelectionRules(top_k=2, min_keep=0, skip_layers=0, threshold_value=0.5)
        scores = scores_of([[[0.9, 0.1]], [[0.9, 0.6]]], 0.1)
        statistics = run_trials(scores, rules, [np.array([0]), np.array([1])])
        assert statistics.top_sets == (((0, 0),), ((0, 0), (0, 1)))
        assert frequency_by_size(scores, rules, [(0, 0)], np.arange(2), sizes=[1])[0].tolist() == [[1.0]]

    def test_pictures_drawn_again_against_choosing_anew_each_time(self, planted_60):
        pictures = np.arange(60) // 2
        for rules in (README_RULES, replace(PAPER_RULES, lowest_n=4)):
            scores = scores_for(planted_60, rules)
            selection = select_dataset_heads(scores, rules)
            spread = resample_frequency(scores, selection, pictures, resamples=40, seed=3)
            found = []
            for weights in np.concatenate(list(resample_weights(30, 40, seed=3))).astype(int):
                rows = np.repeat(np.arange(60), weights[pictures])
                found.append(select_dataset_heads(scores.take(rows), rules))
            frequencies = np.stack([one.frequency for one in found])
            np.testing.assert_allclose(spread.se, frequencies.std(axis=0, ddof=1), atol=1e-12)
            np.testing.assert_allclose(spread.low, np.quantile(frequencies, 0.025, axis=0), atol=1e-12)
            heads = [(layer, head) for layer in range(NUM_LAYERS) for head in range(NUM_HEADS)]
            mean, _, _ = frequency_by_size(scores, rules, heads, pictures, sizes=[60], resamples=40, seed=3)
            np.testing.assert_allclose(mean[:, 0], frequencies.mean(axis=0).ravel(), atol=1e-12)
            same = [set(one.heads) == set(selection.heads) for one in found]
            assert spread.repeat_rate == pytest.approx(np.mean(same))

    def test_a_close_third_place_does_not_repeat(self):
        # Heads 0 and 1 share the samples almost evenly: which is first is left to chance.
        sums = np.array([[[0.9, 0.1]]] * 51 + [[[0.1, 0.9]]] * 49)
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0, threshold_value=0.5)
        selection = select_dataset_heads(scores_of(sums, 0.1), rules)
        spread = resample_frequency(scores_of(sums, 0.1), selection, np.arange(100))
        assert 0.4 < spread.repeat_rate < 0.75
        assert spread.sets[0] == ("L0H0", spread.repeat_rate)
        assert spread.to_dict()["sets"][1]["heads"] == "L0H1"

    def test_few_pictures_give_no_interval(self):
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0, threshold_value=0.5)
        scores = scores_of([[[0.9, 0.1]]] * 10, 0.1)
        spread = resample_frequency(scores, select_dataset_heads(scores, rules), np.arange(10) // 2, resamples=10)
        assert np.isnan(spread.low).all()
        assert np.isnan(spread.se).all()

    def test_ties_of_the_last_place(self):
        # Sample 0: clear. 1: heads 1 and 2 tie in entropy, sums apart. 2: sums within float16's precision, too.
        sums = [[[0.9, 0.8, 0.7]], [[0.9, 0.8, 0.7]], [[0.9, 0.8, 0.8001]]]
        entropies = [[[0.0, 0.1, 0.2]], [[0.0, 0.1, 0.1]], [[0.0, 0.0, 0.0]]]
        rules = SelectionRules(top_k=2, min_keep=0, skip_layers=0, threshold_value=0.5)
        thresholds = np.full(3, 0.5)
        ties = count_ties(scores_of(sums, entropies), rules, thresholds, 2.0**-11)
        assert ties == TieShares(3, 2 / 3, 1 / 3, 5 / 3, 2.0**-11)
        exact = count_ties(scores_of(sums, entropies), rules, thresholds, 2.0**-24)
        assert (exact.tied_entropy, exact.tied_sum) == (2 / 3, 0)

    def test_impossible_trials_are_errors(self):
        with pytest.raises(ValueError, match="Expected 1 to 2 trials, as there are 2 pictures to split, but got 5"):
            trial_indices(np.array([0, 0, 1, 1]), 5)
        with pytest.raises(ValueError, match="1 trial of 1 to 4 samples, but got 2 trials of 9"):
            trial_indices(np.arange(4), 2, trial_size=9)
        with pytest.raises(ValueError, match="at least two trials, each with its top heads"):
            summarize_trials(np.zeros((1, 2, 2)), [[(0, 0)]])


class TestWhatIsWritten:
    def selection(self):
        sums = [[[0.6, 0.7, 0.8, 0.1]], [[0.6, 0.7, 0.8, 0.1]]]
        rules = SelectionRules(top_k=2, min_keep=0, skip_layers=0, threshold_value=0.5)
        return select_dataset_heads(scores_of(sums, [[[0.1, 0.2, 0.3, math.inf]], [[0.3, 0.9, 0.1, math.inf]]]), rules)

    def spread(self, selection, trials=None):
        scores = scores_of([[[0.6, 0.7, 0.8, 0.1]]] * 2, [[[0.1, 0.2, 0.3, math.inf]], [[0.3, 0.9, 0.1, math.inf]]])
        frequency = resample_frequency(scores, selection, np.arange(2), resamples=400)
        return SelectionSpread(frequency, TieShares(2, 0.0, 0.0, 0.0, 2.0**-11), trials)

    def test_counts_csv_rows(self):
        selection = self.selection()
        rows = count_rows(selection, self.spread(selection).frequency)
        counted = [(0, 2, 1.0), (2, 1, 0.5), (1, 1, 0.5), (3, 0, 0.0)]
        assert rows == [
            {
                "layer": 0, "head": head, "count": count, "frequency": frequency, "low": None, "high": None,
                "num_samples": 2, "num_pictures": 2,
            }
            for head, count, frequency in counted
        ]  # fmt: skip

    def test_json_schema(self):
        trials = summarize_trials(np.full((2, 1, 4), 0.5), [[(0, 0), (0, 2)]] * 2)
        selection = self.selection()
        spread = self.spread(selection, trials)
        record = selection_record(
            selection, spread, ids=["a", "b"], model_name="m", template="referseg", inputs_sha256="ff"
        )
        record = json.loads(json.dumps(record, allow_nan=False))
        assert list(record) == [
            "model_name", "template", "index_base", "num_layers", "num_heads", "num_samples", "num_pictures",
            "inputs_sha256", "rules", "threshold", "short_share", "heads", "counts", "resamples", "ties", "trials",
            "files",
        ]  # fmt: skip
        assert (record["num_samples"], record["num_pictures"], record["short_share"]) == (2, 2, 0.0)
        assert record["rules"] == asdict(selection.rules)
        assert record["threshold"] == {"scope": "sample", "value": 0.5, "mean_of_samples": 0.5, "min": 0.5, "max": 0.5}
        assert record["trials"] == trials.to_dict(selection.heads)
        assert record["files"] == [{"id": "a", "heads": [[0, 0], [0, 1]]}, {"id": "b", "heads": [[0, 2], [0, 0]]}]
        assert [row["count"] for row in record["counts"]] == [2, 1, 1]
        assert record["heads"][1] == {
            "layer": 0, "head": 2, "name": "L0H2", "count": 1, "tied": True, "frequency": 0.5,
            "frequency_se": None, "frequency_low": None, "frequency_high": None,
            "trial_sd": 0.0, "mean_attn_sum": pytest.approx(0.8), "mean_spatial_entropy": pytest.approx(0.2),
        }  # fmt: skip
        assert not record["heads"][0]["tied"]

    def test_thresholds_of_samples_have_no_common_value(self):
        sums = [[[0.6, 0.7, 0.8, 0.1]], [[0.5, 0.65, 0.8, 0.2]]]
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0)
        selection = select_dataset_heads(scores_of(sums, 0.2), rules)
        record = selection_record(
            selection, self.spread(selection), ids=["a", "b"], model_name="m", template="t", inputs_sha256=""
        )
        assert record["threshold"]["value"] is None
        assert record["threshold"]["min"] < record["threshold"]["mean_of_samples"] < record["threshold"]["max"]
        made = heads_file_from_selection(selection, model_name="m", template="t", inputs_sha256="", rules={})
        assert made.threshold is None

    def test_infinite_entropy_is_null_and_no_trials_are_null(self):
        selection = self.selection()
        record = head_record(selection, (0, 3), self.spread(selection))
        assert record["mean_spatial_entropy"] is None
        assert record["trial_sd"] is None
        assert describe_head(record)["mean entropy"] == "-"
        tied = describe_head(head_record(selection, (0, 2), self.spread(selection)))
        assert (tied["frequency"], tied["95 % interval"]) == ("50.0%=", "-")

    def test_one_id_for_each_sample(self):
        selection = self.selection()
        with pytest.raises(ValueError, match="an id for each of the 2 samples, but got 1"):
            selection_record(
                selection, self.spread(selection), ids=["a"], model_name="m", template="t", inputs_sha256=""
            )


class TestHeadsFile:
    heads_file = HeadsFile(
        "some/model", "referseg", 6, 8, (FixedHead(3, 5, 0.9), FixedHead(4, 0, 0.8)), (FixedHead(5, 2, 0.5),),
        num_samples=60, threshold=0.24, inputs_sha256="ab", rules={"top_k": 2, "lowest_n": None},
    )  # fmt: skip
    fits = {"model_name": "some/model", "template": "referseg", "num_layers": 6, "num_heads": 8}

    def test_round_trip(self, tmp_path):
        write_heads_file(tmp_path / "heads.yaml", self.heads_file)
        assert read_heads_file(tmp_path / "heads.yaml") == self.heads_file

    def test_from_a_selection(self, tmp_path, planted_60):
        scores = scores_for(planted_60, PAPER_RULES)
        selection = select_dataset_heads(scores, PAPER_RULES)
        inputs = hash_inputs([str(i) for i in range(60)], scores)
        made = heads_file_from_selection(
            selection, model_name="m", template="t", inputs_sha256=inputs, rules=asdict(selection.rules)
        )
        write_heads_file(tmp_path / "heads.yaml", made)
        record = yaml.safe_load((tmp_path / "heads.yaml").read_text())
        assert list(record) == [
            "model_name", "template", "index_base", "num_layers", "num_heads", "heads", "runners_up", "num_samples",
            "threshold", "inputs_sha256", "rules", "source",
        ]  # fmt: skip
        assert record["index_base"] == 0
        assert {(head["layer"], head["head"]) for head in record["heads"]} == set(LOCALIZATION_HEADS)
        assert [head["frequency"] for head in record["heads"]] == [
            selection.frequency[head] for head in selection.heads
        ]
        assert (record["num_samples"], record["threshold"], record["inputs_sha256"]) == (
            60,
            selection.threshold,
            inputs,
        )
        assert read_heads_file(tmp_path / "heads.yaml").first(3) == selection.heads

    def test_hash_changes_with_ids_and_scores(self, planted_60):
        scores = scores_for(planted_60[:2], PAPER_RULES)
        other = replace(scores, attn_sum=scores.attn_sum + np.float32(1e-3))
        hashes = {hash_inputs(["a", "b"], scores), hash_inputs(["a", "c"], scores), hash_inputs(["a", "b"], other)}
        assert len(hashes) == 3
        assert hash_inputs(["a", "b"], scores) in hashes

    def test_first_heads_and_runners_up(self):
        assert self.heads_file.first(1) == ((3, 5),)
        assert self.heads_file.first(3) == ((3, 5), (4, 0), (5, 2))
        with pytest.raises(ValueError, match=r"at least logic.top_k=4 heads, but got 3"):
            self.heads_file.first(4)

    def test_fitting_file_is_accepted(self):
        assert check_heads_file(self.heads_file, **self.fits) == ()

    @pytest.mark.parametrize(
        ("what", "value", "message"),
        [
            ("model_name", "other", "the model is 'some/model' there and 'other' here"),
            ("template", "v1", "the prompt template is 'referseg' there and 'v1' here"),
            ("num_layers", 7, "the number of layers is 6 there and 7 here"),
            ("num_heads", 9, "the number of heads a layer is 8 there and 9 here"),
        ],
    )
    def test_other_model_or_template_is_refused_and_can_be_forced(self, what: str, value: object, message: str):
        with pytest.raises(ValueError, match=f"{message}.*logic.force_heads_file=true"):
            check_heads_file(self.heads_file, **{**self.fits, what: value})
        notes = check_heads_file(self.heads_file, **{**self.fits, what: value}, force=True)
        assert notes == (f"The heads file was used although {message}.",)

    def test_heads_that_the_model_lacks_cannot_be_forced(self):
        with pytest.raises(ValueError, match="to have layer 4, head 0 of the heads file, but got 4 layers of 8 heads"):
            check_heads_file(self.heads_file, **{**self.fits, "num_layers": 4}, force=True)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"index_base": 1}, "index_base to be 0, but got 1. Subtract it"),
            ({"heads": []}, "to list at least one head"),
            ({"heads": [{"layer": 6, "head": 0}]}, "6 layers of 8 heads, counted from 0, but got layer 6, head 0"),
            ({"heads": [{"layer": 1, "head": 0}] * 2}, "to list each head once"),
            ({"heads": [{"layer": "14", "head": 0}]}, "layer to be a whole number, but got '14'"),
            ({"heads": [{"layer": 1}]}, "the field 'head'"),
            ({"num_heads": True}, "num_heads to be a whole number"),
            ({"model_name": None}, "the field 'model_name'"),
        ],
    )
    def test_broken_files_are_named(self, tmp_path, change: dict, message: str):
        path = tmp_path / "heads.yaml"
        write_heads_file(path, self.heads_file)
        record = {**yaml.safe_load(path.read_text()), **change}
        path.write_text(yaml.safe_dump({key: value for key, value in record.items() if value is not None}))
        with pytest.raises(ValueError, match=rf"Expected .*heads.yaml to be a heads file, but got .*{message}"):
            read_heads_file(path)

    @pytest.mark.parametrize("text", ["- 1\n", "{unclosed", "!!python/object/apply:os.system ['true']\n", ""])
    def test_not_a_heads_file(self, tmp_path, text: str):
        (tmp_path / "heads.yaml").write_text(text)
        with pytest.raises(ValueError, match="to be a heads file"):
            read_heads_file(tmp_path / "heads.yaml")
        with pytest.raises(FileNotFoundError, match="Expected a heads file at .*gone.yaml"):
            read_heads_file(tmp_path / "gone.yaml")
