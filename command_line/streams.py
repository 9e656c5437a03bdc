"""Standard output and error that may be closed, full, cut off, or of a small alphabet, and never cost a result.

A summary or a message that nobody can receive does not make a run a failed one: its files are whole, and the exit
status speaks of them. A reader that went away (`| head -1`) is no fault at all; of anything else one line on standard
error tells, if that still works.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any, Callable, Optional, TextIO, TypeVar, Union

Returned = TypeVar("Returned")


class ForgivingStream(io.TextIOBase):
    """Writes to another stream as long as that works, then to nowhere.

    Attributes:
        error: What ended the writing, if anything did.
    """

    def __init__(self, stream: Optional[TextIO]) -> None:
        """Wrap a stream.

        Args:
            stream: Where to write; None, as Python has it for a stream that was closed at the start, for nowhere.
        """
        self._stream = stream
        self.error: Optional[Exception] = None
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            with contextlib.suppress(OSError, ValueError):
                reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        """Write text, and say as always how much of it."""
        self._attempt(lambda stream: stream.write(text), None)
        return len(text)

    def flush(self) -> None:
        """Write what waits in the buffer."""
        self._attempt(lambda stream: stream.flush(), None)

    def isatty(self) -> bool:
        """Whether somebody looks on."""
        return bool(self._attempt(lambda stream: stream.isatty(), False))

    def fileno(self) -> int:
        """The descriptor beneath; tqdm asks it for the width of the terminal."""
        if self._stream is None:
            raise io.UnsupportedOperation("fileno")
        return self._stream.fileno()

    def writable(self) -> bool:
        """True, always."""
        return True

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding beneath."""
        return getattr(self._stream, "encoding", None) or "utf-8"

    def _attempt(self, action: Callable[[TextIO], Returned], instead: Returned) -> Returned:
        if self._stream is None or self.error is not None:
            return instead
        try:
            return action(self._stream)
        except UnicodeError:
            return instead  # a stream of another making, whose errors cannot be set; the next text may do
        except (OSError, ValueError) as error:
            self.error = error
            _lead_nowhere(self._stream)
            return instead


def _lead_nowhere(stream: TextIO) -> None:
    """Let a broken stream's descriptor end nowhere, so that what waits in its buffer fails no more at the exit."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


@contextlib.contextmanager
def forgiving_streams() -> Iterator[tuple[ForgivingStream, ForgivingStream]]:
    """Let nothing that is printed or logged fail the process.

    Yields:
        Standard output and standard error, as they are within the block.
    """
    _open_missing_descriptors()
    before, raising = (sys.stdout, sys.stderr), logging.raiseExceptions
    streams = ForgivingStream(sys.stdout), ForgivingStream(sys.stderr)
    sys.stdout, sys.stderr = streams
    logging.raiseExceptions = False
    try:
        yield streams
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before
        logging.raiseExceptions = raising


def _open_missing_descriptors() -> None:
    """Keep a result file from getting the number of a stream that was closed at the start, and messages in it."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError as error:
            if error.errno == errno.EBADF:
                os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, which is this one


def say(lines: Union[str, Iterable[str]]) -> None:
    """Print lines to standard output at once.

    Args:
        lines: One text or several lines.
    """
    print(lines if isinstance(lines, str) else "\n".join(lines), flush=True)


def explain_lost_output(stdout: ForgivingStream) -> Optional[str]:
    """Say why a summary could not be printed; None if it could, or if its reader just went away.

    Args:
        stdout: Standard output as `forgiving_streams` gave it.

    Returns:
        One line for standard error.
    """
    stdout.flush()
    if stdout.error is None or isinstance(stdout.error, BrokenPipeError):
        return None
    reason: Any = getattr(stdout.error, "strerror", None) or stdout.error
    return f"The summary could not be printed ({reason}); the results are not touched by that."
