"""What a batch leaves in its directory for the next run: its settings, its failures, its finished ids."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lab.datasets.rows import RowFailure
from lab.messages import shorten_reason
from lab.records import Sample
from lab.storage.files import append_jsonl_line, atomic_write, load_bbox_json, read_json, read_jsonl, save_json
from lab.storage.paths import OutputPaths, find_stem

logger = logging.getLogger(__name__)

RUN_FILE = "run.json"
FAILURES_FILE = "failures.jsonl"


def fingerprint(shaping: Mapping[str, Any]) -> str:
    """Hash the settings that shape results; each result carries it.

    Args:
        shaping: Dotted keys with plain values.

    Returns:
        16 hexadecimal digits.
    """
    text = json.dumps(shaping, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def claim_directory(directory: Path, shaping: Mapping[str, Any], overwrite: bool) -> None:
    """Write the run's settings into its directory, or check that they are those of the runs before.

    Args:
        directory: The model's directory of results; made where it is missing.
        shaping: Dotted keys with plain values that shape the results.
        overwrite: Take the directory over from a run with other settings.

    Raises:
        ValueError: An earlier run had other settings; they are named.
    """
    path = directory / RUN_FILE
    shaping = json.loads(json.dumps(shaping))
    before = _read_settings(path)
    if before is not None and before != shaping and not overwrite:
        differing = sorted(key for key in {*before, *shaping} if before.get(key) != shaping.get(key))
        changes = "; ".join(f"{key} was {before.get(key)!r} and is {shaping.get(key)!r}" for key in differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ValueError(
            f"Expected {directory} to hold results of the same settings, but got others: {changes}{more}. "
            "Choose another data.output_dir, or redo them with data.overwrite=true."
        )
    if before != shaping:
        save_json(path, {"fingerprint": fingerprint(shaping), "settings": shaping})


def _read_settings(path: Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        return dict(read_json(path)["settings"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"Expected {path} to hold the settings of an earlier run, but got {shorten_reason(error)}. "
            "Delete it to start afresh."
        ) from error


@dataclass(frozen=True)
class WantedFiles:
    """Which files make an id finished besides its box.

    Attributes:
        attention: The attention file, under either name.
        figure: The figure.
    """

    attention: bool = True
    figure: bool = False


def find_finished(
    directory: Path, samples: Sequence[Sample], run_fingerprint: str, wanted: WantedFiles, top_k: int
) -> frozenset[str]:
    """Find the samples whose results are all there, made with the same settings for the same question.

    Args:
        directory: The model's directory of results.
        samples: The samples of this run.
        run_fingerprint: See `fingerprint`; results that carry another one are not finished.
        wanted: Files that must be there besides the box.
        top_k: Number of heads on the figure.

    Returns:
        Their ids.

    Raises:
        ValueError: A result with the same settings and id answers another question.
    """
    present = {entry.name for entry in os.scandir(directory)} if directory.is_dir() else set()
    finished = set()
    for sample in samples:
        paths = OutputPaths(directory, sample.id, top_k, find_stem(sample.id, present))
        if _has_files(paths, present, wanted) and _is_current(paths.bbox_json, sample, run_fingerprint):
            finished.add(sample.id)
    return frozenset(finished)


def _has_files(paths: OutputPaths, present: set[str], wanted: WantedFiles) -> bool:
    attention = paths.attention(True).name in present or paths.attention(False).name in present
    return (
        paths.bbox_json.name in present
        and (attention or not wanted.attention)
        and (paths.figure.name in present or not wanted.figure)
    )


def _is_current(path: Path, sample: Sample, run_fingerprint: str) -> bool:
    try:
        record = load_bbox_json(path)
    except ValueError:
        return False
    if record.get("run") != run_fingerprint:
        return False
    same_image = Path(str(record.get("image_file"))).name == Path(sample.image_file).name
    if record.get("query") == sample.query and same_image:
        return True
    raise ValueError(
        f"Expected {path} to answer {sample.query!r} about {sample.image_file}, but got a result for "
        f"{record.get('query')!r} about {record.get('image_file')}. It belongs to another data set: choose another "
        "data.output_dir, or redo it with data.overwrite=true."
    )


class FailureLog:
    """The failures of a directory, as `failures.jsonl`: of each row the latest, if its latest run failed."""

    def __init__(self, directory: Path, data_file: str) -> None:
        """Remember where to write.

        Args:
            directory: The model's directory of results.
            data_file: The input that line numbers refer to.
        """
        self.path = directory / FAILURES_FILE
        self._data_file = data_file

    def forget(self, line_numbers: Iterable[int | None]) -> None:
        """Drop what earlier runs recorded for these lines of the input, since they are tried again."""
        retried = set(line_numbers)
        with _one_run_at_a_time(self.path.parent):
            if not self.path.is_file():
                return
            rows = [line.row for line in read_jsonl(self.path) if line.row is not None]
            kept = [row for row in rows if row.get("data_file") != self._data_file or row.get("line") not in retried]
            if len(kept) < len(rows):
                self._rewrite(kept)

    def _rewrite(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if not rows:
            self.path.unlink(missing_ok=True)
            return
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        atomic_write(self.path, text.encode("utf-8", "backslashreplace"))

    def add(self, failure: RowFailure) -> None:
        """Record one failure."""
        record = asdict(failure)
        row = {"line": record["line_number"], "id": record["id"], "reason": record["reason"]}
        with _one_run_at_a_time(self.path.parent):
            append_jsonl_line(self.path, {**row, "data_file": self._data_file})


@contextmanager
def _one_run_at_a_time(directory: Path) -> Iterator[None]:
    """Keep other runs that share the directory from writing to the failures meanwhile.

    Where locks are not to be had (Windows, some network drives) nothing is kept: there a run that begins may drop a
    failure that another one records at that very moment.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    directory.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            logger.debug("Could not lock %s: %s", directory, error)
        yield
    finally:
        os.close(descriptor)  # which unlocks
