"""Records of a zip archive in memory, read only where the archive's index keeps its promises."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Optional

from foreign_files import byte_source
from foreign_files.byte_source import UnreadableFileError
from foreign_files.messages import shorten

ZIP_MAGIC = b"PK\x03\x04"
MAX_RECORDS = 10_000

_END = b"PK\x05\x06"
_END_64 = b"PK\x06\x06"
_LOCATOR_64 = b"PK\x06\x07"
_ENTRY = b"PK\x01\x02"
_ENTRY_BYTES, _END_BYTES, _LOCAL_BYTES, _LOCATOR_BYTES = 46, 22, 30, 20
_MAX_COMMENT = 1 << 16
_STORED, _DEFLATED = 0, 8


@dataclass(frozen=True)
class _Record:
    """Where a record lies: its local header, its bytes as stored, and what they inflate to."""

    header: int
    start: int
    method: int
    checksum: int
    packed: int
    size: int


class ZipIndex:
    """The records of an archive by name."""

    def __init__(self, data: bytes, records: Mapping[str, _Record]) -> None:
        """Keep the archive and its index."""
        self._data = memoryview(data)
        self._records = records

    @property
    def names(self) -> frozenset[str]:
        """All names."""
        return frozenset(self._records)

    def read(self, name: str, size: Optional[int] = None) -> memoryview:
        """Read one record.

        Args:
            name: Its name.
            size: How many bytes it must have; None for any number.

        Raises:
            UnreadableFileError: There is none, it is damaged, or it is of another size than it says.
        """
        record = self._records.get(name)
        if record is None:
            raise UnreadableFileError(f"a zip archive without the record {shorten(name)}")
        if size is not None and record.size != size:
            raise UnreadableFileError(f"a record of {record.size} bytes, where {size} were promised")
        packed = self._data[record.start : record.start + record.packed]
        plain = packed if record.method == _STORED else memoryview(_inflate(packed, record.size))
        if len(plain) != record.size or zlib.crc32(plain) != record.checksum:
            raise UnreadableFileError(f"a damaged zip archive (the record {shorten(name)})")
        return plain


def _inflate(packed: memoryview, size: int) -> bytes:
    inflater = zlib.decompressobj(wbits=-15)
    try:
        plain = inflater.decompress(packed, size + 1)
    except zlib.error as error:
        raise UnreadableFileError("a damaged zip archive") from error
    if len(plain) > size:
        raise UnreadableFileError(f"a zip record that inflates to more than the {size} bytes it promises")
    return plain


def read_zip_index(data: bytes) -> ZipIndex:
    """Read the index of a zip archive; nothing is inflated.

    Args:
        data: The whole archive.

    Raises:
        UnreadableFileError: The index is damaged; records overlap, are encrypted or twice there; all together would
            inflate to more than `byte_source.MAX_BYTES`.
    """
    try:
        records = _read_entries(data, *_find_index(data))
    except (struct.error, UnicodeError) as error:
        raise UnreadableFileError("a damaged zip archive") from error
    limit = byte_source.MAX_BYTES
    if sum(record.size for record in records.values()) > limit:
        raise UnreadableFileError(f"a zip archive that inflates to more than {limit} bytes")
    end = 0
    for record in sorted(records.values(), key=lambda record: record.header):
        if record.header < end or record.start + record.packed > len(data):
            raise UnreadableFileError("a zip archive whose records overlap")
        end = record.start + record.packed
    return ZipIndex(data, records)


def _find_index(data: bytes) -> tuple[int, int]:
    """Where the index begins and how many records it has; large or many ones stand in a second end record."""
    end = data.rfind(_END, max(0, len(data) - _END_BYTES - _MAX_COMMENT))
    if end < 0:
        raise UnreadableFileError("a zip archive that is cut off")
    count, _, start = struct.unpack_from("<HII", data, end + 10)
    locator = end - _LOCATOR_BYTES
    if locator >= 0 and data[locator : locator + 4] == _LOCATOR_64:
        (end_64,) = struct.unpack_from("<Q", data, locator + 8)
        if data[end_64 : end_64 + 4] != _END_64:
            raise UnreadableFileError("a damaged zip archive")
        count, _, start = struct.unpack_from("<QQQ", data, end_64 + 32)
    if count > MAX_RECORDS:
        raise UnreadableFileError(f"a zip archive of {count} records, where {MAX_RECORDS} are the most")
    return start, count


def _read_entries(data: bytes, position: int, count: int) -> dict[str, _Record]:
    records: dict[str, _Record] = {}
    for _ in range(count):
        if data[position : position + 4] != _ENTRY:
            raise UnreadableFileError("a damaged zip archive (its index)")
        flags, method = struct.unpack_from("<HH", data, position + 8)
        checksum, packed, size, name_length, extra_length, comment_length = struct.unpack_from(
            "<IIIHHH", data, position + 16
        )
        (header,) = struct.unpack_from("<I", data, position + 42)
        position += _ENTRY_BYTES
        name = data[position : position + name_length].decode("utf-8")
        extra = data[position + name_length : position + name_length + extra_length]
        size, packed, header = _widen(extra, size, packed, header)
        position += name_length + extra_length + comment_length
        if flags & 1 or method not in (_STORED, _DEFLATED) or name in records:
            raise UnreadableFileError(f"a zip archive with an odd record ({shorten(name)})")
        if method == _STORED and packed != size:
            raise UnreadableFileError("a damaged zip archive (sizes that disagree)")
        records[name] = _Record(header, _find_start(data, header), method, checksum, packed, size)
    return records


def _widen(extra: bytes, *numbers: int) -> tuple[int, ...]:
    """Take those numbers that do not fit in 32 bits from the extra field of zip64."""
    position = 0
    while position + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, position)
        if kind == 1:
            wide = iter(struct.unpack_from(f"<{length // 8}Q", extra, position + 4))
            return tuple(next(wide, number) if number == 0xFFFFFFFF else number for number in numbers)
        position += 4 + length
    return numbers


def _find_start(data: bytes, header: int) -> int:
    if data[header : header + 4] != ZIP_MAGIC:
        raise UnreadableFileError("a damaged zip archive (a record's header)")
    name_length, extra_length = struct.unpack_from("<HH", data, header + 26)
    return int(header + _LOCAL_BYTES + name_length + extra_length)
