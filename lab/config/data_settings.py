"""Group `data`: what goes in, where results go."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

from foreign_files.messages import shorten
from lab.config.errors import ConfigError
from lab.config.values import COUNT_LIMIT, Between, check_fields, choice, number, path, text

BOX_FORMATS = ("xywh", "xyxy", "xywh_unit", "xyxy_unit", "xywh_thousand", "xyxy_thousand")
"""How four numbers give a box: corner and size or two corners, in pixels, in 0..1, or in 0..1000 of the image."""


@dataclass(frozen=True)
class DataSettings:
    """Group `data`: what goes in, where results go.

    Attributes:
        image_file: Image of a single run.
        query: Referring expression of a single run.
        save_id: Name of a single run's files; null for image name and query.
        attention_file: Attention file for `analyze` and `visualize`.
        data_file: JSONL file for `batch`.
        id_field: Key of a row's identifier.
        prompt_field: Key of a row's referring expression.
        image_field: Key of a row's image path.
        process_all: Whether all rows are processed; null for all unless an index is given.
        start_index: First row, counting from 0.
        end_index: Row to stop before.
        output_dir: Root of all results; a directory for each model is made in it.
        visualize_batch: Draw a figure for each row of a batch.
        strict: Stop a batch at the first row that fails.
        overwrite: Redo finished rows, and allow a directory made with other settings.
        batch_attention_dir: Directory of attention files for `batch_analyze`, or a list of them; null for the model's
            directory under `output_dir`.
        analysis_dir: Where `batch_analyze` writes; null for the (first) directory that it reads.
        trials: Number of parts or resamples whose selection frequencies are compared.
        trial_size: Samples of each trial, drawn without replacement; null to split the data into `trials` parts.
        trial_seed: Seed of that split or draw.
        ground_truth: JSONL file with boxes, for the head audit and for scores.
        box_format: How the boxes of `ground_truth` are written: corner and size (`xywh`) or two corners (`xyxy`), in
            pixels, in 0..1 (`_unit`) or in 0..1000 (`_thousand`) of the image; `auto` decides for the whole file.
        report: Write the report of the run after `batch` or `batch_analyze`, as `stage=report` does.
        audit: Compare the heads with ground truth, if it is given; false for scores alone.
    """

    image_file: Optional[str] = path()
    query: Optional[str] = None
    save_id: Optional[str] = text(None)
    attention_file: Optional[str] = path()
    data_file: Optional[str] = path()
    id_field: str = text("id")
    prompt_field: str = text("prompt")
    image_field: str = text("image_path")
    process_all: Optional[bool] = None
    start_index: Optional[int] = number(None, 0, COUNT_LIMIT)
    end_index: Optional[int] = number(None, 0, COUNT_LIMIT)
    output_dir: str = path("outputs/results")
    visualize_batch: bool = False
    strict: bool = False
    overwrite: bool = False
    batch_attention_dir: Any = path()
    analysis_dir: Optional[str] = path()
    trials: int = number(1, 1, 10_000)
    trial_size: Optional[int] = number(None, 1, COUNT_LIMIT)
    trial_seed: int = number(0, 0, 2**32 - 1)
    ground_truth: Optional[str] = path()
    box_format: str = choice("auto", *BOX_FORMATS)
    audit: bool = True
    report: bool = False

    def __post_init__(self) -> None:
        """Reject values out of range and row ranges that contradict each other."""
        check_fields(self, "data")
        self._check_row_range()
        self._check_directories()

    def _check_row_range(self) -> None:
        if self.end_index is not None:
            Between((self.start_index or 0) + 1, COUNT_LIMIT).check("data.end_index", self.end_index)
        limited = self.start_index is not None or self.end_index is not None
        if self.process_all is True and limited:
            raise ConfigError(
                "Expected either data.process_all=true or a range of rows, but got both. "
                "Leave out process_all, or data.start_index and data.end_index."
            )
        if self.process_all is False and not limited:
            raise ConfigError(
                "Expected data.start_index or data.end_index with data.process_all=false, but got neither. "
                "Say which rows to process, counting from 0 and stopping before end_index."
            )

    def _check_directories(self) -> None:
        if not all(isinstance(directory, str) and directory for directory in self.attention_dirs):
            raise ConfigError(
                "Expected data.batch_attention_dir to be a directory or a list of directories, "
                f"but got {shorten(self.batch_attention_dir)}."
            )

    @property
    def attention_dirs(self) -> tuple[Any, ...]:
        """The directories of `batch_attention_dir`, none where it is null."""
        value = self.batch_attention_dir
        return () if value is None else tuple(value) if isinstance(value, list) else (value,)
