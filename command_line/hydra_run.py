"""Hydra's part of the command line: it composes the configuration, and calls a task for each job."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Callable

from command_line.quoting import quote_text_values
from lab.config.composing import check_arguments, composing
from lab.config.errors import ConfigError
from lab.config.fields import text_keys
from lab.config.help_page import help_text
from lab.config.path_keys import path_keys
from lab.config.schema import register_schema
from lab.config.settings import PROJECT_ROOT


def run_hydra(task: Callable[[Any], None], arguments: Sequence[str]) -> None:
    """Let Hydra compose the configuration and call the task: once, or for each job of a sweep.

    Args:
        task: Gets the composed configuration.
        arguments: The command line without the program's name; `--help` alone prints the help page.
    """
    import hydra

    config_dir = PROJECT_ROOT / "conf"
    check_arguments(arguments)
    quoted = quote_text_values(arguments, text_keys(), path_keys() - text_keys())
    overrides = [argument for argument in quoted if argument not in {"--help", "-h"}]
    if len(overrides) < len(quoted) and not any(argument.startswith("-") for argument in overrides):
        with composing(task):
            print(help_text(overrides, config_dir))
        return
    register_schema()
    with composing(task) as watched, _hydra_process_state(["pipeline.py", *quoted]):
        hydra.main(version_base="1.3", config_path=str(config_dir), config_name="config")(watched)()


@contextmanager
def _hydra_process_state(argv: list[str]) -> Iterator[None]:
    """Hand Hydra its arguments, and make it raise errors instead of printing them in its own way."""
    before = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = argv, "1"
    try:
        yield
    finally:
        sys.argv = before[0]
        if before[1] is None:
            del os.environ["HYDRA_FULL_ERROR"]


def is_config_error(error: Exception) -> bool:
    """Tell whether an error says that the configuration is wrong, in the words of any of the libraries that read it."""
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException
    from yaml import YAMLError

    return isinstance(error, (HydraException, OmegaConfBaseException, YAMLError, ConfigError))
