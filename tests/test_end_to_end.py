"""The picture-book model through every stage, from the command line, as a user types it."""

import csv
import gzip
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import evaluate_boxes
from bbox import box_iou, xywh_to_xyxy
from picturebook.answers import answer_accuracy, first_answer_word
from picturebook.export import export
from vlm.loading import load_llava

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "examples" / "models" / "picturebook-llava"


def run(*arguments, check=True):
    """Run the command line in a process of its own, from the project's root."""
    done = subprocess.run([sys.executable, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True)
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def bird(tmp_path_factory):
    """Results of the README's first command."""
    out = tmp_path_factory.mktemp("bird")
    query, image = "data.query=the bird on the branch", "data.image_file=examples/images/bird.png"
    done = run("pipeline.py", "stage=pipeline", "model=picturebook", image, query, f"data.output_dir={out}",
               "data.save_id=sample", f"hydra.run.dir={out}/hydra", 
               "storage.attention.keep_meta_pickle=true")  # fmt: skip
    return out / "picturebook-llava", done.stdout


@pytest.fixture(scope="module")
def batch(tmp_path_factory):
    """Boxes of a few unseen scenes, attention files kept."""
    out = tmp_path_factory.mktemp("batch")
    dataset = export(out / "data", "test", scenes=12, expressions=3, seed=7)
    run("pipeline.py", "stage=batch", "model=picturebook", "logic=paper", f"data.data_file={dataset}",
        f"data.output_dir={out}/results", f"hydra.run.dir={out}/hydra")  # fmt: skip
    return dataset, out / "results" / "picturebook-llava"


def test_pipeline_writes_every_file(bird):
    folder, stdout = bird
    names = {path.name for path in folder.iterdir()}
    assert {"sample.pkl.gz", "sample_meta.json", "sample_meta.pkl", "sample_analysis.pkl", "sample_top3.png",
            "sample_mask.png", "sample_bbox.json"} <= names  # fmt: skip
    assert "sample_bbox.json" in stdout
    assert "box " in stdout


def test_the_attention_file_reads_back_with_plain_pickle(bird):
    with gzip.open(bird[0] / "sample.pkl.gz") as file:
        stored = pickle.load(file)
    assert str(stored["attn"].dtype) == "torch.float16"
    meta = stored["meta"]
    assert list(stored["attn"].shape) == [meta["num_layers"], meta["num_heads"], 1, meta["vis_len"]]
    assert meta["vis_len"] == meta["grid"]["rows"] * meta["grid"]["cols"] == 256
    assert meta["query"] == "the bird on the branch"
    assert json.loads((bird[0] / "sample_meta.json").read_text())["grid"] == meta["grid"]


def test_mask_and_box_agree(bird):
    record = json.loads((bird[0] / "sample_bbox.json").read_text())
    mask = np.asarray(Image.open(bird[0] / "sample_mask.png")) > 0
    assert list(mask.shape[::-1]) == record["image_size"] == [640, 480]
    x0, y0, x1, y1 = record["bbox_xyxy"]
    assert mask[int(y0) + 1 : int(y1) - 1, int(x0) + 1 : int(x1) - 1].mean() > 0.3
    assert len(record["selected_heads"]) == 3


@pytest.mark.parametrize("name", ["analyze", "visualize"])
def test_stored_attention_goes_through_the_later_stages(bird, name, tmp_path):
    done = run("pipeline.py", f"stage={name}", "model=picturebook", f"data.attention_file={bird[0] / 'sample.pkl'}",
               f"hydra.run.dir={tmp_path}")  # fmt: skip
    assert ("L3H" in done.stdout) or ("L2H" in done.stdout)


def test_example_queries_find_their_objects(tmp_path):
    dataset = ROOT / "examples" / "localization_data.jsonl"
    run("pipeline.py", "stage=batch", "model=picturebook", "logic=paper", f"data.data_file={dataset}",
        f"data.output_dir={tmp_path}", f"hydra.run.dir={tmp_path}/hydra", "storage.attention.save=false")  # fmt: skip
    rows = [json.loads(line) for line in dataset.read_text().splitlines()]
    assert len(rows) >= 6
    for row in rows:
        found = json.loads((tmp_path / "picturebook-llava" / f"{row['id']}_bbox.json").read_text())["bbox_xyxy"]
        assert box_iou(found, xywh_to_xyxy(row["bbox"])) >= 0.5, row


def test_fixed_heads_find_unseen_objects(batch):
    dataset, results = batch
    report = evaluate_boxes.evaluate(dataset, results)
    assert report.overall.mean_iou > 0.5


def test_batch_analyze_reads_what_batch_wrote(batch):
    dataset, results = batch
    done = run("pipeline.py", "stage=batch_analyze", "model=picturebook", f"data.batch_attention_dir={results}",
               f"data.ground_truth={dataset}", f"hydra.run.dir={results}/hydra")  # fmt: skip
    with (results / "batch_selected_heads_counts.csv").open() as file:
        counts = list(csv.DictReader(file))
    selected = json.loads((results / "batch_selected_heads.json").read_text())
    assert sum(int(row["count"]) for row in counts) > 0
    assert selected
    assert "\nverdict " in done.stdout  # whichever: 36 samples are few


def test_a_second_batch_run_does_nothing_again(batch):
    dataset, results = batch
    before = {path: path.stat().st_mtime_ns for path in results.glob("*_bbox.json")}
    done = run("pipeline.py", "stage=batch", "model=picturebook", "logic=paper", f"data.data_file={dataset}",
               f"data.output_dir={results.parent}", f"hydra.run.dir={results}/hydra")  # fmt: skip
    assert f"{len(before)} done before" in done.stdout
    assert before == {path: path.stat().st_mtime_ns for path in results.glob("*_bbox.json")}


def test_the_model_answers_what_the_query_does_not_say(batch):
    shares = answer_accuracy(load_llava(str(MODEL), conv_mode="picturebook"), batch[0])
    assert shares["all"] >= 0.85


def test_generated_text_begins_with_the_first_answer_word(tmp_path):
    query = "the bird on the branch"
    run("pipeline.py", "stage=collect", "model=picturebook", "data.image_file=examples/images/bird.png",
        f"data.query={query}", "model.use_generate=true", f"data.output_dir={tmp_path}", "data.save_id=a",
        f"hydra.run.dir={tmp_path}/hydra")  # fmt: skip
    meta = json.loads((tmp_path / "picturebook-llava" / "a_meta.json").read_text())
    word = first_answer_word(
        load_llava(str(MODEL), conv_mode="picturebook"), ROOT / "examples" / "images" / "bird.png", query
    )
    assert meta["generated_text"].split()[0] == word


def test_an_unknown_word_is_named(tmp_path):
    done = run("pipeline.py", "stage=collect", "model=picturebook", "data.image_file=examples/images/bird.png",
               "data.query=the zebra", f"data.output_dir={tmp_path}", f"hydra.run.dir={tmp_path}/hydra")  # fmt: skip
    assert "zebra" in done.stderr + done.stdout.replace("the zebra", "")
