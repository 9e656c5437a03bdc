"""Temporary files that are on their way to become results: how they are called, and which of them are dead."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

from lab.storage.paths import PathLike
from lab.storage.processes import FOREIGN_LIFETIME_S, Owner, age_s, is_python, is_running

logger = logging.getLogger(__name__)

_ENDING = ".part"
_NAME = re.compile(r"\..+\.(?P<owner>[0-9a-f]{8}-\d+-\d+)-[0-9a-f]{8}\.part", re.DOTALL)
_NAME_OF_OLD_VERSIONS = re.compile(r"\..+\.(?P<pid>\d+)-[0-9a-f]+\.part", re.DOTALL)


def partial_path(path: PathLike) -> Path:
    """Give a new temporary name beside a file; it says which process is writing it."""
    path = Path(path)
    return path.with_name(f".{path.name}.{Owner.current().tag}-{os.urandom(4).hex()}{_ENDING}")


def remove_dead_partial_files(directory: PathLike) -> int:
    """Remove what killed runs left half-written; what a living process is writing stays.

    A file is dead when the process that its name tells of is gone. Nothing tells that of a process on another machine,
    whose files are taken as dead after a day.

    Args:
        directory: Where to look; it need not exist.

    Returns:
        Number of files removed.
    """
    removed = 0
    for path in _partial_files(directory):
        if _may_live(path):
            continue
        try:
            path.unlink()
            removed += 1
        except OSError as error:  # removed by another run, or a directory that only its owner may write
            logger.debug("Left %s: %s", path, error)
    return removed


def _partial_files(directory: PathLike) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            names = [entry.name for entry in entries if entry.name.startswith(".") and entry.name.endswith(_ENDING)]
    except OSError:  # there is none, or it is not for us to read
        return []
    return [Path(directory, name) for name in names]


def _may_live(path: Path) -> bool:
    """Whether a temporary file may be in the making; True for names that are not ours."""
    found = _NAME.fullmatch(path.name)
    if found is not None:
        owner = Owner.parse(found["owner"])
        assert owner is not None, "the name was matched with its owner"
        return owner.may_live(path)
    old = _NAME_OF_OLD_VERSIONS.fullmatch(path.name)
    if old is None:
        return True
    pid = int(old["pid"])
    return age_s(path) < FOREIGN_LIFETIME_S and is_running(pid) and is_python(pid)
