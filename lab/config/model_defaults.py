"""Which settings come with the model, what the user said against them, and what the presets of `conf/model/` say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Optional

# Keys of the group `logic` that refer to one of the group `model` unless something else is said.
FOLLOWING = {
    "smoothing.sigma": "smoothing_sigma",
    "mask.region": "mask_region",
    "skip_layers": "skip_layers",
    "lowest_n": "lowest_n",
    "heads_file": "heads_file",
}


def find_following(cfg: Any) -> frozenset[str]:
    """Find the keys of `logic` whose values the model brings along, since the user said nothing else.

    Args:
        cfg: What Hydra composed, not resolved.

    Returns:
        Keys of `FOLLOWING` that still refer to the model, where the command line does not set the model's own key.
    """
    from omegaconf import OmegaConf

    content = OmegaConf.to_container(cfg, resolve=False)
    logic = content.get("logic") if isinstance(content, dict) else None
    said = _keys_on_the_command_line()
    return frozenset(
        key
        for key, model_key in FOLLOWING.items()
        if _lookup(logic, key) == f"${{model.{model_key}}}" and f"model.{model_key}" not in said
    )


def find_preset(name: str, config_dir: Path) -> Optional[dict[str, Any]]:
    """Find what the presets say of a model.

    Args:
        name: The model's name, such as `liuhaotian/llava-v1.5-7b`.
        config_dir: Directory that holds `model/*.yaml`.

    Returns:
        The group `model` of the preset for that name, with what it inherits; None where there is none.
    """
    for path in sorted(Path(config_dir, "model").glob("*.yaml")):
        preset = _read_preset(path)
        if preset.get("name") == name:
            return preset
    return None


def _read_preset(path: Path) -> dict[str, Any]:
    """A preset's values over those of the presets that its defaults list names."""
    import yaml

    own: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    inherited: dict[str, Any] = {}
    for base in own.pop("defaults", []):
        if isinstance(base, str) and base != "_self_":
            inherited.update(_read_preset(path.with_name(f"{base}.yaml")))
    return {**inherited, **own}


def _keys_on_the_command_line() -> frozenset[str]:
    return frozenset(_overridden_keys())


def _overridden_keys() -> Iterator[str]:
    from hydra.core.hydra_config import HydraConfig

    if HydraConfig.initialized():
        for override in HydraConfig.get().overrides.task:
            yield str(override).partition("=")[0].lstrip("+~")


def _lookup(tree: Any, key: str) -> Any:
    for part in key.split("."):
        tree = tree.get(part) if isinstance(tree, Mapping) else None
    return tree
