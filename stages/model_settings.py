"""The settings that belong to an attention file's own model, whatever model is configured."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, Optional

from lab.config.errors import ConfigError
from lab.config.model_defaults import FOLLOWING, find_preset
from lab.config.settings import PROJECT_ROOT, LogicSettings, ModelSettings, Settings, model_directory_name
from lab.storage.attention_files import ATTENTION_DTYPES
from stages.plan import SHAPING_MODEL_KEYS

logger = logging.getLogger(__name__)

META_KEY = "model_settings"
RECORDED_KEYS = (*SHAPING_MODEL_KEYS, "views", *FOLLOWING.values())


def record_model(model: ModelSettings) -> dict[str, Any]:
    """What an attention file keeps of the model's settings: those that shape the results that are made of it."""
    return {key: getattr(model, key) for key in RECORDED_KEYS}


def settings_of_file(meta: Mapping[str, Any], settings: Settings, source: object) -> Settings:
    """Take what belongs to a model from the attention file, and all else from the configuration.

    What the user says in so many words stays: a key of `logic` that is set, or a key of `model` on the command line.
    An older file does not hold the settings of its model; then those of the preset with its name are taken.

    Args:
        meta: Metadata of the attention file.
        settings: The whole configuration.
        source: The file, for messages.

    Returns:
        The configuration for this file.

    Raises:
        ConfigError: The file is of a model of which nothing is known, and not of the configured one.
    """
    model = _model_of_file(meta, settings, source)
    dtype = str(meta.get("attn_dtype"))
    attention = settings.storage.attention
    if dtype in ATTENTION_DTYPES:
        attention = replace(attention, dtype=dtype)
    return replace(
        settings,
        model=model,
        logic=_follow(settings.logic, model, settings.follows_model),
        storage=replace(settings.storage, attention=attention),
    )


def _model_of_file(meta: Mapping[str, Any], settings: Settings, source: object) -> ModelSettings:
    """The configured model's settings, with those that shape results replaced by the file's model's."""
    recorded, name = meta.get(META_KEY), meta.get("model_name")
    if not isinstance(recorded, Mapping):
        recorded = {} if name is None else _look_up(str(name), settings, source)
    if name is None and not recorded:
        logger.warning("%s does not name its model: the settings of %s are used.", source, settings.model.name)
    known = {key: recorded[key] for key in RECORDED_KEYS if key in recorded}
    known.setdefault("views", 1)  # older files do not say it
    if meta.get("prompt_template"):
        known["conv_mode"] = str(meta["prompt_template"])
    try:
        return replace(settings.model, **known)
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"Expected the model's settings in the metadata of {source} to be valid, but got: {error} Collect again."
        ) from error


def _look_up(name: str, settings: Settings, source: object) -> dict[str, Any]:
    """What is known of a model by its name: what is configured, or its preset."""
    if model_directory_name(name) == model_directory_name(settings.model.name):
        return {}
    preset = find_preset(name, PROJECT_ROOT / "conf") or _preset_of_same_directory(name)
    if preset is None and not settings.follows_model:  # all that a model brings along is said in so many words
        return {"name": name}
    if preset is None:
        raise ConfigError(
            f"Expected {source} to be of the configured model {settings.model.name!r} or of one with a preset in "
            f"conf/model, but got one of {name!r}, whose smoothing, mask region and layers to skip are not known. "
            f"Say model.name={name} with its settings, or collect again."
        )
    names = {field.name for field in fields(ModelSettings)}
    return {key: value for key, value in preset.items() if key in names}


def _preset_of_same_directory(name: str) -> Optional[dict[str, Any]]:
    """The preset of a model in this project that the file names by another path."""
    for directory in (PROJECT_ROOT / "examples/models").glob("*/"):
        if model_directory_name(str(directory)) == model_directory_name(name):
            return find_preset(f"examples/models/{directory.name}", PROJECT_ROOT / "conf")
    return None


def _follow(logic: LogicSettings, model: ModelSettings, following: frozenset[str]) -> LogicSettings:
    """Put the model's values where the logic follows it."""
    own = {key: getattr(model, FOLLOWING[key]) for key in following}
    plain = {key: value for key, value in own.items() if "." not in key}
    if "smoothing.sigma" in own:
        plain["smoothing"] = replace(logic.smoothing, sigma=own["smoothing.sigma"])
    if "mask.region" in own:
        plain["mask"] = replace(logic.mask, region=own["mask.region"])
    return replace(logic, **plain)
