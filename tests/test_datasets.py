"""Every format goes in, its traps are caught, and all that describe the same reference give the same box."""

import base64
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lab.datasets.__main__ import main
from lab.datasets.convert import ConversionOptions, convert, report_path
from lab.datasets.formats.base import Inputs
from lab.datasets.formats.coco_names import coco_names
from lab.datasets.published import merged_splits

ROOT = Path(__file__).resolve().parent.parent
# Reference 0 of RefCOCO: its picture, its box, and three sentences.
NAME, SIZE, IMAGE_ID, ANN_ID = "COCO_train2014_000000581857.jpg", (427, 640), 581857, 1719310
XYWH = [103.93, 299.99, 134.22, 177.42]
XYXY = [103.93, 299.99, 238.15, 477.41]
SENTENCES = ["the lady with the blue shirt", "lady with back to us", "blue shirt"]
SQUARE = [[100.0, 300.0, 240.0, 300.0, 240.0, 480.0, 100.0, 480.0]]


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A directory as COCO's, with the picture of the reference."""
    folder = tmp_path_factory.mktemp("coco")
    (folder / "train2014").mkdir()
    Image.new("RGB", SIZE, "white").save(folder / "train2014" / NAME)
    return folder


def reference(**changes):
    sentences = [{"tokens": s.split(), "raw": s.upper(), "sent_id": i, "sent": s} for i, s in enumerate(SENTENCES)]
    return {
        "ref_id": 0,
        "ann_id": ANN_ID,
        "category_id": 1,
        "image_id": IMAGE_ID,
        "split": "train",
        "file_name": "COCO_train2014_000000581857_16.jpg",
        "sent_ids": [0, 1, 2],
        "sentences": sentences,
        **changes,
    }


def instances(**annotation):
    target = {
        "id": ANN_ID,
        "image_id": IMAGE_ID,
        "category_id": 1,
        "bbox": XYWH,
        "iscrowd": 0,
        "area": 1.0,
        **annotation,
    }
    return {
        "images": [{"id": IMAGE_ID, "file_name": NAME, "width": SIZE[0], "height": SIZE[1]}],
        "annotations": [target],
        "categories": [{"id": 1, "name": "person"}],
    }


def jpeg():
    buffer = io.BytesIO()
    Image.new("RGB", SIZE, "white").save(buffer, "JPEG")
    return buffer.getvalue()


def write_json(path, value):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value))
    return path


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_parquet(path, rows):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def refer_pickle(folder, protocol=0):
    folder = folder / "refcoco"
    write_json(folder / "instances.json", instances())
    (folder / "refs(unc).p").write_bytes(pickle.dumps([reference()], protocol=protocol))
    return folder


def mdetr_file(folder):
    pictures = [
        {"id": i, "original_id": IMAGE_ID, "file_name": NAME, "width": 427, "height": 640, "caption": s}
        for i, s in enumerate(SENTENCES)
    ]
    pictures = [{**picture, "dataset_name": "refcoco"} for picture in pictures]
    targets = [{"id": i, "image_id": i, "original_id": ANN_ID, "bbox": XYWH, "category_id": 1} for i in range(3)]
    return write_json(
        folder / "finetune_refcoco_train.json", {"images": pictures, "annotations": targets, "categories": []}
    )


def shikra_lines(folder, box=XYXY):
    row = {"img_path": NAME, "bbox": box, "dataset_name": "refcoco", "height": 640, "width": 427}
    return write_lines(folder / "REC_refcoco_unc_train.jsonl", [{**row, "expression": s} for s in SENTENCES])


def qwen_lines(folder, box=XYXY):
    row = {"image": f"data/coco/train2014/{NAME}", "bbox": box, "height": 640, "width": 427}
    return write_lines(folder / "refcoco_train.jsonl", [{**row, "sent": s} for s in SENTENCES])


def jxu124_rows():
    annotation = {"id": ANN_ID, "bbox": XYWH, "image_id": IMAGE_ID}
    info = {"file_name": NAME, "width": 427, "height": 640, "id": IMAGE_ID}
    texts = {"raw_anns": json.dumps(annotation), "raw_image_info": json.dumps(info), "raw_sentences": "[]"}
    return [{**reference(), **texts, "bbox": XYXY, "image_path": f"coco/train2014/{NAME}", "split": "test"}]


def jxu124_parquet(folder):
    (folder / "refcoco").mkdir()
    return write_parquet(folder / "refcoco" / "test-00000-of-00001.parquet", jxu124_rows())


def lmms_lab_parquet(folder, num_rows=1):
    row = {
        "image": {"bytes": jpeg(), "path": None},
        "question": "caption?",
        "answer": SENTENCES,
        "segmentation": SQUARE[0],
        "bbox": XYWH,
        "iscrowd": 0,
        "file_name": "COCO_train2014_000000581857_16.jpg",
    }
    (folder / "RefCOCO").mkdir()
    rows = [{**row, "question_id": str(ANN_ID)} for _ in range(num_rows)]
    return write_parquet(folder / "RefCOCO" / "val-00000-of-00001.parquet", rows)


def conversation(box_text, **changes):
    turns = []
    for sentence in SENTENCES:
        turns.append({"from": "human", "value": f"<image>\nGive the box of this region: <ref>{sentence}</ref>"})
        turns.append({"from": "gpt", "value": box_text})
    return [{"id": 7, "image": NAME, "width": 427, "height": 640, "conversations": turns, **changes}]


def internvl_json(folder):
    return write_json(folder / "sft.json", conversation("<box>[[243, 469, 558, 746]]</box>"))


def csv_file(folder):
    lines = ["id,image,expression,x1,y1,x2,y2"]
    lines += [f'{i},{NAME},"{s}",{",".join(map(str, XYXY))}' for i, s in enumerate(SENTENCES)]
    path = folder / "plain.csv"
    path.write_text("\n".join(lines))
    return path


def vlmevalkit_tsv(folder):
    picture = base64.b64encode(jpeg()).decode()
    share = [XYXY[0] / 427, XYXY[1] / 640, XYXY[2] / 427, XYXY[3] / 640]
    lines = ["index\timage\tquestion\tanswer\tcategory"]
    for index, sentence in enumerate(SENTENCES):
        image = picture if index == 0 else "0"
        lines.append(f"{index}\t{image}\tWhere? <ref>{sentence}</ref>\t{share}\tRefCOCO train")
    path = folder / "RefCOCO.tsv"
    path.write_text("\n".join(lines))
    return path


def refcoco_m_parquet(folder):
    sample = {"id": 5, "category": "person", "sentences": SENTENCES, "bbox": XYWH}
    row = {"image": {"bytes": jpeg(), "path": None}, "image_id": IMAGE_ID, "file_name": NAME, "samples": [sample]}
    return write_parquet(folder / "refcoco_m.parquet", [row])


SAME_REFERENCE = {
    "refer": (refer_pickle, 1e-9),
    "mdetr": (mdetr_file, 1e-9),
    "shikra": (shikra_lines, 1e-9),
    "qwen": (qwen_lines, 1e-9),
    "jxu124": (jxu124_parquet, 1e-9),
    "lmms_lab": (lmms_lab_parquet, 1e-9),
    "conversations": (internvl_json, 0.4),
    "table": (csv_file, 1e-9),
    "vlmevalkit": (vlmevalkit_tsv, 1e-9),
    "refcoco_m": (refcoco_m_parquet, 1e-9),
}


def converted(path, images, output, **options):
    inputs = {key: options.pop(key) for key in ("split", "dataset", "instances") if key in options}
    report = convert(Inputs(path, **inputs), output, ConversionOptions(images=(images,), **options))
    return report, [json.loads(line) for line in output.read_text().splitlines()]


@pytest.mark.parametrize("name", SAME_REFERENCE)
def test_all_formats_give_the_same_reference(name, images, tmp_path):
    write, tolerance = SAME_REFERENCE[name]
    report, rows = converted(write(tmp_path), images, tmp_path / "rows.jsonl", masks=False)
    assert report.format_name == name
    assert [row["prompt"] for row in rows] == SENTENCES
    assert len({row["id"] for row in rows}) == 3
    assert np.abs(np.array([row["bbox_xyxy"] for row in rows]) - XYXY).max() <= tolerance
    for row in rows:
        picture = Path(row["image_path"])
        picture = picture if picture.is_absolute() else tmp_path / picture
        assert Image.open(picture).size == SIZE
        assert row["image_size"] == list(SIZE)
    assert report.is_clean
    assert json.loads(report_path(tmp_path / "rows.jsonl").read_text())["format_name"] == name


@pytest.mark.parametrize("protocol", [0, 2])
def test_pickles_of_python_2_are_read_without_running_them(protocol, images, tmp_path):
    report, rows = converted(refer_pickle(tmp_path, protocol), images, tmp_path / "rows.jsonl", masks=False)
    assert (rows[0]["split_by"], rows[0]["dataset"], rows[0]["ref_id"]) == ("unc", "refcoco", 0)
    assert "NOT as published" in "\n".join(report.lines())


def test_a_pickle_that_calls_something_is_refused(images, tmp_path):
    folder = refer_pickle(tmp_path)
    (folder / "refs(unc).p").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ValueError, match=r"refs\(unc\)\.p"):
        converted(folder, images, tmp_path / "rows.jsonl")


def test_references_without_annotations_are_refused(images, tmp_path):
    folder = refer_pickle(tmp_path)
    (folder / "instances.json").unlink()
    with pytest.raises(ValueError, match="Expected COCO's annotations beside the references"):
        converted(folder, images, tmp_path / "rows.jsonl")


def test_one_split_of_references(images, tmp_path):
    folder = refer_pickle(tmp_path)
    with pytest.raises(ValueError, match="to hold expressions of the split 'val'"):
        converted(folder, images, tmp_path / "rows.jsonl", split="val")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("COCO_train2014_000000581857_16.jpg", [NAME, "000000581857.jpg"]),
        (NAME, [NAME, "000000581857.jpg"]),
        ("photos/cat.png", ["photos/cat.png"]),
    ],
    ids=["reference-suffix", "plain", "other"],
)
def test_the_names_of_a_picture(name, expected):
    assert list(coco_names(name)) == expected


def test_pictures_of_the_2017_edition_are_found(tmp_path):
    (tmp_path / "train2017").mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "train2017" / "000000581857.jpg")
    report, rows = converted(refer_pickle(tmp_path), tmp_path, tmp_path / "rows.jsonl", masks=False)
    assert rows[0]["image_path"] == "train2017/000000581857.jpg"
    assert report.is_clean


def test_missing_pictures_are_counted_by_name(tmp_path):
    report, rows = converted(refer_pickle(tmp_path), tmp_path / "nowhere", tmp_path / "rows.jsonl", masks=False)
    assert len(rows) == 3
    assert [Path(name).name for name in report.pictures_missing] == [NAME]
    assert not report.is_clean


def test_early_shares_and_later_pixels_of_the_same_fields(images, tmp_path):
    share = [round(XYXY[0] / 427, 3), round(XYXY[1] / 640, 3), round(XYXY[2] / 427, 3), round(XYXY[3] / 640, 3)]
    report, rows = converted(shikra_lines(tmp_path, share), images, tmp_path / "rows.jsonl")
    assert "0 to 1" in report.box_reading
    assert np.abs(np.array(rows[0]["bbox_xyxy"]) - XYXY).max() < 0.5


@pytest.mark.parametrize(
    "box", [XYWH, [0.24, 0.47, 0.56, 0.75], [243, 469, 558, 746]], ids=["widths", "shares", "thousandths"]
)
def test_boxes_that_contradict_their_format_are_refused(box, images, tmp_path):
    with pytest.raises(ValueError, match="as the format qwen has them"):
        converted(qwen_lines(tmp_path, box), images, tmp_path / "rows.jsonl")


def test_corners_in_a_file_of_widths_are_refused(images, tmp_path):
    path = mdetr_file(tmp_path)
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["bbox"] = XYXY
    write_json(path, content)
    with pytest.raises(ValueError, match="3 of 3 without extent or outside"):
        converted(path, images, tmp_path / "rows.jsonl")
    _, rows = converted(path, images, tmp_path / "rows.jsonl", box_format="xyxy")
    assert rows[0]["bbox_xyxy"] == XYXY


def test_shares_of_the_padded_square_must_be_declared(images, tmp_path):
    path = write_json(tmp_path / "llava.json", conversation("[0.33, 0.47, 0.54, 0.75]"))
    with pytest.raises(ValueError, match="could be xyxy_unit or xyxy_padded"):
        converted(path, images, tmp_path / "rows.jsonl")
    _, rows = converted(path, images, tmp_path / "rows.jsonl", box_format="xyxy_padded")
    assert np.abs(np.array(rows[0]["bbox_xyxy"]) - XYXY).max() < 5  # two decimals of 640 pixels


def test_conversations_about_other_things_are_passed_over(images, tmp_path):
    rows = conversation("[243, 469, 558, 746]")
    rows[0]["conversations"] += [{"from": "human", "value": "What is this?"}, {"from": "gpt", "value": "A market."}]
    _, found = converted(write_json(tmp_path / "c.json", rows), images, tmp_path / "rows.jsonl")
    assert len(found) == 3


def test_merged_splits_are_refused_and_named(images, tmp_path):
    path = lmms_lab_parquet(tmp_path, num_rows=2)
    with pytest.raises(ValueError, match="looks like two merged: 1 of 1 annotations stand under several references"):
        converted(path, images, tmp_path / "rows.jsonl", masks=False)
    report, rows = converted(path, images, tmp_path / "rows.jsonl", masks=False, allow_merged=True)
    assert len({row["id"] for row in rows}) == 6
    assert "MERGED" in "\n".join(report.lines())


def test_sizes_that_add_up_name_the_two_splits():
    assert merged_splits("refcoco", 3811 + 5000) == ("unc val", "google val")
    assert merged_splits("refcocog", 2573 + 5000) == ("umd val", "google val")
    assert merged_splits("refcoco", 3811) == ()


def test_embedded_pictures_are_written_as_they_are(tmp_path):
    path = lmms_lab_parquet(tmp_path)
    _, rows = converted(path, tmp_path, tmp_path / "rows.jsonl", masks=False)
    assert (tmp_path / rows[0]["image_path"]).read_bytes() == jpeg()


def test_several_and_no_targets_are_kept(images, tmp_path):
    folder = tmp_path / "grefcoco"
    content = instances()
    content["annotations"].append({**content["annotations"][0], "id": 2, "bbox": [1, 2, 30, 40]})
    write_json(folder / "instances.json", content)
    refs = [
        reference(ref_id=1, ann_id=[ANN_ID, 2], category_id=[1, 1], no_target=False),
        reference(ref_id=2, ann_id=[-1], category_id=[-1], no_target=True),
        reference(ref_id=3, ann_id=[2], category_id=[1], no_target=False, sentences=[], sent_ids=[]),
    ]
    write_json(folder / "grefs(unc).json", refs)
    report, rows = converted(folder, images, tmp_path / "rows.jsonl", masks=False)
    assert np.allclose(rows[0]["boxes_xyxy"], [XYXY, [1, 2, 31, 42]])
    assert rows[0]["bbox_xyxy"] is None
    assert (rows[3]["no_target"], rows[3]["bbox_xyxy"]) == (True, None)
    assert (report.several_targets, report.without_target, len(rows)) == (3, 3, 6)


def test_masks_are_run_length_codes_of_the_polygons(images, tmp_path):
    mask = pytest.importorskip("pycocotools.mask")
    folder = refer_pickle(tmp_path)
    write_json(folder / "instances.json", instances(segmentation=SQUARE))
    _, rows = converted(folder, images, tmp_path / "rows.jsonl")
    decoded = mask.decode({**rows[0]["mask"], "counts": rows[0]["mask"]["counts"].encode()})
    assert decoded.shape == (640, 427)
    assert decoded.sum() == 140 * 180


def test_masks_ask_for_their_package_in_one_line(images, tmp_path, monkeypatch, capsys):
    folder = refer_pickle(tmp_path)
    write_json(folder / "instances.json", instances(segmentation=SQUARE))
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    output = tmp_path / "rows.jsonl"
    assert main(["convert", "--input", str(folder), "--images", str(images), "--output", str(output)]) == 2
    error = capsys.readouterr().err
    assert "pip install -r requirements-datasets.txt" in error
    assert error.count("\n") == 1
    assert not output.exists()


def test_reasoning_segmentation_keeps_ignored_regions_apart(tmp_path):
    pytest.importorskip("pycocotools.mask")
    folder = tmp_path / "val"
    points = [[10, 10], [60, 10], [60, 50], [10, 50]]
    shapes = [{"label": "target", "points": points}, {"label": "ignore", "points": [[70, 70], [80, 70], [80, 80]]}]
    write_json(folder / "x.json", {"text": ["the dog", "a dog"], "is_sentence": True, "shapes": shapes})
    Image.new("RGB", (100, 90)).save(folder / "x.jpg")
    report, rows = converted(folder, tmp_path, tmp_path / "rows.jsonl")
    assert report.format_name == "reasonseg"
    assert (rows[0]["prompt"], rows[0]["bbox_xyxy"]) == ("the dog", [10, 10, 60, 50])
    assert rows[0]["mask"]["size"] == rows[0]["ignore_mask"]["size"] == [90, 100]


def test_ref_l4_and_visual_genome(tmp_path):
    Image.new("RGB", (1024, 741)).save(tmp_path / "o.jpg")
    row = {"id": 1, "caption": "a camera", "bbox": [580.6, 179.5, 93.6, 112.1], "bbox_id": "o365_1", "split": "val"}
    row.update(image_id="o365_9", height=741, width=1024, file_name="o.jpg")
    _, rows = converted(write_json(tmp_path / "l4.json", [row]), tmp_path, tmp_path / "l4.jsonl")
    assert np.allclose(rows[0]["bbox_xyxy"], [580.6, 179.5, 674.2, 291.6])
    (tmp_path / "VG_100K_2").mkdir()
    Image.new("RGB", (800, 600)).save(tmp_path / "VG_100K_2" / "1.jpg")
    region = {"region_id": 1382, "image_id": 1, "phrase": "the clock ", "x": 421, "y": 57, "width": 82, "height": 139}
    path = write_json(tmp_path / "region_descriptions.json", [{"id": 1, "regions": [region]}])
    _, rows = converted(path, tmp_path, tmp_path / "vg.jsonl")
    assert (rows[0]["prompt"], rows[0]["bbox_xyxy"]) == ("the clock", [421, 57, 503, 196])


def test_plain_coco_makes_phrases_of_category_names(images, tmp_path):
    report, rows = converted(write_json(tmp_path / "i.json", instances()), images, tmp_path / "rows.jsonl", masks=False)
    assert (report.format_name, rows[0]["prompt"], len(rows)) == ("coco_instances", "person", 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"a": 1}], "Expected to tell the format"),
        ([], "Expected to tell the format"),
        ([reference(ann_id=5)], "Expected annotation 5 of reference 0 in instances.json"),
    ],
    ids=["unknown", "empty", "foreign-annotation"],
)
def test_files_that_cannot_be_converted(content, message, images, tmp_path):
    write_json(tmp_path / "instances.json", instances())
    with pytest.raises(ValueError, match=message):
        converted(write_json(tmp_path / "x.json", content), images, tmp_path / "rows.jsonl")


def test_verify_names_what_is_wrong(tmp_path, capsys):
    Image.new("RGB", (640, 480)).save(tmp_path / "a.jpg")
    good = {"prompt": "x", "image_path": "a.jpg", "bbox_xyxy": [10, 20, 50, 60], "image_size": [640, 480]}
    path = write_lines(tmp_path / "rows.jsonl", [{**good, "id": "1"}, {**good, "id": "2"}])
    assert main(["verify", str(path)]) == 0
    assert "2 under 'bbox_xyxy', read as [x0, y0, x1, y1] in pixels" in capsys.readouterr().out
    broken = [
        {**good, "id": "1"},
        {**good, "id": "1"},
        {**good, "id": "3", "image_path": "b.jpg", "prompt": " "},
        {**good, "id": "4", "image_size": [480, 640]},
    ]
    assert main(["verify", str(write_lines(path, broken))]) == 1
    error = capsys.readouterr().err
    assert "1 rows have no 'prompt': line 3" in error
    assert "2 rows share their id: line 1, 2" in error
    assert "1 rows have no readable picture: line 3" in error
    assert "1 rows state another size than their picture has: line 4" in error


def test_verify_refuses_ambiguous_boxes(tmp_path, capsys):
    Image.new("RGB", (640, 480)).save(tmp_path / "a.jpg")
    rows = [{"id": "1", "prompt": "x", "image_path": "a.jpg", "bbox": [10.5, 20, 50, 60]}]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    assert main(["verify", str(path)]) == 1
    assert "could be xywh or xyxy" in capsys.readouterr().err
    assert main(["verify", str(path), "--box-format", "xywh"]) == 0


def test_the_command_line_reports_what_was_read(images, tmp_path, capsys):
    output = tmp_path / "rows.jsonl"
    arguments = ["convert", "--input", str(refer_pickle(tmp_path)), "--images", str(images), "--output", str(output)]
    assert main([*arguments, "--no-masks"]) == 0
    printed = capsys.readouterr().out
    assert "1 refs, 3 expressions, 1 pictures; NOT as published (unc: 42,404 refs, 120,624 expressions" in printed
    assert main([*arguments, "--format", "nonsense"]) == 2
    assert "Expected --format to be auto or one of refer" in capsys.readouterr().err


def test_converting_loads_neither_torch_nor_transformers():
    code = "import sys, lab.datasets.__main__; print({'torch', 'transformers', 'matplotlib'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
