"""Which picture a result was made of: told by content, and looked at again only where the file has changed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from lab.storage.files import atomic_write
from lab.storage.paths import PathLike

logger = logging.getLogger(__name__)

INDEX_FILE = ".pictures.json"
_CHUNK_BYTES = 1 << 20


class Picture(NamedTuple):
    """The content of a picture's file.

    Attributes:
        size: Its length in bytes.
        sha256: Its SHA-256, in hexadecimal digits.
    """

    size: int
    sha256: str

    @property
    def record(self) -> dict[str, Any]:
        """What metadata and `<id>_bbox.json` say of it; no time and no path, so that equal runs give equal files."""
        return {"image_bytes": self.size, "image_sha256": self.sha256}

    @classmethod
    def recorded(cls, record: Mapping[str, Any]) -> Picture | None:
        """Read what metadata or `<id>_bbox.json` say; None where they say nothing, as older ones do."""
        size, sha256 = record.get("image_bytes"), record.get("image_sha256")
        return cls(size, sha256) if isinstance(size, int) and isinstance(sha256, str) else None


class _Stamp(NamedTuple):
    """What changes with every change of a file: its length in bytes, and two times in nanoseconds."""

    size: int
    modified: int
    changed: int


class _Entry(NamedTuple):
    stamp: _Stamp
    sha256: str


def read_picture(path: PathLike) -> Picture:
    """Read a picture's file for its length and digest.

    Args:
        path: The file, of any kind.

    Returns:
        Its content.

    Raises:
        OSError: The file cannot be read.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
    return Picture(size, digest.hexdigest())


class PictureIndex:
    """Digests of pictures that were read before, by path, valid as long as size and times of change are the same.

    It lies beside the directories of results, is no result itself, and may be deleted at any time.
    """

    def __init__(self, output_dir: PathLike) -> None:
        """Read the index that earlier runs left; one that is damaged counts as empty.

        Args:
            output_dir: Directory that holds the directories of results.
        """
        self._path = Path(output_dir, INDEX_FILE)
        self._entries = _read_index(self._path)
        self._lock = threading.Lock()
        self._changed = False

    def find(self, image_file: str) -> Picture | None:
        """Say what a picture holds, reading it only if it has changed since it was last read.

        Args:
            image_file: Path of the picture.

        Returns:
            Its content; None if it cannot be read.
        """
        path = os.path.abspath(image_file)
        try:
            stamp = _stamp(path)
            known = self._entries.get(path)
            if known is not None and known.stamp == stamp:
                return Picture(stamp.size, known.sha256)
            picture = read_picture(path)
            if _stamp(path) == stamp:  # else it is being written
                self._keep(path, _Entry(stamp, picture.sha256))
        except (OSError, ValueError):  # gone, or no path at all
            return None
        return picture

    def _keep(self, path: str, entry: _Entry) -> None:
        with self._lock:
            self._entries[path] = entry
            self._changed = True

    def save(self) -> None:
        """Write the index, with what other runs have written meanwhile; one that cannot be written is no loss."""
        with self._lock:
            if not self._changed:
                return
            entries = {**_read_index(self._path), **self._entries}
            rows = {path: [*entries[path].stamp, entries[path].sha256] for path in sorted(entries)}
            try:
                atomic_write(self._path, json.dumps(rows, indent=0))
            except OSError as error:
                logger.warning("Could not write %s, so that pictures are read again next time: %s", self._path, error)
                return
            self._changed = False


def _stamp(path: str) -> _Stamp:
    status = os.stat(path)
    return _Stamp(status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _read_index(path: Path) -> dict[str, _Entry]:
    try:
        rows = json.loads(path.read_text(encoding="ascii"))
        return {name: _Entry(_Stamp(*map(int, row[:3])), str(row[3])) for name, row in rows.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        logger.debug("Left out %s: %s", path, error)
        return {}
