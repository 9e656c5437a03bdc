"""Group `model`: which checkpoint, and how it runs."""

# OmegaConf evaluates the annotations at run time, on Python 3.9 too, so they say Optional and List.
# ruff: noqa: UP006, UP035, UP045

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Optional

from lab.config.errors import ConfigError
from lab.config.logic_settings import MASK_REGIONS
from lab.config.values import check_choice, check_range, check_text

MODEL_DTYPES = ("auto", "float16", "bfloat16", "float32")
PREFILL_ATTENTIONS = ("eager", "sdpa")


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
        smoothing_sigma: Smoothing that suits the model's grid, in cells; `logic.smoothing.sigma` refers to it.
        mask_region: Region of the mask that suits the model; `logic.mask.region` refers to it.
        skip_layers: First layers to leave out that suit the model's depth; `logic.skip_layers` refers to it.
        lowest_n: Heads counted per sample that suit the model's number of heads; `logic=paper` refers to it.
        heads_file: The model's localization heads, fixed once; `logic=paper` refers to it.
    """

    name: str = "liuhaotian/llava-v1.5-7b"
    revision: Optional[str] = None
    cache_dir: Optional[str] = None
    device: str = "auto"
    device_id: int = 0
    dtype: str = "auto"
    conv_mode: str = "referseg"
    use_generate: bool = False
    max_new_tokens: int = 32
    do_sample: bool = False
    num_beams: int = 1
    use_flash_attn: bool = False
    prefill_attention: str = "sdpa"
    batch_size: int = 1
    early_exit: bool = True
    smoothing_sigma: float = 1.0
    mask_region: str = "largest"
    skip_layers: int = 2
    lowest_n: int = 10
    heads_file: Optional[str] = None

    def __post_init__(self) -> None:
        """Reject values out of range."""
        check_text("model.name", self.name)
        if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", self.device):
            raise ConfigError(f"Expected model.device to be auto, cpu, cuda or cuda:<id>, but got {self.device!r}.")
        check_range("model.device_id", self.device_id, 0)
        check_choice("model.dtype", self.dtype, MODEL_DTYPES)
        check_range("model.max_new_tokens", self.max_new_tokens, 1)
        check_range("model.num_beams", self.num_beams, 1)
        check_choice("model.prefill_attention", self.prefill_attention, PREFILL_ATTENTIONS)
        check_range("model.batch_size", self.batch_size, 1)
        check_range("model.smoothing_sigma", self.smoothing_sigma, 0)
        check_choice("model.mask_region", self.mask_region, MASK_REGIONS)
        check_range("model.skip_layers", self.skip_layers, 0)
        check_range("model.lowest_n", self.lowest_n, 1)
        if self.use_flash_attn:
            raise ConfigError(
                "Expected model.use_flash_attn to be false, but got true: flash attention computes no attention "
                "weights that could be returned. For speed, model.prefill_attention=sdpa already serves the prefix."
            )
