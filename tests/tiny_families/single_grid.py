"""Families that make one grid of a picture."""

from __future__ import annotations

from typing import Any

from tests.tiny_families.parts import (
    CLIP,
    HEAD_DIM,
    MAJOR,
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


def llava_like(
    text: dict[str, Any], vision: dict[str, Any] = CLIP, family: str = "Llava", **settings: Any
) -> TinyFamily:
    """LLaVA-1.5's layout: short side to 56, central square, 4 x 4 patches."""
    words = tokenizer({"image_token": "<image>"})
    class_token = 1 if vision is CLIP else 0
    config = config_of(
        f"{family}Config", text_config=text, vision_config=vision, image_token_index=words.image_token_id, **settings
    )
    processor = {
        "patch_size": 14,
        "vision_feature_select_strategy": "default" if class_token else "full",
        "num_additional_image_tokens": class_token,
    }
    pictures = pillow("CLIPImageProcessor", size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})
    model = new(f"{family}ForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "LlavaProcessor", "<image>", processor, bos="<s>")


def llava() -> TinyFamily:
    return llava_like({"model_type": "llama", **TEXT})


def bakllava() -> TinyFamily:
    return llava_like({"model_type": "mistral", "sliding_window": 12, **TEXT})


def llava_siglip() -> TinyFamily:
    return llava_like({"model_type": "qwen2", **TEXT}, SIGLIP, vision_feature_select_strategy="full")


def vipllava() -> TinyFamily:
    return llava_like({"model_type": "llama", **TEXT}, family="VipLlava", vision_feature_layers=[-2, -1])


_QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}


def qwen_like(
    family: str, text: dict[str, Any], vision: dict[str, Any], patch: int = 14, processor: str = "Qwen2VLProcessor"
) -> TinyFamily:
    """Qwen-VL's layout: both sides to multiples of twice the patch, patches merged 2 x 2."""
    words = tokenizer(_QWEN_TOKENS, of_bytes=family == "Qwen3_5")
    config = config_of(
        f"{family}Config",
        vision_config=vision,
        # Version 4 has the text's settings side by side with the others.
        **({"text_config": text} if MAJOR >= 5 else text),
        **{f"{name}_id": getattr(words, f"{name}_id") for name in _QWEN_TOKENS},
    )
    area = (2 * patch) ** 2
    pictures = pillow("Qwen2VLImageProcessor", **_areas(area), patch_size=patch)
    model = new(f"{family}ForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, processor, "<|vision_start|><|image_pad|><|vision_end|>")


def _areas(area: int) -> dict[str, Any]:
    """Bounds of a picture's area in tokens; version 4 read them from two settings."""
    if MAJOR >= 5:
        return {"size": {"shortest_edge": area * 4, "longest_edge": area * 40}}
    return {"min_pixels": area * 4, "max_pixels": area * 40}


def qwen2_vl() -> TinyFamily:
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "patch_size": 14, "mlp_ratio": 2}
    return qwen_like("Qwen2VL", {**TEXT, **rope((2, 3, 3))}, vision)


def qwen2_5_vl() -> TinyFamily:
    vision = {
        "depth": 2,
        "hidden_size": 32,
        "num_heads": 2,
        "patch_size": 14,
        "intermediate_size": 48,
        "out_hidden_size": 64,
        "fullatt_block_indexes": [1],
    }
    return qwen_like("Qwen2_5_VL", {**TEXT, **rope((2, 3, 3))}, vision, processor="Qwen2_5_VLProcessor")


_QWEN3_VISION: dict[str, Any] = {
    "depth": 2,
    "hidden_size": 32,
    "num_heads": 2,
    "patch_size": 16,
    "intermediate_size": 48,
    "out_hidden_size": 64,
    "num_position_embeddings": 64,
    "deepstack_visual_indexes": [0, 1],
}


def qwen3_vl() -> TinyFamily:
    return qwen_like("Qwen3VL", {**TEXT, **HEAD_DIM, **rope((2, 3, 3))}, _QWEN3_VISION, 16, "Qwen3VLProcessor")


def qwen3_vl_moe() -> TinyFamily:
    experts = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
    text = {**TEXT, **HEAD_DIM, **rope((2, 3, 3)), **experts}
    return qwen_like("Qwen3VLMoe", text, _QWEN3_VISION, 16, "Qwen3VLProcessor")


def qwen3_5() -> TinyFamily:
    """Half of its layers are linear: they have no map."""
    text = {
        **TEXT,
        **HEAD_DIM,
        **rope((1, 1, 0), partial_rotary_factor=0.25),
        "num_hidden_layers": 4,
        "layer_types": ["linear_attention", "full_attention"] * 2,
        "linear_num_value_heads": 4,
        "linear_num_key_heads": 2,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
    }
    vision = {key: value for key, value in _QWEN3_VISION.items() if key != "deepstack_visual_indexes"}
    return qwen_like("Qwen3_5", text, vision, 16, "Qwen3VLProcessor")


def glm_like(family: str, **text: Any) -> TinyFamily:
    """GLM-4.xV's layout: as Qwen's, but a picture counts as two frames."""
    words = tokenizer(
        {"image_token": "<|image|>", "video_token": "<|video|>"},
        ("<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>"),
    )
    ids = words.convert_tokens_to_ids
    config = config_of(
        f"{family}Config",
        text_config={**TEXT, **rope((1, 1, 2), partial_rotary_factor=0.5), **text},
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "num_heads": 2,
            "image_size": 112,
            "patch_size": 14,
            "out_hidden_size": 64,
            "intermediate_size": 48,
        },
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
        image_start_token_id=ids("<|begin_of_image|>"),
        image_end_token_id=ids("<|end_of_image|>"),
        video_start_token_id=ids("<|begin_of_video|>"),
        video_end_token_id=ids("<|end_of_video|>"),
    )
    pictures = pillow(
        "Glm4vImageProcessor", size={"shortest_edge": 28 * 28 * 4, "longest_edge": 28 * 28 * 80}, patch_size=14
    )
    model = new(f"{family}ForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "Glm4vProcessor", "<|begin_of_image|><|image|><|end_of_image|>")


def glm4v() -> TinyFamily:
    return glm_like("Glm4v")


def glm4v_moe() -> TinyFamily:
    experts = {
        "n_routed_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "n_shared_experts": 1,
        "first_k_dense_replace": 1,
        "n_group": 1,
        "topk_group": 1,
    }
    return glm_like("Glm4vMoe", **HEAD_DIM, **experts)


def ernie4_5_vl() -> TinyFamily:
    named = {"image_token": "<|IMAGE_PLACEHOLDER|>", "video_token": "<|VIDEO_PLACEHOLDER|>"}
    marks = ("<|IMAGE_START|>", "<|IMAGE_END|>", "<|VIDEO_START|>", "<|VIDEO_END|>")
    named.update(dict(zip(("image_start_token", "image_end_token", "video_start_token", "video_end_token"), marks)))
    words = tokenizer(named)
    experts = {"moe_intermediate_size": [32, 16], "moe_k": 2, "moe_num_experts": 4, "moe_num_shared_experts": 1}
    config = config_of(
        "Ernie4_5_VLMoeConfig",
        text_config={**TEXT, **rope((3, 3, 2)), **experts, "mlp_layer_types": ["dense", "sparse", "sparse"]},
        vision_config={"depth": 2, "hidden_size": 32, "num_heads": 2, "patch_size": 14, "intermediate_size": 48},
        **{f"{name}_id": getattr(words, f"{name}_id") for name in named},
    )
    pictures = pillow("Ernie4_5_VLMoeImageProcessor", patch_size=14, merge_size=2, **_areas(28 * 28))
    model = new("Ernie4_5_VLMoeForConditionalGeneration", config)
    placeholder = "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>"
    return TinyFamily(model, words, pictures, "Ernie4_5_VLMoeProcessor", placeholder)


def video_llama_3() -> TinyFamily:
    words = tokenizer({"image_token": "<image>", "video_token": "<video>"})
    config = config_of(
        "VideoLlama3Config",
        text_config={"model_type": "qwen2", **TEXT},
        vision_config={key: TOWER[key] for key in TOWER if key != "image_size"},
        image_token_id=words.image_token_id,
        video_token_id=words.video_token_id,
    )
    pictures = pillow("VideoLlama3ImageProcessor", patch_size=14, merge_size=1, **_areas(14 * 14))
    return TinyFamily(
        new("VideoLlama3ForConditionalGeneration", config), words, pictures, "VideoLlama3Processor", "<image>"
    )


_PIXTRAL_TOWER = {**TOWER, **HEAD_DIM, "model_type": "pixtral", "image_size": 112}


def pixtral_like(family: str, text_type: str, merge: int, **settings: Any) -> TinyFamily:
    """Pixtral's layout: both sides up to whole patches, a token of its own behind each row."""
    words = tokenizer(plain=("[IMG]", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]"))
    index = {"image_token_id" if family == "LightOnOcr" else "image_token_index": words.convert_tokens_to_ids("[IMG]")}
    config = config_of(
        f"{family}Config",
        text_config={"model_type": text_type, **TEXT, **HEAD_DIM},
        vision_config=_PIXTRAL_TOWER,
        **index,
        **settings,
    )
    pictures = pillow("PixtralImageProcessor", size={"longest_edge": 112}, patch_size={"height": 14, "width": 14})
    model = new(f"{family}ForConditionalGeneration", config)
    processor = {"patch_size": 14, "spatial_merge_size": merge}
    return TinyFamily(model, words, pictures, "PixtralProcessor", "[IMG]", processor, bos="<s>")


def pixtral() -> TinyFamily:
    return pixtral_like("Llava", "mistral", 1, vision_feature_layer=-1, vision_feature_select_strategy="full")


def mistral3() -> TinyFamily:
    return pixtral_like("Mistral3", "mistral", 2, spatial_merge_size=2)


GEMMA_TOKENS = {"image_token": "<image_soft_token>", "boi_token": "<start_of_image>", "eoi_token": "<end_of_image>"}


def gemma3(*, pan_and_scan: bool = False, **text: Any) -> TinyFamily:
    """Squashed onto 2 x 2 tokens; windows of 10 in two of three layers."""
    words = tokenizer(GEMMA_TOKENS)
    config = config_of(
        "Gemma3Config",
        text_config={
            **TEXT,
            **HEAD_DIM,
            "sliding_window": 10,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
            **text,
        },
        vision_config=SIGLIP,
        mm_tokens_per_image=4,
        boi_token_index=words.boi_token_id,
        eoi_token_index=words.eoi_token_id,
        image_token_index=words.image_token_id,
    )
    crops = {"do_pan_and_scan": True, "pan_and_scan_min_crop_size": 32} if pan_and_scan else {}
    if pan_and_scan:
        crops.update(pan_and_scan_max_num_crops=4, pan_and_scan_min_ratio_to_activate=1.2)
    pictures = pillow("Gemma3ImageProcessor", size={"height": 56, "width": 56}, **crops)
    model = new("Gemma3ForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "Gemma3Processor", "<start_of_image>", {"image_seq_length": 4}, bos="<s>")


def gemma3_pan_and_scan() -> TinyFamily:
    return gemma3(pan_and_scan=True)


def gemma3_softcap() -> TinyFamily:
    return gemma3(attn_logit_softcapping=5.0)


def gemma4() -> TinyFamily:
    named = {
        "image_token": "<|image|>",
        "boi_token": "<|image>",
        "eoi_token": "<image|>",
        "audio_token": "<|audio|>",
        "boa_token": "<|audio>",
        "eoa_token": "<audio|>",
        "video_token": "<|video|>",
    }
    words = tokenizer(named)
    text = {
        **TEXT,
        **HEAD_DIM,
        "sliding_window": 10,
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": 400,
        "global_head_dim": 16,
        "use_bidirectional_attention": "vision",
    }
    vision = {
        **{key: TOWER[key] for key in TOWER if key != "image_size"},
        **HEAD_DIM,
        "num_key_value_heads": 2,
        "patch_size": 8,
        "pooling_kernel_size": 2,
        "position_embedding_size": 256,
    }
    config = config_of(
        "Gemma4Config",
        text_config=text,
        vision_config=vision,
        audio_config=None,
        **{f"{name}_id": getattr(words, f"{name}_id") for name in named if name not in {"boa_token", "eoa_token"}},
    )
    pictures = pillow("Gemma4ImageProcessor", max_soft_tokens=70, patch_size=8, pooling_kernel_size=2)
    model = new("Gemma4ForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "Gemma4Processor", "<|image|>", bos="<s>")


def paligemma_like(text: dict[str, Any]) -> TinyFamily:
    """The whole prompt sees itself both ways; its processor puts a newline behind the query."""
    words = tokenizer({"image_token": "<image>"}, ("\n",))
    config = config_of(
        "PaliGemmaConfig",
        text_config=text,
        vision_config={**SIGLIP, "projection_dim": 64},
        image_token_index=words.image_token_id,
        projection_dim=64,
        hidden_size=64,
        vocab_size=400,
    )
    pictures = pillow("SiglipImageProcessor", size={"height": 56, "width": 56}, image_seq_length=16)
    model = new("PaliGemmaForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "PaliGemmaProcessor", "<image>")


def paligemma() -> TinyFamily:
    return paligemma_like({"model_type": "gemma", **TEXT, **HEAD_DIM})


def paligemma2() -> TinyFamily:
    capped = {"sliding_window": 10, "attn_logit_softcapping": 20.0, "query_pre_attn_scalar": 16}
    return paligemma_like({"model_type": "gemma2", **TEXT, **HEAD_DIM, **capped})


def deepseek_vl() -> TinyFamily:
    words = tokenizer({"image_token": "<image_placeholder>"})
    config = config_of(
        "DeepseekVLConfig",
        text_config={"model_type": "llama", **TEXT},
        vision_config=SIGLIP,
        image_token_id=words.image_token_id,
    )
    pictures = pillow("DeepseekVLImageProcessor", size={"height": 56, "width": 56})
    model = new("DeepseekVLForConditionalGeneration", config)
    settings = {"num_image_tokens": 16}
    return TinyFamily(model, words, pictures, "DeepseekVLProcessor", "<image_placeholder>", settings, bos="<s>")


def deepseek_vl_hybrid() -> TinyFamily:
    words = tokenizer({"image_token": "<image_placeholder>"})
    config = config_of(
        "DeepseekVLHybridConfig",
        text_config={"model_type": "llama", **TEXT},
        vision_config=SIGLIP,
        high_res_vision_config=sam_tower(),
        image_token_id=words.image_token_id,
    )
    pictures = pillow(
        "DeepseekVLHybridImageProcessor",
        size={"height": 56, "width": 56},
        high_res_size={"height": 128, "width": 128},
    )
    model = new("DeepseekVLHybridForConditionalGeneration", config)
    settings = {"num_image_tokens": 16}
    return TinyFamily(model, words, pictures, "DeepseekVLHybridProcessor", "<image_placeholder>", settings, bos="<s>")


def sam_tower() -> dict[str, Any]:
    return {
        "model_type": "sam_vision_model",
        "hidden_size": 32,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": 128,
        "patch_size": 8,
        "mlp_dim": 48,
        "window_size": 4,
        "global_attn_indexes": [1],
    }


def janus() -> TinyFamily:
    named = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    words = tokenizer(named)
    config = config_of(
        "JanusConfig",
        text_config={"model_type": "llama", **TEXT},
        # Its processor writes 24 x 24 tokens whatever the settings say.
        vision_config={**TOWER, "image_size": 48, "patch_size": 2, "projection_dim": 64, "mlp_ratio": 2},
        vq_config={
            "embed_dim": 4,
            "num_embeddings": 16,
            "latent_channels": 32,
            "base_channels": 32,
            "channel_multiplier": [1, 1],
            "num_res_blocks": 1,
            "num_patches": 4,
            "projection_dim": 64,
            "image_token_embed_dim": 64,
        },
        image_token_id=words.image_token_id,
    )
    pictures = pillow("JanusImageProcessor", size={"height": 48, "width": 48})
    model = new("JanusForConditionalGeneration", config)
    return TinyFamily(model, words, pictures, "JanusProcessor", "<image_placeholder>", bos="<s>")
