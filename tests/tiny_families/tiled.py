"""Families that cut a picture into tiles, or read it by cross attention."""

from __future__ import annotations

from typing import Any

import torch

from tests.tiny_families.parts import (
    CLIP,
    HEAD_DIM,
    SIGLIP,
    TEXT,
    TOWER,
    TinyFamily,
    config_of,
    new,
    pillow,
    rope,
    tokenizer,
)

NEXT_PINPOINTS = [[56, 112], [112, 56], [112, 112], [168, 56], [56, 168]]
ONEVISION_PINPOINTS = [[56 * rows, 56 * cols] for rows in range(1, 4) for cols in range(1, 4)]


def llava_next() -> TinyFamily:
    words = tokenizer({"image_token": "<image>"})
    config = config_of(
        "LlavaNextConfig",
        text_config={"model_type": "mistral", **TEXT},
        vision_config=CLIP,
        image_token_index=words.image_token_id,
        image_grid_pinpoints=NEXT_PINPOINTS,
    )
    pictures = pillow(
        "LlavaNextImageProcessor",
        size={"shortest_edge": 56},
        crop_size={"height": 56, "width": 56},
        image_grid_pinpoints=NEXT_PINPOINTS,
    )
    settings = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    model = new("LlavaNextForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "LlavaNextProcessor", "<image>", settings, bos="<s>")


def llava_onevision() -> TinyFamily:
    words = tokenizer({"image_token": "<image>", "video_token": "<video>"})
    config = config_of(
        "LlavaOnevisionConfig",
        text_config={"model_type": "qwen2", **TEXT},
        vision_config=SIGLIP,
        image_token_index=words.image_token_id,
        video_token_index=words.video_token_id,
        image_grid_pinpoints=ONEVISION_PINPOINTS,
        vision_aspect_ratio="anyres_max_9",
    )
    pictures = pillow(
        "LlavaOnevisionImageProcessor", size={"height": 56, "width": 56}, image_grid_pinpoints=ONEVISION_PINPOINTS
    )
    settings = {"num_image_tokens": 16, "vision_feature_select_strategy": "full"}
    model = new("LlavaOnevisionForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "LlavaOnevisionProcessor", "<image>", settings)


def got_tiles(**settings: Any) -> Any:
    """GOT-OCR2's image processor, which InternVL and Aya Vision use for their tiles."""
    size = {"height": 56, "width": 56}
    return pillow("GotOcr2ImageProcessor", size=size, crop_to_patches=True, min_patches=1, max_patches=6, **settings)


def internvl() -> TinyFamily:
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    words = tokenizer(named)
    vision: dict[str, Any] = {**TOWER, "image_size": [56, 56], "patch_size": [14, 14]}
    config = config_of(
        "InternVLConfig",
        text_config={"model_type": "qwen3", **TEXT, **HEAD_DIM},
        vision_config=vision,
        image_token_id=words.context_image_token_id,
        image_seq_length=4,
        downsample_ratio=0.5,
    )
    model = new("InternVLForConditionalGeneration", config)
    return TinyFamily(model, words, got_tiles(), "InternVLProcessor", "<IMG_CONTEXT>", {"image_seq_length": 4})


def aya_vision() -> TinyFamily:
    marks = ("<|START_OF_IMG|>", "<|END_OF_IMG|>", "<|IMG_PATCH|>", "<|IMG_LINE_BREAK|>", "TILE_GLOBAL")
    tiles = tuple(f"TILE_{number}" for number in range(1, 7))
    words = tokenizer({"image_token": "<image>"}, (*marks, *tiles))
    config = config_of(
        "AyaVisionConfig",
        text_config={
            "model_type": "cohere2",
            **TEXT,
            "sliding_window": 10,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        },
        vision_config=SIGLIP,
        image_token_index=words.convert_tokens_to_ids("<|IMG_PATCH|>"),
        downsample_factor=2,
    )
    model = new("AyaVisionForConditionalGeneration", config)
    settings = {"patch_size": 14, "img_size": 56, "downsample_factor": 2}
    return TinyFamily(model, words, got_tiles(), "AyaVisionProcessor", "<image>", settings, bos="<s>")


def ovis2() -> TinyFamily:
    marks = ("<IMG_START>", "<IMG_GRID>", "<IMG_COL>", "<IMG_ROW>", "<IMG_END>")
    words = tokenizer({"image_token": "<image>"}, ("<IMG_ATOM>", *marks))
    config = config_of(
        "Ovis2Config",
        text_config={"model_type": "qwen2", **TEXT},
        vision_config={**TOWER, "vocab_size": 64, "num_visual_indicator_tokens": 5, "hidden_stride": 1},
        image_token_id=words.convert_tokens_to_ids("<IMG_ATOM>"),
        visual_indicator_token_ids=words.convert_tokens_to_ids(list(marks)),
        vocab_size=400,
        hidden_size=64,
    )
    size = {"height": 56, "width": 56}
    pictures = pillow("Ovis2ImageProcessor", size=size, crop_to_patches=True, max_patches=6)
    model = new("Ovis2ForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "Ovis2Processor", "<image>", {"image_seq_length": 16})


def idefics3_like(family: str) -> TinyFamily:
    places = tuple(f"<row_{row + 1}_col_{col + 1}>" for row in range(4) for col in range(4))
    if family == "SmolVLM":
        named = {
            "fake_image_token": "<fake_token_around_image>",
            "image_token": "<image>",
            "end_of_utterance_token": "<end_of_utterance>",
            "global_image_token": "<global-img>",
        }
        words = tokenizer(named, places)
    else:
        others = ("<fake_token_around_image>", "<image>", "<end_of_utterance>", "<global-img>")
        words = tokenizer(plain=(*others, *places))
    config = config_of(
        f"{family}Config",
        text_config={"model_type": "llama", **TEXT},
        vision_config=dict(TOWER),
        image_token_id=words.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        vocab_size=400,
        pad_token_id=3,
    )
    pictures = pillow(
        f"{family}ImageProcessor",
        size={"longest_edge": 112},
        max_image_size={"longest_edge": 56},
        do_image_splitting=True,
    )
    model = new(f"{family}ForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, f"{family}Processor", "<image>", {"image_seq_len": 4}, bos="<s>")


def idefics3() -> TinyFamily:
    return idefics3_like("Idefics3")


def smolvlm() -> TinyFamily:
    return idefics3_like("SmolVLM")


def mllama() -> TinyFamily:
    """Llama 3.2 Vision: the image is the keys of cross attention in layers 1 and 3."""
    words = tokenizer({"image_token": "<|image|>"}, ("<|python_tag|>",))
    config = config_of(
        "MllamaConfig",
        text_config={**TEXT, **rope(), "num_hidden_layers": 4, "cross_attention_layers": [1, 3]},
        vision_config={
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_global_layers": 1,
            "attention_heads": 2,
            "image_size": 56,
            "patch_size": 14,
            "max_num_tiles": 4,
            "intermediate_layers_indices": [0, 1],
            "vision_output_dim": 96,
            "supported_aspect_ratios": [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]],
        },
        image_token_index=words.image_token_id,
    )
    model = new("MllamaForConditionalGeneration", config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "gate" in name:
                parameter.fill_(0.7)  # they start at 0, which shuts the image out
    pictures = pillow("MllamaImageProcessor", size={"height": 56, "width": 56}, max_image_tiles=4)
    return TinyFamily(model, words, pictures, "MllamaProcessor", "<|image|>", bos="<s>")
