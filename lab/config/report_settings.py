"""Group `report`: which pictures the report of a run shows."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from lab.config.values import check_fields, choice, number, path


@dataclass(frozen=True)
class ReportSettings:
    """Group `report`: which pictures the report of a run shows.

    Attributes:
        select: Pictures `spread` evenly over the IoUs of the run, the `worst`, the `best`, or `random` ones.
        seed: Seed of the draw of pictures and of the heads that are kept as a control.
        max_samples: Most pictures on the page; up to 50 stay below 10 MB.
        against: Directory of another run's results to compare with.
    """

    select: str = choice("spread", "worst", "best", "random")
    seed: int = number(0, 0, 2**32 - 1)
    max_samples: int = number(50, 1, 200)
    against: Optional[str] = path()

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "report")
