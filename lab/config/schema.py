"""The door of the configuration: Hydra's schema, its keys, and from what Hydra composed to checked settings."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any, Optional

from lab.config import errors
from lab.config.errors import ConfigError
from lab.config.inputs import check_inputs
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
        Frozen settings; the inputs that the stage needs exist.

    Raises:
        ConfigError: A value is of the wrong type or out of range, or an input is missing.
    """
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    _check_keys(cfg)
    try:
        settings = OmegaConf.to_object(cfg)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    if not isinstance(settings, Settings):
        raise ConfigError(f"Expected the configuration to follow the schema, but got {type(settings).__name__}.")
    check_inputs(settings)
    return settings


def _check_keys(cfg: Any) -> None:
    """Refuse keys that the schema does not know: `+key=value` adds them past Hydra's own check."""
    from omegaconf import OmegaConf

    known = known_keys()
    content = OmegaConf.to_container(cfg, resolve=False)
    for key in _dotted_keys(typing.cast("dict[str, Any]", content), ""):
        if key not in known:
            raise ConfigError(errors.explain_unknown_key(key, known))


def _dotted_keys(tree: dict[str, Any], prefix: str) -> Iterator[str]:
    for key, value in tree.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _dotted_keys(value, f"{prefix}{key}.")


def known_keys() -> dict[str, Any]:
    """Map every dotted key of the configuration to its type."""
    return dict(_walk_keys(Settings, ""))


def text_keys() -> frozenset[str]:
    """The keys that take free text, such as queries and paths."""
    return frozenset(key for key, kind in known_keys().items() if kind in (str, Optional[str]))


def _walk_keys(record: type, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(record)
    for entry in dataclasses.fields(record):
        kind = hints[entry.name]
        yield prefix + entry.name, kind
        for inner in (kind, *typing.get_args(kind)):
            if dataclasses.is_dataclass(inner):
                yield from _walk_keys(typing.cast(type, inner), f"{prefix}{entry.name}.")


def explain(error: BaseException) -> str:
    """Say in one line what is wrong with the configuration; see `lab.config.errors.explain`."""
    return errors.explain(error, known_keys())
