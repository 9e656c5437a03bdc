"""The second step of reading a pickle: inert records are checked against bounds, and only then become arrays."""

from __future__ import annotations

import collections
import functools
import math
import sys
from typing import Any

import numpy as np

from foreign_files.byte_source import UnreadableFileError
from foreign_files.inert import (
    INERT,
    TORCH_DTYPES,
    InertArray,
    InertDtype,
    InertScalar,
    InertStorage,
    InertTensor,
    UnsafePickleError,
)
from foreign_files.messages import shorten
from foreign_files.pickle_machine import Budget

MAX_ELEMENTS = 100_000_000
MAX_DEPTH = 50

_MAX_ITEM_CHARACTERS = 10_000
_LAST_CODE_POINT = 0x10FFFF


def to_values(content: Any, budget: Budget) -> Any:
    """Make arrays of the inert records in what the pickle machine read.

    Tensors become arrays, bfloat16 ones of float32, with numbers in this machine's byte order.

    Args:
        content: Plain data with inert records; parts may be shared.
        budget: How large it may be.

    Returns:
        Plain data with arrays; parts are no longer shared, but arrays are.

    Raises:
        UnreadableFileError: A record does not keep within bounds, or shared parts unfold to too much.
        UnsafePickleError: A name stands where a value should.
    """
    check_unfolded(content, budget)
    return _Maker().make(content)


def check_unfolded(content: Any, budget: Budget) -> None:
    """Check how deep and how large data are once all shared parts are written out, without writing them out.

    Raises:
        UnreadableFileError: They are deeper than `MAX_DEPTH`, or have more parts or characters of text than the
            budget says; data that hold themselves are endlessly deep.
    """
    parts = characters = 0
    waiting = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        parts += 1
        if isinstance(value, (str, bytes, bytearray)):
            characters += len(value)
        elif isinstance(value, dict):
            parts += 2 * len(value)
            characters += sum(len(key) for key in value if isinstance(key, (str, bytes)))
            waiting.extend((item, depth + 1) for item in value.values())
        elif isinstance(value, (list, tuple, set, frozenset)):
            parts += len(value)
            waiting.extend((item, depth + 1) for item in value)
        if depth > MAX_DEPTH:
            raise UnreadableFileError(f"data that are nested more than {MAX_DEPTH} deep")
        if parts + len(waiting) > budget.parts or characters > budget.characters:
            raise UnreadableFileError(f"data of more than {budget.parts} parts or {budget.characters} characters")


class _Maker:
    """Makes each array once, and counts the elements of all."""

    def __init__(self) -> None:
        self._made: dict[int, Any] = {}
        self._room = MAX_ELEMENTS

    def make(self, value: Any) -> Any:
        if isinstance(value, dict):
            made = {key: self.make(item) for key, item in value.items()}
            return collections.OrderedDict(made) if isinstance(value, collections.OrderedDict) else made
        if isinstance(value, (list, tuple)):
            return type(value)([self.make(item) for item in value])
        if isinstance(value, INERT):
            if id(value) not in self._made:
                self._made[id(value)] = self._make_record(value)
            return self._made[id(value)]
        return value

    def _make_record(self, record: Any) -> Any:
        if isinstance(record, InertTensor):
            return self._make_tensor(record)
        if isinstance(record, InertArray):
            return self._make_array(record)
        if isinstance(record, InertScalar):
            return _make_scalar(record)
        if isinstance(record, InertDtype):
            return np.dtype(_layout(record))
        if isinstance(record, InertStorage):
            raise UnreadableFileError("a tensor's storage without the tensor")
        if record.module == "torch" and record.name in TORCH_DTYPES:
            return str(record)
        raise UnsafePickleError(f"the name {record} in place of a value")

    def _spend(self, shape: tuple[int, ...]) -> int:
        count = math.prod(shape)
        self._room -= count
        if self._room < 0:
            raise UnreadableFileError(f"arrays of more than {MAX_ELEMENTS} numbers (shape {shorten(shape)})")
        return count

    def _make_array(self, record: InertArray) -> Any:
        if record.dtype is None:
            raise UnreadableFileError("an array without numbers")
        layout = _layout(record.dtype)
        dtype = np.dtype(layout)
        count = self._spend(record.shape)
        if count * dtype.itemsize != len(record.data):
            raise UnreadableFileError(
                f"an array of {len(record.data)} bytes, where the shape {shorten(record.shape)} of {layout} "
                f"needs {count * dtype.itemsize}"
            )
        flat = _from_bytes(record.data, dtype)
        array = flat.reshape(record.shape, order="F" if record.fortran else "C")
        if record.axes is None:
            return array
        if sorted(record.axes) != list(range(len(record.shape))):
            raise UnreadableFileError(f"an array with the axes {shorten(record.axes)}")
        return array.transpose(record.axes)

    def _make_tensor(self, record: InertTensor) -> Any:
        storage = record.storage
        if storage.data is None:
            raise UnreadableFileError("a tensor whose numbers are not there")
        self._spend(record.shape)
        layout = "u2" if record.dtype == "bf" else record.dtype
        dtype = np.dtype(layout).newbyteorder(storage.order)  # type: ignore[arg-type]
        if len(storage.data) % dtype.itemsize:
            raise UnreadableFileError("a storage that ends within a number")
        _check_window(record, len(storage.data) // dtype.itemsize)
        if 0 in record.shape:
            return np.zeros(record.shape, np.float32 if record.dtype == "bf" else layout)
        flat = _from_bytes(storage.data, dtype)[record.offset :]
        strides = tuple(step * dtype.itemsize for step in record.stride)
        window = np.lib.stride_tricks.as_strided(flat, record.shape, strides, writeable=False)
        return _widen_bfloat16(window) if record.dtype == "bf" else window


def _layout(dtype: InertDtype) -> str:
    order = dtype.order if dtype.order != "=" else "<" if sys.byteorder == "little" else ">"
    if dtype.text[0] in "SU" and not 1 <= int(dtype.text[1:]) <= _MAX_ITEM_CHARACTERS:
        raise UnreadableFileError(f"an array of text of the size {dtype.text[1:]}")
    return order + dtype.text


def _from_bytes(data: bytes | memoryview, dtype: np.dtype[Any]) -> np.ndarray:
    """One axis of numbers, in this machine's byte order; not a copy where that is theirs."""
    flat: np.ndarray = np.frombuffer(data, dtype) if len(data) else np.zeros(0, dtype)
    if dtype.kind == "b" and flat.size and np.frombuffer(data, np.uint8).max() > 1:
        raise UnreadableFileError("an array of truth values that holds others")
    if dtype.kind == "U" and flat.size and np.frombuffer(data, f"{dtype.str[0]}u4").max() > _LAST_CODE_POINT:
        raise UnreadableFileError("an array of text that holds none")
    return flat if dtype.isnative else flat.astype(dtype.newbyteorder("="))


def _check_window(record: InertTensor, available: int) -> None:
    """Check that a tensor has one stride an axis, shows no number twice, and lies within its storage."""
    if len(record.shape) != len(record.stride):
        raise UnreadableFileError(f"a tensor of the shape {shorten(record.shape)} and strides {shorten(record.stride)}")
    reach = 0
    for step, size in sorted((step, size) for step, size in zip(record.stride, record.shape) if size != 1):
        if size and step <= reach:
            raise UnreadableFileError(f"a tensor that shows numbers twice (strides {shorten(record.stride)})")
        reach += step * (size - 1)
    if 0 not in record.shape and record.offset + reach >= available:
        raise UnreadableFileError(
            f"a tensor of the shape {shorten(record.shape)} that reaches beyond the {available} numbers of its storage"
        )


def _widen_bfloat16(window: np.ndarray) -> np.ndarray:
    """The upper half of a float32 is a bfloat16."""
    return (window.astype(np.uint32) << 16).view(np.float32)


def to_float32(array: np.ndarray) -> np.ndarray:
    """Give numbers of any kind as float32, in the order of C.

    float16 goes through a table of all its 65,536 numbers: numpy's own way takes six times as long.

    Args:
        array: Real numbers, of any shape.
    """
    if array.dtype == np.float16 and array.size > 1 << 16:
        return np.take(_float16_numbers(), array.view(np.uint16))
    with np.errstate(over="ignore"):  # numbers beyond float32 become infinite
        return np.ascontiguousarray(array, dtype=np.float32)


@functools.lru_cache(maxsize=1)
def _float16_numbers() -> np.ndarray:
    bits: np.ndarray = np.arange(1 << 16, dtype=np.uint16)
    return bits.view(np.float16).astype(np.float32)


def _make_scalar(record: InertScalar) -> Any:
    dtype = np.dtype(_layout(record.dtype))
    if dtype.itemsize != len(record.data):
        raise UnreadableFileError(f"a number of {len(record.data)} bytes, where {dtype.itemsize} are needed")
    return _from_bytes(record.data, dtype)[0]
