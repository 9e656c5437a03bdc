"""Tiny random models of many image-text families, saved as checkpoints would be; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Callable

from tests.tiny_families import single_grid, tiled
from tests.tiny_families.parts import TinyFamily

_MAKERS: tuple[Callable[[], TinyFamily], ...] = (
    single_grid.llava,
    single_grid.bakllava,
    single_grid.llava_siglip,
    single_grid.vipllava,
    tiled.llava_next,
    tiled.llava_onevision,
    single_grid.qwen2_vl,
    single_grid.qwen2_5_vl,
    single_grid.qwen3_vl,
    single_grid.qwen3_vl_moe,
    single_grid.qwen3_5,
    single_grid.glm4v,
    single_grid.glm4v_moe,
    single_grid.ernie4_5_vl,
    single_grid.video_llama_3,
    single_grid.pixtral,
    single_grid.mistral3,
    single_grid.gemma3,
    single_grid.gemma3_softcap,
    single_grid.gemma4,
    single_grid.paligemma,
    single_grid.paligemma2,
    single_grid.deepseek_vl,
    single_grid.deepseek_vl_hybrid,
    single_grid.janus,
    tiled.internvl,
    tiled.aya_vision,
    tiled.ovis2,
    tiled.idefics3,
    tiled.smolvlm,
    tiled.mllama,
)
FAMILIES: dict[str, Callable[[], TinyFamily]] = {maker.__name__: maker for maker in _MAKERS}
# Also built and read on the oldest transformers that is supported.
OLDEST = ("llava", "qwen2_5_vl", "gemma3", "internvl", "smolvlm")
