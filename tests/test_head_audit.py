"""The audit of heads: measures of one sample, rivals, phrase control, verdict, ablation, heads chosen with labels."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from planted import (
    GRID_SHAPE,
    LOCALIZATION_HEADS,
    NUM_HEADS,
    NUM_LAYERS,
    SINK_HEADS,
    normalize,
    plant_sample,
    planted_scores,
    sink_map,
    target_map,
)

from analyze import SelectionRules, score_heads, select_dataset_heads
from bbox import localize, localize_heads
from lab.boxes import box_iou, cell_coverage
from lab.heads.ablation import BOTH, ENTROPY_ONLY, SUM_ONLY, ablate
from lab.heads.audit import HeadAudit, summarize_audit
from lab.heads.head_scores import DatasetScores
from lab.heads.head_sums import stored_sums, sum_precision, sums_record
from lab.heads.heads_file import read_heads_file, write_heads_file
from lab.heads.label_search import best_set, search_sets
from lab.heads.labelled import LabelledRows, hash_attention, in_sample_warning, labelled_heads_file, split_of
from lab.heads.measures import (
    Targets,
    attention_shares,
    enrichment_of,
    mask_areas_of,
    measure_auroc,
    measure_pointing,
    measure_sample,
    ratio,
)
from lab.heads.verdict import DO_NOT, LOOK, TOO_FEW, Condition, give_verdict
from lab.records import Grid
from lab.statistics.bootstrap import Interval
from lab.statistics.head_sets import HeadSets, comparison_sets

GRID = Grid(*GRID_SHAPE, 0.0, -20.0, 10.0, 10.0)
SIZE = (160, 120)
RULE = {"sigma": 0.0, "truncate": 4.0, "region": "largest", "relative_threshold": 1.0}


def flat(heads) -> list[int]:
    return [layer * NUM_HEADS + head for layer, head in heads]


def in_image(sample, grid: Grid = GRID, size=SIZE) -> tuple[float, float, float, float]:
    x0, y0, x1, y1 = sample.truth_xyxy(grid)
    return x0, max(y0, 0.0), x1, min(y1, float(size[1]))


def measure(sample, head_sets, per_image_heads=(), targets=None, attention=None):
    attention = sample.attention if attention is None else attention
    found = localize_heads(
        attention, GRID, SIZE, head_sets=np.array(head_sets), per_image_heads=per_image_heads, **RULE
    )
    return measure_sample(attention, GRID, SIZE, targets or Targets("p", (in_image(sample),), 0), found)


def inside_sample():
    samples = (plant_sample(seed, 0.1) for seed in range(100))
    inside = (sample for sample in samples if sample.target[0] >= 2 and sample.target[2] <= 14)
    return next(sample for sample in inside if not (sink_map() * target_map(sample.target)).any())


class TestMeasures:
    grid = Grid(2, 3, 0.0, 0.0, 10.0, 10.0)
    everything = np.ones((2, 3))
    truth = (5.0, 0.0, 20.0, 10.0)  # half of cell (0, 0), all of (0, 1)
    coverage = np.array([[0.5, 1.0, 0.0], [0.0, 0.0, 0.0]])

    def enrichment(self, maps, coverage, visible):
        return enrichment_of(*attention_shares(maps, coverage[None], visible))[0]

    def test_mask_iou(self):
        masks = np.array([[[0, 1, 0], [0, 0, 0]], [[1, 1, 0], [0, 0, 0]], [[0, 0, 0], [1, 0, 0]], [[0] * 3] * 2], bool)
        iou = ratio(*mask_areas_of(masks, self.coverage, self.everything, 1.5))
        assert iou.tolist() == pytest.approx([1 / 1.5, 1.5 / 2, 0, 0])

    def test_pointing_is_by_the_centre_of_the_highest_cell(self):
        maps = np.zeros((4, 2, 3))
        maps[[0, 1, 2, 3], [0, 0, 0, 1], [0, 1, 2, 1]] = 1
        assert measure_pointing(maps, self.truth, self.grid).tolist() == [1, 1, 0, 0]
        assert measure_pointing(maps, (5.1, 0, 20, 10), self.grid).tolist() == [0, 1, 0, 0]

    def test_enrichment_and_shares(self):
        maps = np.array([np.full((2, 3), 0.2), [[0, 0.3, 0], [0.1, 0, 0]], np.zeros((2, 3))])
        assert self.enrichment(maps, self.coverage, self.everything).tolist() == pytest.approx([1, 0.75 / 0.25, 0])
        shares, area = attention_shares(maps, self.coverage[None], self.everything)
        assert shares[0].tolist() == pytest.approx([0.25, 0.75, 0])
        assert area.tolist() == [0.25]

    def test_enrichment_leaves_the_padding_out(self):
        visible = np.array([[1.0] * 3, [0.0] * 3])
        maps = np.array([[[0.1, 0.1, 0.1], [0.7, 0.9, 0.8]]])
        assert self.enrichment(maps, self.coverage, visible) == pytest.approx([1])

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
        assert np.isnan(self.enrichment(maps, np.zeros((2, 3)), self.everything)).all()


class TestSample:
    def test_localization_heads_fit_and_sinks_do_not(self):
        measured = measure(inside_sample(), [[0, 1, 2]])
        for head in flat(LOCALIZATION_HEADS):
            assert measured.iou_on[0, head] == pytest.approx(1)
            assert measured.mask_iou_box[head] == pytest.approx(1)
            assert measured.pointing_on[0, head] == measured.auroc[head] == 1
            assert measured.enrichment_on[0, head] > 4
        for head in flat(SINK_HEADS):
            assert measured.iou_on[0, head] < 0.2
            assert measured.pointing_on[0, head] == 0
            assert measured.enrichment_on[0, head] < 1

    def test_sets_equal_localize_and_the_last_rivals_too(self):
        sample = inside_sample()
        members, sinks = flat(LOCALIZATION_HEADS), [*flat(SINK_HEADS), 11]
        measured = measure(sample, [members, sinks], SINK_HEADS[:2])
        maps = sample.attention.reshape(-1, *GRID_SHAPE)
        head_sets = (members, sinks, range(len(maps)), sinks[:2])
        for indices, iou in zip(head_sets, (*measured.set_ious, measured.all_heads_iou, measured.per_image_iou)):
            box = localize(maps[list(indices)], GRID, SIZE, **RULE).box_xyxy
            assert iou == pytest.approx(box_iou(box, in_image(sample)))
        x0, y0, x1, y1 = in_image(sample)
        assert measured.image_iou == pytest.approx((x1 - x0) * (y1 - y0) / (160 * 120))
        assert measured.ceiling_iou == pytest.approx(1)
        assert measure(sample, [members]).per_image_iou == 0  # no head passed, so that there is no box

    def test_every_target_of_the_picture(self):
        sample = inside_sample()
        other = (0.0, 0.0, 20.0, 20.0)
        measured = measure(sample, [flat(LOCALIZATION_HEADS)], targets=Targets("p", (other, in_image(sample)), 1))
        alone = measure(sample, [flat(LOCALIZATION_HEADS)])
        np.testing.assert_allclose(measured.iou_on[1], alone.iou_on[0])
        np.testing.assert_allclose(measured.share, alone.share)
        elsewhere = measure(sample, [flat(LOCALIZATION_HEADS)], targets=Targets("p", (other,), 0))
        np.testing.assert_allclose(measured.enrichment_on[0], elsewhere.enrichment_on[0])
        assert measured.fixed_iou_on.tolist() == pytest.approx([0, 1])

    def test_a_head_that_does_not_look_misses_by_every_measure(self):
        sample = inside_sample()
        attention = sample.attention.copy()
        attention[0, 3] = 0
        attention[0, 4] = 0
        attention[0, 4, :16] = 0.01  # the first two rows of cells lie in the padding
        # A target in the top left corner, where the highest of equal cells would be found.
        measured = measure(sample, [[0]], targets=Targets("p", ((0.0, 0.0, 40.0, 40.0),), 0), attention=attention)
        for head in (3, 4):
            assert not measured.looks[head]
            assert measured.iou_on[0, head] == measured.enrichment_on[0, head] == measured.pointing_on[0, head] == 0
            assert (measured.auroc[head], measured.share[head], measured.mask_iou_box[head]) == (0.5, 0, 0)
        # On a grid without padding the first of all cells lies in the target, and would count as a hit.
        found = localize_heads(attention, SQUARE, (160, 160), head_sets=np.array([[0]]), per_image_heads=(), **RULE)
        corner = Targets("p", ((0.0, 0.0, 40.0, 40.0),), 0)
        assert measure_sample(attention, SQUARE, (160, 160), corner, found).pointing_on[0, 3] == 0

    def test_masks_are_compared_with_the_object_where_it_is_known(self):
        sample = inside_sample()
        x0, y0, x1, y1 = (int(edge) for edge in in_image(sample))
        pixels = np.zeros((SIZE[1], SIZE[0]), bool)
        pixels[y0:y1, x0 : (x0 + x1) // 2] = True  # the left half of the box
        members = flat(LOCALIZATION_HEADS)
        measured = measure(sample, [members], targets=Targets("p", (in_image(sample),), 0, pixels))
        assert measured.mask_iou_object[members[0]] == pytest.approx(0.5)
        assert measured.mask_iou_box[members[0]] == pytest.approx(1)
        shared, union = measured.fixed_mask_areas
        assert shared / union == pytest.approx(0.5)
        assert np.isnan(measure(sample, [members]).mask_iou_object).all()


# ---------------------------------------------------------------------------------------------------------------------
# Over a data set: pictures with two targets each
# ---------------------------------------------------------------------------------------------------------------------

SQUARE = Grid(*GRID_SHAPE, 0.0, 0.0, 10.0, 10.0)
RULES = SelectionRules()


def audit_of(num_pictures: int, fixed, *, copies: int = 1, rows_a_picture: int = 2, **options) -> HeadAudit:
    """Audit planted heads on pictures with as many targets as rows; copies are rows under new ids."""
    samples, pictures = [], []
    for number in range(num_pictures * rows_a_picture):
        samples += [plant_sample(number, 0.1)] * copies
        pictures += [number // rows_a_picture] * copies
    selection = select_dataset_heads(planted_scores(samples), RULES)
    boxes: dict[int, list] = {}
    for picture, sample in zip(pictures, samples):
        if sample.truth_xyxy(SQUARE) not in boxes.setdefault(picture, []):
            boxes[picture].append(sample.truth_xyxy(SQUARE))
    sets = comparison_sets(fixed, NUM_LAYERS, NUM_HEADS)
    members = np.concatenate([sets.members[:1], sets.members[1::3]])
    sets = HeadSets(members, len(members), True)
    measured = []
    for picture, sample in zip(pictures, samples):
        found = localize_heads(
            sample.attention, SQUARE, (160, 160), head_sets=members, per_image_heads=LOCALIZATION_HEADS, **RULE
        )
        own = boxes[picture].index(sample.truth_xyxy(SQUARE))
        targets = Targets(str(picture), tuple(boxes[picture]), own)
        measured.append(measure_sample(sample.attention, SQUARE, (160, 160), targets, found))
    given = {
        "frequency": selection.frequency, "chosen": selection.chosen, "num_files": len(samples), "fixed": fixed,
        "sets": sets, **options,
    }  # fmt: skip
    return summarize_audit(measured, **given)


@pytest.fixture(scope="module")
def good() -> HeadAudit:
    return audit_of(12, LOCALIZATION_HEADS)


class TestAudit:
    def test_localization_heads_look_at_the_target(self, good: HeadAudit):
        assert good.verdict.outcome == LOOK
        assert good.looks_at_target is True
        assert good.verdict.sentence() == "These heads look at the target (24 rows of 12 pictures)."
        assert good.scores.iou.estimate > 0.95
        assert [rival.name for rival in good.rivals] == [
            "random heads of the same layers", "all heads", "per image heads", "whole image",
        ]  # fmt: skip
        # The idle heads of layers 4 and 5 look at the target as well: equal sets make these no worse.
        assert good.rivals[0].p_value.num_reached > 1
        assert good.rivals[1].p_value.value < 0.01
        # The family holds six tests: four rivals, the control, the correlation.
        assert good.rivals[1].p_holm >= good.rivals[1].p_value.value
        assert good.rivals[2].p_value.value == good.rivals[2].p_holm == 1  # the very same heads
        json.dumps(good.to_dict(), allow_nan=False)

    def test_own_target_against_the_other_of_the_same_picture(self, good: HeadAudit):
        iou, acc = good.control.fixed
        assert (iou.measure, acc.measure, iou.heads) == ("IoU", "Acc@0.5", "fixed heads")
        assert iou.own.estimate == pytest.approx(good.scores.iou.estimate)
        assert iou.other.estimate < 0.3
        assert iou.delta.estimate == pytest.approx(iou.own.estimate - iou.other.estimate)
        assert iou.p_value.value < 0.01
        assert iou.own_above > 0.9
        assert [control.measure for control in good.control.by_head[0]] == ["IoU", "enrichment", "pointing"]
        assert good.control.num_rows == 24
        follows = [good.follows_phrase_q[head] for head in LOCALIZATION_HEADS]
        assert max(follows) < 0.01 < min(good.follows_phrase_q[head] for head in SINK_HEADS)

    def test_sink_heads_do_not_look(self):
        audit = audit_of(12, SINK_HEADS)
        assert audit.verdict.outcome == DO_NOT
        assert audit.looks_at_target is False
        sentence = audit.verdict.sentence()
        assert sentence.startswith("These heads do not look at the target (24 rows of 12 pictures): not better than ")
        failed = [c.name for c in audit.verdict.conditions if c.outcome == "failed"]
        assert "L3H0 better on the own target than on the picture's other targets" in failed
        assert sentence.endswith(f"; and {len(failed) - 3} more.")

    def test_one_sink_among_three_is_named(self):
        verdict = audit_of(12, (*LOCALIZATION_HEADS[:2], SINK_HEADS[1])).verdict
        assert verdict.outcome == DO_NOT
        assert "L4H3 better on the own target" in verdict.sentence()
        assert "L3H5 better on the own target" not in verdict.sentence()

    @pytest.mark.parametrize("rows_a_picture", [2, 3], ids=["two_rows", "three_rows"])
    def test_few_perfect_rows_are_too_few_to_tell(self, rows_a_picture):
        verdict = audit_of(3, LOCALIZATION_HEADS, rows_a_picture=rows_a_picture).verdict
        assert verdict.outcome == TOO_FEW
        assert verdict.looks_at_target is None
        assert "The signs of 3 pictures cannot give a p-value below 0.25." in verdict.sentence()
        assert (verdict.pictures_needed, verdict.rows_needed) == (8, 8 * rows_a_picture)
        assert f"About {8 * rows_a_picture} rows of 8 pictures would do." in verdict.sentence()

    def test_copied_rows_change_neither_p_nor_verdict(self):
        alone, copied = audit_of(3, LOCALIZATION_HEADS), audit_of(3, LOCALIZATION_HEADS, copies=8)
        assert copied.num_samples == 8 * alone.num_samples
        assert [rival.p_value.value for rival in copied.rivals] == [rival.p_value.value for rival in alone.rivals]
        assert copied.rival("whole image").p_value.value == 0.25
        assert copied.verdict.outcome == alone.verdict.outcome == TOO_FEW
        for one, two in zip(copied.rivals, alone.rivals):
            assert one.difference.iou.estimate == pytest.approx(two.difference.iou.estimate)
            assert math.isnan(one.difference.iou.low)

    def test_without_two_targets_in_a_picture_following_the_phrase_cannot_be_told(self):
        audit = audit_of(20, LOCALIZATION_HEADS, rows_a_picture=1)
        assert audit.verdict.outcome == TOO_FEW
        assert "It takes pictures with phrases about two targets or more." in audit.verdict.sentence()
        assert audit.control.fixed == ()
        assert np.isnan(audit.follows_phrase_q).all()
        json.dumps(audit.to_dict(), allow_nan=False)

    def test_rows_of_the_csv(self, good: HeadAudit):
        rows = good.rows()
        assert len(rows) == NUM_LAYERS * NUM_HEADS
        assert list(rows[0])[:6] == ["layer", "head", "name", "fixed", "frequency", "num_files"]
        assert {
            "mean_box_iou", "mean_mask_iou_box", "mean_mask_iou_object", "mean_pointing", "mean_attention_on_target",
            "mean_enrichment", "mean_enrichment_of_means", "mean_auroc", "num_rows", "num_pictures",
            "num_rows_in_reach", "num_rows_looking", "own_box_iou", "other_box_iou", "own_acc50", "other_acc50",
            "own_enrichment", "other_enrichment", "own_pointing", "other_pointing", "num_rows_control",
            "follows_phrase_q", "rank",
        } <= set(rows[0])  # fmt: skip
        ious = [row["mean_box_iou"] for row in rows]
        assert ious == sorted(ious, reverse=True)
        assert [row["rank"] for row in rows] == sorted(row["rank"] for row in rows)
        assert sum(row["fixed"] for row in rows) == 3
        assert {row["num_rows"] for row in rows} == {row["num_rows_looking"] for row in rows} == {24}
        assert all(row["mean_mask_iou_object"] is None for row in rows)  # no masks of objects here

    def test_enrichment_of_means_is_a_ratio_of_sums(self):
        audit = audit_of(4, LOCALIZATION_HEADS)
        row = next(row for row in audit.rows() if row["name"] == "L3H5")
        assert row["mean_attention_on_target"] / row["mean_enrichment_of_means"] == pytest.approx(
            audit.summary["mean_area_share"]
        )
        assert row["mean_enrichment"] != pytest.approx(row["mean_enrichment_of_means"], rel=0.01)

    def test_figure_values_hold_an_interval_and_n_for_every_bar(self, good: HeadAudit):
        values = good.figure_values()
        assert [bar["name"] for bar in values["bars"]][:2] == ["fixed heads", "random heads of the same layers"]
        assert all(bar["n"] == 24 and bar["pictures"] == 12 and bar["low"] is not None for bar in values["bars"])
        assert {entry["heads"] for entry in values["control"]} == {"fixed heads", "L3H5", "L4H0", "L5H2"}

    def test_masks_of_objects_in_the_summary(self, good: HeadAudit):
        assert good.to_dict()["fixed_mask_iou_object"] is None
        assert good.to_dict()["num_rows_with_mask"] == 0
        assert good.summary["fixed_mask_iou_box"] > 0.9

    def test_no_sample_is_an_error(self):
        with pytest.raises(ValueError, match="at least one sample with a ground truth"):
            summarize_audit(
                iter([]), frequency=np.zeros((1, 1)), chosen=np.zeros((0, 1), int), num_files=0, fixed=[(0, 0)],
                sets=HeadSets(np.array([[0]]), 1, True),
            )  # fmt: skip


class TestVerdict:
    def interval(self, estimate, half, pictures=100) -> Interval:
        return Interval(estimate, estimate - half, estimate + half, 0.95, 3 * pictures, pictures, "percentile")

    @pytest.mark.parametrize(
        ("estimate", "half", "outcome"),
        [
            (0.106, 0.017, "met"),
            (0.04, 0.005, "failed"),
            (0.05, 0.0, "failed"),
            (0.06, 0.02, "undecided"),
            (0.01, 0.005, "failed"),
        ],
        ids=["above", "below", "on_the_margin", "across", "significant_but_small"],
    )
    def test_decided_by_the_interval_against_the_margin(self, estimate, half, outcome):
        assert Condition("x", self.interval(estimate, half), 0.05).outcome == outcome

    def test_seven_pictures_decide_nothing(self):
        assert Condition("x", self.interval(0.6, 0.1, 7), 0.05).outcome == "undecided"
        assert Condition("x", self.interval(-0.6, 0.1, 7), 0.05).outcome == "undecided"
        assert Condition("x", self.interval(0.6, 0.1, 8), 0.05).outcome == "met"

    def test_pictures_that_would_do(self):
        # The interval must be narrower by 4: sixteen times the pictures.
        condition = Condition("x", self.interval(0.06, 0.04), 0.05)
        assert condition.pictures_needed == 1600
        verdict = give_verdict([condition, Condition("y", self.interval(0.6, 0.1), 0.05)], 300, 100)
        assert (verdict.pictures_needed, verdict.rows_needed) == (1600, 4800)
        assert verdict.sentence() == (
            "Too few rows to tell (300 rows of 100 pictures): open is x: 0.060 [0.020, 0.100], margin 0.05. "
            "About 4800 rows of 1600 pictures would do."
        )
        on_margin = give_verdict([Condition("x", self.interval(0.05, 0.01), 0.05)], 300, 100)
        assert on_margin.rows_needed is None
        assert on_margin.sentence().endswith("A difference lies on its margin: no number of rows is sure to do.")

    def test_all_must_be_met_and_one_failure_decides(self):
        met, failed = Condition("x", self.interval(0.6, 0.1), 0.05), Condition("y", self.interval(0.0, 0.01), 0.05)
        undecided = Condition("z", self.interval(0.05, 0.1), 0.05)
        assert give_verdict([met, met], 9, 9).outcome == LOOK
        assert give_verdict([met, undecided], 9, 9).outcome == TOO_FEW
        assert give_verdict([met, undecided, failed], 9, 9).outcome == DO_NOT
        assert "not y: 0.000 [-0.010, 0.010], margin 0.05." in give_verdict([met, failed], 9, 9).sentence()

    def test_record(self):
        record = give_verdict([Condition("x", None, 0.05)], 8, 3).to_dict()
        assert (record["outcome"], record["looks_at_target"], record["smallest_p_value"]) == (TOO_FEW, None, 0.25)
        assert record["conditions"][0]["difference"] is None


class TestAblation:
    def scores(self, sums, entropies) -> DatasetScores:
        sums = np.array(sums, dtype=np.float32)
        return DatasetScores(sums, np.array(entropies, dtype=np.float32), np.zeros(sums.shape, bool))

    def test_by_hand(self):
        rules = SelectionRules(top_k=2, min_keep=0, skip_layers=0, threshold_value=0.5)
        scores = self.scores([[[0.9, 0.8, 0.7, 0.6, 0.1]]], [[[0.5, 0.0, 0.0, 0.0, 0.0]]])
        both, by_sum, by_entropy = ablate(scores, select_dataset_heads(scores, rules))
        assert [variant.name for variant in (both, by_sum, by_entropy)] == [BOTH, SUM_ONLY, ENTROPY_ONLY]
        assert both.frequency[0].tolist() == [0, 1, 1, 0, 0]
        assert by_sum.frequency[0].tolist() == [1, 1, 0, 0, 0]
        # Three heads share two places; the last does not pass the threshold.
        assert by_entropy.frequency[0].tolist() == pytest.approx([0, 2 / 3, 2 / 3, 2 / 3, 0])
        assert by_sum.heads == ((0, 1), (0, 0))  # as often chosen; the lower entropy goes first

    def test_places_add_up_and_filters_hold(self):
        samples = [plant_sample(seed, 0.1) for seed in range(8)]
        scores = planted_scores(samples)
        for rules in (RULES, replace(RULES, threshold_scope="dataset", lowest_n=6, bottom_row_filter=False)):
            selection = select_dataset_heads(scores, rules)
            variants = ablate(scores, selection)
            for variant in variants:
                assert (variant.weights.sum(axis=(1, 2)) <= rules.num_counted + 1e-9).all()
                assert (variant.weights[:, :2] == 0).all()
            np.testing.assert_allclose(variants[0].frequency, selection.frequency)
            np.testing.assert_allclose(variants[1].weights.sum(), variants[0].weights.sum())


class TestStoredSums:
    def test_sums_from_before_rounding_decide_where_entropies_tie(self):
        # Two heads whose sums differ by less than float16 keeps.
        attention = np.zeros((1, 2, 16), np.float32)
        attention[0, :, 5] = (0.8, 0.80001)
        rounded = attention.astype(np.float16).astype(np.float32)
        assert rounded[0, 0, 5] == rounded[0, 1, 5]
        meta = {"attn_dtype": "float16", "attn_sums": sums_record(attention)}
        table = score_heads(rounded, (4, 4), sums=stored_sums(meta, (1, 2)))
        assert table.attn_sum[0, 1] > table.attn_sum[0, 0]
        assert score_heads(rounded, (4, 4)).attn_sum[0, 1] == score_heads(rounded, (4, 4)).attn_sum[0, 0]
        assert (sum_precision(meta), sum_precision({"attn_dtype": "float16"})) == (2.0**-24, 2.0**-11)
        assert sum_precision({"attn_dtype": "torch.bfloat16"}) == 2.0**-8

    def test_files_without_them_give_none(self):
        assert stored_sums({}, (1, 2)) is None

    @pytest.mark.parametrize(
        "record", [[[0.1]], "abc", [[0.1, -0.2]], [[0.1, 7.0]], [[0.1, math.nan]], [[0.1, None]], [[0.1], [0.2, 0.3]]],
        ids=["few", "text", "negative", "above_one", "nan", "none", "ragged"],
    )  # fmt: skip
    def test_sums_that_cannot_be_are_refused(self, record):
        with pytest.raises(ValueError, match="attn_sums of the metadata to hold a sum from 0 to 1 for each of 1"):
            stored_sums({"attn_sums": record}, (1, 2))

    def test_relative_threshold_means_the_same_on_another_grid(self):
        rng = np.random.default_rng(0)
        coarse = normalize(rng.gamma(0.5, 1.0, (1, 3, 8, 8)))
        fine = np.kron(coarse, np.ones((1, 1, 2, 2))) / 4
        options = {"binarize_threshold": 0.3, "threshold_scale": "relative"}
        tables = [score_heads(m.reshape(1, 3, -1), m.shape[2:], **options) for m in (coarse, fine)]
        np.testing.assert_allclose(tables[0].spatial_entropy, tables[1].spatial_entropy, rtol=1e-5)
        assert (tables[0].num_components > 1).any()
        absolute = [score_heads(m.reshape(1, 3, -1), m.shape[2:], binarize_threshold=0.005) for m in (coarse, fine)]
        assert (absolute[0].num_components != absolute[1].num_components).any()
        with pytest.raises(ValueError, match="threshold_scale to be one of absolute, relative, but got 'x'"):
            score_heads(coarse.reshape(1, 3, -1), (8, 8), threshold_scale="x")


class TestLabels:
    gains = np.array([0.5, 0.45, 0.1, 0.05])

    def score(self, sets: np.ndarray) -> np.ndarray:
        """The single best head is 0, but 1 and 2 go best together."""
        together = ((sets == 1).any(axis=1) & (sets == 2).any(axis=1)) * 0.6
        return self.gains[sets].mean(axis=1) + together

    def test_greedy_and_exhaustive(self):
        greedy = search_sets(self.score, 4, largest=3)
        assert [found.members for found in greedy[:2]] == [(0,), (0, 1)]
        assert greedy[2].members == (0, 1, 2)
        both = search_sets(self.score, 4, largest=3, exhaustive=True)
        assert [found.search for found in both] == ["greedy"] * 3 + ["exhaustive"] * 3
        assert set(both[4].members) == {1, 2}
        assert best_set(greedy).members == (0, 1, 2)
        assert set(best_set(both).members) == {0, 1, 2} or set(best_set(both).members) == {1, 2}

    def rows(self, **changes) -> LabelledRows:
        given = {
            "truth_file": "v.jsonl", "truth_sha256": "aa", "attention_dirs": ("out",), "attention_sha256": "bb",
            "split": "validation", "num_rows": 60, "num_pictures": 20,
        }  # fmt: skip
        return LabelledRows(**{**given, **changes})

    def heads_file(self):
        found = search_sets(self.score, 4, largest=3)
        heads = [(1, 7), (1, 12), (3, 10), (0, 2)]
        return labelled_heads_file(
            self.rows(), found, heads, top_k=3, shape=(4, 16), model_name="m", template="referseg"
        )

    def test_the_file_says_how_on_what_and_which_split(self, tmp_path):
        write_heads_file(tmp_path / "labelled.yaml", self.heads_file())
        read = read_heads_file(tmp_path / "labelled.yaml")
        assert read.first(3) == ((1, 7), (1, 12), (3, 10))
        assert all(head.frequency is None for head in read.heads)
        assert (read.inputs_sha256, read.num_samples) == ("bb", 60)
        assert read.rules["chosen_with"] == "ground truth"
        assert (read.rules["split"], read.rules["truth_sha256"]) == ("validation", "aa")
        assert read.rules["sets"][1] == {
            "size": 2, "heads": ["L1H7", "L1H12"], "mean_iou_in_sample": pytest.approx(0.475), "search": "greedy",
        }  # fmt: skip
        assert "bound" not in read.source

    def test_use_on_the_same_rows_is_warned_of(self):
        made = self.heads_file()
        assert "on the same attention files" in in_sample_warning(made, self.rows(truth_sha256="zz"))
        assert "on the same ground truth" in in_sample_warning(made, self.rows(attention_sha256="zz"))
        assert in_sample_warning(made, self.rows(truth_sha256="zz", attention_sha256="zz")) is None
        assert in_sample_warning(None, self.rows()) is None
        assert in_sample_warning(replace(made, rules={"top_k": 3}), self.rows()) is None

    def test_digest_and_split(self):
        sums = np.arange(6, dtype=np.float32).reshape(2, 1, 3)
        assert hash_attention(["a", "b"], sums) == hash_attention(["b", "a"], sums[::-1])
        assert hash_attention(["a", "b"], sums) != hash_attention(["a", "b"], sums + 1)
        assert split_of([{"split": "val"}, {"split": "test"}, {}]) == "test,val"
        assert split_of([{}]) == ""


def test_coverage_and_planted_targets_agree():
    sample = inside_sample()
    assert (cell_coverage(sample.truth_xyxy(GRID), GRID) == target_map(sample.target)).all()
