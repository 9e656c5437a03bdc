"""Whole files, and the small files of a result."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lab.records import HeadChoice, HeadScore, Localization
from lab.storage import files

torch = pytest.importorskip("torch")


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Whole files


def test_atomic_write_keeps_the_old_file_when_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    files.atomic_write(path, "old")

    def fail(file) -> None:
        file.write(b"ne")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        files.atomic_write(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_atomic_write_makes_directories_and_takes_functions(tmp_path: Path) -> None:
    path = tmp_path / "new" / "x.bin"
    files.atomic_write(path, lambda file: file.write(b"abc"))
    assert path.read_bytes() == b"abc"


# Analysis, box, mask, metadata, JSONL


HEADS = [HeadScore(3, 1, 0.5, 0.25, False, 2), HeadScore(2, 0, 0.25, float("inf"), True, 0)]


def test_analysis_round_trip(tmp_path: Path) -> None:
    files.save_analysis(tmp_path / "a_analysis.pkl", HEADS)
    assert files.load_analysis(tmp_path / "a_analysis.pkl") == HEADS
    rows = pickle.loads((tmp_path / "a_analysis.pkl").read_bytes())
    assert list(rows[0]) == ["layer", "head", "attn_sum", "spatial_entropy", "bottom_row_focus", "num_components"]


@pytest.mark.parametrize("rows", [5, [{"layer": 1}], {"attn": 1}])
def test_analysis_of_another_kind_is_refused(tmp_path: Path, rows) -> None:
    with pytest.raises(ValueError, match="list of heads"):
        files.load_analysis(_write(tmp_path / "x.pkl", pickle.dumps(rows)))


@pytest.mark.parametrize("box", [(1.0, 2.5, 3.0, 4.0), None])
def test_bbox_round_trip_is_valid_json(tmp_path: Path, make_collected, box) -> None:
    sample = make_collected("b").sample
    mask = np.zeros((4, 4), dtype=bool)
    localization = Localization(np.zeros((2, 2), np.float32), np.zeros((2, 2), bool), mask, box, (4, 4))
    path = tmp_path / "b_bbox.json"
    files.save_bbox_json(path, sample, localization, HeadChoice(tuple(HEADS), "manual", ("why",)), {"extra": 1})
    record = files.load_bbox_json(path)
    assert "Infinity" not in path.read_text()
    assert record["bbox_xyxy"] == (None if box is None else list(box))
    assert record["selected_heads"][1]["spatial_entropy"] is None
    assert (record["heads_source"], record["heads_notes"], record["extra"]) == ("manual", ["why"], 1)
    assert (record["image_size"], record["query"]) == ([4, 4], "the bird")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"bbox_xyxy": [1, 2, 3]}', '{"bbox_xyxy": [5, 0, 1, 1]}', '{"bbox_xyxy": "abcd"}']
)
def test_broken_bbox_files_are_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match="hold 'bbox_xyxy' as"):
        files.load_bbox_json(_write(tmp_path / "x_bbox.json", text.encode()))


def test_mask_is_0_and_255(tmp_path: Path) -> None:
    from PIL import Image

    mask = np.zeros((3, 5), dtype=bool)
    mask[1, 2:4] = True
    files.save_mask_png(tmp_path / "m.png", mask)
    with Image.open(tmp_path / "m.png") as image:
        assert (image.mode, image.size) == ("L", (5, 3))
        np.testing.assert_array_equal(np.asarray(image), mask * 255)


def test_meta_files_hold_plain_data(tmp_path: Path) -> None:
    meta = {"a": np.float32(0.5), "b": (1, np.arange(2)), "c": torch.float16, "d": float("nan"), "é": "✓"}
    files.save_meta_json(tmp_path / "m.json", meta)
    assert json.loads((tmp_path / "m.json").read_text("utf-8")) == {
        "a": 0.5,
        "b": [1, [0, 1]],
        "c": "torch.float16",
        "d": None,
        "é": "✓",
    }
    files.save_meta_pickle(tmp_path / "m.pkl", meta)
    assert pickle.loads((tmp_path / "m.pkl").read_bytes())["b"] == [1, [0, 1]]


def test_read_jsonl_goes_on_after_bad_lines(tmp_path: Path) -> None:
    text = b'\xef\xbb\xbf{"id": 1}\r\n\n[1]\n{"id": \n{"id": "\xff"}\n' + b"[" * 100_000 + b'\n{"id": 2}'
    lines = list(files.read_jsonl(_write(tmp_path / "x.jsonl", text)))
    assert [(line.number, line.row) for line in lines] == [
        (1, {"id": 1}),
        (3, None),
        (4, None),
        (5, None),
        (6, None),
        (7, {"id": 2}),
    ]
    for line, words in zip(lines[1:5], ("got a list", "unreadable JSON", "UTF-8", "unreadable JSON")):
        assert words in line.error
    with pytest.raises(FileNotFoundError, match="JSONL file at"):
        list(files.read_jsonl(tmp_path / "none"))


def test_append_jsonl_line(tmp_path: Path) -> None:
    path = tmp_path / "new" / "f.jsonl"
    for number in range(2):
        files.append_jsonl_line(path, {"line": number, "reason": "a\nb"})
    assert [line.row for line in files.read_jsonl(path)] == [{"line": n, "reason": "a\nb"} for n in range(2)]


def test_importing_files_loads_no_torch() -> None:
    code = "import sys, lab.storage.files; assert not {'torch', 'transformers', 'matplotlib', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
