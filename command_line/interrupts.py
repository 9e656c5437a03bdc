"""Ctrl-C: the first one says at once what is still being finished, the second one stops there and then."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Iterator
from types import FrameType
from typing import Callable, NoReturn, Optional

EXIT_INTERRUPTED = 130


@contextlib.contextmanager
def obey_interrupts(in_hand: Callable[[], int], *, leave: bool = False) -> Iterator[None]:
    """Obey Ctrl-C in two steps while the block runs.

    The first one says on standard error how many rows are being written and will be finished, and raises
    `KeyboardInterrupt`. The second one raises it again, which drops those, or leaves the process.

    Nothing is changed outside the main thread, or where somebody obeys interrupts already.

    Args:
        in_hand: Gives the number of rows that are being written.
        leave: Leave the process at the second one, with status 130, whatever is still at work; half-written files are
            cleared by the next run. For a process of our own, not for a notebook's.

    Yields:
        Nothing.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    if not in_main_thread or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _Obedience(in_hand, leave).obey)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _Obedience:
    """Counts interrupts."""

    def __init__(self, in_hand: Callable[[], int], leave: bool) -> None:
        self._in_hand = in_hand
        self._leave = leave
        self._count = 0

    def obey(self, signal_number: int, frame: Optional[FrameType]) -> NoReturn:
        self._count += 1
        if self._count == 1:
            _tell(describe_work_in_hand(self._in_hand()))
        elif self._leave:
            _tell("Stopped at once.")
            os._exit(EXIT_INTERRUPTED)
        raise KeyboardInterrupt


def describe_work_in_hand(count: int) -> str:
    """Say what an interrupted run still does.

    Args:
        count: Number of rows that are being written.

    Returns:
        One line.
    """
    if count == 0:
        return "Stopping. Press Ctrl-C again to stop at once."
    rows = "1 row that is" if count == 1 else f"{count} rows that are"
    return f"Stopping: finishing {rows} being written. Press Ctrl-C again to stop at once."


def _tell(line: str) -> None:
    """Write past Python's buffers, in whose midst the signal may have come."""
    with contextlib.suppress(OSError):
        os.write(2, f"\n{line}\n".encode())
