"""What a reviewer asks of a score: its unit, its interval, its ceiling, its rivals, and other tools' predictions."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

from evaluate_boxes import evaluate, main

SIZE = [64, 48]


def write(directory, rows, predictions):
    """Rows with true boxes, and predictions by id: a box, or None for a null one."""
    (directory / "out").mkdir(parents=True, exist_ok=True)
    data = directory / "rows.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, box in predictions.items():
        grid = {"rows": 4, "cols": 4, "x0": 0.0, "y0": -8.0, "cell_w": 16.0, "cell_h": 16.0}
        record = {"bbox_xyxy": box, "image_size": SIZE, "grid": grid, "query": "q", "selected_heads": []}
        record["selected_heads"] = [{"layer": 3, "head": 1}]
        (directory / "out" / f"{name}_bbox.json").write_text(json.dumps(record))
    return data, directory / "out"


def row(name, box=(0, 8, 32, 40), **more):
    return {"id": name, "bbox_xyxy": list(box), "image_size": SIZE, "image_path": "a.png", **more}


@pytest.fixture
def run(tmp_path):
    """Three expressions of two objects on two pictures: IoU 1, .5 and 0."""
    rows = [row("a", ref_id=1), row("b", ref_id=1), row("c", ref_id=2, image_path="b.png")]
    return write(tmp_path, rows, {"a": [0, 8, 32, 40], "b": [0, 8, 32, 24], "c": [40, 8, 60, 40]})


def test_per_expression_per_ref_and_first(run):
    def means(per):
        report = evaluate(*run, per=per)
        return report.overall.mean_iou, report.overall.success_rates[1]

    assert means("expression") == pytest.approx((0.5, 2 / 3))
    assert means("ref") == pytest.approx((0.375, 0.5))
    assert means("first") == pytest.approx((0.5, 0.5))


def test_counts_and_the_sentence_to_cite(run):
    report = evaluate(*run, rule="gt", overlap="giou")
    assert (report.overall.num_rows, report.overall.num_refs, report.overall.num_pictures) == (3, 2, 2)
    assert "A hit is generalized IoU > threshold" in report.how
    assert "3 expressions, 2 objects, 2 pictures" in report.how
    assert report.overall.success_rates[1] == pytest.approx(1 / 3)


def test_intervals_resample_pictures_and_can_be_left_out(tmp_path):
    rows = [row(f"r{index}", image_path=f"{index // 2}.png") for index in range(40)]
    data, out = write(tmp_path, rows, {f"r{index}": [0, 8, 32, 40 if index < 20 else 24] for index in range(40)})
    interval = evaluate(data, out).overall.intervals["mean IoU"]
    assert interval.num_clusters == 20
    assert interval.low < 0.75 < interval.high
    # Twenty pictures with 1 or .5 each: the standard error of their mean is .25 / sqrt(20).
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * 0.25 / np.sqrt(20), rel=0.15)
    assert evaluate(data, out, resamples=0).overall.intervals == {}


def test_the_grids_ceiling_is_the_best_box_of_whole_cells(tmp_path):
    data, out = write(tmp_path, [row("a", (1, 9, 31, 39))], {"a": None})
    report = evaluate(data, out, ceiling=True)
    assert report.ceiling.mean_iou == pytest.approx(30 * 30 / (32 * 32))
    assert report.overall.mean_iou == 0


def test_a_ceiling_needs_a_grid(tmp_path):
    data, out = write(tmp_path, [row("a")], {"a": [0, 8, 32, 40]})
    record = json.loads((out / "a_bbox.json").read_text())
    del record["grid"]
    (out / "a_bbox.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="to tell the grid of its predictions"):
        evaluate(data, out, ceiling=True)
    (out / "a_meta.json").write_text(
        json.dumps({"grid": {"rows": 4, "cols": 4, "x0": 0, "y0": -8, "cell_w": 16, "cell_h": 16}})
    )
    assert evaluate(data, out, ceiling=True).ceiling.mean_iou == 1


def test_trivial_baselines(run):
    baselines = evaluate(*run, baselines=True).baselines
    assert baselines["the whole picture"].mean_iou == pytest.approx(32 * 32 / (64 * 48))
    overlap = 16 * 24  # x 16 to 32, y 12 to 36
    assert baselines["the middle half"].mean_iou == pytest.approx(overlap / (32 * 32 + 32 * 24 - overlap))


def test_by_size_of_the_true_box(tmp_path):
    rows = [row("s", (0, 0, 31, 31)), row("m", (0, 0, 40, 40))]
    data, out = write(tmp_path, rows, {"s": [0, 0, 31, 31], "m": None})
    groups = evaluate(data, out, group_by="size:coco").groups
    assert {name: (group.num_rows, group.mean_iou) for name, group in groups.items()} == {
        "small": (1, 1.0),
        "medium": (1, 0.0),
    }


def test_two_runs_are_compared_row_by_row(run, tmp_path):
    _, other = write(tmp_path / "second", [], {"a": [0, 8, 32, 40], "b": None, "c": [0, 8, 32, 40]})
    comparison = evaluate(*run, against=other).comparison
    assert comparison.differences["mean IoU"].estimate == pytest.approx((0 + 0.5 - 1) / 3)
    assert (comparison.better["Acc@0.5"], comparison.worse["Acc@0.5"]) == (1, 1)


def test_masks_at_the_pictures_size(tmp_path):
    truth = np.zeros((48, 64), np.uint8)
    truth[8:40, :32] = 255
    Image.fromarray(truth).save(tmp_path / "truth.png")
    data, out = write(tmp_path, [row("a", mask_path="truth.png"), row("b", mask_path="truth.png")], {"a": [0, 0, 1, 1]})
    truth[24:] = 0
    Image.fromarray(truth).save(out / "a_mask.png")
    masks = evaluate(data, out, masks=True).masks
    assert (masks.num_rows, masks.num_missing) == (2, 1)
    assert masks.scores["mIoU"] == pytest.approx(0.25)
    assert masks.scores["cIoU"] == pytest.approx(0.25)
    assert masks.scores["P@0.5"] == 0.5
    Image.fromarray(truth[:40]).save(out / "a_mask.png")
    with pytest.raises(ValueError, match="to have the size of the true one"):
        evaluate(data, out, masks=True)


def test_several_and_no_targets(tmp_path):
    none = {"id": "n", "no_target": True, "image_path": "a.png", "image_size": SIZE}
    two = {"id": "t", "boxes_xyxy": [[0, 8, 32, 40], [40, 8, 60, 40]], "image_path": "a.png", "image_size": SIZE}
    data, out = write(tmp_path, [row("a"), none, two], {"a": [0, 8, 32, 40], "n": None, "t": [0, 8, 32, 40]})
    report = evaluate(data, out)
    assert report.overall.num_rows == 1
    assert report.sets == {"num_rows": 3, "Pr@(F1=1)": pytest.approx(2 / 3), "N-acc": 1.0, "T-acc": 1.0}


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("ref_l4.json", [{"id": "a", "pred_bbox": [0, 8, 32, 32], "format": "xywh"}]),
        ("ref_l4_corners.json", [{"id": "a", "pred_bbox": [0, 8, 32, 40], "format": "xyxy"}]),
        ("coco.json", [{"image_id": "a", "category_id": 1, "bbox": [0, 8, 32, 32], "score": 0.9}]),
        ("corners.jsonl", [{"question_id": "a", "bbox_xyxy": [0, 8, 32, 40]}]),
    ],
    ids=["ref-l4-sizes", "ref-l4-corners", "coco-results", "lines"],
)
def test_predictions_of_other_tools(tmp_path, capsys, name, content):
    data, _ = write(tmp_path, [row("a")], {})
    path = tmp_path / name
    text = "\n".join(map(json.dumps, content)) if name.endswith(".jsonl") else json.dumps(content)
    path.write_text(text)
    assert main(["--dataset-jsonl", str(data), "--predictions", str(path), "--json", str(tmp_path / "o.json")]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["overall"]["mean_iou"] == 1


def test_the_best_of_several_scored_boxes_is_taken(tmp_path):
    data, _ = write(tmp_path, [row("a")], {})
    path = tmp_path / "coco.json"
    boxes = [
        {"image_id": "a", "bbox": [40, 8, 20, 32], "score": 0.2},
        {"image_id": "a", "bbox": [0, 8, 32, 32], "score": 0.8},
    ]
    path.write_text(json.dumps(boxes))
    assert main(["--dataset-jsonl", str(data), "--predictions", str(path), "--json", str(tmp_path / "o.json")]) == 0
    assert json.loads((tmp_path / "o.json").read_text())["overall"]["mean_iou"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Expected either --pred-root or --predictions, but got neither"),
        (["--predictions", "x.json"], "Expected --predictions to be a file"),
        (["--predictions", "rows.jsonl", "--ceiling"], "Expected --pred-root with --ceiling"),
        (
            ["--pred-root", "out", "--json", "/proc/1/x.json"],
            "Expected --json to be in a directory that can be",
        ),
        (["--pred-root", "out", "--resamples", "-1"], "Expected --resamples to be at least 0"),
        (["--pred-root", "out", "--predictions-table", "t.xlsx"], "Expected --predictions-table to end in .csv"),
    ],
    ids=["neither", "gone", "no-grid", "read-only", "negative", "ending"],
)
def test_mistakes_end_in_one_line(run, tmp_path, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main(["--dataset-jsonl", "rows.jsonl", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_tables_for_papers_and_of_predictions(run, tmp_path):
    names = {"csv": "t.csv", "markdown": "t.md", "latex": "t.tex", "predictions-table": "p.csv"}
    outputs = [part for flag, name in names.items() for part in (f"--{flag}", str(tmp_path / name))]
    assert main(["--dataset-jsonl", str(run[0]), "--pred-root", str(run[1]), *outputs]) == 0
    markdown, latex = (tmp_path / "t.md").read_text(), (tmp_path / "t.tex").read_text()
    assert "| mean IoU | median IoU | Acc@0.25 | Acc@0.5 | Acc@0.75 |" in markdown
    assert "A hit is IoU >= threshold" in markdown
    assert latex.startswith(r"\begin{tabular}{lrr")
    assert r"\bottomrule" in latex
    table = list(csv.DictReader((tmp_path / "t.csv").open()))
    assert float(table[0]["mean IoU"]) == 0.5
    assert table[0]["mean IoU low"] == ""  # two pictures say nothing of their spread
    predictions = list(csv.DictReader((tmp_path / "p.csv").open()))
    assert [(line["id"], line["heads"], float(line["iou"])) for line in predictions] == [
        ("a", "L3H1", 1.0),
        ("b", "L3H1", 0.5),
        ("c", "L3H1", 0.0),
    ]


def test_predictions_as_parquet(run, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "p.parquet"
    assert main(["--dataset-jsonl", str(run[0]), "--pred-root", str(run[1]), "--predictions-table", str(path)]) == 0
    assert parquet.read_table(path).column("iou").to_pylist() == [1.0, 0.5, 0.0]


def test_corners_under_bbox_are_not_read_as_sizes(tmp_path):
    rows = [
        {"id": "1", "bbox": [10.5, 5, 30, 25], "image_size": SIZE},
        {"id": "2", "bbox": [40, 30, 60, 47], "image_size": SIZE},
    ]
    data, out = write(tmp_path, rows, {"1": [10.5, 5, 30, 25], "2": [40, 30, 60, 47]})
    report = evaluate(data, out)
    assert report.overall.mean_iou == 1
    assert "[x0, y0, x1, y1]" in report.reading[0]


def test_a_file_that_fits_two_readings_is_refused(tmp_path):
    rows = [{"id": "1", "bbox": [10.5, 5, 30, 25], "image_size": SIZE}]
    data, out = write(tmp_path, rows, {"1": [10.5, 5, 30, 25]})
    with pytest.raises(ValueError, match=r"could be xywh or xyxy.*Say which with --box-format"):
        evaluate(data, out)
    assert evaluate(data, out, box_format="xyxy").overall.mean_iou == 1
