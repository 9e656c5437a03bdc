"""Which process a temporary file or a lock belongs to, and whether that process still lives."""

from __future__ import annotations

import functools
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path

# Nothing tells whether a process on another machine lives; what it left is taken as abandoned after this time.
FOREIGN_LIFETIME_S = 24 * 3600.0
_TAG = re.compile(r"(?P<machine>[0-9a-f]{8})-(?P<pid>\d+)-(?P<started>\d+)")


@dataclass(frozen=True)
class Owner:
    """A process, named so that no later process is taken for it.

    Attributes:
        machine: Hash of the machine's name and of the process namespace (a container's numbers are its own).
        pid: Number of the process.
        started: When it started, in clock ticks since the machine did; 0 where the system does not say.
    """

    machine: str
    pid: int
    started: int

    @classmethod
    def current(cls) -> Owner:
        """Name this process."""
        pid = os.getpid()
        return cls(_machine(), pid, _start_of(pid))

    @classmethod
    def parse(cls, tag: str) -> Owner | None:
        """Read what `tag` wrote; None for anything else."""
        found = _TAG.fullmatch(tag)
        return None if found is None else cls(found["machine"], int(found["pid"]), int(found["started"]))

    @property
    def tag(self) -> str:
        """The name as part of a file name."""
        return f"{self.machine}-{self.pid}-{self.started}"

    def may_live(self, path: Path) -> bool:
        """Whether the process may still live.

        Args:
            path: A file of the process; its age decides where the process runs on another machine.

        Returns:
            False if the process is gone for certain, or the file of another machine's process is a day old.
        """
        if self.machine != _machine():
            return age_s(path) < FOREIGN_LIFETIME_S
        return is_running(self.pid) and self.started in (0, _start_of(self.pid))


def age_s(path: Path) -> float:
    """Seconds since a file was last written; 0 if it is gone meanwhile."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def is_running(pid: int) -> bool:
    """Whether a process of this number runs on this machine; True where that cannot be told."""
    if os.name == "nt":  # where signal 0 would interrupt the process
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return _state_of(pid) not in {"Z", "X"}


def is_python(pid: int) -> bool:
    """Whether the process of this number runs Python; True where that cannot be told."""
    try:
        return b"python" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]
    except OSError:
        return True


@functools.lru_cache(maxsize=1)
def _machine() -> str:
    import hashlib
    import socket

    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:
        namespace = 0
    return hashlib.sha256(f"{socket.gethostname()} {namespace}".encode()).hexdigest()[:8]


def _fields_of(pid: int) -> list[str]:
    """The numbers that Linux gives for a process, from its state on; empty elsewhere."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # its name comes before, in brackets, and may hold anything


def _state_of(pid: int) -> str:
    return (_fields_of(pid) or ["?"])[0]


def _start_of(pid: int) -> int:
    fields = _fields_of(pid)
    return int(fields[19]) if len(fields) > 19 and fields[19].isdigit() else 0
