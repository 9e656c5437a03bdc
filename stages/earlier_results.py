"""Results of earlier runs under the same id: kept from being overwritten, or removed before they go stale."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Optional

from lab.config.settings import model_directory_name
from lab.records import HeadScore, Sample
from lab.storage import files
from lab.storage.attention_files import load_attention
from lab.storage.paths import OutputPaths, is_file, possible_stems
from stages.model_settings import META_KEY, record_model
from stages.plan import SHAPING_MODEL_KEYS, Plan

_MADE_OF_ATTENTION = re.compile(r"(?P<stem>.+?)(_bbox\.json|_mask\.png|_analysis\.pkl|_top\d+\.(png|pdf|svg))")


def refuse_to_overwrite(plan: Plan, sample: Sample, paths: OutputPaths) -> None:
    """Keep the results of another question, picture or configuration from being overwritten.

    Args:
        plan: What is going to be made.
        sample: What is going to be asked.
        paths: Where the results will be written.

    Raises:
        ValueError: There are results of something else; `data.overwrite` allows them to be overwritten.
    """
    if plan.settings.data.overwrite:
        return
    difference = _other_box(plan, sample, paths) if plan.steps.box else None
    if difference is None and plan.steps.attention:
        difference = _other_attention(plan, sample, paths)
    if difference is not None:
        raise ValueError(
            f"Expected {paths.bbox_json.parent} to hold no results of something else under the name "
            f"{paths.file_stem!r}, but got some: {difference}. Choose another name or directory, or redo them with "
            "data.overwrite=true."
        )


def _other_box(plan: Plan, sample: Sample, paths: OutputPaths) -> Optional[str]:
    """How the box that is there differs from what is going to be made; None where it does not."""
    if not paths.bbox_json.exists():
        return None
    try:
        record = files.load_bbox_json(paths.bbox_json)
    except ValueError:  # damaged, so that nothing is lost
        return None
    if record.get("run") != plan.fingerprint:
        return _other_question(record, sample) or "they were made with other settings"
    return _other_question(record, sample)


def _other_attention(plan: Plan, sample: Sample, paths: OutputPaths) -> Optional[str]:
    """How the attention that is there differs from what is going to be collected; None where it does not."""
    if not any(paths.attention(compress).exists() for compress in (True, False)):
        return None
    meta = _read_meta(paths)
    return None if meta is None else _other_question(meta, sample) or _other_model(meta, plan)


def _read_meta(paths: OutputPaths) -> Optional[Mapping[str, Any]]:
    """The metadata of the attention that is there; None where it cannot be read, so that nothing is lost."""
    try:
        return files.load_meta(paths.meta_json)
    except (OSError, ValueError, RecursionError):
        pass
    try:
        return load_attention(paths.attention()).meta
    except (OSError, ValueError):
        return None


def _other_question(record: Mapping[str, Any], sample: Sample) -> Optional[str]:
    if record.get("query") != sample.query:
        return f"they answer {record.get('query')!r}"[:200]
    image_file = str(record.get("image_file"))
    return None if _same_picture(image_file, sample.image_file) else f"they are about {image_file!r}"[:200]


def _same_picture(one: str, other: str) -> bool:
    """Whether two paths name one file, or two of the same content; where one is gone, the name has to do."""
    first, second = Path(one), Path(other)
    if os.path.abspath(first) == os.path.abspath(second):
        return True
    if is_file(first) and is_file(second):
        return first.read_bytes() == second.read_bytes()
    return first.name == second.name


def _other_model(meta: Mapping[str, Any], plan: Plan) -> Optional[str]:
    """Which of the model's settings that shape attention is another one."""
    recorded, here = meta.get(META_KEY), record_model(plan.settings.model)
    if not isinstance(recorded, Mapping):
        name = str(meta.get("model_name") or "")
        same = not name or model_directory_name(name) == model_directory_name(plan.settings.model.name)
        return None if same else f"they are of the model {name!r}"[:200]
    recorded = {"views": 1, **recorded}  # older files do not say it
    for key in (*SHAPING_MODEL_KEYS, "views"):
        if recorded.get(key) != here[key]:
            return f"model.{key} was {recorded.get(key)!r} and is {here[key]!r}"[:200]
    return None


def refuse_other_ranking(plan: Plan, ranked: Sequence[HeadScore], paths: OutputPaths) -> None:
    """Keep a ranking that was made with other settings from being overwritten.

    Args:
        plan: What is going to be made.
        ranked: The ranking that is going to be written.
        paths: Where.

    Raises:
        ValueError: There is another ranking; `data.overwrite` allows it to be overwritten.
    """
    if plan.settings.data.overwrite or not paths.analysis.exists():
        return
    try:
        same = files.load_analysis(paths.analysis) == list(ranked)
    except ValueError:  # damaged, so that nothing is lost
        return
    if not same:
        raise ValueError(
            f"Expected {paths.analysis} to hold the ranking that these settings give, but got another one. "
            "Move it away, or redo it with data.overwrite=true."
        )


def remove_stale(plan: Plan, redone: Iterable[tuple[Sample, OutputPaths]]) -> None:
    """Remove what earlier runs made of the samples that are going to be redone, before the first of them is.

    The boxes go first: their presence says that an id is done. With `data.overwrite`, attention goes too, where it is
    collected anew or is another model's or question's. So does what stands under another name that the id may have.

    Args:
        plan: What is going to be made.
        redone: The samples, and where their results will be written.
    """
    by_stem = {paths.file_stem: (sample, paths) for sample, paths in _with_other_names(list(redone))}
    for _, paths in by_stem.values():
        paths.bbox_json.unlink(missing_ok=True)
    for directory in {Path(paths.directory) for _, paths in by_stem.values()}:
        for name in sorted(os.listdir(directory) if directory.is_dir() else ()):
            found = _MADE_OF_ATTENTION.fullmatch(name)
            if found is not None and found["stem"] in by_stem:
                (directory / name).unlink(missing_ok=True)
    if plan.settings.data.overwrite:
        for sample, paths in by_stem.values():
            _remove_attention(plan, sample, paths)


def _with_other_names(redone: Sequence[tuple[Sample, OutputPaths]]) -> Iterator[tuple[Sample, OutputPaths]]:
    """The samples with their paths and, where files of theirs are listed under another name, with those, too."""
    present: dict[Path, frozenset[str]] = {}
    for sample, paths in redone:
        directory = Path(paths.directory)
        if directory not in present:
            present[directory] = frozenset(os.listdir(directory) if directory.is_dir() else ())
        others = (replace(paths, stem=stem) for stem in possible_stems(sample.id) if stem != paths.file_stem)
        yield sample, paths
        yield from ((sample, other) for other in others if _is_listed(other, present[directory]))


def _is_listed(paths: OutputPaths, present: frozenset[str]) -> bool:
    """Whether a box or attention is there, spelt just so: where case does not count, a file may be another id's."""
    return any(path.name in present for path in (paths.bbox_json, paths.attention(True), paths.attention(False)))


def _remove_attention(plan: Plan, sample: Sample, paths: OutputPaths) -> None:
    """Remove attention that is going to be collected anew, or that is not what the new box is made of."""
    if plan.steps.attention or _other_attention(plan, sample, paths) is not None:
        for path in (paths.attention(True), paths.attention(False), paths.meta_json, paths.meta_pickle):
            path.unlink(missing_ok=True)


def remove_of_other_settings(plan: Plan, paths: OutputPaths) -> None:
    """With `data.overwrite`, remove what was made of a stored attention file with other settings; the file stays.

    Args:
        plan: What is going to be made.
        paths: Where the results will be written.
    """
    if not plan.settings.data.overwrite or _made_with(paths) == plan.fingerprint:
        return
    for name in sorted(os.listdir(paths.directory)):
        found = _MADE_OF_ATTENTION.fullmatch(name)
        if found is not None and found["stem"] == paths.file_stem:
            (Path(paths.directory) / name).unlink(missing_ok=True)


def _made_with(paths: OutputPaths) -> Optional[str]:
    """The fingerprint of the settings that the box was made with; None where there is no box."""
    try:
        run = files.load_bbox_json(paths.bbox_json).get("run")
    except (OSError, ValueError):
        return None
    return None if run is None else str(run)
