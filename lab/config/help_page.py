"""The page that `--help` shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from lab.config.schema import register_schema


def help_text(overrides: Sequence[str], directory: Path) -> str:
    """Compose the help page: stages, groups, and the configuration as the overrides make it.

    Hydra's own way to the same page lists all groups that it knows, and copies the schema each time: half a second.

    Args:
        overrides: Arguments of the form key=value.
        directory: Where `config.yaml` is.

    Returns:
        The page.
    """
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf, open_dict

    register_schema()
    with initialize_config_dir(config_dir=str(directory), version_base="1.3"):
        cfg = compose("config", overrides=list(overrides), return_hydra_config=True)
    page = str(cfg.hydra.help.template)
    with open_dict(cfg):
        del cfg["hydra"]
    return page.replace("$CONFIG", OmegaConf.to_yaml(cfg))
