"""Attention files: round trips, the public tool's files, and reading that never runs code."""

from __future__ import annotations

import collections
import gzip
import io
import json
import os
import pickle
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest

from foreign_files.safe_pickle import load_plain_pickle
from lab.storage import files
from lab.storage.attention_files import load_attention, read_image_size, save_attention
from lab.storage.paths import OutputPaths

torch = pytest.importorskip("torch")


# Attention files


@pytest.mark.parametrize("compress", [True, False])
@pytest.mark.parametrize(("dtype", "tolerance"), [("float16", 1e-3), ("bfloat16", 1e-2), ("float32", 0)])
def test_attention_round_trip(tmp_path: Path, make_collected, dtype: str, tolerance: float, compress: bool) -> None:
    collected = make_collected("a/1", query="a cat, left", grid_shape=(6, 9))
    path = OutputPaths(tmp_path, "a/1").attention(compress)
    meta = save_attention(path, collected, dtype=dtype, compress=compress)
    loaded = load_attention(path)
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
    save_attention(tmp_path / "a.pkl.gz", make_collected("a"))
    with gzip.open(tmp_path / "a.pkl.gz") as file:
        content = pickle.load(file)
    assert sorted(content) == ["attn", "meta"]
    assert content["attn"].shape == (6, 4, 1, 64)
    assert content["attn"].dtype == torch.float16
    wanted = "image_file query model_name image_size vis_len patch_size num_layers num_heads attn_dtype grid"
    assert set(wanted.split()) <= set(content["meta"])


def test_unknown_dtype_is_refused(tmp_path: Path, make_collected) -> None:
    with pytest.raises(ValueError, match="float16, bfloat16, float32, but got 'int8'"):
        save_attention(tmp_path / "a.pkl", make_collected(), dtype="int8")


def test_saving_removes_the_stale_twin(tmp_path: Path, make_collected) -> None:
    save_attention(tmp_path / "a.pkl.gz", make_collected())
    save_attention(tmp_path / "a.pkl", make_collected(), compress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["a.pkl"]


# Files of the public tool


def _dump(path: Path, value) -> Path:
    path.write_bytes(pickle.dumps(value))
    return path


@pytest.mark.parametrize("shape", [(2, 3, 1, 16), (2, 3, 16)])
@pytest.mark.parametrize("kind", ["dict", "bare", "torch.save"])
def test_legacy_files_get_the_padded_square_grid(tmp_path: Path, caplog, shape, kind: str) -> None:
    tensor = torch.arange(96.0).reshape(shape).half() / 96 / 16
    meta = {"image_size": [100, 61], "query": "cat", "model_name": "m", "vis_len": 16}
    path = tmp_path / "old.pkl"
    if kind == "torch.save":
        torch.save({"attn": tensor, "meta": meta}, path)
    else:
        _dump(path, tensor if kind == "bare" else {"attn": tensor, "meta": meta})
    loaded = load_attention(path)
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
    loaded = load_attention(path, image_file=make_image("tall.png", (30, 60)))
    assert loaded.image_size_wh == (30, 60)
    assert loaded.grid.box_xyxy == (-15.0, 0.0, 45.0, 60.0)


def test_image_size_follows_exif_rotation(tmp_path: Path) -> None:
    from PIL import Image

    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "x.jpg", exif=exif)
    assert read_image_size(tmp_path / "x.jpg") == (20, 40)


def test_legacy_grid_that_is_not_square_is_refused(tmp_path: Path) -> None:
    path = _dump(tmp_path / "old.pkl", torch.zeros(2, 2, 1, 6))
    with pytest.raises(ValueError, match="square number of visual tokens, but got 6"):
        load_attention(path)


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
        "in storage": (pickle.dumps({"attn": _Call(load, _evil_storage_bytes(marker))}), r"(posix|nt)\.system"),
        "in zip": (_evil_zip(marker), r"(posix|nt)\.system"),
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
        load_attention(path)
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
    with pytest.raises(ValueError, match=r"attributes for torch\._utils\._rebuild_tensor_v2"):
        load_attention(_write(tmp_path / "x.pkl", framed))
    assert not hasattr(torch._utils._rebuild_tensor_v2, "planted")


def _write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def _wrong() -> dict[str, tuple[bytes, str]]:
    def dump(attn, **meta) -> bytes:
        return pickle.dumps({"attn": attn, **meta})

    zeros = torch.zeros(2, 2, 1, 4)
    return {
        "empty": (b"", "empty file"),
        "cut gzip": (gzip.compress(pickle.dumps({"attn": 1}) * 50)[:-20], "ends too early|damaged|more bytes"),
        "no gzip": (b"\x1f\x8b" + b"\x00" * 30, "a damaged gzip file"),
        "text": (b"not a pickle", "damaged or of another kind"),
        "cut pickle": (dump(zeros)[:-9], "an end too early.*damaged or of another kind"),
        "two pickles": (dump(zeros) * 2, "more bytes after its end"),
        "list": (pickle.dumps([1, 2]), "tensor of numbers, but got list"),
        "heads": (pickle.dumps({"heads": 1}), r"key 'attn', but got the keys \['heads'\]"),
        "two axes": (dump(torch.zeros(2, 4)), r"shape \[layers, heads, 1, visual_tokens\], but got \[2, 4\]"),
        "three rows": (dump(torch.zeros(2, 2, 3, 4)), r"but got \[2, 2, 3, 4\]"),
        "list of metadata": (dump(zeros, meta=[1]), "'meta' in .* dictionary, but got list"),
        "half a grid": (dump(zeros, meta={"grid": {"rows": 2}}), "grid and image_size"),
        "not a number": (dump(torch.full((2, 2, 1, 4), torch.nan)), "NaN or inf in 4 of 4 heads, first L0H0"),
    }


@pytest.mark.parametrize("name", _wrong())
def test_damaged_and_wrong_files_say_so_in_one_line(tmp_path: Path, name: str) -> None:
    data, message = _wrong()[name]
    path = _write(tmp_path / "x.pkl", data)
    with pytest.raises(ValueError, match=message) as caught:
        load_attention(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_gzip_bombs_stop_at_the_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("foreign_files.byte_source.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="more than 1000 bytes once inflated"):
        load_attention(_write(tmp_path / "x.pkl.gz", gzip.compress(b"\0" * 100_000)))
    with pytest.raises(ValueError, match="a promise of 5000 bytes, where 1000 in all are the most"):
        load_attention(_write(tmp_path / "x.pkl", b"\x80\x04X" + (5000).to_bytes(4, "little") + b"a" * 500))
    two_members = gzip.compress(b"\x80\x04X" + (900).to_bytes(4, "little") + b"a" * 450) + gzip.compress(b"a" * 900)
    with pytest.raises(ValueError, match="more than 1000 bytes once inflated"):
        load_attention(_write(tmp_path / "x.pkl.gz", two_members))


PLAIN = {
    "array": np.arange(6.0).reshape(2, 3),
    "fortran array": np.asfortranarray(np.arange(6, dtype=np.float16).reshape(2, 3)),
    "array of text": np.array(["a", "bc"]),
    "number": np.float32(1.5),
    "text": np.str_("abc"),
    "dictionary": {"a": b"\xff\x00", "s": {1, 2}, "n": [None, True, -3, 2**70]},
    "keys": {(1, 2): 1, 3: frozenset({1}), None: 2, 1.5: 3},
    "ordered": collections.OrderedDict(a=1),
    "numbers": [0, 255, 65535, -1, 2**31, -(2**31), 1.5, float("inf"), 1 + 2j, "\ud800"],
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", PLAIN)
def test_plain_values_of_all_protocols_are_read(protocol: int, name: str) -> None:
    loaded = load_plain_pickle(pickle.dumps(PLAIN[name], protocol=protocol))
    assert type(loaded) is type(PLAIN[name])
    assert np.all(loaded == PLAIN[name])
