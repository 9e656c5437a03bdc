"""Group `figures`: how figures are written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from foreign_files.messages import shorten
from lab.config.errors import ConfigError
from lab.config.values import check_fields, number

FIGURE_FORMATS = ("png", "pdf", "svg")


@dataclass(frozen=True)
class FiguresSettings:
    """Group `figures`: how figures are written.

    Attributes:
        format: `png`, `pdf` or `svg`, or a list of them, such as `[png, pdf]`; each figure is written in each.
        dpi: Pixels an inch of a PNG, and of the pictures inside a PDF or SVG.
    """

    format: Any = "png"
    dpi: int = number(120, 20, 1200)

    def __post_init__(self) -> None:
        """Reject values out of range, and formats that are unknown or named twice."""
        check_fields(self, "figures")
        formats = self.formats
        if not formats or len(set(map(str, formats))) < len(formats) or not set(map(str, formats)) <= {*FIGURE_FORMATS}:
            raise ConfigError(
                f"Expected figures.format to be {', '.join(FIGURE_FORMATS)} or a list of them, each once, "
                f"but got {shorten(self.format)}. Such as figures.format=pdf or figures.format=[png,svg]."
            )

    @property
    def formats(self) -> tuple[str, ...]:
        """The formats in which every figure is written, in order."""
        return tuple(self.format) if isinstance(self.format, (list, tuple)) else (self.format,)
