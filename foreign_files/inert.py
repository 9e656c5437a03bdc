"""Inert records: what a pickle says of tensors and arrays, as names, shapes and bytes. Nothing here makes an array."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Callable, Optional

from foreign_files.byte_source import UnreadableFileError
from foreign_files.messages import MAX_QUOTED, shorten, shorten_reason

TORCH_DTYPES: Mapping[str, str] = {
    "float16": "f2",
    "half": "f2",
    "bfloat16": "bf",
    "float32": "f4",
    "float": "f4",
    "float64": "f8",
    "double": "f8",
    "int8": "i1",
    "int16": "i2",
    "int32": "i4",
    "int64": "i8",
    "uint8": "u1",
    "uint16": "u2",
    "uint32": "u4",
    "uint64": "u8",
    "bool": "b1",
}
STORAGE_DTYPES: Mapping[str, str] = {
    "HalfStorage": "f2",
    "BFloat16Storage": "bf",
    "FloatStorage": "f4",
    "DoubleStorage": "f8",
    "CharStorage": "i1",
    "ShortStorage": "i2",
    "IntStorage": "i4",
    "LongStorage": "i8",
    "ByteStorage": "u1",
    "BoolStorage": "b1",
    "UntypedStorage": "u1",
}
_REFUSED: Mapping[str, str] = {
    "_rebuild_sparse_tensor": "a sparse tensor",
    "_rebuild_sparse_csr_tensor": "a sparse tensor",
    "_get_layout": "a sparse tensor",
    "_rebuild_meta_tensor_no_storage": "a tensor without numbers (on the device 'meta')",
    "_rebuild_qtensor": "a quantised tensor",
    "_rebuild_nested_tensor": "a nested tensor",
    "_rebuild_wrapper_subclass": "a tensor of another class",
    "_rebuild_from_type_v2": "a tensor of another class",
    "ComplexFloatStorage": "a complex tensor",
    "ComplexDoubleStorage": "a complex tensor",
    "ComplexHalfStorage": "a complex tensor",
    **{f"Q{kind}Storage": "a quantised tensor" for kind in ("Int8", "UInt8", "Int32", "UInt4x2", "UInt2x4")},
}


_STORAGE_MODULES = ("torch", "torch.storage")


class UnsafePickleError(ValueError):
    """The pickle names something that plain data and tensors do not need."""


@dataclass(frozen=True, eq=False)
class Name:
    """A global that a pickle refers to; it is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False)
class InertDtype:
    """A numpy dtype: kind and size such as `f4`, and `<` or `>` (`=` is this machine's order) once BUILD filled it."""

    text: str
    order: str = "="
    filled: bool = False


@dataclass(eq=False)
class InertArray:
    """A numpy array: dtype, shape, order of its axes in memory, and its bytes."""

    dtype: Optional[InertDtype] = None
    shape: tuple[int, ...] = ()
    fortran: bool = False
    data: bytes = b""
    axes: Optional[tuple[int, ...]] = None


@dataclass(frozen=True, eq=False)
class InertScalar:
    """A numpy scalar: dtype and bytes."""

    dtype: InertDtype
    data: bytes


@dataclass(eq=False)
class InertStorage:
    """The numbers of tensors: dtype code, how many, and their bytes once they are read."""

    dtype: str
    count: int
    order: str = "<"
    data: Optional[memoryview] = None


@dataclass(frozen=True, eq=False)
class InertTensor:
    """A torch tensor: a window on a storage; offset and strides count elements."""

    storage: InertStorage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    stride: tuple[int, ...]


INERT = (Name, InertDtype, InertArray, InertScalar, InertStorage, InertTensor)

Call = Callable[[tuple[Any, ...]], Any]


def find_name(module: str, name: str, calls: Mapping[tuple[str, str], Call]) -> Name:
    """Describe a global, if it is one of the few that tensors and arrays need.

    Args:
        module: Its module, as the pickle spells it.
        name: Its name.
        calls: Those that may be called.

    Returns:
        A record that nothing is ever looked up for.

    Raises:
        UnreadableFileError: It makes a kind of tensor that attention never is.
        UnsafePickleError: It is any other.
    """
    if (module, name) in calls or (module, name) == ("numpy", "ndarray"):
        return Name(module, name)
    if (module == "torch" and name in TORCH_DTYPES) or (module in _STORAGE_MODULES and name in STORAGE_DTYPES):
        return Name(module, name)
    if module.split(".")[0] == "torch" and name in _REFUSED:
        raise UnreadableFileError(f"{_REFUSED[name]}, where dense real numbers are needed")
    raise UnsafePickleError(f"a reference to {shorten_reason(f'{module}.{name}', MAX_QUOTED)}")


def build(target: Any, state: Any) -> None:
    """Fill an inert array or dtype with what BUILD gives; nothing else may be filled.

    Raises:
        UnreadableFileError: The state is not one that numpy writes.
        UnsafePickleError: The target is no inert array or dtype.
    """
    if isinstance(target, InertDtype):
        _fill_dtype(target, state)
    elif isinstance(target, InertArray):
        _fill_array(target, state)
    else:
        raise UnsafePickleError(f"attributes for {_describe(target)}")


def _fill_dtype(target: InertDtype, state: Any) -> None:
    known = isinstance(state, tuple) and len(state) in (8, 9) and state[0] in (3, 4) and state[2:5] == (None,) * 3
    if target.filled or not known or state[1] not in ("<", ">", "=", "|") or state[7] not in (0, 8):
        raise UnreadableFileError(f"an array of a dtype that is not plain ({shorten(state)})")
    if len(state) == 9 and state[8]:
        raise UnreadableFileError("an array of a dtype with metadata")
    target.order, target.filled = state[1].replace("|", "="), True


def _fill_array(target: InertArray, state: Any) -> None:
    if target.dtype is not None or not isinstance(state, tuple) or len(state) not in (4, 5):
        raise UnreadableFileError("an array that is filled twice or not as numpy does")
    shape, dtype, fortran, data = state[-4:]
    if not isinstance(dtype, InertDtype):
        raise UnreadableFileError(f"an array whose dtype is {_describe(dtype)}")
    if not isinstance(data, (bytes, bytearray)) or not isinstance(fortran, (bool, int)):
        raise UnreadableFileError(f"an array whose numbers are {_describe(data)}")
    target.dtype, target.shape, target.fortran, target.data = dtype, to_sizes(shape), bool(fortran), bytes(data)


def to_sizes(value: Any) -> tuple[int, ...]:
    """Check a shape, or strides: whole numbers from 0, at most 8 of them.

    Raises:
        UnreadableFileError: It is not one.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = (value,)
    if not isinstance(value, (tuple, list)) or len(value) > 8:
        raise UnreadableFileError(f"a shape that is {_describe(value)}")
    if any(type(size) is not int or not 0 <= size < 1 << 40 for size in value):
        raise UnreadableFileError(f"the shape or stride {shorten(value)}")
    return tuple(value)


def _describe(value: Any) -> str:
    return str(value) if isinstance(value, Name) else f"a value of the type {type(value).__name__}"


# ---------------------------------------------------------------------------------------------------------------------
# Calls: each checks its arguments and gives a record or plain data
# ---------------------------------------------------------------------------------------------------------------------


def _make_dtype(arguments: tuple[Any, ...]) -> InertDtype:
    text = arguments[0]
    if not isinstance(text, str) or len(text) > 8:
        raise UnreadableFileError(f"an array of the dtype {shorten(text)}")
    order = text[0] if text[:1] in tuple("<>=|") else ""
    plain = text[len(order) :]
    if plain[:1] in ("c", "F", "D"):
        raise UnreadableFileError("an array of complex numbers, where real ones are needed")
    if plain in ("O", "O8", "object"):
        raise UnsafePickleError("an array of object")
    if plain not in _NUMPY_DTYPES and not (plain[:1] in ("S", "U") and plain[1:].isdecimal()):
        raise UnreadableFileError(f"an array of the dtype {shorten(text)}")
    return InertDtype(plain, order.replace("|", "=") or "=")


_NUMPY_DTYPES = frozenset(["f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "b1"])


def _reconstruct(arguments: tuple[Any, ...]) -> InertArray:
    kind = arguments[0]
    if not isinstance(kind, Name) or str(kind) != "numpy.ndarray":
        raise UnsafePickleError(f"an array of an unknown kind, {_describe(kind)}")
    return InertArray()


def _from_buffer(arguments: tuple[Any, ...]) -> InertArray:
    data, dtype, shape, order = arguments[:4]
    axes = to_sizes(arguments[4]) if len(arguments) > 4 and arguments[4] is not None else None
    if not isinstance(data, (bytes, bytearray)) or not isinstance(dtype, InertDtype) or order not in ("C", "F", "K"):
        raise UnreadableFileError("an array that is not made as numpy does")
    return InertArray(dtype, to_sizes(shape), order == "F", bytes(data), axes if order == "K" else None)


def _make_scalar(arguments: tuple[Any, ...]) -> InertScalar:
    dtype, data = arguments
    if not isinstance(dtype, InertDtype) or not isinstance(data, (bytes, bytearray)):
        raise UnreadableFileError("a number that is not made as numpy does")
    return InertScalar(dtype, bytes(data))


def _rebuild_tensor(arguments: tuple[Any, ...], dtype: Optional[str] = None, metadata: Any = None) -> InertTensor:
    storage, offset, shape, stride = arguments[:4]
    if not isinstance(storage, InertStorage):
        raise UnreadableFileError(f"a tensor whose storage is {_describe(storage)}")
    if type(offset) is not int or offset < 0:
        raise UnreadableFileError(f"a tensor at the offset {shorten(offset)} of its storage")
    if metadata and not (isinstance(metadata, dict) and not any(metadata.values())):
        raise UnreadableFileError("a tensor with a conjugate or negative view")
    return InertTensor(storage, dtype or storage.dtype, offset, to_sizes(shape), to_sizes(stride))


def _rebuild_tensor_v2(arguments: tuple[Any, ...]) -> InertTensor:
    return _rebuild_tensor(arguments, metadata=arguments[6] if len(arguments) > 6 else None)


def _rebuild_tensor_v3(arguments: tuple[Any, ...]) -> InertTensor:
    dtype = arguments[6]
    if not isinstance(dtype, Name) or dtype.name not in TORCH_DTYPES:
        raise UnreadableFileError(f"a tensor of the dtype {_describe(dtype)}")
    return _rebuild_tensor(arguments, TORCH_DTYPES[dtype.name], arguments[7] if len(arguments) > 7 else None)


def _rebuild_parameter(arguments: tuple[Any, ...]) -> InertTensor:
    if not isinstance(arguments[0], InertTensor):
        raise UnreadableFileError(f"a parameter that is {_describe(arguments[0])}")
    return arguments[0]


def _torch_size(arguments: tuple[Any, ...]) -> tuple[int, ...]:
    return to_sizes(arguments[0]) if arguments else ()


def _torch_device(arguments: tuple[Any, ...]) -> str:
    if not 1 <= len(arguments) <= 2 or not all(isinstance(part, (str, int)) for part in arguments):
        raise UnreadableFileError("a device that is not named as torch does")
    return ":".join(str(part)[:20] for part in arguments)


def _encode_text(arguments: tuple[Any, ...]) -> bytes:
    """Pickle protocols 0 to 2 spell bytes as latin-1 text; the machine has long text ready as bytes."""
    text = arguments[0]
    if arguments[1:] not in ((), ("latin1",)) or not isinstance(text, (str, bytes)):
        raise UnreadableFileError("bytes that are not spelt as pickle does")
    return text if isinstance(text, bytes) else text.encode("latin1")


def _empty_bytes(arguments: tuple[Any, ...]) -> bytes:
    """So do protocols 0 to 2 spell bytes that are none."""
    if arguments:
        raise UnreadableFileError("bytes that are not spelt as pickle does")
    return b""


def _make_complex(arguments: tuple[Any, ...]) -> complex:
    real, imaginary = arguments
    if type(real) is not float or type(imaginary) is not float:
        raise UnreadableFileError("a complex number that is not made of two")
    return complex(real, imaginary)


def _ordered(arguments: tuple[Any, ...]) -> collections.OrderedDict[Any, Any]:
    if arguments:
        raise UnreadableFileError("an ordered dictionary that is not filled item by item")
    return collections.OrderedDict()


PLAIN_CALLS: Mapping[tuple[str, str], Call] = {
    ("collections", "OrderedDict"): _ordered,
    ("builtins", "complex"): _make_complex,
    ("__builtin__", "complex"): _make_complex,
    ("builtins", "bytes"): _empty_bytes,
    ("__builtin__", "bytes"): _empty_bytes,
    ("_codecs", "encode"): _encode_text,
    ("torch", "Size"): _torch_size,
    ("torch", "device"): _torch_device,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor_v2,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_tensor_v3,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("numpy", "dtype"): _make_dtype,
    **{
        (f"numpy.{core}.multiarray", name): call
        for core in ("core", "_core")
        for name, call in (("_reconstruct", _reconstruct), ("scalar", _make_scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _from_buffer for core in ("core", "_core")},
}
