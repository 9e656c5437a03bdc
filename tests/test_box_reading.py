"""The way a file's boxes are read is decided from what is impossible, and refused where it cannot be told."""

import math

import numpy as np
import pytest

from lab.datasets.box_reading import BOX_FORMATS, READINGS, box_numbers, read_boxes, row_size

SIZE = (640.0, 480.0)


def photo_boxes(count, seed=0):
    """Boxes as on photographs `[n, 4]` xyxy in whole pixels of a 640 x 480 picture."""
    rng = np.random.default_rng(seed)
    width, height = rng.integers(40, 300, count), rng.integers(40, 300, count)
    x0 = (rng.random(count) * (640 - width)).astype(int)
    y0 = (rng.random(count) * (480 - height)).astype(int)
    return np.stack([x0, y0, x0 + width, y0 + height], axis=1).astype(float)


def written_as(boxes_xyxy, name):
    """The same boxes as a file would hold them."""
    reading = READINGS[name]
    full = {"pixels": None, "unit": 1.0, "thousand": 1000.0}[reading.scale]
    boxes = boxes_xyxy.copy() if full is None else boxes_xyxy / np.tile(SIZE, 2) * full
    if reading.scale == "thousand":
        boxes = boxes.round()
    if reading.corners == "xywh":
        boxes[:, 2:] -= boxes[:, :2]
    return boxes


def read(numbers, field="bbox", size=SIZE, **options):
    numbers = np.array(numbers, dtype=float)
    return read_boxes(numbers, np.tile(size, (len(numbers), 1)), field=field, where="rows.jsonl", **options)


@pytest.mark.parametrize("name", ["xywh", "xyxy", "xywh_unit", "xyxy_unit", "xyxy_thousand"])
def test_forty_boxes_tell_how_they_are_written(name):
    truth = photo_boxes(40)
    found = read(written_as(truth, name))
    assert found.reading.name == name
    assert np.abs(found.boxes_xyxy - truth).max() <= (0.5 if name.endswith("thousand") else 1e-9)
    assert found.unreadable == ()


@pytest.mark.parametrize("name", [name for name in BOX_FORMATS if name != "auto" and "padded" not in name])
def test_a_declared_reading_is_taken(name):
    truth = photo_boxes(3)
    found = read(written_as(truth, name), box_format=name)
    assert np.abs(found.boxes_xyxy - truth).max() <= (0.5 if name.endswith("thousand") else 1e-9)
    assert f"--box-format={name}" in found.why


def test_shares_of_the_padded_square_are_taken_where_declared():
    found = read([[0.25, 0.5, 0.75, 0.75]], box_format="xyxy_padded")  # 640 x 480 has 80 pixels above and below
    assert found.boxes_xyxy.tolist() == [[160, 240, 480, 400]]


def test_corners_that_leave_the_picture_as_widths_are_not_read_as_widths():
    found = read([[100.5, 50, 300, 250], [400, 300, 600, 470]])
    assert found.reading.name == "xyxy"
    assert "1 outside the picture" in found.why


def test_few_boxes_that_fit_both_ways_are_refused():
    with pytest.raises(ValueError, match=r"could be xywh or xyxy.*Say which with --box-format"):
        read([[10.5, 20, 50, 60], [5, 5, 30, 40]])


def test_whole_numbers_that_fit_a_small_picture_are_pixels():
    found = read([[100, 50, 300, 250], [400, 300, 600, 470]])
    assert (found.reading.name, found.boxes_xyxy[1].tolist()) == ("xyxy", [400, 300, 600, 470])


def test_whole_numbers_on_pictures_of_over_a_thousand_pixels_are_refused():
    boxes = photo_boxes(40)
    with pytest.raises(ValueError, match="xyxy or xyxy_thousand"):
        read(boxes, size=(1920.0, 1080.0))


def test_readings_that_agree_need_no_declaration():
    assert read([[0, 0, 64.5, 48]]).boxes_xyxy.tolist() == [[0, 0, 64.5, 48]]


def test_one_annotation_in_many_may_be_broken():
    numbers = written_as(photo_boxes(200), "xywh")
    numbers[7] = [630, 10, 100, 20]
    found = read(numbers)
    assert (found.reading.name, found.outside) == ("xywh", (7,))


def test_some_broken_annotations_do_not_hide_the_only_sensible_reading():
    numbers = written_as(photo_boxes(40), "xywh")
    numbers[3] = [630, 10, 100, 20]
    assert read(numbers).reading.name == "xywh"


def test_a_row_that_is_possible_in_no_reading_speaks_for_none():
    found = read([[10.5, 20, 0, 40], [300, 200, 100, 90], [30, 200, 20, 90]])
    assert (found.reading.name, found.unreadable) == ("xywh", (0,))
    assert np.isnan(found.boxes_xyxy[0]).all()


def test_boxes_that_fit_no_reading_are_refused():
    with pytest.raises(ValueError, match=r"none that does \(xywh: 2 outside the picture; xyxy: .*\)"):
        read([[600.5, 400, 500, 300], [900, 900, 20, 30]])


def test_without_sizes_extent_alone_decides():
    numbers = written_as(photo_boxes(40), "xywh")
    assert read(numbers, size=(math.nan, math.nan)).reading.name == "xywh"
    with pytest.raises(ValueError, match="could be"):
        read(photo_boxes(40) + 0.5, size=(math.nan, math.nan))


def test_shares_need_the_size_of_the_picture():
    found = read([[0.1, 0.1, 0.2, 0.9]], size=(math.nan, math.nan), box_format="xyxy_unit")
    assert found.unreadable == (0,)
    assert np.isnan(found.boxes_xyxy).all()


def test_bbox_xyxy_is_never_width_and_height():
    assert read([[10, 20, 50, 60]], field="bbox_xyxy").boxes_xyxy.tolist() == [[10, 20, 50, 60]]
    assert read([[0.5, 0.25, 0.75, 0.5]], field="bbox_xyxy").reading.name == "xyxy_unit"
    with pytest.raises(ValueError, match="Expected --box-format to be xyxy for boxes under 'bbox_xyxy'"):
        read([[10, 20, 50, 60]], field="bbox_xyxy", box_format="xywh")
    assert read([[50.5, 60, 10, 20]], field="bbox_xyxy").unreadable == (0,)


def test_an_unknown_format_is_refused():
    with pytest.raises(ValueError, match="Expected --box-format to be one of auto, xywh"):
        read([[0, 0, 1, 1]], box_format="corners")


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"bbox": [1, 2, 3, 4]}, ("bbox", (1, 2, 3, 4))),
        ({"bbox": [1, 2, 3, 4], "bbox_xyxy": [5, 6, 7, 8]}, ("bbox_xyxy", (5, 6, 7, 8))),
        ({"bbox": None}, None),
    ],
    ids=["bbox", "corners-first", "none"],
)
def test_the_box_of_a_row(row, expected):
    assert box_numbers(row) == expected


@pytest.mark.parametrize(
    "value",
    [[1, 2, 3], "1234", [1, 2, 3, float("nan")], [True, 1, 2, 3], ["1", 2, 3, 4], 7, [10**400, 0, 1, 1]],
    ids=["three", "text", "nan", "bool", "quoted", "number", "huge"],
)
def test_what_is_no_box_is_refused(value):
    with pytest.raises(ValueError, match="Expected 'bbox' to be four finite numbers"):
        box_numbers({"bbox": value})


def test_the_size_that_a_row_states():
    assert row_size({"width": 640, "height": 480}) == SIZE
    assert row_size({"image_size": [640, 480], "width": 1}) == SIZE
    assert np.isnan(row_size({"width": 640})).all()
    assert np.isnan(row_size({"width": 0, "height": 10})).all()


def test_a_declaration_that_does_not_fit_is_said():
    found = read([[100, 50, 300, 250], [400, 300, 600, 470]], box_format="xywh")
    assert found.why == "declared with --box-format=xywh; 1 of 2 leave their picture"
