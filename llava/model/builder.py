"""Loads a LLaVA checkpoint, whatever its format: the stock model, its tokenizer, how its images are prepared."""

from __future__ import annotations

import contextlib
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.model.checkpoint_files import CheckpointFiles, refuse_faulty_tensors
from llava.model.config_checks import check_image_token, check_numbers, refuse_quantised
from llava.model.tokenizers import check_vocabulary, load_tokenizer

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration


@dataclass(frozen=True)
class ImageSettings:
    """What a checkpoint says of how its images are prepared.

    Attributes:
        processor: Content of the `preprocessor_config.json` that counts.
        pad_to_square: Whether images are padded to a square first, or None where only `processor` says so.
    """

    processor: dict[str, Any]
    pad_to_square: bool | None = None


@dataclass(frozen=True)
class LoadedModel:
    """What both formats give.

    Attributes:
        model: The stock model with all its weights, on its device.
        tokenizer: Its tokenizer.
        use_im_start_end: Whether the image stands between `<im_start>` and `<im_end>`.
    """

    model: LlavaForConditionalGeneration
    tokenizer: Any
    use_im_start_end: bool = False


def read_image_settings(files: CheckpointFiles) -> ImageSettings:
    """Find out how a checkpoint's images are prepared; weights are not touched.

    Args:
        files: The checkpoint.

    Raises:
        ValueError: If it is no whole LLaVA checkpoint, or does not say.
    """
    from llava.model.original_format import original_image_settings

    config, original = _read_config(files)
    return (
        ImageSettings(*original_image_settings(files, config)) if original else ImageSettings(_processor_config(files))
    )


def load_model(files: CheckpointFiles, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    """Load a checkpoint in Hugging Face or original format.

    Args:
        files: The checkpoint.
        device: Where the weights go.
        dtype: What they become.

    Raises:
        ValueError: If the checkpoint is not whole, not reachable or not supported.
    """
    from llava.model.original_format import load_original

    config, original = _read_config(files)
    if not original:
        return _load_hugging_face(files, device, dtype)
    loaded = load_original(files, config, device=device, dtype=dtype)
    return LoadedModel(loaded.model, loaded.tokenizer, loaded.use_im_start_end)


def _read_config(files: CheckpointFiles) -> tuple[dict[str, Any], bool]:
    """The config.json, and whether it is of the original format."""
    from llava.model.original_format import is_original_format

    _refuse_partial(files)
    files.require("config.json")
    config = files.json("config.json")
    refuse_quantised(config, files.name)
    check_numbers(config, f"config.json of {files.name!r}")
    if is_original_format(config):
        return config, True
    if isinstance(config.get("vision_tower"), str) and "text_config" not in config:
        raise ValueError(
            f"Expected config.json of {files.name!r} to name its vision tower under mm_vision_tower, "
            f"but got vision_tower. Rename the key."
        )
    if config.get("model_type") != "llava":
        raise ValueError(
            f"Expected {files.name!r} to be a LLaVA checkpoint (model_type llava, or LLaVA's own config.json with "
            f"mm_vision_tower), but got model_type {config.get('model_type')!r}."
        )
    return config, False


def _refuse_partial(files: CheckpointFiles) -> None:
    """Refuse deltas, adapters and bare projectors, which need a base model."""
    adapters = ("adapter_config.json", "non_lora_trainables.bin")
    if any(files.find(name) for name in adapters):
        raise ValueError(
            f"Expected {files.name!r} to be a whole checkpoint, but got LoRA weights on a base model. "
            "Merge them with LLaVA's own merge script first; model.base is not supported."
        )
    whole = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")
    if files.is_local and files.find("mm_projector.bin") and not any(files.find(name) for name in whole):
        raise ValueError(
            f"Expected {files.name!r} to be a whole checkpoint, but got only a projector (mm_projector.bin). "
            "It belongs on a base model; model.base is not supported."
        )


def _load_hugging_face(files: CheckpointFiles, device: torch.device, dtype: torch.dtype) -> LoadedModel:
    from transformers import LlavaForConditionalGeneration

    model_config = _hugging_face_config(files)
    files.check_weights()
    directory, place = files.directory, {"cache_dir": files.cache_dir, "revision": files.revision}
    tokenizer = load_tokenizer(files, original=False)
    check_vocabulary(tokenizer, files.name, int(model_config.text_config.vocab_size))
    try:
        # Tensors that do not fit are refused below, by name, rather than warned of or raised without a name.
        with _quiet_transformers():
            model, info = LlavaForConditionalGeneration.from_pretrained(
                directory,
                **place,
                **{_dtype_option(): dtype},
                **_device_option(device),
                **_naming_option(),
                config=model_config,
                attn_implementation="eager",
                low_cpu_mem_usage=True,
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except (RuntimeError, OSError, KeyError) as error:
        raise ValueError(
            f"Expected {files.name!r} to hold the weights that its config.json asks for, but got: "
            f"{' '.join(str(error).split())}"
        ) from error
    _check_loading(files.name, info)
    return LoadedModel(model.to(device).eval(), tokenizer)


def _hugging_face_config(files: CheckpointFiles) -> Any:
    """The stock config, checked."""
    from transformers import LlavaConfig

    where, content = f"config.json of {files.name!r}", files.json("config.json")
    for part in ("text_config", "vision_config"):
        settings = content.get(part, {})
        if not isinstance(settings, dict):
            raise ValueError(f"Expected {part} in {where} to hold named values, but got {reprlib.repr(settings)}.")
        check_numbers(settings, f"{part} of {where}")
    try:
        config = LlavaConfig.from_dict(content)
    except Exception as error:  # transformers raises many kinds on settings that make no model
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"Expected {where} to describe a LLaVA model, but got: {reason}. Fetch it again.") from error
    check_image_token(content, int(config.text_config.vocab_size), where)
    return config


def _misshapen(entry: Any) -> str:
    """Transformers 4 gives the name alone, transformers 5 both shapes as well."""
    if isinstance(entry, str):
        return entry
    name, found, expected = entry
    return f"{name} {list(found)} instead of {list(expected)}"


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """No log lines of transformers below an error, for a while."""
    from transformers.utils import logging as their_logging

    before = their_logging.get_verbosity()
    their_logging.set_verbosity_error()
    try:
        yield
    finally:
        their_logging.set_verbosity(before)


def _processor_config(files: CheckpointFiles) -> dict[str, Any]:
    """The image processor's settings; newer versions of transformers nest them in processor_config.json."""
    config = files.json("preprocessor_config.json") or files.json("processor_config.json").get("image_processor")
    if not config:
        raise ValueError(
            f"Expected {files.name!r} to say how images are prepared (preprocessor_config.json, or image_processor in "
            "processor_config.json), but got neither."
        )
    return config


def _dtype_option() -> str:
    """Transformers renamed the option in 4.56."""
    import transformers
    from packaging.version import Version

    return "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"


def _device_option(device: torch.device) -> dict[str, Any]:
    """Load straight onto a GPU where the library that this takes is installed."""
    from transformers.utils import is_accelerate_available

    return {"device_map": {"": str(device)}} if device.type == "cuda" and is_accelerate_available() else {}


def _naming_option() -> dict[str, Any]:
    """Let versions that nest the vision tower's tensors in `vision_model` read files of those that do not."""
    from transformers import CLIPVisionConfig, CLIPVisionModel, LlavaForConditionalGeneration

    smallest = {"hidden_size": 4, "intermediate_size": 4, "num_hidden_layers": 0, "num_attention_heads": 1}
    if not hasattr(CLIPVisionModel(CLIPVisionConfig(**smallest)), "vision_model"):
        return {}
    known = getattr(LlavaForConditionalGeneration, "_checkpoint_conversion_mapping", {})
    # The first pattern that fits is the only one applied.
    return {
        "key_mapping": {r"^(model\.)?vision_tower\.(?!vision_model\.)": "model.vision_tower.vision_model.", **known}
    }


def _check_loading(name: str, info: Any) -> None:
    """Refuse a model with random or left-over weights, which transformers only warns of."""
    refuse_faulty_tensors(
        name,
        missing=sorted(info["missing_keys"]),
        unexpected=sorted(key for key in info["unexpected_keys"] if not key.endswith("inv_freq")),
        misshapen=sorted(map(_misshapen, info["mismatched_keys"])),
    )
