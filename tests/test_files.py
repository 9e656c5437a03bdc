"""Names, whole files, and reading that never runs code."""

from __future__ import annotations

import collections
import gzip
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab import files
from lab.files import OutputPaths, safe_name
from lab.records import HeadChoice, HeadScore, Localization

torch = pytest.importorskip("torch")


# Names


@pytest.mark.parametrize(
    ("sample_id", "name"),
    [
        ("example_1", "example_1"),
        ("a.b-c", "a.b-c"),
        ("a/b", "a%2Fb"),
        ("../x", "%2E.%2Fx"),
        (".", "%2E"),
        ("..", "%2E."),
        ("a b%", "a%20b%25"),
        ("naïve", "na%C3%AFve"),
        ("a\x00\\", "a%00%5C"),
        ("a~", "a%7E"),
        ("a_meta", "a%5Fmeta"),
        ("a_analysis", "a%5Fanalysis"),
        ("\ud800", "%ED%A0%80"),
    ],
)
def test_safe_name_known_answers(sample_id: str, name: str) -> None:
    assert safe_name(sample_id) == name


def test_safe_name_refuses_empty_id() -> None:
    with pytest.raises(ValueError, match="id to be non-empty text"):
        safe_name("")


def test_safe_name_cuts_long_ids_and_keeps_them_apart() -> None:
    names = {safe_name("é" * 400 + ending) for ending in ("", "a", "b")}
    assert len(names) == 3
    assert all(len(name) == 160 and re.fullmatch(r"[A-Za-z0-9_.%-]+~[0-9a-f]{20}", name) for name in names)


any_id = st.text(st.characters(exclude_categories=()), min_size=1, max_size=300) | st.sampled_from(
    ["a_meta", "a%5Fmeta", "_analysis", "~", "a" * 200]
)


@given(any_id, any_id)
def test_safe_name_never_leaves_the_directory_and_never_collides(first: str, second: str) -> None:
    name = safe_name(first)
    assert re.fullmatch(r"[A-Za-z0-9_.%~-]{1,160}", name)
    assert not name.startswith(".")
    assert (name == safe_name(second)) == (first == second)


def test_no_file_of_one_id_is_a_file_of_another(tmp_path: Path) -> None:
    ids = ["a", "a_meta", "a_analysis", "a_top3", "a_mask", "a_bbox", "a.pkl"]
    paths = [path for sample_id in ids for path in OutputPaths(tmp_path, sample_id).all_paths()]
    assert len(set(paths)) == len(paths)


def test_output_paths_are_those_of_the_readme(tmp_path: Path) -> None:
    paths = OutputPaths(tmp_path, "sample", top_k=5)
    names = [path.name for path in (paths.attention(), paths.analysis, paths.figure, paths.mask, paths.bbox_json)]
    assert names == ["sample.pkl.gz", "sample_analysis.pkl", "sample_top5.png", "sample_mask.png", "sample_bbox.json"]
    assert [paths.attention(False).name, paths.meta_json.name] == ["sample.pkl", "sample_meta.json"]


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


def test_partial_files_are_removed_for_own_targets_only(tmp_path: Path) -> None:
    own, other = OutputPaths(tmp_path, "a"), OutputPaths(tmp_path, "a.b")
    (tmp_path / ".a.pkl.gz.12-0af3.part").write_bytes(b"x")
    (tmp_path / ".a.b.pkl.gz.12-0af3.part").write_bytes(b"x")
    assert files.remove_partial_files(tmp_path, own.all_paths()) == 1
    assert [path.name for path in tmp_path.iterdir()] == [".a.b.pkl.gz.12-0af3.part"]
    assert files.remove_partial_files(tmp_path, other.all_paths()) == 1


# Attention files


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2), ("float32", 0)])
def test_attention_round_trip(tmp_path: Path, make_collected, dtype: str, tolerance: float, compress: bool) -> None:
    collected = make_collected("a/1", query="a cat, left", grid_shape=(6, 9))
    path = OutputPaths(tmp_path, "a/1").attention(compress)
    meta = files.save_attention(path, collected, dtype=dtype, compress=compress)
    loaded = files.load_attention(path)
    np.testing.assert_allclose(loaded.attention, collected.attention, rtol=tolerance, atol=1e-7 if tolerance else 0)
    assert loaded.attention.dtype == np.float32
    assert (loaded.grid, loaded.image_size_wh, loaded.sample) == (
        collected.grid,
        collected.image_size_wh,
        collected.sample,
    )
    assert loaded.meta == meta
    assert meta["attn_dtype"] == dtype
    assert json.loads(json.dumps(meta)) == meta


def test_stored_file_is_what_the_readme_says(tmp_path: Path, make_collected) -> None:
    files.save_attention(tmp_path / "a.pkl.gz", make_collected("a"))
    with gzip.open(tmp_path / "a.pkl.gz") as file:
        content = pickle.load(file)
    assert sorted(content) == ["attn", "meta"]
    assert content["attn"].shape == (6, 4, 1, 64)
    assert content["attn"].dtype == torch.float16
    wanted = "image_file query model_name image_size vis_len patch_size num_layers num_heads attn_dtype grid"
    assert set(wanted.split()) <= set(content["meta"])


def test_unknown_dtype_is_refused(tmp_path: Path, make_collected) -> None:
    with pytest.raises(ValueError, match="float16, bfloat16, float32, but got 'int8'"):
        files.save_attention(tmp_path / "a.pkl", make_collected(), dtype="int8")


def test_saving_removes_the_stale_twin(tmp_path: Path, make_collected) -> None:
    files.save_attention(tmp_path / "a.pkl.gz", make_collected())
    files.save_attention(tmp_path / "a.pkl", make_collected(), compress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


def test_a_twin_is_found_from_every_spelling(tmp_path: Path) -> None:
    (tmp_path / "x.y.pkl.gz").write_bytes(b"x")
    for name in ("x.y.pkl", "x.y.pkl.gz", "x.y"):
        assert files.find_attention_file(tmp_path / name).name == "x.y.pkl.gz"
    with pytest.raises(FileNotFoundError, match="no_such.pkl .*found none"):
        files.find_attention_file(tmp_path / "no_such.pkl")


def test_list_attention_files_leaves_other_pickles_out(tmp_path: Path) -> None:
    for name in ("b.pkl", "a.pkl.gz", "a_analysis.pkl", "a_meta.pkl", ".c.pkl.gz.1-ab.part", "d_bbox.json"):
        (tmp_path / name).write_bytes(b"x")
    assert [path.name for path in files.list_attention_files(tmp_path)] == ["a.pkl.gz", "b.pkl"]
    with pytest.raises(NotADirectoryError, match=r"data\.batch_attention_dir"):
        files.list_attention_files(tmp_path / "none")


# Files of the public tool


def _dump(path: Path, value) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


@pytest.mark.parametrize("shape", [(2, 3, 1, 16), (2, 3, 16)])
@pytest.mark.parametrize("kind", ["dict", "bare", "torch.save"])
def test_legacy_files_get_the_padded_square_grid(tmp_path: Path, caplog, shape, kind: str) -> None:
    tensor = torch.arange(96.0).reshape(shape).half() / 96
    meta = {"image_size": [100, 61], "query": "cat", "model_name": "m", "vis_len": 16}
    path = tmp_path / "old.pkl"
    if kind == "torch.save":
        torch.save({"attn": tensor, "meta": meta}, path)
    else:
        _dump(path, tensor if kind == "bare" else {"attn": tensor, "meta": meta})
    loaded = files.load_attention(path)
    assert loaded.attention.shape == (2, 3, 16)
    assert loaded.sample.id == "old"
    assert "assumed a 4 x 4 grid" in caplog.text
    assert "4 x 4" in loaded.meta["assumed"]
    if kind == "bare":
        assert loaded.image_size_wh == (56, 56)
        assert loaded.sample.query == "(not recorded)"
    else:
        assert loaded.image_size_wh == (100, 61)
        # the image is pasted at an offset of (100 - 61) // 2 = 19 whole pixels
        assert loaded.grid.box_xyxy == (0.0, -19.0, 100.0, 81.0)


def test_legacy_size_comes_from_the_given_image_first(tmp_path: Path, make_image) -> None:
    path = _dump(tmp_path / "old.pkl", torch.zeros(2, 2, 1, 4))
    loaded = files.load_attention(path, image_file=make_image("tall.png", (30, 60)))
    assert loaded.image_size_wh == (30, 60)
    assert loaded.grid.box_xyxy == (-15.0, 0.0, 45.0, 60.0)


def test_image_size_follows_exif_rotation(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "x.jpg", exif=exif)
    assert files.read_image_size(tmp_path / "x.jpg") == (20, 40)


def test_legacy_grid_that_is_not_square_is_refused(tmp_path: Path) -> None:
    path = _dump(tmp_path / "old.pkl", torch.zeros(2, 2, 1, 6))
    with pytest.raises(ValueError, match="square number of visual tokens, but got 6"):
        files.load_attention(path)


# Damaged, wrong and hostile files


class _Call:
    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def _evil_storage_bytes(marker: Path) -> bytes:
    """Make what `torch.save` would write for a storage, with a call of `os.system` in it."""
    buffer = io.BytesIO()
    torch.save({"x": _Call(os.system, f"touch {marker}")}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def _evil_zip(marker: Path) -> bytes:
    buffer = io.BytesIO()
    torch.save({"attn": _Call(os.system, f"touch {marker}")}, buffer)
    return buffer.getvalue()


def _tar_bytes() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    return buffer.getvalue()


def _dotted_global(module: str, name: str) -> bytes:
    """Protocol 4 looks `name` up through attributes: `collections` + `_sys.modules` must not get through."""
    return b"\x80\x04" + b"".join(b"\x8c" + bytes([len(s)]) + s.encode() for s in (module, name)) + b"\x93."


def _hostile(marker: Path) -> dict[str, tuple[bytes, str]]:
    load = torch.storage._load_from_bytes
    touch = f"touch {marker}"
    return {
        "os.system": (pickle.dumps({"attn": _Call(os.system, touch)}), r"(posix|nt)\.system"),
        "eval": (pickle.dumps(_Call(eval, f"open({str(marker)!r}, 'w')")), r"builtins\.eval"),
        "getattr": (_dotted_global("builtins", "getattr"), r"builtins\.getattr"),
        "dotted": (_dotted_global("collections", "OrderedDict.__init__.__globals__"), r"collections\.OrderedDict\."),
        "dotted torch": (_dotted_global("torch", "float16.__class__"), r"torch\.float16\.__class__"),
        "module": (_dotted_global("torch", "load"), r"torch\.load"),
        "in metadata": (
            pickle.dumps({"attn": torch.zeros(1, 1, 1, 1), "meta": {"q": _Call(os.system, touch)}}),
            "system",
        ),
        "in storage": (pickle.dumps({"attn": _Call(load, _evil_storage_bytes(marker))}), "weights_only loader refuses"),
        "in zip": (_evil_zip(marker), "weights_only loader refuses"),
        "tar": (pickle.dumps({"attn": _Call(load, _tar_bytes())}), "tar archive"),
        "subprocess": (pickle.dumps(_Call(subprocess.run, ["touch", str(marker)])), r"subprocess\.run"),
        "copyreg": (pickle.dumps(Path("x")), r"pathlib"),
        "object array": (pickle.dumps(np.array([{}], dtype=object)), "an array of object"),
    }


@pytest.mark.parametrize("name", sorted(_hostile(Path("/nowhere"))))
@pytest.mark.parametrize("compress", [False, True])
def test_hostile_pickles_are_refused_and_named(tmp_path: Path, name: str, compress: bool) -> None:
    marker = tmp_path / "ran"
    data, named = _hostile(marker)[name]
    path = tmp_path / "x.pkl"
    path.write_bytes(gzip.compress(data) if compress else data)
    with pytest.raises(ValueError, match=rf"(?s)plain data only, but got .*{named}"):
        files.load_attention(path)
    with pytest.raises(ValueError, match="plain data only"):
        files.load_analysis(path)
    assert not marker.exists()


def test_the_same_pickles_do_run_code_elsewhere(tmp_path: Path) -> None:
    """Else the test above would prove nothing."""
    marker = tmp_path / "ran"
    pickle.loads(_hostile(marker)["os.system"][0])
    assert marker.exists()


def test_attributes_cannot_be_planted_on_shared_functions(tmp_path: Path) -> None:
    """BUILD with a slot state sets attributes on whatever was found."""
    state = pickle.dumps((None, {"planted": 1}))[2:-1]
    framed = b"\x80\x04\x8c\x0ctorch._utils\x8c\x12_rebuild_tensor_v2\x93" + state[9:] + b"b."
    with pytest.raises(ValueError, match="tensor of numbers"):
        files.load_attention(_write(tmp_path / "x.pkl", framed))
    assert not hasattr(torch._utils._rebuild_tensor_v2, "planted")


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty file"),
        (gzip.compress(pickle.dumps({"attn": 1}) * 50)[:-20], "ends too early|damaged"),
        (b"\x1f\x8b" + b"\x00" * 30, "whole gzip file"),
        (b"not a pickle", "damaged or of another kind"),
        (pickle.dumps({"attn": torch.zeros(2, 2, 1, 4)})[:-9], "damaged or of another kind"),
        (pickle.dumps([1, 2]), "tensor of numbers, but got list"),
        (pickle.dumps({"heads": 1}), r"key 'attn', but got the keys \['heads'\]"),
        (pickle.dumps({"attn": torch.zeros(2, 4)}), r"shape \[layers, heads, 1, visual_tokens\], but got \[2, 4\]"),
        (pickle.dumps({"attn": torch.zeros(2, 2, 3, 4)}), r"but got \[2, 2, 3, 4\]"),
        (pickle.dumps({"attn": torch.zeros(2, 2, 1, 4), "meta": [1]}), "'meta' in .* dictionary, but got list"),
        (pickle.dumps({"attn": torch.zeros(2, 2, 1, 4), "meta": {"grid": {"rows": 2}}}), "grid and image_size"),
        (pickle.dumps({"attn": torch.full((2, 2, 1, 4), torch.nan)}), "NaN or inf in 4 of 4 heads"),
    ],
)
def test_damaged_and_wrong_files_say_so_in_one_line(tmp_path: Path, data: bytes, message: str) -> None:
    path = _write(tmp_path / "x.pkl", data)
    with pytest.raises(ValueError, match=message) as caught:
        files.load_attention(path)
    assert "\n" not in str(caught.value)


def test_gzip_bombs_stop_at_the_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(files, "MAX_PICKLE_BYTES", 1000)
    path = _write(tmp_path / "x.pkl.gz", gzip.compress(b"\0" * 100_000))
    with pytest.raises(ValueError, match="inflate to at most 1000 bytes"):
        files.load_attention(path)
    two_members = gzip.compress(b"\0" * 900) * 2
    with pytest.raises(ValueError, match="inflate to at most 1000 bytes"):
        files.load_attention(_write(path, two_members))


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
        np.float32(1.5),
        {"a": b"\xff\x00", "s": {1, 2}, "n": [None, True, -3, 2**70]},
        collections.OrderedDict(a=1),
    ],
)
def test_plain_values_of_all_protocols_are_read(protocol: int, value) -> None:
    loaded = files.load_plain_pickle(pickle.dumps(value, protocol=protocol))
    assert type(loaded) is type(value)
    assert np.all(loaded == value)


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
        files.load_analysis(_dump(tmp_path / "x.pkl", rows))


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
    code = "import sys, lab.files; assert not {'torch', 'transformers', 'matplotlib', 'PIL'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
