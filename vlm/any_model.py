"""Load any image-text model that transformers knows, by name or directory, never running remote code."""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlm.bundle import EncodedPicture, EncodingFailure
from vlm.chat_prompts import PromptHead, prompt_head
from vlm.decoder import attention_modules, find_decoder, number_of_heads, number_of_layers
from vlm.encoding import PictureEncoder
from vlm.families import refuse_unreadable
from vlm.processors import Processors, load_processors

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import nn

logger = logging.getLogger(__name__)

QUANTIZATIONS = ("none", "8bit", "4bit")
_QUOTED = 200


@dataclass(frozen=True)
class AnyModel:
    """A loaded image-text model; see `vlm.bundle.ImageTextBundle` for the attributes.

    Attributes:
        processors: The family's own.
        head: Everything of a prompt before the query.
    """

    model: nn.Module
    processors: Processors
    head: PromptHead
    name: str
    device: torch.device
    dtype: torch.dtype
    device_reason: str
    versions: dict[str, str]
    quantization: str = "none"

    @property
    def conv_mode(self) -> str:
        """Key of the prompt template."""
        return self.head.conv_mode

    @property
    def tokenizer(self) -> Any:
        """The tokenizer."""
        return self.processors.tokenizer

    @property
    def decoder(self) -> nn.Module:
        """The language model."""
        return find_decoder(self.model)

    @property
    def num_layers(self) -> int:
        """Layers of the language model, those without a map counted."""
        return number_of_layers(self.decoder)

    @property
    def num_heads(self) -> int:
        """Query heads of each attention layer."""
        return number_of_heads(self.decoder)

    @property
    def max_positions(self) -> int:
        """Longest sequence of the language model; a very large number where it does not say."""
        config: Any = self.decoder.config
        return int(getattr(config, "max_position_embeddings", None) or 2**31)

    @property
    def patch_size(self) -> int:
        """Side of a patch in pixels as the vision tower sees them; 0 where it does not say."""
        config: Any = self.model.config
        size = getattr(getattr(config, "vision_config", None), "patch_size", None) or 0
        return int(size[0] if isinstance(size, (list, tuple)) else size)

    @functools.cached_property
    def encoder(self) -> PictureEncoder:
        """Turns pictures and queries into inputs."""
        return PictureEncoder(self.processors, self.model, self.head)

    def encode_picture(self, image: Image.Image, queries: Sequence[str]) -> list[EncodedPicture | EncodingFailure]:
        """Prepare a picture with its queries; see `PictureEncoder.encode`."""
        return self.encoder.encode(image, queries)


def load_any_model(
    name: str,
    *,
    cache_dir: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    device_id: int = 0,
    dtype: str = "auto",
    conv_mode: str = "chat",
    placeholder: str | None = None,
    use_flash_attn: bool = False,
    quantization: str = "none",
) -> AnyModel:
    """Load a checkpoint that `AutoModelForImageTextToText` knows.

    Args:
        name: A directory or the id of a hub repository.
        cache_dir: Where downloaded files are kept; None for the default place.
        revision: Branch, tag or commit of a hub repository.
        device: `auto`, `cpu`, `cuda:<id>`, or `balanced` (spread over the GPUs by accelerate).
        device_id: Index of the GPU when `device` is `auto`.
        dtype: `auto` (float16 on CUDA, float32 on CPU), `float16`, `bfloat16` or `float32`.
        conv_mode: `chat` or `plain`.
        placeholder: What stands for the image in a `plain` prompt; None to take it from the chat template or processor.
        use_flash_attn: Whether the model computes with FlashAttention; rows are read beside it.
        quantization: `none`, `8bit` or `4bit`, by bitsandbytes.

    Raises:
        ValueError: If an option is not valid, a library that it needs is not installed, or the model cannot be loaded
            or read.
    """
    from vlm.placement import place_model

    place = {"cache_dir": cache_dir, "revision": revision}
    config = _config(name, place)
    refuse_unreadable(name, config.model_type, config)
    where = place_model(device, device_id, dtype, quantization)
    processors = load_processors(name, config.model_type, place)
    head = prompt_head(
        processors.processor, conv_mode, placeholder=placeholder or _plain_placeholder(processors, conv_mode)
    )
    logger.info("Loading %s on %s", name, where.reason)
    options = {**where.loading, "attn_implementation": _attention(config, use_flash_attn)}
    model = _model(name, config, {**place, **options})
    if not where.is_spread:
        model = model.to(where.device)
    model = model.eval()
    if not attention_modules(find_decoder(model)):
        raise ValueError(
            f"Expected {name!r} to have a layer with softmax attention, but got none in {type(model).__name__}. "
            "Such a model has no attention to read."
        )
    return AnyModel(model, processors, head, name, where.device, where.dtype, where.reason, _versions(), quantization)


def _config(name: str, place: Mapping[str, Any]) -> Any:
    """The configuration, of a class that transformers has for image-text models.

    Raises:
        ValueError: If it needs remote code, or is of another kind.
    """
    import transformers
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES as KNOWN

    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False, **place)
    except (ValueError, KeyError, OSError) as error:
        message = " ".join(str(error).split())
        if "trust_remote_code" in message or "custom code" in message:
            raise ValueError(
                f"Expected {name!r} to be of a class that transformers {transformers.__version__} has, but got one "
                "with code of its own, which is never run here. Use a checkpoint in the transformers format, "
                "or a newer transformers."
            ) from error
        raise ValueError(
            f"Expected {name!r} to be a checkpoint that transformers {transformers.__version__} knows, but got: "
            f"{message[:_QUOTED]}"
        ) from error
    if config.model_type not in KNOWN:
        raise ValueError(
            f"Expected {name!r} to be an image-text model that transformers {transformers.__version__} knows, but got "
            f"model_type {config.model_type!r}."
        )
    return config


def _attention(config: Any, use_flash_attn: bool) -> str:
    """Name of the attention that the model computes with; rows are read beside any."""
    if use_flash_attn:
        return "flash_attention_2"
    text = config.get_text_config()
    # SDPA has no soft cap: version 5 refuses it, version 4 leaves it out in silence.
    return "eager" if getattr(text, "attn_logit_softcapping", None) else "sdpa"


def _model(name: str, config: Any, options: Mapping[str, Any]) -> Any:
    """The model with all its weights.

    Raises:
        ValueError: If it cannot be loaded, or weights are missing.
    """
    from transformers import AutoModelForImageTextToText

    options = dict(options)
    for attempt in (options["attn_implementation"], "eager"):
        try:
            model, info = AutoModelForImageTextToText.from_pretrained(
                name, config=config, trust_remote_code=False, output_loading_info=True,
                **{**options, "attn_implementation": attempt},
            )  # fmt: skip
        except (ValueError, OSError, RuntimeError, KeyError, ImportError) as error:
            message = " ".join(str(error).split())
            if attempt == "sdpa" and "scaled_dot_product_attention" in message:
                continue  # a class that has eager attention only
            raise ValueError(f"Expected {name!r} to be loaded, but got: {message[:_QUOTED]}") from error
        _refuse_incomplete(name, info)
        return model
    raise AssertionError("unreachable")


def _refuse_incomplete(name: str, info: Mapping[str, Any]) -> None:
    """Refuse random weights, which transformers only warns of."""
    missing = sorted(info.get("missing_keys", ()))
    misshapen = sorted(str(key) for key in info.get("mismatched_keys", ()))
    for what, keys in (("to hold all weights of its class", missing), ("to fit its config.json", misshapen)):
        if keys:
            raise ValueError(
                f"Expected {name!r} {what}, but got {len(keys)} that do not, first {keys[0][:80]!r}. "
                "Download the checkpoint again."
            )


def _plain_placeholder(processors: Processors, conv_mode: str) -> str | None:
    """What a `plain` prompt writes for the image where there is no chat template to ask."""
    processor = processors.processor
    if conv_mode != "plain" or getattr(processor, "chat_template", None) or processors.tokenizer.chat_template:
        return None
    found = getattr(processor, "boi_token", None) or getattr(processor, "image_token", None)
    return None if found is None else str(found)


def _versions() -> dict[str, str]:
    import torch
    import transformers

    from llava.constants import TOOL_VERSION

    return {"torch": torch.__version__, "transformers": transformers.__version__, "tool": TOOL_VERSION}
