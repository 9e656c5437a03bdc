"""Tensors as torch writes them, in a stream of pickles (legacy) or in a zip archive, read into inert records."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from foreign_files.byte_source import ByteSource, UnreadableFileError
from foreign_files.inert import PLAIN_CALLS, STORAGE_DTYPES, Call, InertStorage, Name, UnsafePickleError
from foreign_files.messages import shorten
from foreign_files.pickle_machine import Budget, PickleMachine
from foreign_files.zip_records import ZIP_MAGIC, read_zip_index

ITEM_SIZES: Mapping[str, int] = {"bf": 2, **{f"{kind}{size}": size for kind in "fiub" for size in (1, 2, 4, 8)}}
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."

_MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
_PROTOCOL_VERSION = 1001
_MAX_STORAGES = 10_000


def calls_with_storages(budget: Budget) -> Mapping[tuple[str, str], Call]:
    """Names that a plain pickle may call; a storage in it is a stream of its own, which may hold no further one."""

    def load_storage(arguments: tuple[Any, ...]) -> Any:
        (data,) = arguments
        if not isinstance(data, bytes):
            raise UnreadableFileError(f"a storage that is of the type {type(data).__name__}")
        return load_torch_bytes(data, budget)

    return {**PLAIN_CALLS, ("torch.storage", "_load_from_bytes"): load_storage}


def load_torch_bytes(data: bytes, budget: Budget) -> Any:
    """Read what `torch.save` wrote, in either format.

    Raises:
        UnreadableFileError: It is damaged, or would cost too much.
        UnsafePickleError: It names what tensors and plain data do not need.
    """
    if data.startswith(ZIP_MAGIC):
        return load_torch_zip(data, budget)
    if data[257:262] == b"ustar":
        raise UnsafePickleError("a tar archive in place of a tensor's numbers")
    source = ByteSource.of_bytes(data)
    value = load_torch_stream(source, budget)
    source.expect_end()
    return value


# ---------------------------------------------------------------------------------------------------------------------
# A stream: magic number, version, machine, object, keys of the storages, then each storage's length and numbers
# ---------------------------------------------------------------------------------------------------------------------


def load_torch_stream(source: ByteSource, budget: Budget) -> Any:
    """Read the legacy format.

    Args:
        source: At the magic number.
        budget: What may be spent.

    Returns:
        Plain data with inert records, all storages filled.

    Raises:
        UnreadableFileError: It is damaged, or would cost too much.
        UnsafePickleError: It names what tensors and plain data do not need.
    """
    if [PickleMachine(source, budget).load() for _ in range(2)] != [_MAGIC_NUMBER, _PROTOCOL_VERSION]:
        raise UnreadableFileError("a tensor's numbers in a format that torch does not write")
    PickleMachine(source, budget).load()  # sizes of types on the machine that wrote; the numbers are little-endian
    storages: dict[str, InertStorage] = {}

    def find_stored(persistent_id: Any) -> InertStorage:
        key, found = _describe_storage(persistent_id, 6)
        if persistent_id[5] is not None:
            raise UnreadableFileError("a storage that is a view of another")
        return _remember(storages, key, found)

    value = PickleMachine(source, budget, find_stored=find_stored).load()
    keys = PickleMachine(source, budget).load()
    if not isinstance(keys, list) or sorted(map(str, keys)) != sorted(storages):
        raise UnreadableFileError("a tensor whose numbers are not all there")
    for key in keys:
        _fill_from_stream(storages[key], source)
    return value


def _fill_from_stream(storage: InertStorage, source: ByteSource) -> None:
    (count,) = struct.unpack("<q", source.read(8))
    if count != storage.count:
        raise UnreadableFileError(f"a storage of {count} numbers, where {storage.count} were promised")
    storage.data = source.read_view(count * ITEM_SIZES[storage.dtype])


def _describe_storage(persistent_id: Any, length: int) -> tuple[str, InertStorage]:
    """`("storage", type, key, device, count)`, and in a stream what it is a view of."""
    if not isinstance(persistent_id, tuple) or len(persistent_id) != length or persistent_id[0] != "storage":
        raise UnreadableFileError("a reference to something that is no tensor's storage")
    kind, key, _, count = persistent_id[1:5]
    if not isinstance(kind, Name) or kind.name not in STORAGE_DTYPES or not isinstance(key, str):
        raise UnreadableFileError(f"a storage of an unknown kind ({shorten(str(kind))})")
    if type(count) is not int or count < 0:
        raise UnreadableFileError(f"a storage of {shorten(count)} numbers")
    return key, InertStorage(STORAGE_DTYPES[kind.name], count)


def _remember(storages: dict[str, InertStorage], key: str, found: InertStorage) -> InertStorage:
    known = storages.setdefault(key, found)
    if (known.dtype, known.count) != (found.dtype, found.count):
        raise UnreadableFileError("a storage that is described in two ways")
    if len(storages) > _MAX_STORAGES:
        raise UnreadableFileError(f"more than {_MAX_STORAGES} storages")
    return known


# ---------------------------------------------------------------------------------------------------------------------
# A zip archive: data.pkl, and one record a storage
# ---------------------------------------------------------------------------------------------------------------------


def load_torch_zip(data: bytes, budget: Budget) -> Any:
    """Read the zip format.

    Args:
        data: The whole archive.
        budget: What may be spent.

    Returns:
        Plain data with inert records, all storages filled.

    Raises:
        UnreadableFileError: It is damaged, or would cost too much.
        UnsafePickleError: It names what tensors and plain data do not need.
    """
    index = read_zip_index(data)
    pickles = [name for name in index.names if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise UnreadableFileError("a zip archive that torch.save did not write (no data.pkl)")
    prefix = pickles[0][: -len("data.pkl")]
    order = bytes(index.read(f"{prefix}byteorder")) if f"{prefix}byteorder" in index.names else b"little"
    if order not in (b"little", b"big"):
        raise UnreadableFileError(f"numbers in the byte order {shorten(order)}")
    storages: dict[str, InertStorage] = {}

    def find_stored(persistent_id: Any) -> InertStorage:
        key, found = _describe_storage(persistent_id, 5)
        storage = _remember(storages, key, found)
        if storage.data is None:
            storage.order = "<" if order == b"little" else ">"
            storage.data = index.read(f"{prefix}data/{key}", storage.count * ITEM_SIZES[storage.dtype])
        return storage

    source = ByteSource.of_bytes(bytes(index.read(pickles[0])))
    value = PickleMachine(source, budget, find_stored=find_stored).load()
    source.expect_end()
    return value
