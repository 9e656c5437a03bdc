"""Mistakes in the configuration, explained in one line."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Optional

from foreign_files.messages import shorten, shorten_reason

LONGEST_LINE = 600
"""Characters of a whole message."""


class ConfigError(ValueError):
    """The configuration is wrong; the message is one line that says where, and what to do."""

    def __init__(self, message: str) -> None:
        """Make one printable line of the message, whatever it quotes.

        Args:
            message: Says what was expected where, what was got, and what to do.
        """
        super().__init__(shorten_reason(message, LONGEST_LINE))


def explain(error: BaseException, keys: Mapping[str, Any]) -> str:
    """Say in one line what is wrong with the configuration.

    Args:
        error: What Hydra, OmegaConf or YAML raised while composing or converting.
        keys: Every dotted key of the configuration with its type.

    Returns:
        One line, with the nearest right key or choice where a name was misspelt.
    """
    chain = list(_causes(error))
    for cause in chain:
        if isinstance(cause, ConfigError):
            return str(cause)
    for cause in chain:
        line = _explain_one(cause, keys)
        if line:
            return shorten_reason(line, LONGEST_LINE)
    return shorten_reason(f"Expected a valid configuration, but got: {shorten_reason(error)}", LONGEST_LINE)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what led to it, the first cause first; Hydra chains some errors without saying `from`."""
    if error is not None:
        yield from _causes(error.__cause__ or error.__context__)
        yield error


def _explain_one(error: BaseException, keys: Mapping[str, Any]) -> str:
    from hydra.errors import MissingConfigException, OverrideParseException
    from omegaconf.errors import OmegaConfBaseException

    if isinstance(error, OverrideParseException):
        return _explain_grammar(error.override)
    if isinstance(error, MissingConfigException):
        return _explain_missing_group(error)
    if isinstance(error, OmegaConfBaseException):
        return _explain_omegaconf(error, keys)
    return _explain_hydra_message(str(error), keys)


def _explain_grammar(override: str) -> str:
    """Say what to do about an override that Hydra cannot parse."""
    key, separator, value = override.partition("=")
    if not separator:
        return f"Expected each argument to be key=value, such as stage=batch, but got {shorten(override)}."
    return (
        f"Expected the override {shorten(override)} to be key=value in Hydra's grammar, but got something else. "
        f"A value with commas, brackets or quotes needs quotes of its own: '{key}=\"{value}\"'."
    )


def _explain_missing_group(error: Any) -> str:
    wanted = str(error.missing_cfg_file or "")
    group, _, choice = wanted.rpartition("/")
    options = [str(option) for option in error.options or ()]
    near = difflib.get_close_matches(choice, options, n=1)
    hint = f" Did you mean {group}={near[0]}?" if near else ""
    if not options:
        return f"Expected the configuration {shorten(wanted)} to exist, but found none. {shorten_reason(error)}".strip()
    return f"Expected {group or 'the config'} to be one of {', '.join(options)}, but got {shorten(choice)}.{hint}"


def _explain_omegaconf(error: Any, keys: Mapping[str, Any]) -> str:
    from omegaconf.errors import (
        ConfigAttributeError,
        ConfigKeyError,
        InterpolationResolutionError,
        MissingMandatoryValue,
    )

    message = shorten_reason(str(error.msg or error).splitlines()[0])
    key = str(error.full_key or "")
    if not key:  # an inner error, whose wrapper knows the key
        return ""
    if isinstance(error, (ConfigKeyError, ConfigAttributeError)):
        return explain_unknown_key(key, keys)
    if "does not support deletion" in message:
        return _explain_removal(key)
    if isinstance(error, InterpolationResolutionError):
        return (
            f"Expected {key} to refer to a key of the configuration with ${{...}}, but got: {shorten_reason(message)}."
        )
    if isinstance(error, MissingMandatoryValue):
        return f"Expected {key} to have a value, but got none. Set it on the command line or in its YAML file."
    return f"Expected {key} to be {_describe(keys.get(key))}, but got: {shorten_reason(message)}."


def _describe(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    if kind in names:
        return names[kind]
    for plain, name in names.items():
        if kind == Optional[plain]:
            return f"{name} or null"
    return "a valid value"


def _explain_hydra_message(message: str, keys: Mapping[str, Any]) -> str:
    """Hydra raises some errors as text only."""
    several = re.search(r"Ambiguous value for argument '([^']+?)=(.*?)'\s", message, flags=re.DOTALL)
    if several:
        key, value = several.groups()
        return (
            f"Expected one value for {key}, but got several between commas: {shorten(value)}. "
            f"Write a list as {key}=[{shorten_reason(value)}]; add --multirun to run with each value in turn."
        )
    found = re.search(r"Could not (?:override|append to config|delete from config)[^'\"]*['\"]([^'\"]+)['\"]", message)
    return explain_unknown_key(found.group(1).lstrip("+~").split("=")[0], keys) if found else ""


def explain_unknown_key(key: str, keys: Mapping[str, Any]) -> str:
    """Say in one line that there is no such key, and which one is nearest."""
    if key in keys:
        return _explain_removal(key)
    near = _nearest_keys(key, list(keys))
    hint = f" Did you mean {near[0]!r}?" if near else " See python pipeline.py --help."
    return f"Expected a key of the configuration, but got {shorten(key)}.{hint}"


def _explain_removal(key: str) -> str:
    return f"Expected {key} to be set, but got a request to remove it. Set it to null where it may be empty."


def _nearest_keys(key: str, keys: Sequence[str]) -> list[str]:
    """The likeliest right key: of the same group, else of any group, else by the whole name."""
    parent, _, leaf = key.rpartition(".")
    siblings = {known.rpartition(".")[2]: known for known in keys if known.rpartition(".")[0] == parent}
    anywhere = {known.rpartition(".")[2]: known for known in keys}
    whole = {known: known for known in keys}
    for names, wanted, cutoff in ((siblings, leaf, 0.6), (anywhere, leaf, 0.7), (whole, key, 0.85)):
        near = difflib.get_close_matches(wanted, list(names), n=1, cutoff=cutoff)
        if near:
            return [names[near[0]]]
    return []
