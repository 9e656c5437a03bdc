"""What all benchmarks of a run share: options, a directory, loaded models."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Optional

if TYPE_CHECKING:
    from vlm.loading import LlavaBundle

QUERY_COUNTS = (1, 2, 4, 7, 16)


class Skipped(Exception):  # noqa: N818 - it says what happened, and nothing went wrong
    """Something that a benchmark needs is not there."""


@dataclass(frozen=True)
class Context:
    """What all benchmarks of a run share.

    Attributes:
        directory: For temporary files.
        quick: Sizes so small that the numbers mean little, to see that all works.
        full: The sizes of the goals, which take long.
        threads: Threads of torch and of child processes; None for torch's own choice.
    """

    directory: Path
    quick: bool = False
    full: bool = False
    threads: Optional[int] = None
    _bundles: dict[str, LlavaBundle] = field(default_factory=dict)

    @property
    def query_counts(self) -> tuple[int, ...]:
        """Queries an image to measure with."""
        return QUERY_COUNTS[:2] if self.quick else QUERY_COUNTS

    def size(self, quick: int, usual: int, full: int) -> int:
        """Choose a size by the options."""
        return quick if self.quick else full if self.full else usual

    def bundle(self, name: str, make: Callable[[], LlavaBundle]) -> LlavaBundle:
        """A model, made when it is first asked for."""
        if name not in self._bundles:
            self._bundles[name] = make()
        return self._bundles[name]
