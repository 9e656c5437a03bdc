"""The whole configuration as one frozen record: the same records serve as Hydra's schema and as what stages get."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import FrozenSet

from lab.config.data_settings import DataSettings
from lab.config.errors import ConfigError
from lab.config.figures_settings import FiguresSettings
from lab.config.logic_settings import (
    EntropySettings,
    HeadIndex,
    LogicSettings,
    MaskSettings,
    SamSettings,
    SmoothingSettings,
    ThresholdSettings,
)
from lab.config.model_settings import ModelSettings
from lab.config.report_settings import ReportSettings
from lab.config.storage_settings import AttentionStorageSettings, StorageSettings
from lab.config.values import check_fields, choice

__all__ = [
    "PROJECT_ROOT",
    "STAGES",
    "AttentionStorageSettings",
    "ConfigError",
    "DataSettings",
    "EntropySettings",
    "FiguresSettings",
    "HeadIndex",
    "LogicSettings",
    "MaskSettings",
    "ModelSettings",
    "ReportSettings",
    "SamSettings",
    "Settings",
    "SmoothingSettings",
    "StorageSettings",
    "ThresholdSettings",
    "model_directory_name",
]

PROJECT_ROOT = Path(__file__).resolve().parents[2]

STAGES = ("collect", "analyze", "visualize", "pipeline", "batch", "batch_analyze", "report", "check_model")


@dataclass(frozen=True)
class Settings:
    """The whole configuration, checked.

    Attributes:
        stage: What to do.
        save_fig: Save the figure of a single run.
        show_plot: Show the figure of a single run in a window.
        model: Which checkpoint, and how it runs.
        logic: How heads are chosen and turned into a box.
        data: What goes in, where results go.
        storage: How attention files are written.
        figures: How figures are written.
        report: Which pictures the report of a run shows.
        follows_model: Keys of `logic`, such as `smoothing.sigma`, whose values came with the model; not a key itself.
    """

    stage: str = choice("pipeline", *(stage for stage in STAGES if stage != "pipeline"))
    save_fig: bool = True
    show_plot: bool = False
    model: ModelSettings = field(default_factory=ModelSettings)
    logic: LogicSettings = field(default_factory=LogicSettings)
    data: DataSettings = field(default_factory=DataSettings)
    storage: StorageSettings = field(default_factory=StorageSettings)
    figures: FiguresSettings = field(default_factory=FiguresSettings)
    report: ReportSettings = field(default_factory=ReportSettings)
    follows_model: FrozenSet[str] = field(default=frozenset(), metadata={"omegaconf_ignore": True})

    def __post_init__(self) -> None:
        """Reject an unknown stage."""
        check_fields(self, "")

    @property
    def result_dir(self) -> Path:
        """Directory of this model's results."""
        return Path(self.data.output_dir) / model_directory_name(self.model.name)


def model_directory_name(name: str) -> str:
    """Turn a model's name into the name of its directory of results.

    A hub name has its '/' turned into '-'; of a longer or rooted path the last part is taken.

    Args:
        name: Such as `liuhaotian/llava-v1.5-7b` or `examples/models/picturebook-llava`.

    Returns:
        Such as `liuhaotian-llava-v1.5-7b` or `picturebook-llava`.
    """
    parts = [part for part in re.split(r"[/\\]", name) if part not in {"", "."}]
    is_path = len(parts) > 2 or name.startswith((".", "/", "~", "\\")) or ":" in name
    joined = parts[-1] if is_path and parts else "-".join(parts)
    cleaned = re.sub(r"[^\w.-]", "_", joined, flags=re.ASCII).lstrip(".")
    return cleaned or "model"
