"""Scores against values that were worked out by hand and checked with pycocotools and torchmetrics."""

import numpy as np
import pytest

from lab.boxes import box_ious
from scores.box_measures import centres_inside, generalized_ious, hits, mean_accuracy, size_classes
from scores.mask_measures import MaskOverlap, gres_scores, lisa_scores, overlap_masks, summarize_masks
from scores.sets_of_boxes import score_set, summarize_sets

# Name, truth, prediction, IoU, generalized IoU (-1 where nothing is predicted), centre in the truth.
BOXES = [
    ("exact", [100, 100, 300, 250], [100, 100, 300, 250], 1.0, 1.0, True),  # noqa: E501
    ("half_exactly", [0, 0, 100, 100], [0, 0, 100, 50], 0.5, 0.5, True),  # noqa: E501
    ("third", [0, 0, 100, 100], [50, 0, 150, 100], 0.3333333333333333, 0.3333333333333333, True),  # noqa: E501
    ("disjoint", [0, 0, 10, 10], [20, 20, 30, 30], 0.0, -0.7777777777777778, False),  # noqa: E501
    ("touching", [0, 0, 10, 10], [10, 0, 20, 10], 0.0, 0.0, False),  # noqa: E501
    ("one_pixel", [0, 0, 10, 10], [9, 9, 19, 19], 0.005025125628140704, -0.4437283369757374, False),  # noqa: E501
    ("iou_over_giou_under", [0, 0, 100, 100], [17, 17, 117, 117], 0.5254366562428495, 0.4832129729935252, True),  # noqa: E501
    ("coco_remote", [332.89, 79.57, 371.54, 185.88], [333, 80, 372, 186], 0.9803830187414955, 0.9803323277743639, True),  # noqa: E501
    (
        "refcoco_ref0_0_1000",
        [103.93, 299.99, 238.15, 477.41],
        [103.761, 300.15999999999997, 238.266, 477.44],
        0.9967584530962506,
        0.9967564231742577,
        True,
    ),
    (
        "refcoco_ref0_inclusive",
        [103.93, 299.99, 238.15, 477.41],
        [103.93, 299.99, 237.15, 476.41],
        0.9869551956996965,
        0.9869551956996965,
        True,
    ),
    ("missing", [10, 10, 110, 110], None, 0.0, -1.0, False),  # noqa: E501
    ("xywh_read_as_xyxy", [150, 100, 350, 220], [150, 100, 200, 120], 0.041666666666666664, 0.041666666666666664, True),  # noqa: E501
    ("outside_image", [0, 0, 80, 60], [-20, -20, 80, 60], 0.6, 0.6, True),  # noqa: E501
    ("float_edge", [10.1, 20.2, 40.4, 60.6], [10.1, 20.2, 25.25, 60.6], 0.4999999999999999, 0.4999999999999997, True),  # noqa: E501
]
# Name, rectangles of the truth, of the prediction and of what is ignored on 12 x 10 pixels, intersection, union.
MASKS = [
    ("same", [[2, 2, 8, 8]], [[2, 2, 8, 8]], [], 36, 36),  # noqa: E501
    ("half", [[0, 0, 4, 4]], [[0, 0, 4, 2]], [], 8, 16),  # noqa: E501
    ("third", [[0, 0, 4, 4]], [[2, 0, 6, 4]], [], 8, 24),  # noqa: E501
    ("disjoint", [[0, 0, 3, 3]], [[6, 6, 9, 9]], [], 0, 18),  # noqa: E501
    ("two_parts", [[0, 0, 3, 3], [8, 0, 11, 3]], [[0, 0, 3, 3]], [], 9, 18),  # noqa: E501
    ("ring", [[1, 1, 9, 2], [1, 8, 9, 9], [1, 1, 2, 9], [8, 1, 9, 9]], [[1, 1, 9, 9]], [], 28, 64),  # noqa: E501
    ("p70", [[0, 0, 10, 10]], [[0, 0, 10, 7]], [], 70, 100),  # noqa: E501
    ("p90", [[0, 0, 10, 10]], [[0, 0, 10, 9]], [], 90, 100),  # noqa: E501
    ("one_pixel", [[5, 5, 6, 6]], [[5, 5, 7, 6]], [], 1, 2),  # noqa: E501
    ("empty_prediction", [[2, 2, 5, 5]], [], [], 0, 9),  # noqa: E501
    ("no_target_none_predicted", [], [], [], 0, 0),  # noqa: E501
    ("no_target_but_predicted", [], [[0, 0, 2, 2]], [], 0, 4),  # noqa: E501
    ("ignored_region", [[0, 0, 6, 6]], [[0, 0, 12, 6]], [[6, 0, 12, 6]], 36, 36),  # noqa: E501
]
NO_TARGET = {"no_target_none_predicted", "no_target_but_predicted"}
# Name, predictions, targets, F1.
SETS = [
    ("no_target_none", [], [], 1.0),
    ("no_target_one", [[0, 0, 100, 100]], [], 0.0),
    ("single_hit", [[0, 0, 100, 100]], [[0, 0, 100, 100]], 1.0),
    ("single_none", [], [[0, 0, 100, 100]], 0.0),
    ("both", [[0, 0, 100, 100], [200, 0, 300, 100]], [[200, 0, 300, 100], [0, 0, 100, 100]], 1.0),
    ("one_of_two", [[0, 0, 100, 100]], [[0, 0, 100, 100], [200, 0, 300, 100]], 0.6666666666666666),
    ("extra_box", [[0, 0, 100, 100], [200, 0, 300, 100]], [[0, 0, 100, 100]], 0.6666666666666666),
    ("two_on_one", [[0, 0, 100, 100], [5, 5, 105, 105]], [[0, 0, 100, 100], [200, 0, 300, 100]], 0.5),
    ("iou_hit_giou_miss", [[17, 17, 117, 117]], [[0, 0, 100, 100]], 0.0),
    (
        "three",
        [[0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100]],
        [[0, 0, 100, 100], [200, 0, 300, 100], [400, 0, 500, 100]],
        1.0,
    ),
]


def arrays():
    truth = np.array([case[1] for case in BOXES], dtype=float)
    predicted = np.array([case[2] or [np.nan] * 4 for case in BOXES], dtype=float)
    return predicted, truth


def painted(rectangles):
    mask = np.zeros((10, 12), dtype=bool)
    for x0, y0, x1, y1 in rectangles:
        mask[y0:y1, x0:x1] = True
    return mask


def overlaps(names=None, with_ignored=True):
    chosen = [case for case in MASKS if names is None or case[0] in names]
    return [
        overlap_masks(painted(predicted), painted(truth), painted(ignored) if ignored and with_ignored else None)
        for _, truth, predicted, ignored, *_ in chosen
    ]


def test_iou_of_every_golden_box():
    assert box_ious(*arrays()) == pytest.approx([case[3] for case in BOXES], abs=1e-12)


def test_generalized_iou_of_every_golden_box():
    assert generalized_ious(*arrays()) == pytest.approx([case[4] for case in BOXES], abs=1e-12)


def test_centre_of_every_golden_box():
    assert centres_inside(*arrays()).tolist() == [case[5] for case in BOXES]


def test_means_over_the_golden_boxes():
    ious = box_ious(*arrays())
    assert ious.mean() == pytest.approx(0.462111317814888, abs=1e-12)
    assert np.median(ious) == pytest.approx(0.49999999999999994, abs=1e-12)


@pytest.mark.parametrize(
    ("rule", "threshold", "share"),
    [
        ("ge", 0.25, 9 / 14),
        ("ge", 0.5, 0.5),
        ("gt", 0.5, 6 / 14),
        ("ge", 0.75, 4 / 14),
        ("gt", 0.75, 4 / 14),
        ("ge", 0.9, 4 / 14),
    ],
    ids=["ge-25", "ge-50", "gt-50", "ge-75", "gt-75", "ge-90"],
)
def test_shares_of_hits(rule, threshold, share):
    assert hits(box_ious(*arrays()), threshold, rule).mean() == pytest.approx(share, abs=1e-12)


def test_the_peers_rules_differ_in_one_row_each():
    ious, gious = box_ious(*arrays()), generalized_ious(*arrays())
    at_least, more, generalized = hits(ious, 0.5, "ge"), hits(ious, 0.5, "gt"), hits(gious, 0.5, "ge")
    names = np.array([case[0] for case in BOXES])
    assert names[at_least != more].tolist() == ["half_exactly"]
    assert names[at_least != generalized].tolist() == ["iou_over_giou_under"]
    assert generalized.mean() == pytest.approx(6 / 14)


def test_mean_accuracy_over_thresholds_as_ref_l4_counts_it():
    assert mean_accuracy(box_ious(*arrays()), "gt").mean() == pytest.approx(0.3071428571428571, abs=1e-12)


def test_centre_accuracy_as_lmms_eval_counts_it():
    assert centres_inside(*arrays()).mean() == pytest.approx(0.7142857142857143, abs=1e-12)


def test_an_unknown_rule_is_refused():
    with pytest.raises(ValueError, match="Expected --rule to be ge"):
        hits(np.zeros(1), 0.5, "above")


@pytest.mark.parametrize(
    ("side", "coco", "ref_l4"),
    [
        (31.9, "small", "small"),
        (32, "medium", "small"),
        (96, "large", "small"),
        (128, "large", "medium"),
        (256, "large", "medium"),
        (256.1, "large", "large"),
    ],
)
def test_size_classes(side, coco, ref_l4):
    box = np.array([[10.0, 10.0, 10 + side, 10 + side]])
    assert (size_classes(box, "coco"), size_classes(box, "ref-l4")) == ([coco], [ref_l4])
    with pytest.raises(ValueError, match="Expected --sizes"):
        size_classes(box, "cocoa")


@pytest.mark.parametrize(("name", "predicted", "truth", "f1"), SETS, ids=[case[0] for case in SETS])
def test_one_set_of_boxes(name, predicted, truth, f1):
    assert score_set(predicted, truth).f1 == pytest.approx(f1, abs=1e-12)


def test_all_sets_of_boxes():
    found = summarize_sets([score_set(predicted, truth) for _, predicted, truth, _ in SETS])
    assert found == {"Pr@(F1=1)": 0.4, "N-acc": 0.5, "T-acc": 0.875}


def test_iou_instead_of_generalized_iou_finds_one_more():
    found = [score_set(predicted, truth, overlap="iou").f1 == 1 for _, predicted, truth, _ in SETS]
    assert sum(found) == 5


@pytest.mark.parametrize("case", MASKS, ids=[case[0] for case in MASKS])
def test_one_mask(case):
    name, truth, predicted, ignored, intersection, union = case
    found = overlaps({name})[0]
    assert (found.intersection, found.union) == (intersection, union)


def test_masks_of_referring_segmentation():
    names = {case[0] for case in MASKS} - NO_TARGET - {"ignored_region"}
    found = summarize_masks(overlaps(names))
    expected = {"cIoU": 0.6459948320413437, "mIoU": 0.48708333333333337}
    precision = {"P@0.5": 0.6, "P@0.6": 0.3, "P@0.7": 0.3, "P@0.8": 0.2, "P@0.9": 0.2}
    assert found == pytest.approx({**expected, **precision}, abs=1e-12)


def test_masks_as_lisa_counts_them():
    found = lisa_scores(overlaps())
    assert found == pytest.approx({"mIoU (LISA's gIoU)": 0.5285253323280634, "cIoU": 0.6697892271661195}, abs=1e-9)


def test_masks_as_gres_counts_them():
    found = gres_scores(overlaps({case[0] for case in MASKS} - {"ignored_region"}))
    expected = {"mIoU (GRES's gIoU)": 0.48923611111111115, "cIoU": 0.639386189258312, "T-acc": 0.9, "N-acc": 0.5}
    assert found == pytest.approx({**expected, "Pr@0.7": 0.3, "Pr@0.8": 0.2, "Pr@0.9": 0.2}, abs=1e-12)


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(ValueError, match="to have the size of the true one"):
        overlap_masks(np.zeros((2, 3), bool), np.zeros((3, 2), bool))


def test_an_overlap_of_nothing_is_no_division():
    assert MaskOverlap(0, 0, 0, 0).iou == 0.0
