"""Write the trained picture-book LLaVA as a Hugging Face checkpoint with tokenizer, processor and model card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from picturebook.architecture import MAX_POSITIONS
from picturebook.shards import IMAGE_SIDE, PATCH_SIDE
from picturebook.vocabulary import BOS, EOS, PAD, UNKNOWN, save_tokenizer

PREPROCESSOR = {
    "image_processor_type": "LlavaImageProcessor",
    "do_convert_rgb": True,
    "do_pad": True,
    "do_resize": True,
    "size": {"height": IMAGE_SIDE, "width": IMAGE_SIDE},
    "resample": 3,
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
}


def publish(model: Any, directory: Path) -> None:
    """Save model, tokenizer and image preprocessing.

    Args:
        model: The trained `LlavaForConditionalGeneration`.
        directory: Folder to write to.
    """
    directory.mkdir(parents=True, exist_ok=True)
    model.float().cpu().save_pretrained(directory)
    (directory / "model.safetensors").chmod(0o644)
    _spell_out_rope(directory / "config.json")
    save_tokenizer(directory)
    _plain_tokenizer_config(directory / "tokenizer_config.json")
    _write_json(directory / "preprocessor_config.json", PREPROCESSOR)
    processor = {
        "processor_class": "LlavaProcessor",
        "patch_size": PATCH_SIDE,
        "vision_feature_select_strategy": "default",
        "num_additional_image_tokens": 1,
        "image_token": "<image>",
    }
    _write_json(directory / "processor_config.json", processor)


def _spell_out_rope(path: Path) -> None:
    """Write the rotary base in both spellings: transformers 5 reads `rope_parameters`, 4 reads `rope_theta`."""
    config = json.loads(path.read_text())
    text = config["text_config"]
    base = text.get("rope_theta") or text["rope_parameters"]["rope_theta"]
    text["rope_theta"] = base
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": base}
    _write_json(path, config)


def _plain_tokenizer_config(path: Path) -> None:
    """Say only what transformers 4 and 5 both read; 5 writes a class name and a list that 4 stumbles over."""
    named = {"pad_token": PAD, "bos_token": BOS, "eos_token": EOS, "unk_token": UNKNOWN}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    _write_json(path, {**named, **settings, "model_max_length": MAX_POSITIONS})


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
