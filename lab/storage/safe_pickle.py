"""Unpickling of plain data, tensors and arrays that can call nothing else."""

from __future__ import annotations

import collections
import io
import pickle
import tarfile
import warnings
import zlib
from pathlib import Path
from typing import Any, Callable

PICKLE_PROTOCOL = 4

# A model with 80 layers, 64 heads and 2,880 image tokens needs 59 MB; far above that a file is broken or hostile.
MAX_PICKLE_BYTES = 2 << 30

_ZIP_MAGIC = b"PK\x03\x04"
_TORCH_DTYPES = frozenset(
    f"{kind}{bits}" for kind, sizes in (("float", (16, 32, 64)), ("int", (8, 16, 32, 64))) for bits in sizes
) | {"bfloat16", "uint8", "bool"}


class UnsafePickleError(ValueError):
    """The pickle names something that plain data and tensors do not need."""


def read_plain_pickle(path: Path) -> Any:
    """Read a pickle file, gzipped or not (its first bytes tell), that may hold plain data, tensors and arrays only.

    Args:
        path: The file.

    Returns:
        What it holds.

    Raises:
        ValueError: The file is empty, damaged, too large, or could run code.
    """
    data = path.read_bytes()
    if not data:
        raise ValueError(f"Expected {path} to be a pickle, but got an empty file. Delete it and collect again.")
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data, path)
    try:
        return load_plain_pickle(data)
    except UnsafePickleError as error:
        raise ValueError(
            f"Expected {path} to hold tensors and plain data only, but got {error}. "
            "It was not loaded, since it could run code; delete it unless you know where it comes from."
        ) from error
    except Exception as error:  # a damaged pickle raises nearly anything
        raise ValueError(
            f"Expected {path} to be a readable pickle, but got {type(error).__name__}: {error}. "
            "The file is damaged or of another kind; collect again."
        ) from error


def _gunzip(data: bytes, path: Path) -> bytes:
    """Inflate all members of a gzip file, never to more than `MAX_PICKLE_BYTES`."""
    parts: list[bytes] = []
    room = MAX_PICKLE_BYTES
    while data:
        inflater = zlib.decompressobj(wbits=31)
        try:
            part = inflater.decompress(data, room + 1)
        except zlib.error as error:
            raise ValueError(
                f"Expected {path} to be a whole gzip file, but got {error}. The file is damaged; collect again."
            ) from error
        room -= len(part)
        if room < 0:
            raise ValueError(
                f"Expected {path} to inflate to at most {MAX_PICKLE_BYTES} bytes, but got more. "
                "No attention file is that large; the file was not loaded."
            )
        if not inflater.eof:
            raise ValueError(
                f"Expected {path} to be a whole gzip file, but got one that ends too early. "
                "It was cut off while written or copied; collect again."
            )
        parts.append(part)
        data = inflater.unused_data
    return b"".join(parts)


def load_plain_pickle(data: bytes) -> Any:
    """Load a pickle (or a `torch.save` archive) of plain data, tensors and numpy arrays.

    Pickle calls whatever global the file names. Only those on a short list are found here, each through a wrapper of
    its own, and the bytes of tensors are read by torch's `weights_only` loader, onto the CPU.

    Args:
        data: The whole file.

    Returns:
        What it holds.

    Raises:
        UnsafePickleError: The pickle asks for any other global; it is named, and was not called.
        Exception: Damaged data raise nearly any other error.
    """
    if data.startswith(_ZIP_MAGIC):
        return _load_torch_bytes(data)
    return _PlainUnpickler(io.BytesIO(data)).load()


class _PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        find = _ALLOWED.get((module, name))
        if find is not None:
            return find()
        if module == "torch" and name in _TORCH_DTYPES:
            import torch

            return getattr(torch, name)
        raise UnsafePickleError(f"a reference to {module}.{name}")


def _load_torch_bytes(data: bytes) -> Any:
    """Read what `torch.save` wrote: tensors and storages only, on the CPU."""
    import torch

    stream = io.BytesIO(data)
    # Old torch versions unpack tar archives without the restrictions of `weights_only`.
    if tarfile.is_tarfile(stream):
        raise UnsafePickleError("a tar archive in place of a tensor's numbers")
    stream.seek(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(stream, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            reason = str(error).splitlines()[-1].strip() or "unknown"
            raise UnsafePickleError(f"tensor data that torch's weights_only loader refuses ({reason})") from error


# Each entry makes a fresh function, so that a pickle that sets attributes on what it found changes nothing else.


def _tensor_rebuilder() -> Callable[..., Any]:
    def rebuild(*args: Any) -> Any:
        from torch._utils import _rebuild_tensor_v2

        return _rebuild_tensor_v2(*args)  # type: ignore[no-untyped-call]

    return rebuild


def _storage_loader() -> Callable[..., Any]:
    def load(data: bytes) -> Any:
        return _load_torch_bytes(data)

    return load


def _torch_size() -> Callable[..., Any]:
    return lambda sizes=(): tuple(int(size) for size in sizes)


def _torch_device() -> Callable[..., Any]:
    return lambda *names: ":".join(str(name) for name in names)


def _array_rebuilder() -> Callable[..., Any]:
    def rebuild(subtype: Any, shape: Any, kind: Any) -> Any:
        import numpy as np

        if subtype is not np.ndarray:
            raise UnsafePickleError("an array of an unknown kind")
        return np.ndarray((0,), dtype=np.int8)

    return rebuild


def _array_type() -> Any:
    import numpy as np

    return np.ndarray


def _array_from_buffer() -> Callable[..., Any]:
    def from_buffer(buffer: Any, dtype: Any, shape: Any, order: str = "C", *_: Any) -> Any:
        import numpy as np

        return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)  # type: ignore[call-overload]

    return from_buffer


def _dtype_maker() -> Callable[..., Any]:
    def make(kind: Any, *flags: Any) -> Any:
        import numpy as np

        dtype = np.dtype(kind)
        if dtype.hasobject or dtype.fields:
            raise UnsafePickleError(f"an array of {dtype}")
        return dtype

    return make


def _scalar_maker() -> Callable[..., Any]:
    def make(dtype: Any, data: bytes) -> Any:
        import numpy as np

        return np.frombuffer(data, dtype=dtype, count=1)[0]

    return make


def _text_encoder() -> Callable[..., Any]:
    """Pickle protocols 0 to 2 spell bytes as latin-1 text."""

    def encode(text: str, encoding: str = "latin1") -> bytes:
        return text.encode("latin1")

    return encode


_ALLOWED: dict[tuple[str, str], Callable[[], Any]] = {
    ("collections", "OrderedDict"): lambda: collections.OrderedDict,
    **{
        (module, kind.__name__): (lambda kind=kind: kind)  # type: ignore[misc]
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset, complex)
    },
    ("_codecs", "encode"): _text_encoder,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor_rebuilder,
    ("torch.storage", "_load_from_bytes"): _storage_loader,
    ("torch", "Size"): _torch_size,
    ("torch", "device"): _torch_device,
    ("numpy", "ndarray"): _array_type,
    ("numpy", "dtype"): _dtype_maker,
    **{
        (f"numpy.{core}.multiarray", name): find
        for core in ("core", "_core")
        for name, find in (("_reconstruct", _array_rebuilder), ("scalar", _scalar_maker))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _array_from_buffer for core in ("core", "_core")},
}
