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
    run_trials,
    score_heads,
    select_dataset_heads,
    stack_scores,
)
from evaluate_boxes import audit_sample
from lab.heads.audit import (
    SampleAudit,
    draw_random_sets,
    measure_auroc,
    measure_enrichment,
    measure_masks,
    measure_pointing,
    rank_correlation,
    sign_flip_p_value,
    summarize_audit,
)
from lab.heads.head_scores import count_rows, head_record, selection_record
from lab.heads.heads_file import (
    FixedHead,
    HeadsFile,
    check_heads_file,
    hash_inputs,
    heads_file_from_selection,
    read_heads_file,
    write_heads_file,
)
from lab.heads.trials import summarize_trials, trial_indices
from lab.records import Grid

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
    def test_split_parts_share_nothing_and_leave_nothing_out(self):
        parts = trial_indices(103, 5, seed=3)
        assert [len(part) for part in parts] == [21, 21, 21, 20, 20]
        assert sorted(np.concatenate(parts)) == list(range(103))
        assert parts[0].tolist() != list(range(21))

    def test_draws_are_without_replacement_and_seeded(self):
        draws = trial_indices(50, 4, trial_size=30, seed=1)
        assert all(len(set(draw.tolist())) == 30 for draw in draws)
        assert draws[0].tolist() != draws[1].tolist()
        again = trial_indices(50, 4, trial_size=30, seed=1)
        assert all((one == two).all() for one, two in zip(draws, again))
        assert trial_indices(50, 4, trial_size=30, seed=2)[0].tolist() != draws[0].tolist()

    def test_statistics_by_hand(self):
        frequencies = np.array([[[0.5, 0.2]], [[0.7, 0.2]], [[0.9, 0.5]]])
        statistics = summarize_trials(frequencies, [[(0, 1), (0, 0)], [(0, 0), (0, 2)], [(0, 0), (0, 1)]])
        assert statistics.frequency_mean[0].tolist() == pytest.approx([0.7, 0.3])
        assert statistics.frequency_sd[0].tolist() == pytest.approx([0.2, math.sqrt(0.03)])
        assert statistics.common_set == ((0, 0), (0, 1))
        assert statistics.repeat_rate == pytest.approx(2 / 3)
        assert statistics.agreement_with([(0, 2), (0, 0)]) == pytest.approx(1 / 3)
        assert statistics.to_dict() == {
            "num_trials": 3,
            "top_sets": [[[0, 0], [0, 1]], [[0, 0], [0, 2]], [[0, 0], [0, 1]]],
            "common_set": [[0, 0], [0, 1]],
            "repeat_rate": pytest.approx(2 / 3),
        }

    def test_each_trial_equals_a_selection_of_its_own(self, planted_60):
        scores = scores_for(planted_60, PAPER_RULES)
        trials = trial_indices(60, 3)
        statistics = run_trials(scores, PAPER_RULES, trials)
        own = [select_dataset_heads(scores_for([planted_60[i] for i in t], PAPER_RULES), PAPER_RULES) for t in trials]
        np.testing.assert_allclose(statistics.frequency_mean, np.mean([s.frequency for s in own], axis=0))
        np.testing.assert_allclose(statistics.frequency_sd, np.std([s.frequency for s in own], axis=0, ddof=1))
        assert statistics.common_set == tuple(sorted(LOCALIZATION_HEADS))
        assert statistics.repeat_rate == 1

    def test_frequency_against_number_of_samples(self, planted_60):
        scores = scores_for(planted_60, README_RULES)
        heads = [*LOCALIZATION_HEADS, SINK_HEADS[0]]
        means, sds = frequency_by_size(scores, README_RULES, heads, sizes=[5, 20, 60], repeats=3)
        assert means.shape == sds.shape == (4, 3)
        full = select_dataset_heads(scores, README_RULES)
        assert means[:, -1].tolist() == pytest.approx([full.frequency[head] for head in heads])
        assert sds[:, -1] == pytest.approx(0)

    def test_a_trial_with_fewer_heads_than_top_k_counts_as_another_set(self):
        rules = SelectionRules(top_k=2, min_keep=0, skip_layers=0, threshold_value=0.5)
        scores = scores_of([[[0.9, 0.1]], [[0.9, 0.6]]], 0.1)
        statistics = run_trials(scores, rules, [np.array([0]), np.array([1])])
        assert statistics.top_sets == (((0, 0),), ((0, 0), (0, 1)))
        assert frequency_by_size(scores, rules, [(0, 0)], sizes=[1], repeats=2)[0].tolist() == [[1.0]]

    def test_spread_over_draws_has_n_minus_1_in_the_denominator(self):
        rules = SelectionRules(top_k=1, min_keep=0, skip_layers=0, threshold_value=0.5)
        scores = scores_of([[[0.9, 0.1]], [[0.1, 0.9]]], 0.1)
        mean, sd = frequency_by_size(scores, rules, [(0, 0)], sizes=[1], repeats=6)
        assert 0 < mean[0, 0] < 1
        assert sd[0, 0] == pytest.approx(math.sqrt(mean[0, 0] * (1 - mean[0, 0]) * 6 / 5))

    def test_impossible_trials_are_errors(self):
        with pytest.raises(ValueError, match="Expected 1 to 4 trials, as there are 4 samples to split, but got 5"):
            trial_indices(4, 5)
        with pytest.raises(ValueError, match="1 trial of 1 to 4 samples, but got 2 trials of 9"):
            trial_indices(4, 2, trial_size=9)
        with pytest.raises(ValueError, match="at least two trials, each with its top heads"):
            summarize_trials(np.zeros((1, 2, 2)), [[(0, 0)]])


class TestWhatIsWritten:
    def selection(self):
        sums = [[[0.6, 0.7, 0.8, 0.1]], [[0.6, 0.7, 0.8, 0.1]]]
        rules = SelectionRules(top_k=2, min_keep=0, skip_layers=0, threshold_value=0.5)
        return select_dataset_heads(scores_of(sums, [[[0.1, 0.2, 0.3, math.inf]], [[0.3, 0.9, 0.1, math.inf]]]), rules)

    def test_counts_csv_rows(self):
        assert count_rows(self.selection()) == [
            {"layer": 0, "head": 0, "count": 2, "frequency": 1.0},
            {"layer": 0, "head": 2, "count": 1, "frequency": 0.5},
            {"layer": 0, "head": 1, "count": 1, "frequency": 0.5},
            {"layer": 0, "head": 3, "count": 0, "frequency": 0.0},
        ]

    def test_json_schema(self):
        trials = summarize_trials(np.full((2, 1, 4), 0.5), [[(0, 0), (0, 2)]] * 2)
        record = selection_record(
            self.selection(), ids=["a", "b"], model_name="m", template="referseg", inputs_sha256="ff", trials=trials
        )
        assert json.loads(json.dumps(record, allow_nan=False)) == {
            "model_name": "m",
            "template": "referseg",
            "index_base": 0,
            "num_layers": 1,
            "num_heads": 4,
            "num_samples": 2,
            "inputs_sha256": "ff",
            "rules": asdict(self.selection().rules),
            "threshold": {"scope": "sample", "mean": 0.5, "min": 0.5, "max": 0.5},
            "heads": [
                {
                    "layer": 0, "head": head, "name": f"L0H{head}", "count": count, "frequency": count / 2,
                    "frequency_sd": 0.0, "mean_attn_sum": pytest.approx(total),
                    "mean_spatial_entropy": pytest.approx(0.2),
                }
                for head, count, total in ((0, 2, 0.6), (2, 1, 0.8))
            ],
            "short_share": 0.0,
            "counts": [
                {"layer": 0, "head": 0, "count": 2, "frequency": 1.0},
                {"layer": 0, "head": 2, "count": 1, "frequency": 0.5},
                {"layer": 0, "head": 1, "count": 1, "frequency": 0.5},
            ],
            "trials": trials.to_dict(),
            "files": [{"id": "a", "heads": [[0, 0], [0, 1]]}, {"id": "b", "heads": [[0, 2], [0, 0]]}],
        }  # fmt: skip

    def test_infinite_entropy_is_null_and_no_trials_are_null(self):
        record = head_record(self.selection(), (0, 3))
        assert record["mean_spatial_entropy"] is None
        assert record["frequency_sd"] is None

    def test_one_id_for_each_sample(self):
        with pytest.raises(ValueError, match="an id for each of the 2 samples, but got 1"):
            selection_record(self.selection(), ids=["a"], model_name="m", template="t", inputs_sha256="")


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


class TestRandomSets:
    def test_same_layers_other_heads_none_twice(self):
        fixed = ((3, 5), (3, 6), (5, 2))
        sets = draw_random_sets(fixed, NUM_LAYERS, NUM_HEADS, draws=200)
        assert sets.shape == (200, 3)
        assert (sets // NUM_HEADS == [3, 3, 5]).all()
        assert not np.isin(sets, [3 * 8 + 5, 3 * 8 + 6, 5 * 8 + 2]).any()
        assert (sets[:, 0] != sets[:, 1]).all()
        # Every other head of the layer gets its turn.
        assert set(sets[:, 2].tolist()) == {5 * 8 + head for head in range(8)} - {5 * 8 + 2}

    def test_full_layer_goes_on_to_its_neighbours(self):
        sets = draw_random_sets(((2, 0), (2, 1), (2, 2)), 4, 4, draws=100)
        layers = np.sort(sets // 4, axis=1)
        assert ((layers == 2).sum(axis=1) == 1).all()
        assert set(layers.reshape(-1).tolist()) == {1, 2, 3}

    def test_seeded_and_too_few_heads(self):
        fixed = ((0, 0),)
        assert (draw_random_sets(fixed, 2, 4, seed=1) == draw_random_sets(fixed, 2, 4, seed=1)).all()
        with pytest.raises(ValueError, match="as many other heads as the 2 fixed ones, but got 3 heads in all"):
            draw_random_sets(((0, 0), (0, 1)), 1, 3)


class TestMeasures:
    grid = Grid(2, 3, 0.0, 0.0, 10.0, 10.0)
    everything = np.ones((2, 3))
    truth = (5.0, 0.0, 20.0, 10.0)  # half of cell (0, 0), all of (0, 1)
    coverage = np.array([[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])

    def test_mask_iou(self):
        masks = np.array([[[0, 1, 0], [0, 0, 0]], [[1, 1, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]], [[0] * 3] * 2], bool)
        iou = measure_masks(masks, self.coverage, self.everything, self.truth, self.grid)
        assert iou.tolist() == pytest.approx([1 / 1.5, 1.5 / 2, 0, 0])

    def test_pointing_is_by_the_centre_of_the_highest_cell(self):
        maps = np.zeros((4, 2, 3))
        maps[[0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 2, 1]] = 1
        assert measure_pointing(maps, self.truth, self.grid).tolist() == [1, 1, 0, 0]
        assert measure_pointing(maps, (5.1, 0, 20, 10), self.grid).tolist() == [0, 1, 0, 0]

    def test_enrichment(self):
        maps = np.array([np.full((2, 3), 0.2), [[0, 0.3, 0], [0.1, 0, 0]], np.zeros((2, 3))])
        enrichment = measure_enrichment(maps, self.coverage, self.everything)
        assert enrichment[:2].tolist() == pytest.approx([1, 0.75 / 0.25])
        assert np.isnan(enrichment[2])

    def test_enrichment_leaves_the_padding_out(self):
        visible = np.array([[1.0] * 3, [0.0] * 3])
        maps = np.array([[[0.1, 0.1, 0.1], [0.7, 0.9, 0.8]]])
        assert measure_enrichment(maps, self.coverage, visible) == pytest.approx([1])

    def test_auroc_against_counting_pairs(self):
        rng = np.random.default_rng(0)
        maps = rng.integers(0, 5, (6, 4, 5)) / 5
        coverage, visible = rng.random((4, 5)), np.ones((4, 5))
        visible[0] = 0
        coverage = coverage * visible
        measured = measure_auroc(maps, coverage, visible)
        positive = (coverage >= 0.5) & (visible > 0)
        for a_map, auroc in zip(maps, measured):
            pairs = a_map[positive][:, None] - a_map[~positive & (visible > 0)]
            assert auroc == pytest.approx((pairs > 0).mean() + 0.5 * (pairs == 0).mean())

    def test_auroc_of_an_object_smaller_than_a_cell(self):
        maps = np.array([[[0, 1.0, 0], [0, 0, 0]], [[1.0, 0, 0.1], [0, 0, 0]]])
        coverage = np.array([[0.02, 0.3, 0], [0, 0, 0]])
        assert measure_auroc(maps, coverage, self.everything).tolist() == pytest.approx([1, 1.5 / 5])

    def test_target_out_of_reach_is_nan(self):
        maps = np.ones((2, 2, 3))
        assert np.isnan(measure_auroc(maps, np.zeros((2, 3)), self.everything)).all()
        assert np.isnan(measure_auroc(maps, self.everything, self.everything)).all()
        assert np.isnan(measure_enrichment(maps, np.zeros((2, 3)), self.everything)).all()

    def test_rank_correlation(self):
        first = np.array([[0.1, 0.2], [0.3, 0.4]])
        assert rank_correlation(first, first**3)[0] == pytest.approx(1)
        assert rank_correlation(first, -first)[0] == pytest.approx(-1)
        assert all(np.isnan(rank_correlation(first, np.ones((2, 2)))))

    def test_sign_flips_against_all_flips(self):
        differences = np.array([0.3, 0.1, -0.05, 0.2, 0.4, 0.1, 0.02, 0.3])
        signs = np.array(np.meshgrid(*[[-1, 1]] * 8)).reshape(8, -1).T
        exact = (np.abs(signs @ differences) >= abs(differences.sum()) - 1e-12).mean()
        assert sign_flip_p_value(differences, np.random.default_rng(0)) == pytest.approx(exact, abs=0.01)
        assert sign_flip_p_value(np.zeros(5), np.random.default_rng(0)) == 1
        assert sign_flip_p_value(-differences, np.random.default_rng(0)) < 0.1  # two-sided


class TestAudit:
    grid = Grid(*GRID_SHAPE, 0.0, 0.0, 10.0, 10.0)

    def audit(self, samples, fixed):
        selection = select_dataset_heads(scores_for(samples, README_RULES), README_RULES)
        fixed_flat = [[layer * NUM_HEADS + head for layer, head in fixed]]
        sets = np.concatenate([fixed_flat, draw_random_sets(fixed, NUM_LAYERS, NUM_HEADS, draws=300)])
        measured = (
            audit_sample(
                sample.attention, self.grid, (160, 160), sample.truth_xyxy(self.grid), head_sets=sets,
                per_image_heads=[SINK_HEADS[0]], sigma=0.0, truncate=4.0, region="largest", relative_threshold=1.0,
            )
            for sample in samples
        )  # fmt: skip
        return summarize_audit(measured, frequency=selection.frequency, fixed=fixed)

    def test_localization_heads_look_at_the_target(self, planted_60):
        audit = self.audit(planted_60[:25], LOCALIZATION_HEADS)
        assert audit.looks_at_target
        assert audit.verdict == "These heads look at the target."
        assert audit.num_samples == 25
        assert audit.fixed_iou > 0.95
        assert [rival.name for rival in audit.rivals] == ["random heads", "all heads", "whole image"]
        assert all(rival.p_value < 0.01 and rival.mean_iou < audit.fixed_iou for rival in audit.rivals)
        assert audit.per_image.mean_iou < 0.5  # the sink head that stands for it
        assert audit.per_image.p_value < 0.01
        assert audit.spearman > 0.2
        assert audit.spearman_p < 0.05
        json.dumps(audit.to_dict(), allow_nan=False)

    def test_sink_heads_do_not(self, planted_60):
        audit = self.audit(planted_60[:25], SINK_HEADS)
        assert not audit.looks_at_target
        assert audit.verdict.startswith("These heads do not look at the target: their boxes (mean IoU ")
        assert "not clearly better than those of whole image" in audit.verdict
        assert "L3H0 does not prefer the target (enrichment" in audit.verdict

    def test_one_sink_among_three_is_named(self, planted_60):
        audit = self.audit(planted_60[:25], (*LOCALIZATION_HEADS[:2], SINK_HEADS[1]))
        assert "L4H3 does not prefer the target" in audit.verdict
        assert not audit.looks_at_target

    def test_rows_of_the_csv(self, planted_60):
        audit = self.audit(planted_60[:10], LOCALIZATION_HEADS)
        rows = audit.rows()
        assert list(rows[0]) == [
            "layer", "head", "fixed", "frequency", "mean_box_iou", "mean_mask_iou", "pointing_accuracy", "enrichment",
            "auroc", "rank",
        ]  # fmt: skip
        assert len(rows) == NUM_LAYERS * NUM_HEADS
        assert [row["rank"] for row in rows] == sorted(row["rank"] for row in rows)
        ious = [row["mean_box_iou"] for row in rows]
        assert ious == sorted(ious, reverse=True)
        assert sum(row["fixed"] for row in rows) == 3
        assert all(row["rank"] <= 7 for row in rows if row["fixed"])  # beside the early and the idle ones

    def test_verdict_by_hand_and_nan_left_out_of_the_means(self):
        def sample(fixed: float, draw: float, everything: float, auroc: float) -> SampleAudit:
            measure = np.full((1, 2), 0.5)
            return SampleAudit(
                measure, measure, measure, np.array([[2.0, np.nan]]), np.array([[auroc, 0.5]]), np.array([fixed, draw]),
                everything, 0.65, 0.1,
            )  # fmt: skip

        audit = summarize_audit(
            [sample(0.6, 0.2, 0.3, 0.9), sample(0.8, 0.4, 0.5, np.nan)],
            frequency=np.array([[0.9, 0.1]]), fixed=[(0, 0)],
        )  # fmt: skip
        assert audit.fixed_iou == pytest.approx(0.7)
        assert [rival.mean_iou for rival in audit.rivals] == pytest.approx([0.3, 0.4, 0.1])
        assert (audit.per_image.name, audit.per_image.mean_iou) == ("per-image heads", pytest.approx(0.65))
        assert audit.means["auroc"][0].tolist() == pytest.approx([0.9, 0.5])
        assert np.isnan(audit.means["enrichment"][0, 1])
        assert audit.rank.tolist() == [[1, 1]]
        # Two samples and one draw can prove nothing.
        assert not audit.looks_at_target
        assert audit.rivals[0].p_value == 1

    def test_no_sample_is_an_error(self):
        with pytest.raises(ValueError, match="at least one sample with a ground truth"):
            summarize_audit(iter([]), frequency=np.zeros((1, 1)), fixed=[(0, 0)])
