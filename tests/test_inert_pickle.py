"""Tensors and arrays of every kind that is read give the right numbers, whoever wrote them."""

from __future__ import annotations

import collections
import io
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from foreign_files.pickle_writer import dump_attention
from foreign_files.safe_pickle import load_plain_pickle
from lab.storage.attention_files import load_attention, round_attention, save_attention

torch = pytest.importorskip("torch")

NUMBERS = (np.arange(192, dtype=np.float64).reshape(3, 4, 1, 16) % 13) / 256
WHOLE = np.arange(-6, 6).reshape(3, 4)
REAL_TYPES = ("float16", "float32", "float64", "bfloat16")
WHOLE_TYPES = ("int8", "int16", "int32", "int64")


def saved(value: object, *, archive: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


@pytest.mark.parametrize("form", ["pickle 2", "pickle 4", "pickle 5", "archive", "stream"])
@pytest.mark.parametrize("kind", [*REAL_TYPES, *WHOLE_TYPES, "uint8", "uint16", "uint32", "bool"])
def test_tensors_of_every_kind(kind: str, form: str) -> None:
    numbers = NUMBERS if kind in REAL_TYPES else np.abs(WHOLE) if kind.startswith("u") else WHOLE
    tensor = torch.from_numpy(numbers).to(getattr(torch, kind))
    if form.startswith("pickle"):
        data = pickle.dumps({"attn": tensor}, int(form[-1]))
    else:
        data = saved({"attn": tensor}, archive=form == "archive")
    loaded = load_plain_pickle(data)["attn"]
    expected = tensor.float().numpy() if kind == "bfloat16" else tensor.numpy()
    np.testing.assert_array_equal(loaded, expected)
    assert loaded.dtype == expected.dtype


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["f2", "f4", "f8", "i2", "i4", "i8", "u2", "u4", "u8"])
def test_arrays_of_both_byte_orders(kind: str, order: str, protocol: int) -> None:
    numbers = NUMBERS if kind[0] == "f" else np.abs(WHOLE)
    array = numbers.astype(order + kind)
    loaded = load_plain_pickle(pickle.dumps(array, protocol))
    np.testing.assert_array_equal(loaded, numbers.astype(kind))
    assert loaded.dtype.isnative


@pytest.mark.parametrize("kind", [">f2", ">f4", ">f8"])
def test_big_endian_attention_is_read_rightly(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"attn": NUMBERS.astype(kind)}))
    np.testing.assert_array_equal(load_attention(tmp_path / "a.pkl").attention, NUMBERS[:, :, 0].astype(kind))


def test_an_archive_of_a_big_endian_machine_is_read_rightly() -> None:
    from crafted_files import Entry, archive, stored_tensor

    numbers = Entry("a/data/0", NUMBERS.astype(">f4").tobytes())
    data = archive(Entry("a/data.pkl", stored_tensor()), numbers, Entry("a/byteorder", b"big"))
    np.testing.assert_array_equal(load_plain_pickle(data), NUMBERS.astype("f4"))


WINDOWS = {
    "slice of tokens": lambda tensor: tensor[..., 2:7],
    "last layers": lambda tensor: tensor[1:],
    "every second head": lambda tensor: tensor[:, ::2],
    "transposed": lambda tensor: tensor.transpose(0, 1),
    "one number": lambda tensor: tensor[2, 3, 0, 15],
    "nothing": lambda tensor: tensor[:0],
    "parameter": lambda tensor: torch.nn.Parameter(tensor),
}


@pytest.mark.parametrize("archive", [False, True], ids=["stream", "archive"])
@pytest.mark.parametrize("name", WINDOWS)
def test_windows_on_a_larger_storage(name: str, archive: bool) -> None:
    tensor = WINDOWS[name](torch.from_numpy(NUMBERS))
    for data in (saved(tensor, archive=archive), pickle.dumps(tensor) if name != "parameter" else None):
        if data is not None:
            np.testing.assert_array_equal(load_plain_pickle(data), tensor.detach().numpy())


def test_tensors_that_share_a_storage() -> None:
    tensor = torch.from_numpy(NUMBERS)
    for archive in (False, True):
        loaded = load_plain_pickle(saved([tensor, tensor[1], tensor], archive=archive))
        np.testing.assert_array_equal(loaded[1], NUMBERS[1])
        np.testing.assert_array_equal(loaded[2], NUMBERS)


def test_names_and_sizes_in_metadata() -> None:
    meta = {"dtype": torch.float16, "size": torch.Size([2, 3]), "device": torch.device("cpu"), "empty": b""}
    wanted = {"dtype": "torch.float16", "size": (2, 3), "device": "cpu", "empty": b""}
    for protocol in range(6):
        assert load_plain_pickle(pickle.dumps(meta, protocol)) == wanted


@pytest.mark.parametrize("core", ["core", "_core"])
def test_module_names_of_numpy_1_and_2(core: str) -> None:
    for value in (NUMBERS, np.float32(0.5)):
        data = pickle.dumps(value, 2).replace(b"cnumpy._core.", b"cnumpy.core.")
        data = data.replace(b"cnumpy.core.", f"cnumpy.{core}.".encode())
        np.testing.assert_array_equal(load_plain_pickle(data), value)


def test_reading_imports_no_torch(tmp_path: Path, make_collected) -> None:
    save_attention(tmp_path / "a.pkl.gz", make_collected())
    code = (
        "import sys; from lab.storage.attention_files import load_attention; "
        "assert load_attention(sys.argv[1]).attention.shape == (6, 4, 64); assert 'torch' not in sys.modules"
    )
    arguments = [sys.executable, "-c", code, str(tmp_path / "a.pkl.gz")]
    subprocess.run(arguments, check=True, cwd=Path(__file__).parent.parent)


# Writing


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_what_is_written_is_what_torch_would_round_to(dtype: str) -> None:
    rng = np.random.default_rng(0)
    numbers = np.concatenate([rng.uniform(0, 1, 4000), 10 ** rng.uniform(-12, 0, 4000), [0, 1]]).astype(np.float32)
    content = pickle.loads(dump_attention(numbers.reshape(2, -1), dtype, {"a": 1}))
    expected = torch.from_numpy(numbers).to(getattr(torch, dtype)).reshape(2, -1)
    assert content["attn"].dtype == expected.dtype
    assert torch.equal(content["attn"], expected)
    np.testing.assert_array_equal(round_attention(numbers, dtype), expected.float().numpy().ravel())


def test_metadata_are_written_as_pickle_reads_them() -> None:
    meta = {"a": [1, -5, 2**40, -(2**70), 0.5, True, None, "é\ud800"], "b": {"c": [], "d": {}}, "e": float("inf")}
    data = dump_attention(np.zeros((1, 1, 1, 1), np.float32), "float32", meta)
    assert pickle.loads(data)["meta"] == meta
    assert load_plain_pickle(data)["meta"] == meta


def test_equal_samples_give_equal_bytes(tmp_path: Path, make_collected) -> None:
    blocks = []
    for run in range(2):
        blocks.append([torch.zeros(1000 + run) for _ in range(50)])  # so that memory lies elsewhere
        query = "".join(["the ", "bird"])  # another object that is equal
        save_attention(tmp_path / f"{run}.pkl.gz", make_collected(query=query))
    first, second = ((tmp_path / f"{run}.pkl.gz").read_bytes() for run in range(2))
    assert first == second
    assert first[4:8] == b"\0\0\0\0"  # no time


def test_ordered_dictionaries_stay_ordered() -> None:
    value = collections.OrderedDict(b=1, a=2)
    loaded = load_plain_pickle(pickle.dumps(value))
    assert list(loaded) == ["b", "a"]
