"""Composing the configuration: whatever goes wrong in it is the configuration's fault, and told in one line."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable, NoReturn

from foreign_files.messages import shorten
from lab.config.errors import ConfigError
from lab.config.fields import group_names, known_keys
from lab.config.schema import explain

Task = Callable[[Any], None]


@contextmanager
def composing(task: Task) -> Iterator[Task]:
    """Give the task to hand to Hydra; what Hydra raises while it composes becomes one `ConfigError`.

    Hydra raises errors of many kinds at a wrong override, plain `TypeError` and `OSError` among them, which would be
    taken for faults of the program. An error that the task itself raises goes through unchanged.

    Args:
        task: Gets the composed configuration, once for each job.

    Yields:
        The task, to be called in its place.

    Raises:
        ConfigError: The configuration cannot be composed.
    """
    of_task: list[Exception] = []

    def watched(cfg: Any) -> None:
        try:
            task(cfg)
        except Exception as error:
            of_task.append(error)
            raise

    try:
        yield watched
    except Exception as error:
        if any(error is known for known in of_task):
            raise
        raise ConfigError(explain(error)) from error


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuse what Hydra would answer with a page of usage, or with an error that does not name the argument.

    Args:
        arguments: The command line without the program's name.

    Raises:
        ConfigError: A flag is unknown or lacks its value, or a group is set to something that cannot be an option.
    """
    from hydra._internal.utils import get_args_parser

    parser = _one_line_parser(get_args_parser())
    parsed = parser.parse_args([argument for argument in arguments if argument not in {"--help", "-h"}])
    for argument in parsed.overrides:
        key, separator, value = argument.lstrip("+").partition("=")
        _check_parent(key)
        if separator and key in group_names():
            _check_option(key, value.strip())


def _one_line_parser(parser: argparse.ArgumentParser) -> argparse.ArgumentParser:
    def refuse(message: str) -> NoReturn:
        raise ConfigError(f"Expected flags that Hydra knows, but got: {message}. See python pipeline.py --hydra-help.")

    setattr(parser, "error", refuse)  # noqa: B010 - a plain assignment to a method is what type checkers refuse
    return parser


def _check_parent(key: str) -> None:
    """Refuse a key below one that holds a value, such as `logic.manual_heads.layer`."""
    keys = known_keys()
    parent = key.rpartition(".")[0]
    while parent:
        if parent in keys and not any(known.startswith(f"{parent}.") for known in keys):
            raise ConfigError(f"Expected a key of the configuration, but got {shorten(key)}. Did you mean {parent!r}?")
        parent = parent.rpartition(".")[0]


def _check_option(group: str, value: str) -> None:
    """Refuse `model=1` and `logic=[1,2]`: a group takes the name of one of its options."""
    if value in {"null", ""} or value[0] in "[0123456789-.":
        raise ConfigError(
            f"Expected {group} to be the name of a file in conf/{group} without its ending, but got {shorten(value)}. "
            f"A key of the group is set as {group}.<key>=<value>."
        )
