"""What to make of a sample, and how: the settings, the wanted results, and the heads that are fixed."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Optional

from lab.config.errors import ConfigError
from lab.config.settings import PROJECT_ROOT, Settings, model_directory_name
from lab.heads.head_scores import SelectionRules
from lab.heads.heads_file import HeadsFile, check_heads_file, read_heads_file
from lab.storage.paths import exists
from lab.storage.run_state import fingerprint
from llava.conversation import get_template
from refine.refiner import Refiner

if TYPE_CHECKING:
    from refine.sam import Sam

SHAPING_MODEL_KEYS = (
    "name",
    "revision",
    "dtype",
    "conv_mode",
    "use_generate",
    "max_new_tokens",
    "do_sample",
    "num_beams",
)


@dataclass(frozen=True)
class Steps:
    """Which results are made of a sample's attention.

    Attributes:
        attention: Write the attention file and its metadata.
        analysis: Write the ranked heads.
        box: Write mask and box.
        figure: Write the figure.
        show: Draw the figure and keep it.
    """

    attention: bool = False
    analysis: bool = False
    box: bool = False
    figure: bool = False
    show: bool = False


@dataclass(frozen=True)
class Plan:
    """All that finishing a sample needs to know.

    Attributes:
        settings: The whole configuration.
        steps: Which results to make.
        fixed_heads: (layer, head) of the heads to use unchanged, or None to choose them.
        heads_file: The file that names them, if any.
        refiner: Makes masks anew of what was found, if that is asked for.
    """

    settings: Settings
    steps: Steps
    fixed_heads: Optional[tuple[tuple[int, int], ...]] = None
    heads_file: Optional[HeadsFile] = None
    refiner: Optional[Refiner] = field(default=None, compare=False)

    @property
    def stop_layer(self) -> Optional[int]:
        """The deepest fixed head's layer, where nothing deeper is wanted; else None."""
        model = self.settings.model
        wants_all = self.steps.attention or self.steps.analysis or model.use_generate
        if self.fixed_heads is None or wants_all or not model.early_exit:
            return None
        return max(layer for layer, _ in self.fixed_heads)

    @property
    def figure_formats(self) -> tuple[str, ...]:
        """The formats in which figures of samples are written; none where they are not wanted."""
        return self.settings.figures.formats if self.steps.figure else ()

    @property
    def shaping(self) -> dict[str, Any]:
        """The settings that results depend on, as dotted keys with plain values."""
        settings = self.settings
        logic = dataclasses.asdict(settings.logic)
        del logic["heads_file"], logic["force_heads_file"], logic["audit_margin"]
        _leave_out_idle(logic)
        heads = self.fixed_heads
        logic["fixed_heads"] = None if heads is None else [f"L{layer}H{head}" for layer, head in heads]
        model = {key: getattr(settings.model, key) for key in SHAPING_MODEL_KEYS}
        if settings.model.views > 1:  # left out otherwise, as of results from before there were views
            model["views"] = settings.model.views
        storage = {"attention": {"dtype": settings.storage.attention.dtype}}
        return dict(_flatten({"model": model, "logic": logic, "storage": storage}))

    @property
    def fingerprint(self) -> str:
        """Hash of the settings that results depend on; each result carries it."""
        return fingerprint(self.shaping)


def make_plan(settings: Settings, steps: Steps) -> Plan:
    """Read the heads file, if there is one and boxes are wanted, and refuse one that was made for something else.

    Args:
        settings: The whole configuration.
        steps: Which results to make.

    Returns:
        The plan.

    Raises:
        ConfigError: The stage runs the model, and there is no prompt template of the name that is configured.
        ValueError: The heads file is unreadable, too short, or made for another model or template.
    """
    if settings.stage in {"collect", "pipeline", "batch"}:
        _check_template(settings.model.conv_mode)
    refiner = _make_refiner(settings) if steps.box else None
    if not steps.box or settings.logic.heads_file is None:
        return Plan(settings, steps, refiner=refiner)
    heads_file = read_heads_file(find_in_project(settings.logic.heads_file))
    if settings.stage in {"pipeline", "batch"}:  # other stages check what the attention file says
        check_heads_file(
            heads_file,
            model_name=comparable_name(settings.model.name, heads_file),
            template=settings.model.conv_mode,
            num_layers=heads_file.num_layers,
            num_heads=heads_file.num_heads,
            force=settings.logic.force_heads_file,
        )
    return Plan(settings, steps, heads_file.first(settings.logic.top_k), heads_file, refiner)


def _make_refiner(settings: Settings) -> Optional[Refiner]:
    """Prepare what makes masks anew; its model is loaded when the work begins."""
    logic, model = settings.logic, settings.model
    if logic.refine == "none":
        return None

    def load() -> Sam:
        from refine.sam import load_sam
        from vlm.device import choose_device

        device, _, _ = choose_device(model.device, model.device_id, "float32")
        return load_sam(find_in_project(logic.sam.name or ""), device=str(device), cache_dir=model.cache_dir)

    return Refiner(load, logic.sam.prompt, logic.sam.points)


def _check_template(conv_mode: str) -> None:
    """Refuse an unknown template before any file is touched and any model is loaded."""
    try:
        get_template(conv_mode)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def selection_rules(settings: Settings) -> SelectionRules:
    """Turn the `logic` group into the rules of `analyze`."""
    logic = settings.logic
    return SelectionRules(
        top_k=logic.top_k,
        min_keep=logic.threshold.min_keep,
        skip_layers=logic.skip_layers,
        bottom_row_filter=logic.bottom_row_filter,
        binarize_threshold=logic.entropy.binarize_threshold,
        threshold_scale=logic.entropy.threshold_scale,
        entropy_shares=logic.entropy.shares,
        threshold_method=logic.threshold.method,
        threshold_value=logic.threshold.value,
        threshold_scope=logic.threshold.scope,
        lowest_n=logic.lowest_n,
    )


def find_in_project(path: str) -> str:
    """Give a relative path that exists only from the project's root as a path from there; any other as it is."""
    from_root = PROJECT_ROOT / path
    return str(from_root) if not exists(path) and exists(from_root) else path


def comparable_name(name: str, heads_file: HeadsFile) -> str:
    """A model's name; spelt as in the heads file where both name the same directory of results."""
    same = model_directory_name(name) == model_directory_name(heads_file.model_name)
    return heads_file.model_name if same else name


def _leave_out_idle(logic: dict[str, Any]) -> None:
    """Remove options that are off, with what belongs to them, so that results of before still count."""
    if logic["mask"]["edges"] == "cells":
        for key in ("edges", "edge_most", "edge_power"):
            del logic["mask"][key]
    if logic["refine"] == "none":
        del logic["refine"], logic["sam"]


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
