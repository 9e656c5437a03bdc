"""The exported data set: its rows against its own masks, its splits, its examples, and what a grid allows."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bbox import box_iou, cells_to_box, xywh_to_xyxy
from picturebook.ceiling import ceiling_ious, padded_grid
from picturebook.ceiling import main as print_ceiling
from picturebook.export import EXAMPLE_QUERIES, export, main, orientation, write_examples
from picturebook.scenes import PATTERNS
from vlm.image_preprocessing import ImagePreprocessor, ImageRule

ROOT = Path(__file__).resolve().parent.parent


def rows_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    return export(tmp_path_factory.mktemp("data"), "test", scenes=12, expressions=3)


def test_boxes_are_the_tight_boxes_of_the_masks(dataset):
    for row in rows_of(dataset):
        mask = np.asarray(Image.open(dataset.parent / row["mask_path"])) > 0
        assert list(mask.shape[::-1]) == row["image_size"] == list(Image.open(dataset.parent / row["image_path"]).size)
        ys, xs = np.nonzero(mask)
        assert xywh_to_xyxy(row["bbox"]) == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_rows_say_what_is_needed(dataset):
    rows = rows_of(dataset)
    assert len({row["id"] for row in rows}) == len(rows) == 36
    assert {row["orientation"] for row in rows} == {"landscape", "portrait", "square"}
    assert {row["split"] for row in rows} == {"test"}
    assert any(row["prompt"].endswith(".") for row in rows)
    assert not all(row["prompt"].endswith(".") for row in rows)
    assert all(row["answer"][0] in PATTERNS for row in rows if not set(row["prompt"].split()) & set(PATTERNS))


def test_splits_differ_and_a_longer_export_begins_as_a_shorter_one(dataset, tmp_path):
    shorter = rows_of(export(tmp_path / "a", "test", scenes=3))
    assert rows_of(dataset)[: len(shorter)] == shorter
    other = rows_of(export(tmp_path / "b", "train", scenes=3))
    assert [row["bbox"] for row in other] != [row["bbox"] for row in shorter]
    first = "images/test-0-00000.png"
    assert (tmp_path / "a" / first).read_bytes() == (dataset.parent / first).read_bytes()


def test_templates_and_compositions_can_be_chosen(tmp_path):
    main(["--output", str(tmp_path), "--scenes", "4", "--templates", "color_kind", "--composition", "binding"])
    rows = rows_of(tmp_path / "test.jsonl")
    assert {(row["template"], row["composition"]) for row in rows} == {("color_kind", "binding")}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"split": "dev"}, "Expected split to be one of train, validation, test, but got 'dev'"),
        ({"composition": "chaos"}, "Expected composition to be one of free, .*, but got 'chaos'"),
        ({"templates": ["rhyme"]}, "Expected templates to be among color_kind, .*, but got 'rhyme'"),
    ],
)
def test_wrong_choices_are_named(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        export(tmp_path, scenes=1, **{"split": "test", **arguments})


def test_the_examples_in_the_repository_are_what_the_code_draws(tmp_path):
    path = write_examples(tmp_path / "examples")
    assert path.read_text() == (ROOT / "examples" / "localization_data.jsonl").read_text()
    for name in EXAMPLE_QUERIES:
        drawn, kept = (Image.open(root / "examples" / "images" / f"{name}.png") for root in (tmp_path, ROOT))
        assert np.abs(np.asarray(drawn, int) - np.asarray(kept, int)).mean() < 1


@pytest.mark.parametrize(("size", "name"), [((4, 3), "landscape"), ((3, 4), "portrait"), ((3, 3), "square")])
def test_orientation(size, name):
    assert orientation(size) == name


def test_ceiling_is_one_for_whole_cells_and_never_beaten_by_a_mask_of_cells(capsys, dataset):
    whole = ceiling_ious(np.array([[40.0, 20.0, 120.0, 80.0]]), np.array([[320, 320]]))
    assert whole == pytest.approx([1.0])
    for row in rows_of(dataset)[:10]:
        size = tuple(row["image_size"])
        grid, truth = padded_grid(size), xywh_to_xyxy(row["bbox"])
        cells = np.zeros((16, 16), bool)
        edges = [round((e - o) / grid.cell_w) for e, o in zip(truth, (grid.x0, grid.y0) * 2)]
        cells[edges[1] : max(edges[3], edges[1] + 1), edges[0] : max(edges[2], edges[0] + 1)] = True
        best = ceiling_ious(np.array([truth]), np.array([size]))[0]
        assert best >= box_iou(cells_to_box(cells, grid, size), truth) - 1e-12
    print_ceiling(["--dataset-jsonl", str(dataset)])
    assert "(36 rows)" in capsys.readouterr().out


def test_the_grid_of_the_ceiling_is_the_one_that_is_applied():
    config = (ROOT / "examples/models/picturebook-llava/preprocessor_config.json").read_text(encoding="utf-8")
    rule = ImageRule.from_config(json.loads(config))
    preprocessor = ImagePreprocessor(rule, patch_size=8, input_size=128)
    for size in ((240, 320), (321, 200), (333, 333), (100, 301)):
        assert padded_grid(size) == preprocessor(Image.new("RGB", size))[1]
