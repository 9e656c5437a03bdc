"""Which run is at work on which rows of a directory, so that two runs never make the same row at the same time."""

from __future__ import annotations

import errno
import functools
import json
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lab.storage.processes import Owner

logger = logging.getLogger(__name__)

_PREFIX, _ENDING = ".run-", ".lock"


@dataclass(frozen=True)
class LivingRun:
    """A run that is at work in a directory.

    Attributes:
        path: Its lock file.
        pid: Number of its process.
        host: Name of its machine.
        started: When it began, for people.
        names: The names of its rows' files.
    """

    path: Path
    pid: int
    host: str
    started: str
    names: frozenset[str]

    @property
    def is_this_process(self) -> bool:
        """Whether it is the process that asks."""
        return (self.pid, self.host) == (os.getpid(), socket.gethostname())

    def describe(self) -> str:
        """Say who is at work."""
        return f"process {self.pid} on {self.host}, at work since {self.started}"


@contextmanager
def claim_rows(directory: Path, names: Iterable[str]) -> Iterator[None]:
    """Hold rows of a directory while a run makes them.

    Two runs may share a directory as long as they share no row: several shards of one data set, or several data sets.
    A run whose rows another living run holds is told who that is, and has to wait. The claim is a file with an
    advisory lock, so that it ends with the process, however that dies; the file says who made it. Where the file
    system has no locks, the process itself is looked for on the same machine, and a claim from another machine counts
    for a day.

    Args:
        directory: The model's directory of results; made where it is missing.
        names: Names that no other run may hold meanwhile, one for each row: those of its files.

    Yields:
        Nothing; the rows are held until the block ends.

    Raises:
        ValueError: Another run that still lives holds some of the rows.
        OSError: The directory cannot be written.
    """
    directory.mkdir(parents=True, exist_ok=True)
    wanted = frozenset(names)
    with one_run_at_a_time(directory):
        _check_free(directory, wanted)
        path, descriptor = _write_claim(directory, wanted)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)  # which unlocks


def living_runs(directory: Path) -> list[LivingRun]:
    """List the runs that are at work in a directory; claims of dead ones are removed.

    Args:
        directory: The model's directory of results; it need not exist.

    Returns:
        The runs, this process's own among them.
    """
    if not directory.is_dir():
        return []
    with os.scandir(directory) as entries:
        names = sorted(entry.name for entry in entries if entry.name.startswith(_PREFIX))
    runs = (_read_if_living(directory / name) for name in names if name.endswith(_ENDING))
    return [run for run in runs if run is not None]


def _check_free(directory: Path, wanted: frozenset[str]) -> None:
    for run in living_runs(directory):
        shared = len(wanted & run.names)
        if shared:
            raise ValueError(
                f"Expected no other run to be at work on the rows of this one in {directory}, but got "
                f"{run.describe()}, with {shared} of these {len(wanted)} rows. Wait until it is done, stop it, or "
                f"choose another data.output_dir (if it is certainly gone, delete {run.path})."
            )


def _write_claim(directory: Path, names: frozenset[str]) -> tuple[Path, int]:
    """Write the claim, and keep it open and locked."""
    path = directory / f"{_PREFIX}{Owner.current().tag}-{secrets.token_hex(4)}{_ENDING}"
    about = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S %z"),
        "names": sorted(names),
    }
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
    try:
        _lock(descriptor, wait=True)  # a run that looks whether this one lives holds it for a moment
        with open(descriptor, "w", encoding="ascii", closefd=False) as file:
            json.dump(about, file)
    except BaseException:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        raise
    return path, descriptor


def _read_if_living(path: Path) -> LivingRun | None:
    """Read a claim; one whose process is gone is removed."""
    try:
        descriptor = os.open(path, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except OSError:  # its run is done meanwhile
        return None
    try:
        if _is_dead(path, descriptor):
            path.unlink(missing_ok=True)
            return None
        with open(descriptor, encoding="ascii", closefd=False) as file:
            about = json.load(file)
        return LivingRun(path, about["pid"], about["host"], about["started"], frozenset(about["names"]))
    except (ValueError, KeyError, TypeError):  # half-written by a run that is just beginning, without locks
        return None
    finally:
        os.close(descriptor)


def _is_dead(path: Path, descriptor: int) -> bool:
    locked = _lock(descriptor, wait=False)
    if locked is not None:
        return locked
    owner = Owner.parse(path.name[len(_PREFIX) : -len(_ENDING)].rpartition("-")[0])
    return owner is not None and not owner.may_live(path)


# --------------------------------------------------------------------------------------------------------------------
# Locks
# --------------------------------------------------------------------------------------------------------------------


@contextmanager
def one_run_at_a_time(directory: Path) -> Iterator[None]:
    """Keep other runs that share the directory waiting while this one reads and rewrites what they share.

    Where locks are not to be had (Windows, some network drives) nothing is kept, which is said once: there a run that
    begins may drop a failure that another one records at that very moment.

    Args:
        directory: The directory; made where it is missing.

    Yields:
        Nothing; the directory is held until the block ends.
    """
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = _open_to_lock(directory)
    try:
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)  # which unlocks


def _open_to_lock(directory: Path) -> int | None:
    """Lock the directory or, on network drives that lock what can be written only, a file in it."""
    for path, flags in ((directory, os.O_RDONLY), (directory / ".lock", os.O_RDWR | os.O_CREAT)):
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError:  # Windows cannot open a directory
            return None
        try:
            _flock(descriptor, wait=True)
            return descriptor
        except OSError as error:
            os.close(descriptor)
            if error.errno != errno.EBADF:
                _say_once_that_nothing_is_locked(error.strerror or str(error))
                return None
    return None


def _lock(descriptor: int, *, wait: bool) -> bool | None:
    """Take an exclusive lock: True if it is ours, False if another process has it, None where there are no locks."""
    try:
        _flock(descriptor, wait=wait)
    except BlockingIOError:
        return False
    except OSError as error:
        _say_once_that_nothing_is_locked(error.strerror or str(error))
        return None
    return True


def _flock(descriptor: int, *, wait: bool) -> None:
    try:
        import fcntl
    except ImportError as error:
        raise OSError(errno.ENOSYS, "this system has none") from error
    fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


@functools.cache
def _say_once_that_nothing_is_locked(reason: str) -> None:
    logger.warning("The file system of the results has no locks (%s): let no two runs share a directory.", reason)
