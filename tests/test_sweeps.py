"""Sweeps: what sets jobs apart, directories of their own, one table for people and programs."""

from __future__ import annotations

import csv
import logging
from pathlib import Path

import pytest
from fake_collector import FakeCollector, write_rows

import pipeline
from command_line.sweeps import describe_sweep, job_name, swept_keys, write_sweep
from lab.config.settings import DataSettings, LogicSettings, ModelSettings, Settings, SmoothingSettings

MODEL = ModelSettings(name="fake/model", smoothing_sigma=0.0)


@pytest.mark.parametrize(
    ("arguments", "keys"),
    [
        pytest.param(["logic.top_k=1,3", "stage=batch_analyze"], ("logic.top_k",), id="a_list"),
        pytest.param(["-m", "logic.top_k=range(1,4)", "model=a,b"], ("logic.top_k", "model"), id="a_range_and_a_group"),
        pytest.param(["data.batch_attention_dir=[a,b]", "data.query='a, b'"], (), id="lists_and_quoted_commas"),
        pytest.param(["--config-dir", "own", "not an override"], (), id="others"),
    ],
)
def test_swept_keys(arguments: list[str], keys: tuple[str, ...]) -> None:
    assert swept_keys(arguments) == keys


def test_job_names_are_safe_and_differ() -> None:
    overrides = ["stage=batch_analyze", "logic.top_k=1", "logic.smoothing.sigma=0.7"]
    assert job_name(overrides, ["logic.top_k", "logic.smoothing.sigma"]) == "logic.top_k=1,logic.smoothing.sigma=0.7"
    awkward = ["../up", "a/b", "a\\b", "a b", 'a"b', "x" * 300, "x" * 299 + "y", "鳥", "a:b", "~", "%7E"]
    names = {job_name([f"data.ground_truth={value}"], ["data.ground_truth"]) for value in awkward}
    assert len(names) == len(awkward)
    assert all(len(name) <= 160 and not set(name) & set('/\\:*?"<>| ') for name in names)
    assert job_name(["logic.top_k=1"], []) == "logic.top_k=1"


def test_the_csv_holds_what_the_table_shows_in_full(tmp_path: Path) -> None:
    overrides = [["a=1", "b=x"], ["a=2", "b=x"]]
    scores = [{"heads": "L1H2", "mean IoU": 1 / 3}, None]
    assert describe_sweep(overrides, scores) == [
        "job  a  heads  mean IoU",
        "  0  1  L1H2     0.3333",
        "  1  2  -             -  failed",
    ]
    write_sweep(tmp_path / "sweep.csv", overrides, scores)
    with open(tmp_path / "sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"job": "0", "a": "1", "heads": "L1H2", "mean IoU": repr(1 / 3), "status": "done"},
        {"job": "1", "a": "2", "heads": "", "mean IoU": "", "status": "failed"},
    ]


def test_the_jobs_of_a_sweep_are_kept_apart_below_the_given_directory(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    data = DataSettings(data_file=str(write_rows(tmp_path, 12)), output_dir="out")
    logic = LogicSettings(smoothing=SmoothingSettings(sigma=0.0))
    pipeline.run(Settings(stage="batch", model=MODEL, logic=logic, data=data), FakeCollector().load)
    handlers, level = logging.root.handlers[:], logging.root.level
    status = pipeline.main(
        ["-m", "stage=batch_analyze", "data.batch_attention_dir=out/fake-model", "data.ground_truth=rows.jsonl",
         "data.analysis_dir=heads", "data.audit=false", "save_fig=false", "logic.top_k=1,3",
         "logic.smoothing.sigma=0,2", "hydra/job_logging=none", "hydra/hydra_logging=none"]
    )  # fmt: skip
    logging.root.handlers[:], logging.root.level = handlers, level
    assert status == 0
    names = {f"logic.top_k={top_k},logic.smoothing.sigma={sigma}" for top_k in (1, 3) for sigma in (0, 2)}
    assert {path.name for path in Path("heads").iterdir()} == {*names, "sweep.csv"}
    tables = {"batch_selected_heads.json", "batch_selected_heads_counts.csv", "heads.yaml"}
    assert all({path.name for path in Path("heads", name).iterdir()} == tables for name in names)
    with open("heads/sweep.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["logic.top_k"] for row in rows] == ["1", "1", "3", "3"]
    assert [float(row["mean IoU"]) for row in rows][0] == 1.0
    assert f"table   {Path('heads/sweep.csv')}" in capsys.readouterr().out
