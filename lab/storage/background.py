"""Work in background threads with bounded memory: results in order, errors never lost, interrupts obeyed at once."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class _Count:
    """A number that several threads change."""

    def __init__(self) -> None:
        self.value = 0
        self._lock = threading.Lock()

    def add(self, change: int) -> None:
        with self._lock:
            self.value += change


_in_hand = _Count()  # of the process, as an interrupt is


def items_in_hand() -> int:
    """Number of items that background threads of this process are working on right now."""
    return _in_hand.value


def map_in_background(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, max_pending: int | None = None
) -> Iterator[Result]:
    """Apply a function to items in threads, while the caller's thread makes the next items.

    Whatever ends the work early (an error of `function`, an interrupt, a caller that wants no more), items that were
    begun are finished and those that only wait are dropped. A second interrupt does not wait for the ones begun.

    Args:
        function: Called in a background thread, for several items at a time.
        items: Consumed in the caller's thread, never further ahead than `max_pending`.
        workers: Number of threads.
        max_pending: Items taken whose result has not been yielded; None for four per worker.

    Yields:
        The results, in the order of the items.

    Raises:
        Exception: What `function` or `items` raised, in turn; after an error of `items`, all results of those before
            it come first.
    """
    limit = max_pending or 4 * workers
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="finish")
    errors: list[Exception] = []
    pending: deque[Future[Result]] = deque()
    try:
        for item in _until_error(items, errors):
            pending.append(pool.submit(_counted, function, item))
            while pending and (len(pending) >= limit or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        _finish_what_was_begun(pool)
    if errors:
        raise errors[0]


def _counted(function: Callable[[Item], Result], item: Item) -> Result:
    _in_hand.add(1)
    try:
        return function(item)
    finally:
        _in_hand.add(-1)


def _finish_what_was_begun(pool: ThreadPoolExecutor) -> None:
    try:
        pool.shutdown(wait=True, cancel_futures=True)
    except BaseException:
        pool.shutdown(wait=False)
        raise


def _until_error(items: Iterable[Item], errors: list[Exception]) -> Iterator[Item]:
    """Pass items on until making one fails: those before it still count, and the error comes after them."""
    try:
        yield from items
    except Exception as error:
        errors.append(error)
