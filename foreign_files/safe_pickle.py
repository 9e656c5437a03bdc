"""Reading pickles of plain data, tensors and arrays: nothing that a file names is ever looked up or called."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Optional

from foreign_files.arrays import to_values
from foreign_files.byte_source import ByteSource, UnreadableFileError, open_source
from foreign_files.inert import UnsafePickleError
from foreign_files.messages import shorten_reason
from foreign_files.pickle_machine import Budget, PickleMachine
from foreign_files.torch_archive import LEGACY_MAGIC, calls_with_storages, load_torch_stream, load_torch_zip
from foreign_files.zip_records import ZIP_MAGIC

PICKLE_PROTOCOL = 4


def read_plain_pickle(path: Path, budget: Optional[Budget] = None) -> Any:
    """Read a pickle file, gzipped or not (its first bytes tell), that may hold plain data, tensors and arrays only.

    Args:
        path: The file; what `torch.save` writes is read, too.
        budget: What reading may cost; None for what files of this tool need.

    Returns:
        What it holds; tensors become arrays, bfloat16 ones of float32.

    Raises:
        ValueError: The file is empty, damaged, too large, or could run code elsewhere.
    """
    if not path.stat().st_size:
        raise ValueError(f"Expected {path} to be a pickle, but got an empty file. Delete it and collect again.")
    try:
        with open(path, "rb") as file:
            return _load(open_source(file), budget or Budget())
    except UnsafePickleError as error:
        raise ValueError(
            f"Expected {path} to hold tensors and plain data only, but got {shorten_reason(error)}. "
            "It was not loaded, since elsewhere it could run code; delete it unless you know where it comes from."
        ) from error
    except (UnreadableFileError, MemoryError) as error:
        raise ValueError(
            f"Expected {path} to be a readable pickle, but got {shorten_reason(error)}. "
            "The file is damaged or of another kind; collect again."
        ) from error


def load_plain_pickle(data: bytes) -> Any:
    """Load a pickle, or what `torch.save` wrote, of plain data, tensors and arrays.

    The pickle's opcodes are carried out by a machine of our own that knows no name but those of tensors and arrays,
    and makes inert records of these; a second step checks the records and makes arrays.

    Args:
        data: The whole file, not compressed.

    Returns:
        What it holds; tensors become arrays, bfloat16 ones of float32.

    Raises:
        UnsafePickleError: The pickle asks for any other name; it is told, and was not looked up.
        UnreadableFileError: It is damaged, or would cost too much.
    """
    return _load(ByteSource.of_bytes(data), Budget())


def _load(source: ByteSource, budget: Budget) -> Any:
    content = _load_inert(source, budget)
    source.expect_end()
    return to_values(content, budget)


def _load_inert(source: ByteSource, budget: Budget) -> Any:
    if source.peek(len(ZIP_MAGIC)) == ZIP_MAGIC:
        return load_torch_zip(source.read_rest(), budget)
    if source.peek(len(LEGACY_MAGIC)) == LEGACY_MAGIC:
        return load_torch_stream(source, budget)
    return PickleMachine(source, budget, calls_with_storages(budget)).load()
