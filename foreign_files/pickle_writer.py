"""Writing the pickle of an attention file: equal content gives equal bytes, on any version of Python and torch."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

# torch's own name for a storage of each kind of number.
_STORAGES = {"float16": "HalfStorage", "bfloat16": "BFloat16Storage", "float32": "FloatStorage"}
_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_MACHINE = {
    "protocol_version": _PROTOCOL_VERSION,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def dump_attention(array: np.ndarray, dtype: str, meta: Mapping[str, Any]) -> bytes:
    """Pickle `{"attn": tensor, "meta": meta}` as plain `pickle.load` reads it where torch is installed.

    `pickle.dumps` writes a memory address into a tensor's storage, and writes equal text once or twice depending on
    whether it is one object, so that equal runs would give other bytes.

    Args:
        array: The attention, float32, of any shape.
        dtype: Number type of the stored tensor: float16, bfloat16 or float32.
        meta: Plain data: dictionaries with text as keys, lists, text, numbers, truth values and None.

    Returns:
        The pickle.
    """
    tensor = _tensor(array.shape, encode_numbers(array, dtype), dtype)
    return b"\x80\x04}(" + _text("attn") + tensor + _text("meta") + encode_plain(meta) + b"u."


def encode_numbers(array: np.ndarray, dtype: str) -> bytes:
    """Round float32 numbers to a type and give their bytes, little-endian, in the order of C."""
    if dtype == "bfloat16":
        return round_to_bfloat16_bits(array).tobytes()
    return array.astype({"float16": "<f2", "float32": "<f4"}[dtype]).tobytes()


def round_to_bfloat16_bits(array: np.ndarray) -> np.ndarray:
    """Round finite float32 numbers to the nearest bfloat16, ties to even; returns its 16 bits as `<u2`."""
    bits = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    upper: np.ndarray = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
    return upper.astype("<u2")


def encode_plain(value: Any) -> bytes:
    """Write plain data as opcodes of pickle protocol 4, without references to earlier parts.

    Raises:
        TypeError: It is of another type than `dump_attention` names.
    """
    if value is None or isinstance(value, bool):
        return {None: b"N", True: b"\x88", False: b"\x89"}[value]
    if isinstance(value, (int, float)):
        return _integer(value) if isinstance(value, int) else b"G" + struct.pack(">d", value)
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, Mapping):
        return b"}(" + b"".join(_text(key) + encode_plain(item) for key, item in value.items()) + b"u"
    if isinstance(value, (list, tuple)):
        return b"](" + b"".join(map(encode_plain, value)) + b"e"
    raise TypeError(f"Expected plain data, but got {type(value).__name__}.")


def _integer(value: int) -> bytes:
    if -(1 << 31) <= value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    digits = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8b" + struct.pack("<i", len(digits)) + digits


def _text(text: str) -> bytes:
    data = text.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def _name(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    return _name(module, name) + b"(" + b"".join(arguments) + b"tR"


def _tensor(shape: tuple[int, ...], numbers: bytes, dtype: str) -> bytes:
    """The call that torch writes for a tensor, its storage included."""
    strides = [int(np.prod(shape[axis + 1 :], dtype=int)) for axis in range(len(shape))]
    stored = _storage_stream(numbers, int(np.prod(shape, dtype=int)), _STORAGES[dtype])
    storage = _call("torch.storage", "_load_from_bytes", b"B" + struct.pack("<I", len(stored)) + stored)
    hooks = _call("collections", "OrderedDict")
    sizes, steps = (b"(" + b"".join(map(_integer, numbers)) + b"t" for numbers in (shape, strides))
    return _call("torch._utils", "_rebuild_tensor_v2", storage, _integer(0), sizes, steps, b"\x89", hooks)


def _storage_stream(numbers: bytes, count: int, kind: str) -> bytes:
    """What torch.save writes for a storage in its format without a zip archive, with `0` as the storage's key."""
    persistent_id = _text("storage") + _name("torch", kind) + _text("0") + _text("cpu") + _integer(count) + b"N"
    parts = (
        encode_plain(_MAGIC_NUMBER),
        encode_plain(_PROTOCOL_VERSION),
        encode_plain(_MACHINE),
        b"(" + persistent_id + b"tQ",
        encode_plain(["0"]),
    )
    return b"".join(b"\x80\x02" + part + b"." for part in parts) + struct.pack("<q", count) + numbers
