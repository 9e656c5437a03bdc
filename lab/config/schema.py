"""The door of the configuration: Hydra's schema, its keys, and from what Hydra composed to checked settings."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from lab.config import errors
from lab.config.errors import ConfigError
from lab.config.fields import known_keys
from lab.config.inputs import check_inputs
from lab.config.model_defaults import find_following
from lab.config.path_keys import expand_paths
from lab.config.settings import Settings


def register_schema() -> None:
    """Make the schema known to Hydra under the name that `conf/config.yaml` starts from."""
    from hydra.core.config_store import ConfigStore

    ConfigStore.instance().store(name="schema", node=make_schema())


def make_schema() -> Any:
    """Build the typed configuration that every YAML file and override is merged into."""
    from omegaconf import OmegaConf

    schema = OmegaConf.structured(Settings)
    _thaw(schema)
    return schema


def _thaw(node: Any) -> None:
    """Take off the read-only mark that OmegaConf derives from frozen dataclasses; the settings stay frozen."""
    from omegaconf import DictConfig

    node._set_flag("readonly", None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _thaw(child)


def validate(cfg: Any) -> Settings:
    """Turn the composed configuration into checked settings.

    Args:
        cfg: What Hydra composed on the schema.

    Returns:
        Frozen settings, `~` expanded in their paths; the inputs that the stage needs exist.

    Raises:
        ConfigError: A value is of the wrong type or out of range, or an input is missing.
    """
    settings = expand_paths(_convert(cfg))
    check_inputs(settings)
    return dataclasses.replace(settings, follows_model=find_following(cfg))


def _convert(cfg: Any) -> Settings:
    """Turn the composed configuration into settings; whatever goes wrong is a mistake in the configuration."""
    from omegaconf import OmegaConf

    try:
        _check_keys(cfg)
        settings = OmegaConf.to_object(cfg)
    except Exception as error:
        raise ConfigError(explain(error)) from error
    if not isinstance(settings, Settings):
        raise ConfigError(f"Expected the configuration to follow the schema, but got {type(settings).__name__}.")
    return settings


def _check_keys(cfg: Any) -> None:
    """Refuse keys that the schema does not know: `+key=value` adds them past Hydra's own check."""
    from omegaconf import OmegaConf

    known = known_keys()
    content = OmegaConf.to_container(cfg, resolve=False)
    for key in _dotted_keys(typing.cast("dict[str, Any]", content), "", known):
        if key not in known:
            raise ConfigError(errors.explain_unknown_key(key, known))


def _dotted_keys(tree: dict[str, Any], prefix: str, known: Mapping[str, Any]) -> Iterator[str]:
    """The keys of a tree, down to those whose value may be anything."""
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict) and known.get(f"{prefix}{key}") is not Any:
            yield from _dotted_keys(value, f"{prefix}{key}.", known)


def explain(error: BaseException) -> str:
    """Say in one line what is wrong with the configuration; see `lab.config.errors.explain`."""
    return errors.explain(error, known_keys())
