"""Work in background threads with bounded memory: results in order, errors never lost."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Callable, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_background(
    function: Callable[[Item], Result], items: Iterable[Item], *, workers: int, max_pending: int | None = None
) -> Iterator[Result]:
    """Apply a function to items in threads, while the caller's thread makes the next items.

    Args:
        function: Called in a background thread, for several items at a time.
        items: Consumed in the caller's thread, never further ahead than `max_pending`.
        workers: Number of threads.
        max_pending: Items taken whose result has not been yielded; None for four per worker.

    Yields:
        The results, in the order of the items.

    Raises:
        Exception: What `function` or `items` raised, in turn; work that was begun is finished first.
    """
    limit = max_pending or 4 * workers
    pending: deque[Future[Result]] = deque()
    errors: list[Exception] = []
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="finish") as pool:
        for item in _until_error(items, errors):
            pending.append(pool.submit(function, item))
            while pending and (len(pending) >= limit or pending[0].done()):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    if errors:
        raise errors[0]


def _until_error(items: Iterable[Item], errors: list[Exception]) -> Iterator[Item]:
    """Pass items on until making one fails: those before it still count, and the error comes after them."""
    try:
        yield from items
    except Exception as error:
        errors.append(error)
