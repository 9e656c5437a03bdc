"""Group `model`: which checkpoint, and how it runs."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from lab.config.errors import ConfigError
from lab.config.logic_settings import MASK_REGIONS
from lab.config.values import Matching, check_fields, choice, number, path, text

DEVICE = Matching(r"auto|cpu|cuda(:\d{1,4})?", "auto, cpu, cuda or cuda:<id>")


@dataclass(frozen=True)
class ModelSettings:
    """Group `model`: which checkpoint, and how it runs.

    Attributes:
        name: Repository on the Hugging Face hub, or a local directory.
        revision: Branch, tag or commit of the repository; null for its default.
        cache_dir: Where downloads are kept; null for the usual place.
        device: `auto`, `cpu`, `cuda` or `cuda:<id>`.
        device_id: GPU taken when `device` is `auto`.
        dtype: `auto` (float16 on a GPU, float32 on a CPU), `float16`, `bfloat16` or `float32`.
        conv_mode: Prompt template.
        use_generate: Generate text, and take the attention of the first generated step.
        max_new_tokens: Length of the generated text.
        do_sample: Sample the generated text.
        num_beams: Beams of the generation.
        use_flash_attn: Must be false; flash attention gives no attention weights.
        prefill_attention: Attention backend of the shared prefix, of which no attention is kept: `sdpa` or `eager`.
        batch_size: Images in one forward pass; all queries about an image go together.
        early_exit: Stop the forward pass after the deepest fixed head when no attention file is stored.
        views: 1, or 4: each picture is read four times, shifted by half a cell, and the maps are averaged.
        smoothing_sigma: Smoothing that suits the model's grid, in cells; `logic.smoothing.sigma` refers to it.
        mask_region: Region of the mask that suits the model; `logic.mask.region` refers to it.
        skip_layers: First layers to leave out that suit the model's depth; `logic.skip_layers` refers to it.
        lowest_n: Heads counted per sample that suit the model's number of heads; `logic=paper` refers to it.
        heads_file: The model's localization heads, fixed once; `logic=paper` refers to it.
    """

    name: str = path("liuhaotian/llava-v1.5-7b")
    revision: Optional[str] = None
    cache_dir: Optional[str] = path()
    device: str = text("auto", DEVICE)
    device_id: int = number(0, 0, 1000)
    dtype: str = choice("auto", "float16", "bfloat16", "float32")
    conv_mode: str = text("referseg")
    use_generate: bool = False
    max_new_tokens: int = number(32, 1, 100_000)
    do_sample: bool = False
    num_beams: int = number(1, 1, 1000)
    use_flash_attn: bool = False
    prefill_attention: str = choice("sdpa", "eager")
    batch_size: int = number(1, 1, 10_000)
    early_exit: bool = True
    views: int = number(1, 1, 4)
    smoothing_sigma: float = number(1.0, 0, 100)
    mask_region: str = choice(*MASK_REGIONS)
    skip_layers: int = number(2, 0, 10_000)
    lowest_n: int = number(10, 1, 1_000_000)
    heads_file: Optional[str] = path()

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_fields(self, "model")
        if self.views not in (1, 4):
            raise ConfigError(f"Expected model.views to be 1 or 4, but got {self.views}.")
        if self.use_flash_attn:
            raise ConfigError(
                "Expected model.use_flash_attn to be false, but got true: flash attention computes no attention "
                "weights that could be returned. For speed, model.prefill_attention=sdpa already serves the prefix."
            )
