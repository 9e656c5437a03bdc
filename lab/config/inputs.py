"""What each stage needs before anything heavy is loaded: given, there, and fitting together."""

from __future__ import annotations

import difflib
import stat
from pathlib import Path

from foreign_files.messages import shorten
from lab.config.errors import ConfigError
from lab.config.settings import PROJECT_ROOT, Settings
from lab.storage.paths import find_attention_file


def check_inputs(settings: Settings) -> None:
    """Check that the stage has what it needs, before anything heavy is loaded.

    Raises:
        ConfigError: An input is not given, or does not exist.
    """
    data, stage = settings.data, settings.stage
    if stage in {"collect", "pipeline"}:
        _need_text(stage, "data.image_file", data.image_file, "examples/images/bird.png")
        _need_text(stage, "data.query", data.query, '"the bird on the branch"')
        _need_file("data.image_file", data.image_file)
    elif stage in {"analyze", "visualize"}:
        _need_text(stage, "data.attention_file", data.attention_file, f"{settings.result_dir}/sample.pkl.gz")
        _need_attention_file(data.attention_file or "")
        _need_file("data.image_file", data.image_file)
    elif stage == "batch":
        _need_text(stage, "data.data_file", data.data_file, "examples/localization_data.jsonl")
        _need_file("data.data_file", data.data_file)
    elif stage == "check_model":
        _need_file("data.image_file", data.image_file)
    else:
        for directory in data.attention_dirs or (str(settings.result_dir),):
            _need_directory("data.batch_attention_dir", directory)
        _need_file("data.ground_truth", data.ground_truth)
    if settings.report.against is not None:
        _need_directory("report.against", settings.report.against)
    if stage == "collect" and not settings.storage.attention.save:
        raise ConfigError("Expected storage.attention.save to be true for stage=collect, but got false.")
    _check_heads(settings)


def _check_heads(settings: Settings) -> None:
    """Check that stages that choose heads can do so."""
    logic = settings.logic
    found_here = settings.stage == "batch_analyze" and logic.heads_file == settings.model.heads_file
    if logic.heads_file is not None and not found_here and _kind_of(str(PROJECT_ROOT / logic.heads_file)) != "file":
        _need_file("logic.heads_file", logic.heads_file)
    if settings.stage in {"collect", "analyze", "batch_analyze", "report", "check_model"}:
        return
    if logic.threshold.scope == "dataset" and logic.heads_file is None and logic.threshold.value is None:
        raise ConfigError(
            "Expected logic.heads_file or logic.threshold.value with logic.threshold.scope=dataset, but got neither. "
            "Collect with stage=batch logic=selection_v1, find the heads with stage=batch_analyze logic=paper, "
            "and pass the heads.yaml that it writes."
        )


def _need_text(stage: str, key: str, value: str | None, example: str) -> None:
    if value is None or not value.strip():
        raise ConfigError(f"Expected {key} to be given for stage={stage}, but got nothing. Add {key}={example}.")


def _need_file(key: str, value: str | None) -> None:
    if value is not None and _kind_of(value) != "file":
        raise ConfigError(f"Expected {key} to be an existing file, but got {_describe(value)}")


def _need_directory(key: str, value: str) -> None:
    if _kind_of(value) != "directory":
        raise ConfigError(f"Expected {key} to be an existing directory, but got {_describe(value)}")


def _need_attention_file(value: str) -> None:
    try:
        find_attention_file(value)
    except (OSError, ValueError) as error:
        if _kind_of(value) == "directory":
            raise ConfigError(f"Expected data.attention_file to be a file, but got {_describe(value)}") from error
        raise ConfigError(str(error)) from error


def _kind_of(value: str) -> str:
    """What lies at a path: `file`, `directory`, or nothing that can be read."""
    try:
        mode = Path(value).stat().st_mode
    except (OSError, ValueError):  # not there, not allowed, too long a name, a null byte
        return ""
    return "directory" if stat.S_ISDIR(mode) else "file"


def _describe(value: str) -> str:
    """What was given in place of an existing path, and what may be meant."""
    kind = _kind_of(value)
    if kind == "directory":
        return f"the directory {shorten(value)}. Name a file in it{_first_file(Path(value))}."
    if kind == "file":
        return f"the file {shorten(value)}. Name the directory that it is in."
    return f"{shorten(value)}.{_suggest_path(value)}"


def _first_file(directory: Path) -> str:
    names = [name for name in _names_in(directory) if name[0] != "." and _kind_of(str(directory / name)) == "file"]
    return f", such as {shorten(str(directory / names[0]))}" if names else ""


def _suggest_path(value: str) -> str:
    parent = Path(value).parent
    if _kind_of(str(parent)) != "directory":
        return f" There is no directory {shorten(str(parent))} either (paths start from {shorten(str(Path.cwd()))})."
    near = difflib.get_close_matches(Path(value).name, _names_in(parent), n=1)
    return f" Did you mean {shorten(str(parent / near[0]))}?" if near else ""


def _names_in(directory: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in directory.iterdir())
    except OSError:
        return []
