"""Files that nobody should make: each a name, a kind of reader, bytes, and what the refusal must say."""

# ruff: noqa: E501

from __future__ import annotations

import collections
import gzip
import io
import json
import os
import pickle
import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

GRID = {"rows": 4, "cols": 4, "x0": 0.0, "y0": -80.0, "cell_w": 160.0, "cell_h": 160.0}
META = {"id": "x", "image_file": "x.png", "query": "a bird", "image_size": [640, 480], "grid": GRID}
ATTENTION = (np.arange(16, dtype=np.float32) % 7 + 1) / 64 * np.ones((3, 4, 1, 1), np.float32)


@dataclass(frozen=True)
class Crafted:
    """One file: which reader it goes to, its content, and a pattern that the refusal must match."""

    reader: str
    data: bytes
    message: str


# Opcodes


def plain(value: object) -> bytes:
    """The opcodes of a value, without the protocol's number and STOP."""
    return pickle.dumps(value, 2)[2:-1]


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def name(module: str, attribute: str) -> bytes:
    return text(module) + text(attribute) + b"\x93"


def call(function: bytes, *arguments: bytes) -> bytes:
    return function + b"(" + b"".join(arguments) + b"tR"


def build(target: bytes, state: object) -> bytes:
    return target + plain(state) + b"b"


def whole(body: bytes) -> bytes:
    return b"\x80\x04" + body + b"."


def with_attention(attention: bytes, meta: Mapping[str, object] = META) -> bytes:
    return whole(b"}(" + text("attn") + attention + text("meta") + plain(dict(meta)) + b"u")


def with_meta(key: str, body: bytes) -> bytes:
    """A good file with one raw value in its metadata."""
    good = plain(ATTENTION)
    return whole(b"}(" + text("attn") + good + text("meta") + plain(META) + text(key) + body + b"su")


def array(dtype: bytes, data: bytes, shape: tuple[int, ...] = (3, 4, 1, 16), fortran: bool = False) -> bytes:
    """An array as numpy pickles it, with a dtype in raw opcodes."""
    begun = call(RECONSTRUCT, NDARRAY, plain((0,)), plain(b"b"))
    return begun + b"(" + b"K\x01" + plain(shape) + dtype + plain(fortran) + binary(data) + b"tb"


def binary(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def dtype(kind: str, order: str = "<") -> bytes:
    return build(call(DTYPE, text(kind), plain(False), plain(True)), (3, order, None, None, None, -1, -1, 0))


def stream(
    numbers: bytes, count: int, kind: str = "FloatStorage", keys: tuple[str, ...] = ("0",), body: bytes | None = None
) -> bytes:
    """A storage in torch's format without a zip archive, or a file of that format with one storage."""
    parts = [plain(0x1950A86A20F9469CFC6C), plain(1001), plain({"little_endian": True})]
    parts += [persistent(kind, count, b"N") if body is None else body, plain(list(keys))]
    return b"".join(b"\x80\x02" + part + b"." for part in parts) + struct.pack("<q", count) + numbers


def persistent(kind: str, count: int, view: bytes = b"") -> bytes:
    identity = text("storage") + b"ctorch\n" + kind.encode() + b"\n" + text("0") + text("cpu") + plain(count)
    return b"(" + identity + view + b"tQ"


def tensor(storage: bytes, offset: object, shape: object, stride: object) -> bytes:
    hooks = call(name("collections", "OrderedDict"))
    stored = call(name("torch.storage", "_load_from_bytes"), binary(storage))
    return call(REBUILD, stored, plain(offset), plain(shape), plain(stride), plain(False), hooks)


def saved(value: object, *, archive: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=archive)
    return buffer.getvalue()


NDARRAY = name("numpy", "ndarray")
DTYPE = name("numpy", "dtype")
RECONSTRUCT = name("numpy.core.multiarray", "_reconstruct")
SCALAR = name("numpy.core.multiarray", "scalar")
REBUILD = name("torch._utils", "_rebuild_tensor_v2")
NUMBERS = ATTENTION.tobytes()
WHOLE_TENSOR = tensor(stream(NUMBERS, 192), 0, (3, 4, 1, 16), (64, 16, 16, 1))


# Deflate streams and archives


def zeros_deflated(size: int) -> bytes:
    """A raw deflate stream of zeros of any size, made in no time: whole blocks may be repeated."""
    block_size = 8 << 20
    deflater = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = deflater.compress(b"\0" * block_size) + deflater.flush(zlib.Z_FULL_FLUSH)
    return block * (size // block_size) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


def gzip_of_zeros(size: int) -> bytes:
    return b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + zeros_deflated(size) + b"\0" * 8


@dataclass(frozen=True)
class Entry:
    """A record of a zip archive, told as a liar may tell it."""

    name: str
    data: bytes
    size: int | None = None
    method: int = 0
    flags: int = 0
    at: int | None = None
    checksum: int | None = None


def archive(*entries: Entry, count: int | None = None) -> bytes:
    """A zip archive by hand."""
    body, index = b"", b""
    for entry in entries:
        size = len(entry.data) if entry.size is None else entry.size
        wide = size >= 1 << 32
        extra = struct.pack("<HHQ", 1, 8, size) if wide else b""
        checksum = zlib.crc32(entry.data) if entry.checksum is None else entry.checksum
        told = (checksum, len(entry.data), 0xFFFFFFFF if wide else size, len(entry.name))
        offset = len(body) if entry.at is None else entry.at
        index += struct.pack("<4sHHHHHHIIIHHHHHII", b"PK\1\2", 20, 20, entry.flags, entry.method, 0, 0, *told,
                             len(extra), 0, 0, 0, 0, offset) + entry.name.encode() + extra  # fmt: skip
        body += struct.pack("<4sHHHHHIIIHH", b"PK\3\4", 20, entry.flags, entry.method, 0, 0, *told, 0)
        body += entry.name.encode() + entry.data
    number = len(entries) if count is None else count
    return body + index + struct.pack("<4sHHHHIIH", b"PK\5\6", 0, 0, number, number, len(index), len(body), 0)


def stored_tensor(count: int = 192, key: str = "0") -> bytes:
    """`data.pkl` of an archive: a tensor whose numbers are the record `data/<key>`."""
    identity = text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + plain(count)
    hooks = call(name("collections", "OrderedDict"))
    numbers = b"(" + identity + b"tQ"
    shape, stride = plain((3, 4, 1, 16)), plain((64, 16, 16, 1))
    return whole(call(REBUILD, numbers, plain(0), shape, stride, plain(False), hooks))


DATA_PKL = Entry("a/data.pkl", stored_tensor())


# The files


class Call:
    """Pickles as a call of anything."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> object:
        return self.call


def names() -> dict[str, tuple[bytes, str]]:
    """What could run code elsewhere."""
    posix = r"(posix|nt)\.system"
    planted = build(REBUILD, {"planted": 1})
    return {
        "os.system": (pickle.dumps(Call(os.system, "true")), posix),
        "os.system in metadata": (pickle.dumps({"attn": ATTENTION, "meta": {"q": Call(os.system, "true")}}), posix),
        "os.system in a storage": (with_attention(tensor(saved(Call(os.system, "true"), archive=False), 0, 1, 1)), posix),
        "os.system in an archive": (saved({"attn": Call(os.system, "true")}), posix),
        "os.system in protocol 0": (pickle.dumps(Call(os.system, "true"), 0), posix),
        "eval": (pickle.dumps(Call(eval, "1")), r"builtins\.eval"),
        "getattr": (whole(name("builtins", "getattr")), r"builtins\.getattr"),
        "dotted name": (whole(name("collections", "OrderedDict.__init__")), r"collections\.OrderedDict\.__init__"),
        "dotted dtype": (whole(name("torch", "float16.__class__")), r"torch\.float16\.__class__"),
        "name with line breaks": (whole(name("a\nb" * 5, "c\x1b[31m" * 30)), r"a reference to a b"),
        "torch.load": (whole(name("torch", "load")), r"torch\.load"),
        "numpy.load": (whole(name("numpy", "load")), r"numpy\.load"),
        "memmap": (whole(call(RECONSTRUCT, name("numpy", "memmap"), plain((0,)), plain(b"b"))), r"numpy\.memmap"),
        "attributes on a function": (with_attention(planted), r"attributes for torch\._utils\._rebuild_tensor_v2"),
        "attributes on a dictionary": (with_meta("q", build(b"}", {"a": 1})), "attributes for a value of the type dict"),
        "function as attention": (with_attention(REBUILD), r"the name torch\._utils\._rebuild_tensor_v2"),
        "INST": (whole(b"(ios\nsystem\n"), "an object of a class"),
        "OBJ": (whole(b"(" + name("numpy", "ndarray") + b"o"), "an object of a class"),
        "NEWOBJ": (whole(name("collections", "OrderedDict") + b")\x81"), "an object of a class"),
        "NEWOBJ_EX": (whole(name("collections", "OrderedDict") + b")}\x92"), "an object of a class"),
        "call of a number": (whole(b"K\x01)R"), "a call of int"),
        "call without a tuple": (whole(name("collections", "OrderedDict") + b"K\x01R"), "a call of collections"),
        "object array": (pickle.dumps(np.array([{}], dtype=object)), "an array of object"),
        "tar in a storage": (with_attention(tensor(b"\0" * 257 + b"ustar" + b"\0" * 250, 0, 1, 1)), "a tar archive"),
        "path": (pickle.dumps({"attn": ATTENTION, "meta": {"p": Path("x")}}), "pathlib"),
    }  # fmt: skip


def arrays() -> dict[str, tuple[bytes, str]]:
    """Arrays that are not what they say."""
    uninitialised = call(NDARRAY, plain((3, 4, 1, 16)), text("f4"))
    outside = call(NDARRAY, plain((3, 4, 1, 16)), text("f4"), binary(b"B" * 4096), plain(-70000))
    forged = call(NDARRAY, plain((1,)), text("O"), binary(b"A" * 8))
    fields = (3, "|", None, ("a",), {"a": ("f4", 4096)}, 8, 1, 16)
    good = dtype("f4")
    return {
        "forged object pointer": (with_meta("query", forged), r"a call of numpy\.ndarray"),
        "outside a buffer": (with_attention(outside), r"a call of numpy\.ndarray"),
        "uninitialised memory": (with_attention(uninitialised), r"a call of numpy\.ndarray"),
        "field outside its item": (with_attention(array(build(call(DTYPE, text("V8")), fields), NUMBERS)), "dtype"),
        "structured dtype": (pickle.dumps({"attn": np.zeros(3, "f4,i4")}), "dtype"),
        "dtype of objects": (with_attention(array(dtype("O"), NUMBERS)), "an array of object"),
        "dtype filled twice": (with_attention(array(build(good, (3, ">") + (None,) * 3 + (-1, -1, 0)), NUMBERS)), "dtype"),
        "dtype with a flag": (with_attention(array(build(call(DTYPE, text("f4")), (3, "<", None, None, None, -1, -1, 63)),
                                                   NUMBERS)), "dtype that is not plain"),
        "dtype with subarrays": (with_attention(array(build(call(DTYPE, text("f4")), (3, "<", ("f4", 2), None, None, -1, -1,
                                                                                     0)), NUMBERS)), "dtype"),
        "dtype of 16 bytes": (with_attention(array(dtype("f16"), NUMBERS)), "dtype 'f16'"),
        "dates": (pickle.dumps({"attn": np.zeros((1, 1, 1, 4), "M8[s]")}), "dtype"),
        "complex array": (pickle.dumps({"attn": ATTENTION + 0j}), "complex"),
        "too few bytes": (with_attention(array(good, NUMBERS[:-4])), "an array of 764 bytes, where .* needs 768"),
        "too many bytes": (with_attention(array(good, NUMBERS + b"\0" * 4)), "an array of 772 bytes"),
        "negative shape": (with_attention(array(good, NUMBERS, (-3, -4, 1, 16))), "shape"),
        "shape of truth values": (with_attention(array(good, NUMBERS[:4], (True,))), "shape"),
        "endless shape": (with_attention(array(good, b"", (2**39, 2**39))), "numbers"),
        "endless empty shape": (with_attention(array(good, b"", (0, 2**39, 1))), "shape"),
        "forty axes": (with_attention(array(good, NUMBERS, (1,) * 40)), "shape"),
        "array filled twice": (with_attention(build(array(good, NUMBERS), (1, (1,), None, False, b""))), "filled twice"),
        "array without numbers": (with_attention(call(RECONSTRUCT, NDARRAY, plain((0,)), plain(b"b"))), "without numbers"),
        "array of a list": (with_attention(build(call(RECONSTRUCT, NDARRAY, plain((0,)), plain(b"b")), (1, (1,), 1, False, [1]))), "array whose dtype"),
        "truth values that are none": (with_meta("q", array(dtype("b1", "|"), b"\7\7", (2,))), "truth values"),
        "text that is none": (with_meta("q", array(call(DTYPE, text("U1")), b"\xff" * 4, (1,))), "text that holds none"),
        "endless text items": (with_meta("q", array(call(DTYPE, text("U99999")), b"", (0,))), "array of text of the size"),
        "scalar of wrong size": (with_meta("q", call(SCALAR, good, binary(b"12"))), "a number of 2 bytes"),
        "scalar of a list": (with_meta("q", call(SCALAR, plain([]), binary(b"12"))), "a number that is not made"),
        "too many arguments": (with_meta("q", call(SCALAR, good, good, good)), "arguments that it does not take"),
        "array of truth": (with_attention(array(dtype("b1", "|"), b"\1" * 192)), "tensor of numbers"),
    }  # fmt: skip


def tensors() -> dict[str, tuple[bytes, str]]:
    """Tensors that are not what they say, or that attention never is."""
    sixteen = stream(NUMBERS[:16], 4)
    good, strides = stream(NUMBERS, 192), (64, 16, 16, 1)
    many = b"](" + tensor(stream(NUMBERS, 192), 0, 1, 1) * 2 + b"e"
    quantised = torch.quantize_per_tensor(torch.zeros(2, 2, 1, 4), 0.1, 0, torch.quint8)
    return {
        "larger than its storage": (with_attention(tensor(sixteen, 0, (3, 4, 1, 16), strides)), "reaches beyond the 4"),
        "offset beyond": (with_attention(tensor(good, 1, (3, 4, 1, 16), strides)), "reaches beyond the 192"),
        "negative offset": (with_attention(tensor(good, -1, (3, 4, 1, 16), strides)), "at the offset -1"),
        "offset of truth": (with_attention(tensor(good, True, (3, 4, 1, 16), strides)), "at the offset True"),
        "negative stride": (with_attention(tensor(good, 191, (3, 4, 1, 16), (-64, -16, -16, -1))), "shape or stride"),
        "stride of zero": (with_attention(tensor(good, 0, (900, 900, 1, 900), (0, 0, 0, 0))), "numbers"),
        "small stride of zero": (with_attention(tensor(good, 0, (3, 4, 1, 16), (0, 0, 0, 1))), "shows numbers twice"),
        "overlapping rows": (with_attention(tensor(good, 0, (3, 4, 1, 16), (8, 4, 4, 1))), "shows numbers twice"),
        "strides missing": (with_attention(tensor(good, 0, (3, 4, 1, 16), (1,))), "strides"),
        "huge stride": (with_attention(tensor(good, 0, (3, 4, 1, 16), (2**39, 16, 16, 1))), "reaches beyond"),
        "endless": (with_attention(tensor(good, 0, (2**39,) * 4, (1,) * 4)), "numbers"),
        "storage promises more": (with_attention(tensor(stream(NUMBERS, 10**12), 0, 1, 1)), "an end too early"),
        "storage with a tail": (with_attention(tensor(good + b"x", 0, 1, 1)), "more bytes after its end"),
        "storage of another key": (with_attention(tensor(stream(NUMBERS, 192, keys=("1",)), 0, 1, 1)), "not all there"),
        "storage key twice": (with_attention(tensor(stream(NUMBERS, 192, keys=("0", "0")), 0, 1, 1)), "not all there"),
        "storage of no kind": (with_attention(tensor(stream(NUMBERS, 192, "FunnyStorage"), 0, 1, 1)), r"torch\.FunnyStorage"),
        "storage in a storage": (with_attention(tensor(whole(call(name("torch.storage", "_load_from_bytes"), binary(good))),
                                                       0, 1, 1)), r"torch\.storage\._load_from_bytes"),
        "storage as attention": (with_attention(call(name("torch.storage", "_load_from_bytes"), binary(good))), "storage"),
        "no storage": (with_attention(call(REBUILD, plain(1), plain(0), plain((1,)), plain((1,)))), "tensor whose storage"),
        "persistent id without an archive": (with_attention(plain("x") + b"Q"), "outside the pickle"),
        "list of tensors": (with_attention(many), "tensor of numbers, but got list"),
        "sparse": (saved({"attn": torch.zeros(2, 2, 1, 4).to_sparse()}), "a sparse tensor"),
        "sparse in a pickle": (pickle.dumps({"attn": torch.zeros(2, 4).to_sparse()}), "a sparse tensor"),
        "sparse rows": (pickle.dumps({"attn": torch.zeros(2, 4).to_sparse_csr()}), "a sparse tensor"),
        "meta": (saved({"attn": torch.zeros(2, 2, 1, 4, device="meta")}), "device 'meta'"),
        "quantised": (saved({"attn": quantised}), "a quantised tensor"),
        "complex": (saved({"attn": torch.zeros(2, 2, 1, 4, dtype=torch.complex64)}), "a complex tensor"),
        "complex in a pickle": (pickle.dumps({"attn": torch.zeros(2, 2, 1, 4, dtype=torch.complex128)}), "a complex tensor"),
        "float8": (saved({"attn": torch.zeros(2, 2, 1, 4).to(torch.float8_e4m3fn)}), "float8|dtype"),
        "nested": (saved({"attn": torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)])}), "a nested tensor"),
    }  # fmt: skip


def opcodes() -> dict[str, tuple[bytes, str]]:
    """Pickles that cost, or are broken."""
    keys = b"".join(plain(k * (2**61 - 1)) + b"N" for k in range(100_000))
    unfold = b"](" + b"N" * 10 + b"e" + b"q\x010](".join([b""] + [b"h\x01" * 10 + b"e"] * 12)
    floats = b"".join(b"G" + struct.pack(">d", float(k << 40)) + b"N" for k in range(100_000))
    return {
        "nested tuples": (whole(b"}(" + b")" + b"\x85" * 2_000_000 + b"K\x01u"), "steps|key of the type tuple"),
        "nested tuples as value": (whole(b")" + b"\x85" * 900_000), "nested more than 50 deep"),
        "nested tuple as key": (whole(b"}" + b")" + b"\x85" * 100_000 + b"Ns"), "a key of the type tuple"),
        "nested lists": (with_meta("q", b"]" * 2000 + b"a" * 1999), "nested more than 50 deep"),
        "list that holds itself": (with_meta("q", b"]q\x01h\x01a"), "nested more than 50 deep"),
        "marks": (whole(b"(" * 500_000 + b"N"), "damaged|steps|readable|tensor of numbers"),
        "unfolds to 10^13": (with_meta("q", unfold), "data of more than 1000000 parts"),
        "colliding keys": (with_meta("q", b"}(" + keys + b"u"), "keys that are not text"),
        "colliding floats": (with_meta("q", b"}(" + floats + b"u"), "keys that are not text"),
        "colliding set": (with_meta("q", b"\x8f(" + keys.replace(b"N", b"") + b"\x90"), "keys that are not text|damaged"),
        "list as key": (with_meta("q", b"}]Ns"), "a key of the type list"),
        "key of a megabyte": (with_meta("q", b"}" + text("k" * 1_000_000) + b"Ns"), "a key of more than 10000"),
        "number of 400 digits": (with_meta("q", plain(10**400)), "a whole number of"),
        "line of 400 digits": (with_meta("q", b"L" + b"9" * 400 + b"L\n"), "a line of more than"),
        "number of two gigabytes": (with_meta("q", b"\x8b" + struct.pack("<i", 2**31 - 1)), "a whole number of"),
        "number of negative size": (with_meta("q", b"\x8b" + struct.pack("<i", -5)), "negative size"),
        "bytes of 2^63": (with_meta("q", b"\x8e" + struct.pack("<Q", 2**63)), "a promise of|an end too early"),
        "bytes of a gigabyte": (with_meta("q", b"B" + struct.pack("<I", 2**30)), "a promise of"),
        "text of 200 megabytes": (with_meta("q", b"X" + struct.pack("<I", 200 << 20)), "a text of"),
        "text that is no UTF-8": (with_meta("q", b"X\2\0\0\0\xff\xff"), "a damaged pickle"),
        "wide text of two megabytes": (with_meta("q", text("\U0001f600" * 500_000 * 3)), "a damaged pickle"),
        "memo of 2^31": (with_meta("q", b"Nr" + struct.pack("<I", 2**31)), "a reference without bounds"),
        "memo that is empty": (with_meta("q", b"j" + struct.pack("<I", 77)), "a reference to nothing"),
        "negative memo": (with_meta("q", b"Np-1\n"), "without bounds"),
        "empty stack": (whole(b""), "a damaged pickle"),
        "pop of nothing": (whole(b"000"), "a damaged pickle"),
        "items for a number": (whole(b"K\x01(NNu"), "items for a int"),
        "odd items": (whole(b"}(NNNu"), "a key without a value"),
        "unknown opcode": (whole(b"\xff"), "bytes that are no pickle"),
        "extension": (whole(b"\x82\1"), "bytes that are no pickle"),
        "buffer from outside": (whole(b"\x97"), "bytes that are no pickle"),
        "name of numbers": (whole(b"K\1K\1\x93"), "a name that is not text"),
        "bad float": (with_meta("q", b"Fabc\n"), "the number b'abc'"),
        "bad quotes": (with_meta("q", b"Sabc\n"), "text without quotes"),
        "protocol 9": (b"\x80\x09N.", "a pickle of protocol 9"),
        "no end": (whole(plain(ATTENTION))[:-1], "an end too early"),
        "two pickles": (whole(plain(ATTENTION)) * 2, "more bytes after its end"),
        "set as call": (with_meta("q", call(name("builtins", "set"), plain([[1]]))), "a key of the type list"),
        "ordered dictionary of pairs": (with_meta("q", call(name("collections", "OrderedDict"), plain([]))), "item by item"),
        "endless float": (with_meta("q", b"F" + b"1" * 10**6 + b"\n"), "a line of more than"),
        "text of 20 megabytes": (with_meta("q", text("a" * 1_000_000) + b"q\x01" + b"0](" + b"h\x01" * 20 + b"e"),
                                 "characters"),
    }  # fmt: skip


def inflated() -> dict[str, tuple[bytes, str]]:
    """Compressed files and archives."""
    good = whole(plain({"attn": ATTENTION, "meta": META}))
    numbers = Entry("a/data/0", NUMBERS)
    zeros = zeros_deflated(64 << 20)
    late = b"\x80\x04" + binary(b"") + b"0" + b"B" + struct.pack("<I", 300 << 20)
    return {
        "gzip of 1.9 GB zeros": (gzip_of_zeros(1_900 << 20), "bytes that are no pickle"),
        "gzip of an archive of zeros": (gzip.compress(b"PK\3\4", mtime=0) + gzip_of_zeros(1_900 << 20), "once inflated"),
        "gzip of bytes of zeros": (gzip.compress(late, mtime=0) + gzip_of_zeros(1_900 << 20), "end|damaged|characters|bytes"),
        "empty members": (gzip.compress(b"", mtime=0) * 400_000 + gzip.compress(good, mtime=0), "10000 members"),
        "cut gzip": (gzip.compress(good, mtime=0)[:-3], "ends too early"),
        "wrong sum": (gzip.compress(good, mtime=0)[:-8] + b"\0" * 8, "a damaged gzip file"),
        "bytes after gzip": (gzip.compress(good, mtime=0) + b"garbage", "a damaged gzip file"),
        "zeros after the pickle": (gzip.compress(good, mtime=0) + gzip_of_zeros(1_900 << 20), "more bytes after its end"),
        "gzip in gzip": (gzip.compress(gzip.compress(good, mtime=0), mtime=0), "bytes that are no pickle"),
        "empty file": (b"", "an empty file"),
        "record of 5 GB": (archive(DATA_PKL, Entry("a/data/0", zeros_deflated(5 << 30), 5 << 30, 8)), "inflates to more"),
        "record of more than it says": (archive(DATA_PKL, Entry("a/data/0", zeros, 768, 8)), "more than the 768 bytes"),
        "pickle of more than it says": (archive(Entry("a/data.pkl", zeros, 100, 8), numbers), "more than the 100 bytes"),
        "pickle of zeros": (archive(Entry("a/data.pkl", zeros, 64 << 20, 8, checksum=0), numbers), "a damaged zip archive"),
        "many records of 5 GB": (archive(DATA_PKL, *(Entry(f"a/{n}", b"", 100 << 20, 8) for n in range(50))), "inflates to"),
        "record too short": (archive(DATA_PKL, Entry("a/data/0", NUMBERS[:-4])), "a record of 764 bytes, where 768"),
        "record missing": (archive(DATA_PKL), "without the record 'a/data/0'"),
        "records overlap": (archive(DATA_PKL, numbers, Entry("a/x", NUMBERS, at=0)), "records overlap"),
        "records twice": (archive(DATA_PKL, numbers, numbers), "odd record"),
        "encrypted": (archive(DATA_PKL, Entry("a/data/0", NUMBERS, flags=1)), "odd record"),
        "another method": (archive(DATA_PKL, Entry("a/data/0", NUMBERS, method=14)), "odd record"),
        "wrong record sum": (archive(DATA_PKL, Entry("a/data/0", NUMBERS, checksum=1)), "a damaged zip archive"),
        "no pickle": (archive(numbers), "no data.pkl"),
        "two pickles in an archive": (archive(DATA_PKL, numbers, Entry("b/data.pkl", b"x")), "no data.pkl"),
        "count lies": (archive(DATA_PKL, numbers, count=60_000), "60000 records"),
        "count lies a little": (archive(DATA_PKL, numbers, count=9), "a damaged zip archive"),
        "cut archive": (archive(DATA_PKL, numbers)[:-30], "cut off|damaged"),
        "byte order": (archive(DATA_PKL, numbers, Entry("a/byteorder", b"middle")), "byte order b'middle'"),
        "path as key": (archive(Entry("a/data.pkl", stored_tensor(key="../../x")), numbers), "without the record"),
        "numbers as promised but another count": (archive(Entry("a/data.pkl", stored_tensor(100)), numbers), "400 were"),
    }  # fmt: skip


def values() -> dict[str, tuple[bytes, str]]:
    """Numbers and metadata that cannot be."""

    def dump(attention: object, **meta: object) -> bytes:
        return pickle.dumps({"attn": attention, "meta": {**META, **meta}})

    def changed(value: float, where: tuple[int, ...] = (1, 2, 0, 5)) -> np.ndarray:
        copy = ATTENTION.copy()
        copy[where] = value
        return copy

    def grid(**change: object) -> bytes:
        return dump(ATTENTION, grid={**GRID, **change})

    return {
        "negative": (dump(changed(-0.25)), "at least 0, but got negative numbers in 1 of 12 heads, first L1H2"),
        "negative tensor": (dump(torch.from_numpy(changed(-0.25)).half()), "first L1H2"),
        "above 1": (dump(changed(1.5)), "at most 1, but got numbers above 1 in 1 of 12 heads, first L1H2"),
        "sum of 22,905": (dump(np.full((3, 4, 1, 16), 1431.6)), "above 1 in 12 of 12 heads, first L0H0"),
        "sum above 1": (dump(changed(0.4)), r"a larger sum in 1 of 12 heads, first L1H2 \(sum 1.2"),
        "not a number": (dump(changed(np.nan)), "NaN or inf in 1 of 12 heads, first L1H2"),
        "infinite": (dump(changed(np.inf)), "NaN or inf in 1 of 12 heads, first L1H2"),
        "infinite both ways": (dump(np.array([np.inf, -np.inf] * 8).reshape(1, 1, 1, 16)), "NaN or inf"),
        "beyond float32": (dump(np.full((1, 1, 1, 16), 1e300)), "NaN or inf"),
        "whole numbers": (dump(np.arange(16).reshape(1, 1, 1, 16)), "above 1"),
        "no tokens": (dump(np.zeros((3, 4, 1, 0), "f4")), "shape"),
        "picture of 60000 x 60000": (dump(ATTENTION, image_size=[60000, 60000]), "178956970 pixels in all.*60000 x 60000"),
        "picture of no size": (dump(ATTENTION, image_size=[0, 5]), r"\[width, height\]"),
        "picture of text": (dump(ATTENTION, image_size="ab"), r"\[width, height\]"),
        "picture of 100 digits": (dump(ATTENTION, image_size=[10**90, 1]), "pixels in all"),
        "picture of infinity": (dump(ATTENTION, image_size=[float("inf"), 1]), r"\[width, height\]"),
        "picture of one row": (dump(ATTENTION, image_size=[178956970, 1]), "1000000 a side.*178956970 x 1"),
        "legacy picture of 60000": (pickle.dumps({"attn": ATTENTION, "meta": {"image_size": [60000, 60000]}}), "pixels in all"),
        "grid of other cells": (grid(rows=5), "as many visual tokens as its grid has cells"),
        "grid of fractions": (grid(rows=4.0), "rows"),
        "grid at infinity": (grid(x0=float("inf")), "x0"),
        "grid far away": (grid(x0=1e300), "the edge or size 1e"),
        "grid of text": (grid(x0="a"), "grid"),
        "grid of specks": (grid(cell_w=1e-300), "cells of"),
        "grid with more": (grid(more=[1] * 10**5), "grid"),
        "grid of a list": (dump(ATTENTION, grid=[1, 2]), "grid"),
        "query of a list": (dump(ATTENTION, query=[["a"] * 1000] * 90), "'query' in the metadata"),
        "query of a megabyte": (dump(ATTENTION, query="a" * 10**6), "at most 100000 characters"),
        "id of a dictionary": (dump(ATTENTION, id={"a": 1}), "'id' in the metadata"),
        "metadata of many numbers": (dump(ATTENTION, q=np.zeros(2_000_000, "u1")), "at most 1000000 numbers in arrays"),
        "metadata of a list": (pickle.dumps({"attn": ATTENTION, "meta": [1]}), "dictionary, but got list"),
        "another dictionary": (pickle.dumps({"x\n" * 999: 1}), "key 'attn'"),
    }  # fmt: skip


def small_files() -> dict[str, Crafted]:
    """Analyses, JSON, JSON lines and heads files."""
    row = {
        "layer": 1,
        "head": 1,
        "attn_sum": 0.5,
        "spatial_entropy": 1.0,
        "bottom_row_focus": False,
        "num_components": 1,
    }
    heads = "model_name: m\ntemplate: t\nindex_base: 0\nnum_layers: 9\nnum_heads: 9\nheads: {}\n"
    laughs = "z0: &z0 [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"z{n}: &z{n} [{', '.join([f'*z{n - 1}'] * 10)}]\n" for n in range(1, 12)
    )
    deep = b"[" * 3000 + b"]" * 3000
    return {
        "analysis of a number": Crafted("analysis", pickle.dumps(5), "list of heads"),
        "analysis of lists": Crafted("analysis", pickle.dumps([[1, 2]]), "list of heads"),
        "analysis of a layer of text": Crafted("analysis", pickle.dumps([{**row, "layer": "a"}]), "layer 'a'"),
        "analysis of a huge sum": Crafted("analysis", pickle.dumps([{**row, "attn_sum": 10**400}]), "whole number"),
        "analysis of a missing head": Crafted("analysis", pickle.dumps([{"layer": 1}]), "no key 'head'"),
        "box nested 3,000 deep": Crafted("bbox", b'{"bbox_xyxy": ' + deep + b"}", "nested more than 50 deep"),
        "box of 400 digits": Crafted("bbox", b'{"bbox_xyxy": [0, 0, 1, ' + b"9" * 400 + b"]}", "a number of 400 digits"),
        "box of text": Crafted("bbox", b'{"bbox_xyxy": "abcd"}', "the box 'abcd'"),
        "box of letters": Crafted("bbox", b'{"bbox_xyxy": ["0", "0", "1", "1"]}', "the box"),
        "box of infinity": Crafted("bbox", b'{"bbox_xyxy": [0, 0, 1, 1e999]}', "the box"),
        "box of a list": Crafted("bbox", b"[" + b"1," * 10**5 + b"1]", "a list"),
        "box of 20 MB": Crafted("bbox", b'{"bbox_xyxy": null, "q": "' + b"a" * (20 << 20) + b'"}', "16777216 bytes"),
        "box that is no text": Crafted("bbox", b"\xff\xfe{}", "decode|UTF-8|utf-8"),
        "box of an unclosed quote": Crafted("bbox", b'{"' + b'\\"[' * 10**5, "hold 'bbox_xyxy'"),
        "metadata of a list": Crafted("meta", b"[]", "JSON object, but got a list"),
        "metadata nested": Crafted("meta", deep, "nested more than 50 deep"),
        "run.json nested": Crafted("run", b'{"settings": ' + deep + b"}", "nested more than 50 deep"),
        "run.json of 400 digits": Crafted("run", b'{"settings": {"a": ' + b"9" * 400 + b"}}", "400 digits"),
        "run.json of a list": Crafted("run", b"[1]", "settings of an earlier run"),
        "rows nested": Crafted("jsonl", deep, "unreadable JSON: data that are nested"),
        "rows of 5000 digits": Crafted("jsonl", b'{"id": ' + b"9" * 5000 + b"}", "a number of 5000 digits"),
        "row without an end": Crafted("jsonl", b'{"id": "' + b"a" * (40 << 20), "more than 16777216 bytes"),
        "rows of objects in quotes": Crafted("jsonl", b'{"a": "' + b"[" * 60 + b'", "b": [' * 60, "nested|unreadable"),
        "heads of text": Crafted("heads", heads.format("abc").encode(), "a list of heads, but got 'abc'"),
        "heads of lists": Crafted("heads", heads.format("[[1, 2]]").encode(), "mapping with layer and head"),
        "heads of nothing": Crafted("heads", heads.format("[null]").encode(), "mapping with layer and head, but got None"),
        "heads of 400 digits": Crafted("heads", heads.format("[{layer: " + "9" * 400 + ", head: 1}]").encode(), "400 digits"),
        "heads of 90 digits": Crafted("heads", heads.format("[{layer: " + "9" * 90 + ", head: 1}]").encode(), "whole number"),
        "heads of a fraction": Crafted("heads", heads.format("[{layer: .5, head: 1}]").encode(), "whole number, but got 0.5"),
        "heads with an odd share": Crafted("heads", heads.format("[{layer: 1, head: 1, frequency: .nan}]").encode(), "frequency"),
        "heads 900 deep": Crafted("heads", ("z: " + "[" * 900).encode(), "nested more than 20 deep"),
        "heads 900 blocks deep": Crafted("heads", ("- " * 900 + "a").encode(), "nested more than 20 deep"),
        "heads that unfold": Crafted("heads", (laughs + heads.format("*z11")).encode(), "unfold to more than"),
        "heads that hold themselves": Crafted("heads", heads.format("&a [*a]").encode(), "unfold to more than"),
        "heads of merges": Crafted("heads", ("a: &a {x: 1}\n" + "".join(
            f"b{n}: &b{n} {{<<: [{', '.join([f'*b{n - 1}' if n else '*a'] * 9)}]}}\n" for n in range(12))).encode(), "unfold"),
        "heads with a list as key": Crafted("heads", b"? [1, 2]\n: 3\n", "heads file"),
        "heads with code": Crafted("heads", b"!!python/object/apply:os.system ['true']\n", "heads file"),
        "heads of a date": Crafted("heads", heads.format("2001-01-01").encode(), "list of heads"),
        "heads of a megabyte": Crafted("heads", b"a: " + b"b" * (1 << 20), "more than 262144 bytes"),
        "heads of many values": Crafted("heads", b"[" + b"1," * 100_000 + b"1]", "unfold to more than"),
        "heads that are no text": Crafted("heads", b"\xff\xfe\0", "heads file"),
        "heads with rules of text": Crafted("heads", heads.format("[{layer: 1, head: 1}]\nrules: abc").encode(), "rules"),
    }  # fmt: skip


@lru_cache(maxsize=1)
def all_crafted() -> dict[str, Crafted]:
    """Every file, by name."""
    groups = (names, arrays, tensors, opcodes, inflated, values)
    crafted = {
        f"{group.__name__}: {title}": Crafted("attention", data, message)
        for group in groups
        for title, (data, message) in group().items()
    }
    return {**crafted, **{f"small: {title}": file for title, file in small_files().items()}}


def pickled_tensor(numbers: bytes, kind: str) -> Call:
    """Pickles as a tensor does, but for the memory address that torch puts in."""
    storage = Call(torch.storage._load_from_bytes, stream(numbers, 192, kind))
    shape, stride = (3, 4, 1, 16), (64, 16, 16, 1)
    return Call(torch._utils._rebuild_tensor_v2, storage, 0, shape, stride, False, collections.OrderedDict())


def good_files() -> dict[str, tuple[str, bytes]]:
    """Files that are read, small ones, as seeds of mutations: the reader, and the bytes."""
    half = ATTENTION.astype("f2").tobytes()
    content = {"attn": pickled_tensor(half, "HalfStorage"), "meta": META}
    brain = (ATTENTION.view("u4") >> 16).astype("u2").tobytes()
    shape, stride = plain((3, 4, 1, 16)), plain((64, 16, 16, 1))
    hooks = call(b"ccollections\nOrderedDict\n")
    rebuilt = call(
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        persistent("HalfStorage", 192, b"N"), plain(0), shape, stride, plain(False), hooks,
    )  # fmt: skip
    streamed = b"}(" + text("attn") + rebuilt + text("meta") + plain(META) + b"u"
    row = {
        "layer": 1,
        "head": 1,
        "attn_sum": 0.5,
        "spatial_entropy": 1.0,
        "bottom_row_focus": False,
        "num_components": 1,
    }
    heads = "model_name: m\ntemplate: t\nindex_base: 0\nnum_layers: 9\nnum_heads: 9\nheads:\n- {layer: 1, head: 2}\n"
    return {
        **{f"tensor, protocol {n}": ("attention", pickle.dumps(content, n)) for n in range(6)},
        **{
            f"array, protocol {n}": ("attention", pickle.dumps({"attn": ATTENTION, "meta": META}, n)) for n in (2, 4, 5)
        },
        "compressed": ("attention", gzip.compress(pickle.dumps(content), mtime=0)),
        "archive": ("attention", saved({"attn": torch.from_numpy(ATTENTION), "meta": META})),
        "stream": ("attention", stream(half, 192, "HalfStorage", body=streamed)),
        "bfloat16": ("attention", pickle.dumps({"attn": pickled_tensor(brain, "BFloat16Storage"), "meta": META})),
        "big-endian": ("attention", pickle.dumps({"attn": ATTENTION.astype(">f4"), "meta": META})),
        "bare": ("attention", pickle.dumps(content["attn"])),
        "ordered": ("attention", pickle.dumps(collections.OrderedDict(content))),
        "sliced": ("attention", pickle.dumps({"attn": ATTENTION[:, ::-1, :, :].transpose(0, 1, 2, 3), "meta": META})),
        "analysis": ("analysis", pickle.dumps([row] * 3)),
        "box": ("bbox", json.dumps({"bbox_xyxy": [0, 1.5, 2, 3], "id": "a", "selected_heads": [row]}).encode()),
        "meta": ("meta", json.dumps(META).encode()),
        "run": ("run", json.dumps({"settings": {"a": 1, "b": [1, 2]}}).encode()),
        "rows": ("jsonl", b'{"id": "a", "prompt": "b", "image_path": "c", "bbox": [1, 2, 3, 4]}\n' * 3),
        "heads": ("heads", heads.encode()),
    }
