"""Tells a whole file of a checkpoint from a pointer, a stump, or something else, without reading it whole."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

from foreign_files.bounded_json import read_json
from foreign_files.messages import shorten

MAX_JSON_BYTES = 64 << 20

_POINTER = b"version https://git-lfs.github.com/spec/"


def refuse_pointer(path: Path) -> None:
    """Refuse what Git leaves in place of a large file that was not fetched.

    Raises:
        ValueError: If the file is such a pointer.
    """
    with open(path, "rb") as file:
        if file.read(len(_POINTER)) == _POINTER:
            raise ValueError(
                f"Expected {path} to be the file itself, but got a Git LFS pointer to it. "
                "Run git lfs pull in its directory, or download it again."
            )


def read_settings(path: Path) -> dict[str, Any]:
    """Read a JSON file of named values.

    Args:
        path: Such as a config.json.

    Raises:
        ValueError: If it is too large or too deep, no JSON, or holds no named values.
    """
    settings = read_json(path, max_bytes=MAX_JSON_BYTES)
    if not isinstance(settings, dict):
        raise ValueError(
            f"Expected {path} to hold named values in braces, but got {shorten(settings)}. Fetch it again."
        )
    return settings


def check_weight_file(path: Path) -> None:
    """See that a file of weights is as long as it says itself.

    Raises:
        ValueError: If it is cut off or no file of weights.
    """
    fault = _safetensors_fault(path) if path.suffix == ".safetensors" else _pickle_fault(path)
    if fault:
        raise ValueError(f"Expected {path} to be a whole file of weights, but got {fault}. Download it again.")


def _safetensors_fault(path: Path) -> str:
    """What is wrong with a file whose first 8 bytes give the length of a JSON header with the places of all tensors."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header_size = int.from_bytes(file.read(8), "little")
        if size < 8 or header_size > min(size - 8, MAX_JSON_BYTES):
            return f"{size} bytes, fewer than its beginning announces"
        header = file.read(header_size)
    try:
        tensors = json.loads(header)
        end = max(
            (int(entry["data_offsets"][1]) for name, entry in tensors.items() if name != "__metadata__"), default=0
        )
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        return "one whose header cannot be read"
    there = size - 8 - header_size
    return f"{there} bytes of tensors where its header announces {end}" if there != end else ""


def _pickle_fault(path: Path) -> str:
    """What is wrong with a file of torch: a zip archive, or in files of old a bare pickle."""
    with open(path, "rb") as file:
        start = file.read(2)
    if start == b"PK":
        return "" if zipfile.is_zipfile(path) else "an archive without its end"
    return "" if start[:1] == b"\x80" else "neither an archive nor a pickle of torch"
