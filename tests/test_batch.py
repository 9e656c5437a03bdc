"""Batches in this process: what one bad row costs, which results count as done, what is cleared and removed."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from fake_collector import FakeCollector, read_results, target_box, write_rows
from PIL import Image

import evaluate_boxes
import viz
from lab.config.settings import (
    AttentionStorageSettings,
    DataSettings,
    FiguresSettings,
    LogicSettings,
    ModelSettings,
    Settings,
    SmoothingSettings,
    StorageSettings,
)
from lab.storage import files, pictures
from lab.storage.kept_directory import LostDirectoryError
from lab.storage.partial_files import partial_path
from lab.storage.pictures import INDEX_FILE
from lab.storage.processes import Owner
from pipeline import run


@dataclass
class BreakingCollector(FakeCollector):
    """Raises over some rows, as a collector that reads a few rows ahead does: before it yields those before."""

    breaking: dict[str, Exception] = field(default_factory=dict)
    ahead: int = 3

    def collect(self, samples):
        samples = list(samples)
        outcomes = super().collect(samples)
        for position in range(len(samples)):
            for sample in samples[position : position + self.ahead]:
                if sample.id in self.breaking:
                    raise self.breaking[sample.id]
            yield next(outcomes)


@pytest.fixture
def fake() -> FakeCollector:
    return FakeCollector()


def make_settings(tmp_path: Path, stage: str = "batch", **data) -> Settings:
    data.setdefault("output_dir", str(tmp_path / "out"))
    return Settings(
        stage=stage,
        model=ModelSettings(name="fake/model"),
        logic=LogicSettings(smoothing=SmoothingSettings(sigma=0.0)),
        storage=StorageSettings(AttentionStorageSettings(save=stage != "batch")),
        save_fig=False,
        data=DataSettings(**data),
    )


def batch_settings(tmp_path: Path, count: int = 6, images: int = 3, **data) -> Settings:
    path = tmp_path / "rows.jsonl"
    return make_settings(
        tmp_path, data_file=str(path if path.exists() else write_rows(tmp_path, count, images)), **data
    )


def results(tmp_path: Path) -> Path:
    return tmp_path / "out" / "fake-model"


def done(tmp_path: Path) -> set[str]:
    return {path.name[: -len("_bbox.json")] for path in results(tmp_path).glob("*_bbox.json")}


def failures(tmp_path: Path) -> dict[str, str]:
    path = results(tmp_path) / "failures.jsonl"
    return {line.row["id"]: line.row["reason"] for line in files.read_jsonl(path)} if path.exists() else {}


# One bad row costs that row


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (TypeError("odd\ntext"), "TypeError: odd text"),
        (UnicodeEncodeError("utf-8", "a", 0, 1, "surrogates not allowed"), "UnicodeEncodeError: 'utf-8' codec"),
        (OSError(5, "Input/output error"), "OSError: [Errno 5] Input/output error"),
        (ValueError("Expected a, but got b."), "Expected a, but got b."),
        (MemoryError(), "MemoryError"),
        (RuntimeError("x" * 5000), "RuntimeError: xxx"),
    ],
    ids=["type", "unicode", "system", "value", "memory", "long"],
)
def test_whatever_the_collector_raises_costs_the_row_it_comes_from(tmp_path, error, reason) -> None:
    collector = BreakingCollector(breaking={"row3": error})
    result = run(batch_settings(tmp_path, 12), collector.load)
    assert done(tmp_path) == {f"row{number}" for number in range(12)} - {"row3"}
    assert list(failures(tmp_path)) == ["row3"]
    assert failures(tmp_path)["row3"].startswith(reason)
    assert len(failures(tmp_path)["row3"]) < 700
    assert "11 done now" in result.lines[0]
    assert "1 failed" in result.lines[0]


def test_a_collector_that_breaks_over_every_row_fails_every_row(tmp_path) -> None:
    collector = BreakingCollector(breaking={f"row{number}": TypeError("no") for number in range(6)})
    assert run(batch_settings(tmp_path), collector.load).failed == 6
    assert len(failures(tmp_path)) == 6


def test_a_collector_that_gives_too_little_is_noticed(tmp_path, fake, monkeypatch) -> None:
    genuine = FakeCollector.collect
    monkeypatch.setattr(
        FakeCollector,
        "collect",
        lambda self, samples: (outcome for outcome in genuine(self, samples) if outcome.sample.id != "row4"),
    )
    assert run(batch_settings(tmp_path), fake.load).failed == 1
    assert list(failures(tmp_path)) == ["row4"]


@pytest.mark.parametrize(
    "error",
    [PermissionError(13, "Permission denied"), UnicodeEncodeError("utf-8", "a", 0, 1, "odd"), KeyError("a")],
    ids=["permission", "unicode", "key"],
)
def test_whatever_finishing_raises_costs_the_row(tmp_path, fake, monkeypatch, error) -> None:
    save_mask = files.save_mask_png

    def fail_for_row1(path, mask):
        if "row1" in path.name:
            raise error
        save_mask(path, mask)

    monkeypatch.setattr(files, "save_mask_png", fail_for_row1)
    assert run(batch_settings(tmp_path), fake.load).failed == 1
    assert list(failures(tmp_path)) == ["row1"]
    assert failures(tmp_path)["row1"].startswith(type(error).__name__)


def test_a_lone_surrogate_in_a_prompt_costs_its_row(tmp_path, fake) -> None:
    settings = batch_settings(tmp_path, 3)
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text().replace("thing number 1", r"the \ud800 bird"))
    assert run(settings, fake.load).failed == 1
    assert done(tmp_path) == {"row0", "row2"}
    assert r"'\ud800' at character 4" in failures(tmp_path)["row1"]


@pytest.mark.parametrize("number", [28, 30, 122], ids=["full", "read-only", "quota"])
def test_a_disk_that_takes_no_more_ends_the_run(tmp_path, fake, monkeypatch, number) -> None:
    def fail(path, mask):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files, "save_mask_png", fail)
    with pytest.raises(OSError, match=os.strerror(number)):
        run(batch_settings(tmp_path), fake.load)
    assert failures(tmp_path) == {}


def test_results_that_are_removed_meanwhile_are_an_error(tmp_path, fake, monkeypatch) -> None:
    save_box = files.save_bbox_json

    def remove_an_earlier_one(path, *record):
        save_box(path, *record)
        if path.name.startswith("row5"):
            (path.parent / "row0_bbox.json").unlink()

    monkeypatch.setattr(files, "save_bbox_json", remove_an_earlier_one)
    with pytest.raises(LostDirectoryError, match=r"of the 6 rows .* got 1 of them removed .* row0_bbox\.json"):
        run(batch_settings(tmp_path), fake.load)


def test_rows_that_cannot_be_read_are_told_in_one_warning(tmp_path, fake, caplog) -> None:
    settings = batch_settings(tmp_path, 3)
    with open(tmp_path / "rows.jsonl", "a") as file:
        file.writelines(json.dumps({"id": f"bad{number}", "prompt": "x"}) + "\n" for number in range(40))
    assert run(settings, fake.load).failed == 40
    [warning] = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert warning.startswith("No result for line 4, id 'bad0', and 39 more rows: Expected the key 'image_path'")
    assert len(failures(tmp_path)) == 40


# Pictures


def draw(path: Path, colour: tuple[int, int, int]) -> None:
    Image.new("RGB", (160, 120), colour).save(path, "BMP")  # all of one length


@pytest.fixture
def with_pictures(tmp_path, fake) -> Settings:
    """A finished batch of three rows about `a.png` and three about `b.png`, whose files are of one length."""
    rows = [
        {"id": f"row{number}", "prompt": f"thing {number}", "image_path": f"{'ab'[number % 2]}.png"}
        for number in range(6)
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    draw(tmp_path / "a.png", (1, 2, 3))
    draw(tmp_path / "b.png", (3, 2, 1))
    settings = batch_settings(tmp_path)
    assert run(settings, fake.load).failed == 0
    fake.asked.clear()
    return settings


def test_results_say_what_their_picture_held_and_not_when(tmp_path, with_pictures) -> None:
    record = files.load_bbox_json(results(tmp_path) / "row1_bbox.json")
    assert (record["image_bytes"], record["image_sha256"]) == pictures.read_picture(tmp_path / "b.png")
    assert not [key for key in record if "time" in key]


def test_a_picture_that_was_replaced_is_noticed_and_its_rows_are_done_again(
    tmp_path, fake, with_pictures, caplog
) -> None:
    times = (tmp_path / "a.png").stat()
    draw(tmp_path / "a.png", (9, 9, 9))
    os.utime(tmp_path / "a.png", ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "3 done now" in run(with_pictures, fake.load).lines[0]
    assert sorted(fake.asked) == ["row0", "row2", "row4"]
    assert "3 rows are done again, since their picture is, or may be, another one now." in caplog.text


def test_another_picture_of_the_same_name_is_noticed(tmp_path, fake, with_pictures) -> None:
    (tmp_path / "other").mkdir()
    draw(tmp_path / "other" / "a.png", (9, 9, 9))
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text().replace('"a.png"', '"other/a.png"'))
    run(with_pictures, fake.load)
    assert sorted(fake.asked) == ["row0", "row2", "row4"]


def test_a_picture_of_the_same_content_counts_wherever_it_lies(tmp_path, fake, with_pictures) -> None:
    (tmp_path / "a.png").rename(tmp_path / "renamed.png")
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text().replace('"a.png"', '"renamed.png"'))
    assert "6 done before" in run(with_pictures, fake.load).lines[0]
    assert fake.asked == []


def test_a_resumed_run_reads_no_picture_that_has_not_changed(tmp_path, fake, with_pictures, monkeypatch) -> None:
    def read(path):
        raise AssertionError(f"{path} was read")

    monkeypatch.setattr(pictures, "read_picture", read)
    assert "6 done before" in run(with_pictures, fake.load).lines[0]


def test_without_its_index_a_resumed_run_compares_contents(tmp_path, fake, with_pictures) -> None:
    before = (tmp_path / "out" / INDEX_FILE).read_bytes()
    (tmp_path / "out" / INDEX_FILE).unlink()
    assert "6 done before" in run(with_pictures, fake.load).lines[0]
    assert (tmp_path / "out" / INDEX_FILE).read_bytes() == before


def test_results_of_older_versions_count_by_path_which_is_said_once(tmp_path, fake, with_pictures, caplog) -> None:
    caplog.set_level(logging.INFO)
    for path in results(tmp_path).glob("*_bbox.json"):
        record = json.loads(path.read_text())
        del record["image_bytes"], record["image_sha256"]
        path.write_text(json.dumps(record))
    assert "6 done before" in run(with_pictures, fake.load).lines[0]
    assert caplog.text.count("6 results do not say what their pictures held") == 1
    (tmp_path / "other").mkdir()
    (tmp_path / "b.png").rename(tmp_path / "other" / "b.png")
    rows = tmp_path / "rows.jsonl"
    rows.write_text(rows.read_text().replace('"b.png"', '"other/b.png"'))
    run(with_pictures, fake.load)
    assert sorted(fake.asked) == ["row1", "row3", "row5"]


# Resumed runs


def test_rows_of_a_picture_keep_their_company_in_a_resumed_run_and_are_not_written_again(tmp_path, fake) -> None:
    settings = batch_settings(tmp_path, 9)
    run(settings, fake.load)
    whole = read_results(results(tmp_path))
    for name in ("row4_bbox.json", "row4_mask.png"):
        (results(tmp_path) / name).unlink()
    times = {path.name: path.stat().st_mtime_ns for path in results(tmp_path).iterdir()}
    fake.asked.clear()
    assert "1 done now" in run(settings, fake.load).lines[0]
    assert fake.asked == ["row1", "row4", "row7"]
    assert read_results(results(tmp_path)) == whole
    assert all((results(tmp_path) / name).stat().st_mtime_ns == time for name, time in times.items())


def test_what_is_redone_is_removed_first(tmp_path, fake) -> None:
    settings = batch_settings(tmp_path, 2)
    run(settings, fake.load)
    for name in ("row0_top3.png", "row0_top65.png", "row0_analysis.pkl", "row01_top3.png", "mine.png"):
        (results(tmp_path) / name).write_bytes(b"old")
    run(replace(settings, data=replace(settings.data, overwrite=True)), fake.load)
    rest = {path.name for path in results(tmp_path).iterdir()}
    made = {f"row{number}_{name}" for number in range(2) for name in ("bbox.json", "mask.png")}
    assert rest == {"run.json", "row01_top3.png", "mine.png", *made}


def test_failures_are_never_written_through_a_symbolic_link(tmp_path, fake, caplog) -> None:
    settings = batch_settings(tmp_path, 3)
    (tmp_path / "image1.png").unlink()
    precious = tmp_path / "precious.txt"
    precious.write_text("precious\n")
    results(tmp_path).mkdir(parents=True)
    (results(tmp_path) / "failures.jsonl").symlink_to(precious)
    assert run(settings, fake.load).failed == 1
    assert precious.read_text() == "precious\n"
    assert list(failures(tmp_path)) == ["row1"]
    assert not (results(tmp_path) / "failures.jsonl").is_symlink()
    assert "Removed the symbolic link" in caplog.text


# What killed runs left


@pytest.fixture(scope="module")
def dead_owner() -> Owner:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return Owner(Owner.current().machine, process.pid, 5)


def leave(directory: Path, target: str, owner: Owner) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f".{target}.{owner.tag}-0a1b2c3d.part"
    path.write_bytes(b"half")
    return path


@pytest.mark.parametrize("stage", ["collect", "pipeline", "batch", "batch_analyze", "analyze"])
def test_the_next_run_of_any_stage_clears_what_a_killed_one_left(tmp_path, fake, dead_owner, stage) -> None:
    rows = str(write_rows(tmp_path, 3))
    single = {"image_file": str(tmp_path / "image0.png"), "query": "a", "save_id": "s"}
    run(make_settings(tmp_path, "pipeline", **single), fake.load)
    directory = results(tmp_path)
    dead = [leave(directory, name, dead_owner) for name in ("run.json", "heads.yaml", "elsewhere.pkl.gz")]
    living = partial_path(directory / "row0.pkl.gz")
    living.write_bytes(b"half")
    data = {
        "batch": {"data_file": rows},
        "analyze": {"attention_file": str(directory / "s.pkl.gz")},
        "batch_analyze": {},
    }
    run(make_settings(tmp_path, stage, **data.get(stage, single)), fake.load)
    assert [path for path in dead if path.exists()] == []
    assert living.exists()


# Single runs


def test_a_blank_at_the_end_of_a_single_query_is_left_out_with_a_note(tmp_path, fake, caplog) -> None:
    write_rows(tmp_path, 1)
    settings = make_settings(tmp_path, "pipeline", image_file=str(tmp_path / "image0.png"), query="a bird\n")
    run(settings, fake.load)
    record = files.load_bbox_json(results(tmp_path) / "image0_a-bird_bbox.json")
    assert (record["query"], record["bbox_xyxy"]) == ("a bird", target_box("a bird"))
    assert "white space at its ends" in caplog.text


def test_a_single_run_keeps_off_a_row_that_a_batch_is_making(tmp_path, fake) -> None:
    settings = batch_settings(tmp_path, 3)
    single = make_settings(tmp_path, "pipeline", image_file=str(tmp_path / "image0.png"), query="a", save_id="row1")

    def load(model, stop_layer=None):
        with pytest.raises(ValueError, match=f"process {os.getpid()} on .* 1 of these 1 rows"):
            run(single, fake.load)
        return fake.load(model, stop_layer)

    assert run(settings, load).failed == 0
    assert done(tmp_path) == {"row0", "row1", "row2"}


def rows_with_ids(tmp_path: Path, ids: list[str], **changes) -> Path:
    path = write_rows(tmp_path, len(ids))
    rows = [{**json.loads(line), "id": name, **changes} for line, name in zip(path.read_text().splitlines(), ids)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_ids_that_differ_by_case_only_have_files_that_differ_by_more(tmp_path, fake) -> None:
    ids = ["Cat", "cat", "CON", "dog"]
    path = rows_with_ids(tmp_path, ids)
    settings = batch_settings(tmp_path)
    run(settings, fake.load)
    names = [name.lower() for name in os.listdir(results(tmp_path))]
    assert len(set(names)) == len(names)
    assert done(tmp_path) == {"Cat~1", "cat", "%43ON", "dog"}
    report = evaluate_boxes.evaluate(path, results(tmp_path))
    assert [sample.status for sample in report.samples] == ["box"] * 4
    assert [sample.iou for sample in report.samples] == [1.0] * 4
    assert "0 done now" in run(settings, fake.load).lines[0]


def test_what_stands_under_another_name_of_an_id_is_removed_when_it_is_redone(tmp_path, fake) -> None:
    rows_with_ids(tmp_path, ["Cat", "cat"])
    run(batch_settings(tmp_path), fake.load)
    rows_with_ids(tmp_path, ["Cat"])
    assert done(tmp_path) == {"Cat~1", "cat"}
    run(batch_settings(tmp_path, overwrite=True), fake.load)
    assert done(tmp_path) == {"Cat", "cat"}


def test_figures_show_the_rows_ground_truth_in_every_format(tmp_path, fake, monkeypatch) -> None:
    drawn = {}
    draw = viz.draw_top_heads

    def remember(path, image, maps, grid, choice, localization, query, **options):
        drawn[query] = options["truth_box_xyxy"], options["top_k"], options["dpi"]
        return draw(path, image, maps, grid, choice, localization, query, **options)

    monkeypatch.setattr(viz, "draw_top_heads", remember)
    settings = replace(batch_settings(tmp_path, 2, visualize_batch=True), figures=FiguresSettings(["svg", "png"], 60))
    run(settings, fake.load)
    assert drawn == {f"thing number {n}": (tuple(target_box(f"thing number {n}")), 3, 60) for n in range(2)}
    figures = {path.name for path in results(tmp_path).glob("*_top3.*")}
    assert figures == {"row0_top3.svg", "row0_top3.png", "row1_top3.svg", "row1_top3.png"}
    (results(tmp_path) / "row1_top3.svg").unlink()
    assert "1 done now" in run(settings, fake.load).lines[0]


def test_ground_truth_that_cannot_be_read_costs_a_batch_its_figures_boxes_only(tmp_path, fake, caplog) -> None:
    rows_with_ids(tmp_path, ["a", "b"], bbox=[100, 100, 150, 150], image_size=[2000, 2000])
    with caplog.at_level(logging.WARNING):
        run(batch_settings(tmp_path, visualize_batch=True), fake.load)
    assert done(tmp_path) == {"a", "b"}
    assert any("Figures show no ground truth: Expected the 2 boxes of" in text for text in caplog.messages)
