"""The bytes of a file, inflated piece by piece and never further than is asked for."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from foreign_files.messages import shorten_reason

# A model with 80 layers, 64 heads and 16,384 image tokens needs 168 MB in float16, 336 MB in float32.
MAX_BYTES = 384 << 20
MAX_MEMBERS = 10_000

_GZIP_MAGIC = b"\x1f\x8b"
_READ = 1 << 18
_INFLATE = 1 << 22


class UnreadableFileError(ValueError):
    """The bytes are not what they should be; the message says what was got, and goes behind 'but got'."""


class ByteSource:
    """Bytes that are read once, from the front, with a limit on how many there may be in all.

    Args:
        chunks: The bytes in pieces; they are asked for only when they are needed.
        limit: Most bytes in all.
    """

    def __init__(self, chunks: Iterator[bytes], limit: int = MAX_BYTES) -> None:
        """Begin at the front."""
        self._chunks = chunks
        self._room = limit
        self._limit = limit
        self._buffer: bytes | bytearray = bytearray()
        self._position = 0

    @classmethod
    def of_bytes(cls, data: bytes) -> ByteSource:
        """Give a source of bytes in memory, which are not copied."""
        source = cls(iter(()), len(data))
        source._buffer = data
        return source

    def read(self, count: int) -> bytes:
        """Read exactly so many bytes.

        Raises:
            UnreadableFileError: There are fewer, or more than the limit are asked for.
        """
        self._need(count)
        end = self._position + count
        piece = bytes(memoryview(self._buffer)[self._position : end])
        self._position = end
        return piece

    def read_view(self, count: int) -> memoryview:
        """Read exactly so many bytes, without a copy where they are in memory; see `read`."""
        if isinstance(self._buffer, bytearray):
            return memoryview(self.read(count))
        self._need(count)
        self._position += count
        return memoryview(self._buffer)[self._position - count : self._position]

    def read_line(self, limit: int) -> bytes:
        """Read up to a newline, which is not returned.

        Raises:
            UnreadableFileError: There is none within `limit` bytes.
        """
        searched = 0
        while (found := self._buffer.find(b"\n", self._position + searched, self._position + limit + 1)) < 0:
            searched = len(self._buffer) - self._position
            if searched > limit:
                raise UnreadableFileError(f"a line of more than {limit} characters")
            if not self._fill():
                raise UnreadableFileError("an end too early")
        line = self.read(found - self._position)
        self._position += 1
        return line

    def peek(self, count: int) -> bytes:
        """Show the next bytes, fewer where there are no more, without reading them."""
        while len(self._buffer) - self._position < count and self._fill():
            pass
        return bytes(self._buffer[self._position : self._position + count])

    def read_rest(self) -> bytes:
        """Read all that is left."""
        while self._fill():
            pass
        return self.read(len(self._buffer) - self._position)

    def expect_end(self) -> None:
        """Check that nothing is left; of a gzip file this checks the sum at its end, too.

        Raises:
            UnreadableFileError: Something is left.
        """
        if self.peek(1):
            raise UnreadableFileError("more bytes after its end")

    def _need(self, count: int) -> None:
        missing = count - (len(self._buffer) - self._position)
        if missing <= 0:
            return
        if isinstance(self._buffer, bytes):
            raise UnreadableFileError("an end too early")
        if missing > self._room:
            raise UnreadableFileError(f"a promise of {count} bytes, where {self._limit} in all are the most")
        del self._buffer[: self._position]
        self._position = 0
        while len(self._buffer) < count:
            if not self._fill():
                raise UnreadableFileError("an end too early")

    def _fill(self) -> bool:
        chunk = next(self._chunks, b"")
        if not chunk:
            return False
        self._room -= len(chunk)
        if self._room < 0:
            raise UnreadableFileError(f"more than {self._limit} bytes once inflated")
        self._buffer += chunk
        return True


def open_source(file: BinaryIO, limit: int | None = None) -> ByteSource:
    """Give the bytes of an open file, inflated where it is a gzip file (its first bytes tell).

    Args:
        file: The file, at its front.
        limit: Most bytes, on disk and inflated; None for `MAX_BYTES`.

    Raises:
        UnreadableFileError: The file is too large.
    """
    limit = MAX_BYTES if limit is None else limit
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise UnreadableFileError(f"a file of {size} bytes, where {limit} are the most")
    magic = file.read(len(_GZIP_MAGIC))
    file.seek(0)
    return ByteSource(inflate(file) if magic == _GZIP_MAGIC else _chunks(file), limit)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(_INFLATE):
        yield chunk


def inflate(file: BinaryIO) -> Iterator[bytes]:
    """Inflate all members of a gzip file in pieces of at most four megabytes, and check the sum of each.

    Raises:
        UnreadableFileError: The file is damaged, ends too early, or has more than `MAX_MEMBERS` members.
    """
    data = file.read(_READ)
    members = 0
    while data:
        members += 1
        if members > MAX_MEMBERS:
            raise UnreadableFileError(f"a gzip file of more than {MAX_MEMBERS} members")
        inflater = zlib.decompressobj(wbits=31)
        while not inflater.eof:
            yield from _inflate_piece(inflater, data)
            data = inflater.unused_data or inflater.unconsumed_tail or file.read(_READ)
            if not data and not inflater.eof:
                yield from _inflate_last(inflater)


def _inflate_piece(inflater: zlib._Decompress, data: bytes) -> Iterator[bytes]:
    try:
        piece = inflater.decompress(data, _INFLATE)
    except zlib.error as error:
        raise UnreadableFileError(f"a damaged gzip file ({shorten_reason(error)})") from error
    if piece:
        yield piece


def _inflate_last(inflater: zlib._Decompress) -> Iterator[bytes]:
    """What is left in the inflater once the file has ended."""
    while not inflater.eof:
        pieces = list(_inflate_piece(inflater, b""))
        if not pieces and not inflater.eof:
            raise UnreadableFileError("a gzip file that ends too early")
        yield from pieces
