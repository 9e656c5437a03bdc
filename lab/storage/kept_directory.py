"""A directory that must stay where it is while a run fills it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path


class LostDirectoryError(FileNotFoundError):
    """The directory of results was removed or replaced while a run was filling it."""


class KeptDirectory:
    """Tells whether a directory is still the one that it was."""

    def __init__(self, directory: Path, descriptor: int | None) -> None:
        """Remember a directory.

        Args:
            directory: Where it is.
            descriptor: It, open, so that no directory made later gets its number; None where that cannot be done.
        """
        self._directory = directory
        self._before = None if descriptor is None else _identity(os.fstat(descriptor))

    def check(self) -> None:
        """Make sure that the directory is the same as before.

        Raises:
            LostDirectoryError: It was removed, moved or replaced.
        """
        try:
            now = _identity(os.stat(self._directory))
        except OSError:
            now = None
        if now is None or (self._before is not None and now != self._before):
            raise LostDirectoryError(
                f"Expected the directory of results {self._directory} to stay while a run fills it, but got it removed "
                "or replaced. Run the same command again."
            )

    def check_files(self, names: Iterable[str]) -> None:
        """Make sure that files which were written are there.

        Args:
            names: Names of the files.

        Raises:
            LostDirectoryError: Some are not.
        """
        self.check()
        wanted = set(names)
        lost = wanted - set(os.listdir(self._directory))
        if lost:
            raise LostDirectoryError(
                f"Expected {self._directory} to keep the results of the {len(wanted)} rows that are done, but "
                f"got {len(lost)} of them removed meanwhile, such as {min(lost)}. Run the same command again."
            )


@contextmanager
def keep_directory(directory: Path) -> Iterator[KeptDirectory]:
    """Watch over a directory for the time of a run.

    Args:
        directory: An existing directory.

    Yields:
        What tells whether it is still there.
    """
    descriptor = None
    with contextlib.suppress(OSError):  # Windows cannot open a directory
        descriptor = os.open(directory, os.O_RDONLY)
    try:
        yield KeptDirectory(directory, descriptor)
    finally:
        if descriptor is not None:
            os.close(descriptor)


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
