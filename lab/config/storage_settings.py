"""Group `storage`: how results are written."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

from dataclasses import dataclass, field

from lab.config.values import check_fields, choice, number
from lab.storage.attention_files import ATTENTION_DTYPES


@dataclass(frozen=True)
class AttentionStorageSettings:
    """Group `storage`: how attention files are written.

    Attributes:
        save: Write attention files; without them a batch gives boxes only.
        compress: gzip (`.pkl.gz`) or not (`.pkl`).
        dtype: Number type of the stored tensor; what is analysed is rounded the same way.
        level: gzip level.
        keep_meta_pickle: Write `<id>_meta.pkl` beside `<id>_meta.json`.
    """

    save: bool = True
    compress: bool = True
    dtype: str = choice(*ATTENTION_DTYPES)
    level: int = number(1, 0, 9)
    keep_meta_pickle: bool = False

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "storage.attention")


@dataclass(frozen=True)
class StorageSettings:
    """Group `storage`.

    Attributes:
        attention: How attention files are written.
        workers: Background threads that analyse, draw and write while the model works.
    """

    attention: AttentionStorageSettings = field(default_factory=AttentionStorageSettings)
    workers: int = number(2, 1, 64)

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "storage")
