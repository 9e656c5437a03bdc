"""The progress bar of a stage: beside the log, and never a reason to lose a result."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from command_line.streams import ForgivingStream

Item = TypeVar("Item")


@contextmanager
def progress_bar(items: Iterable[Item], *, total: int, unit: str, label: str) -> Iterator[Iterable[Item]]:
    """Show how far a loop is; the log's lines go above the bar.

    Args:
        items: What the loop runs over.
        total: How many there will be.
        unit: What one is called.
        label: What is being done.

    Yields:
        The items, which move the bar as they are taken.
    """
    from tqdm import tqdm
    from tqdm.contrib.logging import logging_redirect_tqdm

    stream = ForgivingStream(sys.stderr)
    with (
        logging_redirect_tqdm(),
        tqdm(items, total=total, unit=unit, desc=label, smoothing=0.05, file=stream, disable=sys.stderr is None) as bar,
    ):
        yield bar
