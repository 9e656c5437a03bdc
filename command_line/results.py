"""What a stage found, as the command line shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class StageResult:
    """What a stage found, for people and for the table of a sweep.

    Attributes:
        lines: Readable summary.
        failed: Number of rows without a result.
        scores: Named values; a sweep lists them by job.
    """

    lines: tuple[str, ...]
    failed: int = 0
    scores: Mapping[str, Any] = field(default_factory=dict)
