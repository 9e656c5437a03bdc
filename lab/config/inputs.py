"""What each stage needs before anything heavy is loaded: given, there, and fitting together."""

from __future__ import annotations

import difflib
from pathlib import Path

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
    else:
        for directory in data.attention_dirs or (str(settings.result_dir),):
            _need_directory("data.batch_attention_dir", directory)
        _need_file("data.ground_truth", data.ground_truth)
    if stage == "collect" and not settings.storage.attention.save:
        raise ConfigError("Expected storage.attention.save to be true for stage=collect, but got false.")
    _check_heads(settings)
    if stage in {"collect", "pipeline", "batch"}:
        _check_template(settings.model.conv_mode)


def _check_heads(settings: Settings) -> None:
    """Check that stages that choose heads can do so."""
    logic = settings.logic
    found_here = settings.stage == "batch_analyze" and logic.heads_file == settings.model.heads_file
    if logic.heads_file is not None and not found_here and not (PROJECT_ROOT / logic.heads_file).is_file():
        _need_file("logic.heads_file", logic.heads_file)
    if settings.stage in {"collect", "analyze", "batch_analyze"}:
        return
    if logic.threshold.scope == "dataset" and logic.heads_file is None and logic.threshold.value is None:
        raise ConfigError(
            "Expected logic.heads_file or logic.threshold.value with logic.threshold.scope=dataset, but got neither. "
            "Collect with stage=batch logic=selection_v1, find the heads with stage=batch_analyze logic=paper, "
            "and pass the heads.yaml that it writes."
        )


def _check_template(conv_mode: str) -> None:
    from llava.conversation import get_template

    try:
        get_template(conv_mode)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _need_text(stage: str, key: str, value: str | None, example: str) -> None:
    if value is None or not value.strip():
        raise ConfigError(f"Expected {key} to be given for stage={stage}, but got nothing. Add {key}={example}.")


def _need_file(key: str, value: str | None) -> None:
    if value is not None and not Path(value).is_file():
        raise ConfigError(f"Expected {key} to be an existing file, but got {value!r}.{_suggest_path(value)}")


def _need_directory(key: str, value: str) -> None:
    if not Path(value).is_dir():
        raise ConfigError(f"Expected {key} to be an existing directory, but got {value!r}.{_suggest_path(value)}")


def _need_attention_file(value: str) -> None:
    try:
        find_attention_file(value)
    except FileNotFoundError as error:
        raise ConfigError(str(error)) from error


def _suggest_path(value: str) -> str:
    parent = Path(value).parent
    if not parent.is_dir():
        return f" There is no directory {str(parent)!r} either (paths start from {str(Path.cwd())!r})."
    near = difflib.get_close_matches(Path(value).name, sorted(entry.name for entry in parent.iterdir()), n=1)
    return f" Did you mean {str(parent / near[0])!r}?" if near else ""
