"""Builds tiny random LLaVA checkpoints, laid out like the real ones, in both formats with the same weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

IMAGE_SIZE = 56
PATCH_SIZE = 14
GRID = IMAGE_SIZE // PATCH_SIZE
VOCABULARY = 420
LAYERS = 4
HEADS = 4
POSITIONS = 640

SENTENCES = [
    "A chat between a curious human and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the human's questions.",
    "the bird on the branch",
    "a cat on the floor",
    "a small dog wearing a collar",
    "the red ball to the left of the blue box",
    "USER: what is in the image? ASSISTANT: a tall tree and a little house.",
]

CLIP_MEAN = [0.48145466, 0.4578275, 0.40821073]
CLIP_STD = [0.26862954, 0.26130258, 0.27577711]


def train_sentencepiece(directory: Path) -> Path:
    """Train a tokenizer with the options of LLaMA's own; returns the path of tokenizer.model."""
    import sentencepiece

    directory.mkdir(parents=True, exist_ok=True)
    text = directory / "sentences.txt"
    text.write_text("\n".join(SENTENCES * 4), encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(directory / "tokenizer"),
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        add_dummy_prefix=True,
        remove_extra_whitespaces=False,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        minloglevel=2,
        num_threads=1,
    )
    return directory / "tokenizer.model"


def text_settings(**changes: Any) -> dict[str, Any]:
    settings = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": 2,
        "max_position_embeddings": POSITIONS,
        "rms_norm_eps": 1e-5,
        "rope_theta": 5000.0,
        "hidden_act": "silu",
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": False,
    }
    return {**settings, **changes}


def vision_settings(**changes: Any) -> dict[str, Any]:
    settings = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "image_size": IMAGE_SIZE,
        "patch_size": PATCH_SIZE,
        "projection_dim": 16,
    }
    return {**settings, **changes}


def random_model(*, seed: int = 0, strategy: str = "default", text: dict | None = None, family: str = "Llama") -> Any:
    """A stock model with random weights large enough to make attention uneven; the image row of its tables is zero."""
    import torch
    import transformers
    from transformers import CLIPVisionConfig, LlavaConfig, LlavaForConditionalGeneration

    text_class = getattr(transformers, f"{family}Config")
    text_config = text_class.from_dict({**text_settings(**(text or {})), "vocab_size": VOCABULARY + 1})
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**vision_settings()),
        text_config=text_config,
        image_token_index=VOCABULARY,
        vision_feature_layer=-2,
        vision_feature_select_strategy=strategy,
        image_seq_length=GRID * GRID + (strategy == "full"),
        tie_word_embeddings=text_config.tie_word_embeddings,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.copy_(torch.randn(parameter.shape) * 0.2)
        model.model.language_model.embed_tokens.weight[VOCABULARY] = 0
        model.lm_head.weight[VOCABULARY] = 0
    return model


def preprocessor_settings(kind: str = "pad") -> dict[str, Any]:
    """`preprocessor_config.json` of each rule: pad, crop (short side and centre crop) or squash."""
    common = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": CLIP_MEAN,
        "image_std": CLIP_STD,
        "resample": 3,
        "rescale_factor": 1 / 255,
    }
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    short_side = {"shortest_edge": IMAGE_SIZE}
    rules = {
        "pad": {
            "image_processor_type": "LlavaImageProcessor",
            "do_pad": True,
            "do_center_crop": False,
            "size": short_side,
        },
        "crop": {
            "image_processor_type": "CLIPImageProcessor",
            "do_center_crop": True,
            "crop_size": square,
            "size": short_side,
        },
        "squash": {"image_processor_type": "CLIPImageProcessor", "do_center_crop": False, "size": square},
    }
    return {**common, **rules[kind]}


def write_hugging_face(directory: Path, model: Any, tokenizer_model: Path, *, rule: str = "pad") -> Path:
    """Write `llava-hf/llava-1.5-7b-hf`'s layout."""
    from transformers import LlamaTokenizerFast

    directory.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(directory)
    (directory / "tokenizer.model").write_bytes(tokenizer_model.read_bytes())
    write_json(directory / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "legacy": False})
    tokenizer = LlamaTokenizerFast.from_pretrained(directory)
    tokenizer.add_tokens(["<image>"], special_tokens=True)
    tokenizer.save_pretrained(directory)
    write_json(directory / "preprocessor_config.json", preprocessor_settings(rule))
    return directory


def published_names(model: Any) -> dict[str, Any]:
    """The language model's and the projector's tensors under the original format's names."""
    language = {f"model.{name}": tensor for name, tensor in model.model.language_model.state_dict().items()}
    projector = model.model.multi_modal_projector
    tensors = {
        **language,
        "model.mm_projector.0.weight": projector.linear_1.weight,
        "model.mm_projector.0.bias": projector.linear_1.bias,
        "model.mm_projector.2.weight": projector.linear_2.weight,
        "model.mm_projector.2.bias": projector.linear_2.bias,
        "lm_head.weight": model.lm_head.weight[:VOCABULARY],
    }
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:VOCABULARY]
    # Old checkpoints carry the rotary frequencies as well.
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = model.model.language_model.rotary_emb.inv_freq
    return {name: tensor.detach().clone().contiguous() for name, tensor in tensors.items()}


def tower_names(model: Any) -> dict[str, Any]:
    """The vision tower's tensors as `openai/clip-vit-large-patch14-336` names them, beside a text tower."""
    import torch

    vision = {}
    for name, tensor in model.model.vision_tower.state_dict().items():
        published = name if name.startswith("vision_model.") else f"vision_model.{name}"
        vision[published] = tensor.detach().clone()
    vision["vision_model.embeddings.position_ids"] = torch.arange(GRID * GRID + 1)[None]
    rest = {"text_model.final_layer_norm.weight": torch.ones(4), "logit_scale": torch.tensor(1.0)}
    return {**vision, **rest, "visual_projection.weight": torch.ones(4, 4), "text_projection.weight": torch.ones(4, 4)}


def original_settings(tower: str, **changes: Any) -> dict[str, Any]:
    """`config.json` of `liuhaotian/llava-v1.5-7b`, made small."""
    settings = {
        **text_settings(),
        "architectures": ["LlavaLlamaForCausalLM"],
        "model_type": "llava",
        "vocab_size": VOCABULARY,
        "freeze_mm_mlp_adapter": False,
        "image_aspect_ratio": "pad",
        "image_grid_pinpoints": None,
        "mm_hidden_size": 16,
        "mm_projector_type": "mlp2x_gelu",
        "mm_use_im_patch_token": False,
        "mm_use_im_start_end": False,
        "mm_vision_select_feature": "patch",
        "mm_vision_select_layer": -2,
        "mm_vision_tower": tower,
        "torch_dtype": "float16",
        "transformers_version": "4.31.0",
        "tune_mm_mlp_adapter": False,
        "use_cache": True,
        "use_mm_proj": True,
        "pretraining_tp": 1,
        "rope_scaling": None,
    }
    return {**settings, **changes}


def write_vision_tower(directory: Path, model: Any) -> Path:
    """Write `openai/clip-vit-large-patch14-336`'s layout: a whole CLIP, sizes as plain numbers."""
    import torch

    directory.mkdir(parents=True, exist_ok=True)
    torch.save(tower_names(model), directory / "pytorch_model.bin")
    write_json(
        directory / "config.json",
        {"architectures": ["CLIPModel"], "model_type": "clip", "vision_config": vision_settings(), "text_config": {}},
    )
    settings = {"feature_extractor_type": "CLIPFeatureExtractor", "size": IMAGE_SIZE, "crop_size": IMAGE_SIZE}
    kept = ("do_normalize", "do_resize", "image_mean", "image_std", "resample")
    common = {key: value for key, value in preprocessor_settings("crop").items() if key in kept}
    write_json(directory / "preprocessor_config.json", {**common, **settings, "do_center_crop": True})
    return directory


def write_original(
    directory: Path,
    tensors: dict[str, Any],
    tokenizer_model: Path,
    tower: str,
    *,
    weights: str = "bin",
    **changes: Any,
) -> Path:
    """Write `liuhaotian/llava-v1.5-7b`'s layout; weights are two `.bin` shards, one `safetensors`, or two of those."""
    directory.mkdir(parents=True, exist_ok=True)
    write_json(directory / "config.json", original_settings(tower, **changes))
    (directory / "tokenizer.model").write_bytes(tokenizer_model.read_bytes())
    write_json(
        directory / "tokenizer_config.json",
        {"add_bos_token": True, "add_eos_token": False, "legacy": False, "tokenizer_class": "LlamaTokenizer"},
    )
    write_weights(directory, tensors, weights)
    return directory


def write_weights(directory: Path, tensors: dict[str, Any], weights: str) -> None:
    import torch
    from safetensors.torch import save_file

    if weights == "safetensors":
        save_file(tensors, directory / "model.safetensors")
        return
    stem, suffix, save = {
        "bin": ("pytorch_model", ".bin", torch.save),
        "safetensors shards": ("model", ".safetensors", save_file),
    }[weights]
    names = sorted(tensors)
    shards = {f"{stem}-0000{n + 1}-of-00002{suffix}": names[n::2] for n in range(2)}
    for file_name, held in shards.items():
        save({name: tensors[name] for name in held}, directory / file_name)
    weight_map = {name: file_name for file_name, held in shards.items() for name in held}
    write_json(directory / f"{stem}{suffix}.index.json", {"metadata": {}, "weight_map": weight_map})


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2), encoding="utf-8")


def write_picture(path: Path, size_wh: tuple[int, int] = (80, 60), seed: int = 0) -> Path:
    """A smooth random picture."""
    import numpy as np
    from PIL import Image

    coarse = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    Image.fromarray(coarse).resize(size_wh, 3).save(path)
    return path
