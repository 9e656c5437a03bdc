"""What a batch leaves in its directory for the next run: its settings, its failures, its finished ids."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from foreign_files.messages import shorten, shorten_reason
from lab.datasets.rows import RowFailure
from lab.records import Sample
from lab.storage.claims import living_runs, one_run_at_a_time
from lab.storage.files import append_jsonl_lines, atomic_write, load_bbox_json, read_json, read_jsonl, save_json
from lab.storage.paths import OutputPaths, find_stem
from lab.storage.pictures import Picture, PictureIndex

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
        ValueError: An earlier run had other settings; they are named. Or a run with other settings is at work.
    """
    with one_run_at_a_time(directory):
        _claim_directory(directory, json.loads(json.dumps(shaping)), overwrite)


def _claim_directory(directory: Path, shaping: dict[str, Any], overwrite: bool) -> None:
    path = directory / RUN_FILE
    before = _read_settings(path)
    if before is not None and before != shaping and not overwrite:
        differing = sorted(key for key in {*before, *shaping} if before.get(key) != shaping.get(key))
        changes = "; ".join(_describe_change(key, before, shaping) for key in differing[:4])
        more = f"; and {len(differing) - 4} more" if len(differing) > 4 else ""
        raise ValueError(
            f"Expected {directory} to hold results of the same settings, but got others: {changes}{more}. "
            "Choose another data.output_dir, or redo them with data.overwrite=true."
        )
    if before != shaping:
        _check_alone(directory, before)
        save_json(path, {"fingerprint": fingerprint(shaping), "settings": shaping})


def _describe_change(key: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    return f"{shorten_reason(key)} was {shorten(before.get(key))} and is {shorten(now.get(key))}"


def _check_alone(directory: Path, before: Mapping[str, Any] | None) -> None:
    """Refuse to change the settings under a run that is at work."""
    others = [run for run in living_runs(directory) if not run.is_this_process]
    if before is not None and others:
        raise ValueError(
            f"Expected no other run to be at work in {directory} while its settings change, but got "
            f"{others[0].describe()}. Wait until it is done, or choose another data.output_dir."
        )


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
        figures: The formats in which the figure must be there.
    """

    attention: bool = True
    figures: tuple[str, ...] = ()


def find_finished(
    directory: Path,
    samples: Sequence[Sample],
    run_fingerprint: str,
    wanted: WantedFiles,
    top_k: int,
    pictures: PictureIndex | None = None,
) -> frozenset[str]:
    """Find the samples whose results are all there, made with the same settings for the same question and picture.

    A picture is the same if its content is. Results that do not say what their picture held (those of older versions)
    count by the picture's path, which is said once. A picture whose content has changed costs its rows: they are not
    finished.

    Args:
        directory: The model's directory of results.
        samples: The samples of this run.
        run_fingerprint: See `fingerprint`; results that carry another one are not finished.
        wanted: Files that must be there besides the box.
        top_k: Number of heads on the figure.
        pictures: What the pictures hold, as far as earlier runs have read them; None to read them all.

    Returns:
        Their ids.

    Raises:
        ValueError: A result with the same settings and id answers another question.
    """
    present = {entry.name for entry in os.scandir(directory)} if directory.is_dir() else set()
    pictures = PictureIndex(directory.parent) if pictures is None else pictures
    check = _PictureCheck(pictures)
    finished = set()
    for sample in samples:
        paths = OutputPaths(directory, sample.id, top_k, sample.file_stem or find_stem(sample.id, present))
        if _has_files(paths, present, wanted) and _is_current(paths.bbox_json, sample, run_fingerprint, check):
            finished.add(sample.id)
    check.report()
    return frozenset(finished)


def _has_files(paths: OutputPaths, present: set[str], wanted: WantedFiles) -> bool:
    return (
        paths.bbox_json.name in present
        and (not wanted.attention or any(paths.attention(compress).name in present for compress in (True, False)))
        and all(paths.figure(kind).name in present for kind in wanted.figures)
    )


def _is_current(path: Path, sample: Sample, run_fingerprint: str, check: _PictureCheck) -> bool:
    try:
        record = load_bbox_json(path)
    except ValueError:
        return False
    if record.get("run") != run_fingerprint:
        return False
    same_query = record.get("query") == sample.query
    if same_query and check.is_same(record, sample.image_file):
        return True
    same_name = Path(str(record.get("image_file"))).name == Path(sample.image_file).name
    if same_name and (same_query or str(record.get("query")).strip() == sample.query):
        return False  # it is about what this picture or query was before
    raise ValueError(
        f"Expected {path} to answer {shorten(sample.query)} about {shorten(sample.image_file)}, but got a result for "
        f"{shorten(record.get('query'))} about {shorten(record.get('image_file'))}. It belongs to another data set: "
        "choose another data.output_dir, or redo it with data.overwrite=true."
    )


class _PictureCheck:
    """Compares what results say of their pictures with the pictures, each of which is looked at once."""

    def __init__(self, pictures: PictureIndex) -> None:
        self._pictures = pictures
        self._found: dict[str, Picture | None] = {}
        self._changed = self._told_by_path = 0

    def is_same(self, record: Mapping[str, Any], image_file: str) -> bool:
        """Whether a result was made of a picture."""
        recorded = Picture.recorded(record)
        if recorded is None:
            same = _is_same_path(str(record.get("image_file")), image_file)
            self._told_by_path += same
        else:
            same = self._find(image_file) == recorded
        self._changed += not same
        return same

    def _find(self, image_file: str) -> Picture | None:
        if image_file not in self._found:
            self._found[image_file] = self._pictures.find(image_file)
        return self._found[image_file]

    def report(self) -> None:
        """Say what was not plain."""
        if self._told_by_path:
            logger.info(
                "%d results do not say what their pictures held; they count as done, as their paths are the same.",
                self._told_by_path,
            )
        if self._changed:
            logger.warning("%d rows are done again, since their picture is, or may be, another one now.", self._changed)


def _is_same_path(before: str, now: str) -> bool:
    return before == now or os.path.realpath(before) == os.path.realpath(now)


class FailureLog:
    """The failures of a directory, as `failures.jsonl`: of each row the latest, if its latest run failed.

    A symbolic link in its place is removed, never followed.
    """

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
        with one_run_at_a_time(self.path.parent):
            self._remove_link()
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
        self.add_all([failure])

    def add_all(self, failures: Iterable[RowFailure]) -> None:
        """Record failures."""
        with one_run_at_a_time(self.path.parent):
            self._remove_link()
            append_jsonl_lines(self.path, [self._row(failure) for failure in failures])

    def _row(self, failure: RowFailure) -> dict[str, Any]:
        row = {"line": failure.line_number, "id": failure.id, "reason": failure.reason}
        return {**row, "data_file": self._data_file}

    def _remove_link(self) -> None:
        if self.path.is_symlink():
            logger.warning("Removed the symbolic link %s: failures are written to a file of their own.", self.path)
            self.path.unlink()
