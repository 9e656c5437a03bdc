"""A warning that comes again and again is shown a few times, then counted."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from lab.datasets.tables import quote_short

SHOWN = 3


class RepeatFilter(logging.Filter):
    """Lets the first few of the warnings through that differ by what is filled in only, and counts the others.

    Two warnings are of one kind if logger and format are the same: `"No result for %s: %s"` of each of many rows.
    """

    def __init__(self, shown: int = SHOWN) -> None:
        """Set up a filter.

        Args:
            shown: How many of a kind to let through.
        """
        super().__init__()
        self._shown = shown
        self._counts: Counter[tuple[str, str]] = Counter()
        self._examples: dict[tuple[str, str], str] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is shown; below warnings, all are."""
        if record.levelno < logging.WARNING or record.exc_info:
            return True
        kind = (record.name, str(record.msg))
        self._examples.setdefault(kind, record.getMessage())
        self._counts[kind] += 1
        return self._counts[kind] <= self._shown

    def describe(self) -> list[str]:
        """Say how many of each kind were left out."""
        return [
            f"{count - self._shown} more warnings like {quote_short(self._examples[kind])} were left out."
            for kind, count in self._counts.items()
            if count > self._shown
        ]


@contextmanager
def count_repeated_warnings() -> Iterator[None]:
    """Show few of many equal warnings on the console while the block runs; log files get them all.

    Yields:
        Nothing.
    """
    filters = {handler: RepeatFilter() for handler in logging.root.handlers if _is_console(handler)}
    for handler, repeats in filters.items():
        handler.addFilter(repeats)
    try:
        yield
    finally:
        for handler, repeats in filters.items():
            handler.removeFilter(repeats)
        left_out = [repeats.describe() for repeats in filters.values()]
        for line in left_out[0] if left_out else ():
            logging.getLogger(__name__).warning("%s", line)


def _is_console(handler: logging.Handler) -> bool:
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)
