"""Stage `report`: from a directory of results to the page, and what is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_samples import GRID, RULES, SIZE_WH, USED, expected_box, make_sample

from analyze import score_heads
from lab.config.settings import DataSettings, LogicSettings, MaskSettings, ReportSettings, Settings, SmoothingSettings
from lab.records import HeadChoice, Localization
from lab.storage.attention_files import save_attention
from lab.storage.files import save_bbox_json
from lab.storage.paths import OutputPaths
from pipeline import run

COUNT = 6


def write_results(directory: Path, pictures: Path, count: int = COUNT, shift: float = 0.0) -> list[dict]:
    """A finished run whose boxes are those of bbox.py; returns rows with the true boxes."""
    directory.mkdir(parents=True)
    rows = []
    for number in range(count):
        made = make_sample(pictures, number)
        collected = made.collected
        paths = OutputPaths(directory, collected.sample.id)
        save_attention(paths.attention(), collected, dtype="float32")
        table = score_heads(collected.attention, GRID.shape)
        box = expected_box(collected, USED, RULES)
        assert box is not None
        moved = (box[0] + shift, *box[1:])
        found = Localization(np.zeros((8, 8)), np.zeros((8, 8), bool), np.zeros(SIZE_WH[::-1], bool), moved, SIZE_WH)
        heads = tuple(table.score(layer, head) for layer, head in USED)
        save_bbox_json(paths.bbox_json, collected.sample, found, HeadChoice(heads, "heads_file"))
        x0, y0, x1, y1 = made.truth_xyxy or ()
        rows.append({"id": collected.sample.id, "prompt": "x", "bbox": [x0, y0, x1 - x0, y1 - y0]})
    settings = {"logic.smoothing.sigma": 1.0, "logic.mask.region": "largest", "logic.skip_layers": 2}
    (directory / "run.json").write_text(json.dumps({"fingerprint": "x", "settings": settings}))
    return rows


@pytest.fixture
def settings(tmp_path) -> Settings:
    rows = write_results(tmp_path / "results", tmp_path)
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = DataSettings(
        batch_attention_dir=str(tmp_path / "results"), ground_truth=str(tmp_path / "rows.jsonl"), box_format="xywh"
    )
    # The run's own rules count, not these.
    logic = LogicSettings(smoothing=SmoothingSettings(sigma=3.0), mask=MaskSettings(region="all"))
    return Settings(stage="report", data=data, logic=logic)


def data_of(path: Path) -> dict:
    page = path.read_text(encoding="utf-8")
    block = page.partition('<script type="application/json" id="report-data">')[2].partition("</script>")[0]
    return json.loads(block)


def test_the_report_holds_what_the_run_found(settings, tmp_path) -> None:
    result = run(settings)
    data = data_of(tmp_path / "results" / "report.html")
    assert result.lines[0].startswith(f"report  {COUNT} of {COUNT} rows")
    assert {sample["id"] for sample in data["samples"]} == {f"row{number}" for number in range(COUNT)}
    assert (data["rules"]["sigma"], data["rules"]["region"]) == (1.0, "largest")
    sample = next(sample for sample in data["samples"] if sample["id"] == "row1")
    made = make_sample(tmp_path, 1)
    assert sample["box"] == list(made.box_xyxy or ())
    assert sample["truth"] == list(made.truth_xyxy or ())
    assert sample["heads"] == [layer * 4 + head for layer, head in USED]
    assert sample["source"] == "fixed"
    assert sample["notes"] == []
    assert data["dataset"]["frequency"][3 * 4 + 1] == 1.0
    assert [bar["name"] for bar in data["dataset"]["scores"]] == ["mean IoU", "Acc@0.25", "Acc@0.5", "Acc@0.75"]
    mean = np.mean([sample["iou"] for sample in data["samples"]])
    assert data["dataset"]["scores"][0]["value"] == pytest.approx(mean)


def test_scores_of_heads_are_those_of_their_own_boxes_and_maps(settings, tmp_path) -> None:
    run(settings)
    sample = next(s for s in data_of(tmp_path / "results" / "report.html")["samples"] if s["id"] == "row1")
    collected = make_sample(tmp_path, 1).collected
    table = score_heads(collected.attention, GRID.shape)
    np.testing.assert_allclose(sample["scores"]["sum"], table.attn_sum.ravel(), rtol=1e-3)
    in_truth = collected.attention[3, 1].reshape(8, 8)[2:4, 1:4].sum()
    in_image = collected.attention[3, 1].reshape(8, 8)[1:7].sum()
    assert sample["scores"]["enrichment"][13] == pytest.approx(in_truth / in_image / (6 / 48), rel=1e-3)
    assert 0.2 < sample["scores"]["iou"][13] <= 1
    assert sample["why"][:8] == "1" * 8


def test_without_ground_truth_there_is_no_iou(settings, tmp_path) -> None:
    run(replace(settings, data=replace(settings.data, ground_truth=None)))
    data = data_of(tmp_path / "results" / "report.html")
    assert {sample["iou"] for sample in data["samples"]} == {None}
    assert data["dataset"]["scores"] == []


def test_a_box_that_its_heads_and_rules_do_not_give_is_told(settings, tmp_path) -> None:
    write_results(tmp_path / "moved", tmp_path, count=2, shift=3.0)
    run(replace(settings, data=replace(settings.data, batch_attention_dir=str(tmp_path / "moved"))))
    notes = [sample["notes"] for sample in data_of(tmp_path / "moved" / "report.html")["samples"]]
    assert all("is not what the stored attention gives" in note for [note] in notes)


def test_failed_and_unreadable_rows_are_listed(settings, tmp_path) -> None:
    results = tmp_path / "results"
    (results / "failures.jsonl").write_text(json.dumps({"line": 9, "id": None, "reason": "no picture"}) + "\n")
    (results / "row0_bbox.json").write_text("[]")
    run(settings)
    failures = data_of(results / "report.html")["failures"]
    assert failures[0] == {"id": "line 9", "reason": "no picture"}
    assert failures[1]["id"] == "row0_bbox.json"


def test_another_run_is_compared_over_the_rows_that_both_have(settings, tmp_path) -> None:
    write_results(tmp_path / "other", tmp_path, count=3, shift=3.0)
    run(replace(settings, report=ReportSettings(against=str(tmp_path / "other"), max_samples=2, select="best")))
    data = data_of(tmp_path / "results" / "report.html")
    scores = {bar["name"]: bar["value"] for bar in data["against"]["scores"]}
    assert scores["difference"] == pytest.approx(scores["mean IoU, this run"] - scores["mean IoU, the other"])
    assert data["against"]["scores"][0]["note"].startswith("3 rows")
    assert len(data["samples"]) == 2


def test_what_batch_analyze_left_is_shown(settings, tmp_path) -> None:
    run(replace(settings, stage="batch_analyze", data=replace(settings.data, report=True)))
    data = data_of(tmp_path / "results" / "report.html")
    record = json.loads((tmp_path / "results" / "batch_selected_heads.json").read_text())
    assert data["fixed"] == [head["layer"] * 4 + head["head"] for head in record["heads"]]
    assert data["dataset"]["source"].startswith("Frequencies and threshold: batch_selected_heads.json")
    low, high = data["dataset"]["thresholdRange"]
    assert (low, high) == (record["threshold"]["min"], record["threshold"]["max"])
    assert data["dataset"]["threshold"] is None
    assert data["dataset"]["table"]["rows"][0][0] == "both criteria"
    names = [bar["name"] for bar in data["dataset"]["bars"]]
    assert names[0] == "fixed heads"
    assert "all heads" in names
    assert data["dataset"]["verdict"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"select": "worst"}, r"Expected ground truth for report\.select=worst", id="worst-of-nothing"),
        pytest.param({"against": "."}, r"got no _bbox\.json in \.", id="against-nothing"),
    ],
)
def test_what_cannot_be_shown_is_refused(settings, tmp_path, change: dict, message: str) -> None:
    data = replace(settings.data, ground_truth=None)
    with pytest.raises(ValueError, match=message):
        run(replace(settings, data=data, report=ReportSettings(**change)))
    assert not (tmp_path / "results" / "report.html").exists()


def test_several_directories_and_empty_ones_are_refused(settings, tmp_path) -> None:
    (tmp_path / "empty").mkdir()
    for directories, message in (
        ([str(tmp_path / "results"), str(tmp_path / "empty")], "to be one directory for a report, but got 2"),
        (str(tmp_path / "empty"), r"to hold attention files with their _bbox\.json, but got none"),
    ):
        with pytest.raises(ValueError, match=message):
            run(replace(settings, data=replace(settings.data, batch_attention_dir=directories)))


def test_a_row_whose_attention_or_picture_is_gone_costs_itself_only(settings, tmp_path) -> None:
    results = tmp_path / "results"
    Image.new("RGB", (5, 5)).save(tmp_path / "picture2.png")
    (tmp_path / "picture3.png").unlink()
    (results / "row4.pkl.gz").write_bytes(b"nothing")
    run(settings)
    data = data_of(results / "report.html")
    assert {sample["id"] for sample in data["samples"]} == {"row0", "row1", "row5"}
    assert {failure["id"] for failure in data["failures"]} == {"row2", "row3", "row4"}
    for number in (0, 1, 5):
        (tmp_path / f"picture{number}.png").unlink()
    with pytest.raises(ValueError, match="Expected at least one row to show, but none can be read: "):
        run(settings)


def test_layers_without_a_map_are_told(settings, tmp_path) -> None:
    results = tmp_path / "results"
    for number in range(COUNT):
        collected = make_sample(tmp_path, number).collected
        save_attention(results / f"row{number}.pkl.gz", replace(collected, layers_without_map=(1,)), dtype="float32")
    run(settings)
    data = data_of(results / "report.html")
    assert data["emptyLayers"] == [1]
    assert data["samples"][0]["why"][:8] == "11115555"
    assert data["reasons"][5] == "its layer has no map"
