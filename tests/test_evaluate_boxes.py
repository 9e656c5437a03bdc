from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import evaluate_boxes
from lab.records import HeadChoice, HeadScore, Localization, Sample
from lab.storage.files import save_bbox_json

ROOT = Path(__file__).resolve().parent.parent
TRUTH_XYWH = [10, 20, 30, 40]


def evaluate(*arguments, **options):
    """Evaluate boxes that are declared to be x, y, width, height: alone, this one could be corners as well."""
    return evaluate_boxes.evaluate(*arguments, **{"box_format": "xywh", **options})


def main(arguments):
    return evaluate_boxes.main(["--box-format", "xywh", *arguments])


def write_dataset(path: Path, rows: list) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), "utf-8")
    return path


def write_prediction(directory: Path, sample_id: str, box_xyxy, size=(100, 80)) -> None:
    head = HeadScore(3, 1, 0.5, 0.1, False, 1)
    localization = Localization(np.zeros((1, 1)), np.zeros((1, 1), bool), np.zeros((1, 1), bool), box_xyxy, size)
    choice = HeadChoice((head,), "automatic")
    from lab.storage.paths import safe_name

    save_bbox_json(
        directory / f"{safe_name(sample_id)}_bbox.json", Sample(sample_id, "x.png", "q"), localization, choice
    )


@pytest.fixture
def scene(tmp_path: Path) -> tuple[Path, Path]:
    """Six rows: IoU 1, .5, .25, 0, null, missing."""
    rows = [{"id": f"row/{index}", "bbox": TRUTH_XYWH, "split": "ab"[index % 2]} for index in range(6)]
    predictions = tmp_path / "out" / "model"
    predictions.mkdir(parents=True)
    for index, box in enumerate([(10, 20, 40, 60), (10, 20, 40, 40), (10, 20, 40, 30), (60, 60, 90, 70), None]):
        write_prediction(predictions, f"row/{index}", box)
    return write_dataset(tmp_path / "data.jsonl", rows), predictions


class TestEvaluate:
    def test_scores_by_hand(self, scene):
        report = evaluate(*scene)
        assert [sample.iou for sample in report.samples] == pytest.approx([1, 0.5, 0.25, 0, 0, 0])
        assert report.overall.mean_iou == pytest.approx(1.75 / 6)
        assert report.overall.median_iou == pytest.approx(0.125)
        assert report.iou_thresholds == (0.25, 0.5, 0.75)
        assert report.overall.success_rates == pytest.approx((3 / 6, 2 / 6, 1 / 6))

    def test_missing_and_null_are_misses_and_counted(self, scene):
        report = evaluate(*scene)
        assert [sample.status for sample in report.samples] == ["box"] * 4 + ["null", "missing"]
        assert [report.count(status) for status in ("box", "null", "missing", "unreadable")] == [4, 1, 1, 0]
        assert report.is_complete
        assert report.samples[5].predicted_xyxy is None

    def test_ground_truth_as_xyxy_goes_first(self, tmp_path: Path, scene):
        rows = [{"id": "row/0", "bbox_xyxy": [10, 20, 40, 60]}, {"id": "row/1", "bbox": [0, 0, 1, 1]}]
        rows[1]["bbox_xyxy"] = [10, 20, 40, 40]
        report = evaluate(write_dataset(tmp_path / "xyxy.jsonl", rows), scene[1])
        assert [sample.iou for sample in report.samples] == [1, 1]

    def test_ids_by_any_field_and_whole_numbers(self, tmp_path: Path):
        write_prediction(tmp_path, "17", (10, 20, 40, 60))
        data = write_dataset(tmp_path / "d.jsonl", [{"id": "other", "question_id": 17, "bbox": TRUTH_XYWH}])
        assert evaluate(data, tmp_path, id_field="question_id").overall.mean_iou == 1

    def test_one_directory_for_each_id(self, tmp_path: Path):
        (tmp_path / "p" / "a").mkdir(parents=True)
        write_prediction(tmp_path / "p" / "a", "a", (10, 20, 40, 60))
        data = write_dataset(tmp_path / "d.jsonl", [{"id": "a", "bbox": TRUTH_XYWH}])
        assert evaluate(data, tmp_path / "p").overall.mean_iou == 1

    def test_hostile_ids_stay_in_the_directory(self, tmp_path: Path):
        (tmp_path / "p").mkdir()
        write_prediction(tmp_path, "x", (10, 20, 40, 60))
        ids = ["../x", "..", "/etc/passwd", "a\x00b", "x" * 400, "ä"]
        write_prediction(tmp_path / "p", "ä", (10, 20, 40, 60))
        data = write_dataset(tmp_path / "d.jsonl", [{"id": name, "bbox": TRUTH_XYWH} for name in ids])
        report = evaluate(data, tmp_path / "p")
        assert [sample.status for sample in report.samples] == ["missing"] * 5 + ["box"]

    def test_thresholds_are_sorted_and_reached_at_equality(self, scene):
        report = evaluate(*scene, iou_thresholds=[0.5, 0.25, 0.5, 1.0])
        assert report.iou_thresholds == (0.25, 0.5, 1.0)
        assert report.overall.success_rates == pytest.approx((3 / 6, 2 / 6, 1 / 6))

    def test_by_group(self, scene):
        groups = evaluate(*scene, group_by="split").groups
        assert list(groups) == ["a", "b"]
        assert groups["a"].mean_iou == pytest.approx(1.25 / 3)
        assert groups["b"].num_rows == 3
        assert groups["b"].success_rates == pytest.approx((1 / 3, 1 / 3, 0))

    def test_by_orientation_without_such_a_field(self, tmp_path: Path):
        rows = []
        for name, size in (("w", (100, 80)), ("t", (80, 100)), ("s", (90, 90))):
            write_prediction(tmp_path, name, (10, 20, 40, 60), size)
            rows.append({"id": name, "bbox": TRUTH_XYWH})
        rows += [{"id": "gone", "bbox": TRUTH_XYWH, "image_size": [50, 60]}, {"id": "lost", "bbox": TRUTH_XYWH}]
        groups = evaluate(write_dataset(tmp_path / "d.jsonl", rows), tmp_path, group_by="orientation").groups
        assert {name: group.num_rows for name, group in groups.items()} == {
            "(none)": 1, "landscape": 1, "portrait": 2, "square": 1,
        }  # fmt: skip


class TestBroken:
    def test_broken_rows_are_named_and_the_rest_is_scored(self, tmp_path: Path, scene):
        rows = [
            {"id": "row/0", "bbox": TRUTH_XYWH},
            "{not json",
            {"id": "row/1"},
            {"id": "row/2", "bbox": [1, 2, 3]},
            {"id": "row/2", "bbox": [1, 2, 0, 3]},
            {"id": "row/2", "bbox": [1, 2, "a", 3]},
            {"id": "row/2", "bbox_xyxy": [5, 5, 4, 9]},
            {"bbox": TRUTH_XYWH},
            {"id": "  ", "bbox": TRUTH_XYWH},
            "[1, 2]",
            '{"id": "row/3", "bbox": [1, 2, NaN, 4]}',
        ]
        report = evaluate(write_dataset(tmp_path / "b.jsonl", rows), scene[1])
        assert report.overall.num_rows == 1
        assert not report.is_complete
        assert len(report.broken_rows) == 10
        assert all(f"line {line} to " in " ".join(report.broken_rows) for line in range(2, 12))
        told = " ".join(report.broken_rows)
        assert "Expected 'bbox' to be four finite numbers, but got '[1, 2, 3]'" in told
        assert "'bbox_xyxy' with an extent, x0 < x1 and y0 < y1" in told
        assert "choose one with --id-field" in told

    def test_unreadable_predictions_are_misses_and_named(self, scene):
        data, predictions = scene
        (predictions / "row%2F0_bbox.json").write_text("{broken")
        (predictions / "row%2F1_bbox.json").write_text('{"bbox_xyxy": [1, 2, NaN, 4]}')
        report = evaluate(data, predictions)
        assert [sample.status for sample in report.samples[:2]] == ["unreadable"] * 2
        assert report.overall.mean_iou == pytest.approx(0.25 / 6)
        assert len(report.unreadable_predictions) == 2
        assert "row%2F0_bbox.json" in report.unreadable_predictions[0]
        assert not report.is_complete

    def test_duplicate_ids(self, tmp_path: Path, scene):
        rows = [{"id": 5, "bbox": TRUTH_XYWH}, {"id": "x", "bbox": TRUTH_XYWH}, {"id": "5", "bbox": TRUTH_XYWH}]
        with pytest.raises(ValueError, match=r"'id' to be there once, but got '5' in line 1 and again in line 3"):
            evaluate(write_dataset(tmp_path / "b.jsonl", rows), scene[1])

    def test_no_rows(self, tmp_path: Path, scene):
        with pytest.raises(ValueError, match="but it is empty"):
            evaluate(write_dataset(tmp_path / "b.jsonl", []), scene[1])
        with pytest.raises(ValueError, match=r"none of its 2 rows has them: Expected line 1 to have an id.*'name'"):
            evaluate(write_dataset(tmp_path / "b.jsonl", [{"name": "a", "bbox": TRUTH_XYWH}] * 2), scene[1])
        with pytest.raises(FileNotFoundError, match="Expected a JSONL file at"):
            evaluate(tmp_path / "gone.jsonl", scene[1])

    def test_nothing_matches(self, tmp_path: Path, scene):
        data, predictions = scene
        with pytest.raises(ValueError, match=r"row%2F0_bbox.json, row%2F1_bbox.json.*did you mean --pred-root .*model"):
            evaluate(data, predictions.parent)
        other = write_dataset(tmp_path / "other.jsonl", [{"id": "z", "bbox": TRUTH_XYWH}])
        with pytest.raises(
            ValueError, match=r"z_bbox.json, but got none .* the 1 rows.*holds 5 others, such as row%2F0"
        ):
            evaluate(other, predictions)
        (tmp_path / "empty").mkdir()
        (tmp_path / "empty" / "file").write_text("x")
        with pytest.raises(ValueError, match="holds no .*_bbox.json at all: run stage=batch first"):
            evaluate(data, tmp_path / "empty")
        with pytest.raises(FileNotFoundError, match="Expected --pred-root to be a directory"):
            evaluate(data, tmp_path / "gone")

    @pytest.mark.parametrize("thresholds", [[], [0.0, 0.5], [1.5], [float("nan")]])
    def test_thresholds_out_of_range(self, scene, thresholds: list[float]):
        with pytest.raises(ValueError, match="IoU thresholds to be above 0 and at most 1"):
            evaluate(*scene, iou_thresholds=thresholds)

    def test_unknown_group(self, scene):
        with pytest.raises(ValueError, match="rows with the field 'colour' to group by, but got none"):
            evaluate(*scene, group_by="colour")


class TestCommandLine:
    def run(self, scene, *more: str) -> int:
        return main(["--dataset-jsonl", str(scene[0]), "--pred-root", str(scene[1]), *more])

    def test_table(self, scene, capsys):
        assert self.run(scene, "--group-by", "split", "--resamples", "0") == 0
        printed = capsys.readouterr().out
        assert [line.split() for line in printed.splitlines()[:4]] == [
            ["rows", "mean", "IoU", "median", "IoU", "Acc@0.25", "Acc@0.5", "Acc@0.75", "mAcc", "centre"],
            ["all", "6", "0.2917", "0.1250", "0.5000", "0.3333", "0.1667", "0.1833", "0.5000"],
            ["a", "3", "0.4167", "0.2500", "0.6667", "0.3333", "0.3333", "0.3333", "0.6667"],
            ["b", "3", "0.1667", "0.0000", "0.3333", "0.3333", "0.0000", "0.0333", "0.3333"],
        ]
        assert "6 rows: 4 with a box, 1 null, 1 missing, 0 unreadable" in printed

    @pytest.mark.parametrize("thresholds", [["0.3,0.6"], ["0.3", "0.6"], ["0.3,", "0.6"]])
    def test_thresholds_by_commas_or_spaces(self, scene, capsys, thresholds: list[str]):
        assert self.run(scene, "--iou-thresholds", *thresholds) == 0
        assert "Acc@0.3" in capsys.readouterr().out

    def test_json_and_csv(self, scene, tmp_path: Path):
        assert self.run(scene, "--json", str(tmp_path / "o.json"), "--per-sample-csv", str(tmp_path / "o.csv")) == 0
        written = json.loads((tmp_path / "o.json").read_text())
        assert written["overall"]["success_rates"] == {"0.25": 0.5, "0.5": 2 / 6, "0.75": 1 / 6}
        assert (written["num_rows"], written["num_box"], written["num_null"], written["num_missing"]) == (6, 4, 1, 1)
        assert set(written) == {
            "num_rows", "num_box", "num_null", "num_missing", "num_unreadable", "num_broken_rows", "iou_thresholds",
            "overall", "groups", "broken_rows", "unreadable_predictions", "how", "box_reading", "ceiling", "baselines",
            "sets", "masks", "comparison",
        }  # fmt: skip
        with open(tmp_path / "o.csv", newline="", encoding="utf-8") as file:
            lines = list(csv.DictReader(file))
        assert [float(line["iou"]) for line in lines] == pytest.approx([1, 0.5, 0.25, 0, 0, 0])
        assert (lines[1]["id"], lines[1]["line"], lines[1]["predicted_y1"]) == ("row/1", "2", "40.0")
        assert (lines[4]["status"], lines[4]["predicted_x0"]) == ("null", "")

    def test_exit_status_says_whether_all_could_be_read(self, scene, capsys):
        data, _ = scene
        data.write_text(data.read_text() + "{broken\n" * 7)
        assert self.run(scene) == 1
        shown = capsys.readouterr()
        assert "0.2917" in shown.out
        assert "7 not scored:" in shown.err
        assert "Expected line 7 to be a JSON object" in shown.err
        assert "and 2 more" in shown.err

    def test_error_is_one_line_and_status_2(self, scene, capsys):
        assert self.run(scene, "--id-field", "question_id") == 2
        error = capsys.readouterr().err
        assert error.startswith("evaluate_boxes: Expected ")
        assert error.count("\n") == 1

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            (
                "rows.json",
                '[\n{"id": "row/0", "bbox": [10, 20, 30, 40]},\n{"id": "row/1", "bbox": [10, 20, 30, 40]}\n]',
            ),
            ("rows.csv", 'id,bbox,width\nrow/0,"[10, 20, 30, 40]",\nrow/1,"[10, 20, 30, 40]",100\n'),
            ("rows.tsv", "id\tbbox\nrow/0\t[10, 20, 30, 40]\nrow/1\t[10, 20, 30, 40]\n"),
        ],
        ids=["array", "csv", "tsv"],
    )
    def test_the_rows_may_be_an_array_or_a_table(self, scene, tmp_path: Path, name, text):
        lines = [{"id": f"row/{number}", "bbox": TRUTH_XYWH} for number in range(2)]
        (tmp_path / name).write_text(text, "utf-8")
        expected = evaluate(write_dataset(tmp_path / "rows.jsonl", lines), scene[1])
        report = evaluate(tmp_path / name, scene[1])
        assert [sample.iou for sample in report.samples] == [sample.iou for sample in expected.samples]
        assert report.samples[0].status == "box"

    @pytest.mark.parametrize("stream", ["ascii", "closed pipe", "full"])
    def test_a_report_that_nobody_can_receive_fails_nothing(self, scene, tmp_path: Path, stream):
        """The report's words are ASCII but for a field's name, which is the user's."""
        if stream == "full" and not os.path.exists("/dev/full"):
            pytest.skip("this system has no device that is full")
        data, pred_root = scene
        rows = [{**json.loads(line), "gruppe": "gr\u00fcn"} for line in data.read_text().splitlines()]
        write_dataset(data, rows)
        given = ["--dataset-jsonl", data, "--pred-root", pred_root, "--box-format", "xywh", "--group-by", "gruppe"]
        command = [
            sys.executable,
            str(ROOT / "evaluate_boxes.py"),
            *map(str, given),
            "--json",
            str(tmp_path / "o.json"),
        ]
        environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
        reading, writing = os.pipe()
        os.close(reading)
        outputs = {"ascii": subprocess.PIPE, "closed pipe": writing}
        with open("/dev/full" if stream == "full" else os.devnull, "w") as full:
            output = outputs.get(stream, full)
            done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, env=environment)
        os.close(writing)
        assert done.returncode == 0
        assert json.loads((tmp_path / "o.json").read_text())["num_rows"] == len(rows)
        lost = "evaluate_boxes: The summary could not be printed (No space left on device)"
        assert done.stderr.startswith(lost) if stream == "full" else done.stderr == ""
        assert "gr\\xfcn" in done.stdout if stream == "ascii" else done.stdout is None

    def test_imports_neither_torch_nor_transformers_nor_scipy(self, scene):
        code = (
            "import sys, evaluate_boxes; status = evaluate_boxes.main(sys.argv[1:]); "
            "print(status, sorted({'torch', 'transformers', 'scipy', 'matplotlib', 'PIL', 'yaml'} & set(sys.modules)))"
        )
        arguments = ["--dataset-jsonl", str(scene[0]), "--pred-root", str(scene[1]), "--box-format", "xywh"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, env=environment, check=True
        )
        assert done.stdout.splitlines()[-1] == "0 []"

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("[1]", "row%2F0_meta.json"),
            ("{broken", "row%2F0_meta.json"),
            ('{"grid": {"rows": 0}}', "a grid of six numbers"),
        ],
        ids=["list", "broken", "no_size"],
    )
    def test_a_broken_metadata_file_is_named(self, scene, capsys, text, told):
        (scene[1] / "row%2F0_meta.json").write_text(text)
        assert self.run(scene, "--ceiling") == 2
        error = capsys.readouterr().err
        assert told in error
        assert "row%2F0_meta.json" in error
        assert error.count("\n") == 1

    def test_rows_without_a_grid_are_counted(self, scene, tmp_path: Path):
        meta = {"grid": {"rows": 4, "cols": 5, "x0": 0, "y0": 0, "cell_w": 20, "cell_h": 20}, "image_size": [100, 80]}
        for index in range(3):
            (scene[1] / f"row%2F{index}_meta.json").write_text(json.dumps(meta))
        assert self.run(scene, "--ceiling", "--json", str(tmp_path / "o.json")) == 0
        written = json.loads((tmp_path / "o.json").read_text())["ceiling"]
        # The target is x 10 to 40, y 20 to 60: whole cells reach 20 to 40 of x, or 0 to 40.
        assert (written["num_rows"], written["num_rows_without_grid"]) == (3, 3)
        assert (written["mean_iou"], written["pointing_accuracy"]) == (0.75, 1.0)

    def test_help(self, capsys):
        with pytest.raises(SystemExit) as stop:
            main(["--help"])
        assert stop.value.code == 0
        assert "--iou-thresholds" in capsys.readouterr().out
