"""Loads a LLaVA checkpoint, whatever its format, with all that is needed to ask it something."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llava.constants import TOOL_VERSION
from llava.conversation import PromptTemplate, get_template
from llava.mm_utils import ImagePreprocessor, ImageRule, restore_bos
from llava.model.checkpoint_files import CheckpointFiles, export_cache_dir, refuse_faulty_tensors

if TYPE_CHECKING:
    import torch
    from transformers import LlavaForConditionalGeneration

__all__ = ["LlavaBundle", "choose_device", "export_cache_dir", "load_llava", "set_attention"]

logger = logging.getLogger(__name__)

DTYPES = ("auto", "float16", "bfloat16", "float32")


@dataclass(frozen=True)
class LlavaBundle:
    """A loaded model with all that belongs to it.

    Attributes:
        model: The stock model, in evaluation mode, its language model with eager attention.
        tokenizer: Its tokenizer.
        image_preprocessor: Turns a picture into pixels and a grid.
        name: What was asked for: a directory or the id of a hub repository.
        conv_mode: Key of the prompt template.
        device: Where the model is.
        dtype: Number format of its weights.
        device_reason: Why this device and this format.
        image_token_id: Token id that stands for the image.
        visual_tokens: Positions that an image takes; one more than the grid has cells where a class token leads.
        grid_shape: Rows and columns of patches.
        patch_size: Side of a patch in pixels as the model sees them.
        max_positions: Longest sequence of the language model.
        versions: Of torch, transformers and this tool.
        template: The prompt template.
        use_im_start_end: Whether the image stands between `<im_start>` and `<im_end>`.
        prefill_attention: `sdpa` or `eager`, for the tokens whose attention is not kept.
    """

    model: LlavaForConditionalGeneration
    tokenizer: Any
    image_preprocessor: ImagePreprocessor
    name: str
    conv_mode: str
    device: torch.device
    dtype: torch.dtype
    device_reason: str
    image_token_id: int
    visual_tokens: int
    grid_shape: tuple[int, int]
    patch_size: int
    max_positions: int
    versions: dict[str, str]
    template: PromptTemplate
    use_im_start_end: bool = False
    prefill_attention: str = "sdpa"

    @property
    def num_layers(self) -> int:
        """Layers of the language model."""
        return int(self.model.config.text_config.num_hidden_layers)

    @property
    def num_heads(self) -> int:
        """Attention heads of each layer of the language model."""
        return int(self.model.config.text_config.num_attention_heads)

    @property
    def class_tokens(self) -> int:
        """Visual tokens before the first patch: 1 with a class token, else 0."""
        return self.visual_tokens - self.grid_shape[0] * self.grid_shape[1]


@dataclass(frozen=True)
class _Loaded:
    """What both formats give."""

    model: LlavaForConditionalGeneration
    tokenizer: Any
    image_rule: ImageRule
    use_im_start_end: bool = False


def load_llava(
    name: str,
    *,
    cache_dir: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    device_id: int = 0,
    dtype: str = "auto",
    conv_mode: str = "referseg",
    use_flash_attn: bool = False,
    prefill_attention: str = "sdpa",
) -> LlavaBundle:
    """Load a checkpoint in Hugging Face or original format.

    Args:
        name: A directory or the id of a hub repository.
        cache_dir: Where downloaded files are kept; None for the default place.
        revision: Branch, tag or commit of a hub repository.
        device: `auto`, `cpu` or `cuda:<id>`.
        device_id: Index of the GPU when `device` is `auto`.
        dtype: `auto` (float16 on CUDA, float32 on CPU), `float16`, `bfloat16` or `float32`.
        conv_mode: Key of a prompt template.
        use_flash_attn: Must be false, since FlashAttention gives no attention weights back.
        prefill_attention: `sdpa` or `eager`, for the tokens whose attention is not kept.

    Raises:
        ValueError: If an option is not valid, or the checkpoint is not whole, not reachable or not supported.
    """
    if use_flash_attn:
        raise ValueError(
            "Expected model.use_flash_attn to be false, but got true. FlashAttention never forms the attention weights "
            "that this tool reads; eager attention does."
        )
    if prefill_attention not in {"sdpa", "eager"}:
        raise ValueError(f"Expected model.prefill_attention to be sdpa or eager, but got {prefill_attention!r}.")
    template = get_template(conv_mode)
    torch_device, torch_dtype, reason = choose_device(device, device_id, dtype)
    logger.info("Loading %s on %s", name, reason)
    files = CheckpointFiles(name, cache_dir, revision)
    loaded = _load(files, torch_device, torch_dtype)
    _choose_attention(loaded.model)
    return _bundle(loaded, name, template, torch_device, torch_dtype, reason, prefill_attention)


def choose_device(device: str, device_id: int, dtype: str) -> tuple[torch.device, torch.dtype, str]:
    """Decide where the model runs and in which number format.

    Args:
        device: `auto`, `cpu` or `cuda:<id>`.
        device_id: Index of the GPU when `device` is `auto`.
        dtype: One of `DTYPES`.

    Returns:
        Device, format, and a sentence that says why.

    Raises:
        ValueError: If the device is not there, or a name is not valid.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device == "auto":
        chosen = torch.device("cuda", device_id) if gpus else torch.device("cpu")
        why = "model.device=auto and there is a GPU" if gpus else "model.device=auto and torch finds no GPU"
    else:
        chosen, why = _named_device(device), f"model.device={device}"
    if chosen.type == "cuda" and (chosen.index or 0) >= gpus:
        raise ValueError(
            f"Expected model.device={device} with model.device_id={device_id} to name one of the {gpus} GPUs that "
            f"torch finds, but got cuda:{chosen.index or 0}. Use model.device=cpu, or install torch with CUDA."
        )
    if dtype not in DTYPES:
        raise ValueError(f"Expected model.dtype to be one of {', '.join(DTYPES)}, but got {dtype!r}.")
    if dtype == "auto":
        name = "float16" if chosen.type == "cuda" else "float32"
        return chosen, getattr(torch, name), f"{chosen} ({why}) in {name} (the default there)"
    return chosen, getattr(torch, dtype), f"{chosen} ({why}) in {dtype} (model.dtype={dtype})"


def set_attention(module: Any, implementation: str) -> None:
    """Set how a transformers module computes attention from now on; it reads its config at every forward."""
    module.config._attn_implementation = implementation


def _named_device(device: str) -> torch.device:
    import torch

    kind, _, index = device.partition(":")
    if kind not in {"cpu", "cuda"} or (index and not index.isdigit()):
        raise ValueError(f"Expected model.device to be auto, cpu or cuda:<id>, but got {device!r}.")
    return torch.device(kind, int(index or 0)) if kind == "cuda" else torch.device("cpu")


def _load(files: CheckpointFiles, device: torch.device, dtype: torch.dtype) -> _Loaded:
    from llava.model.original_format import is_original_format, load_original

    _refuse_partial(files)
    files.require("config.json")
    config = files.json("config.json")
    if is_original_format(config):
        original = load_original(files, config, device=device, dtype=dtype)
        return _Loaded(original.model, original.tokenizer, original.image_rule, original.use_im_start_end)
    if config.get("model_type") != "llava":
        raise ValueError(
            f"Expected {files.name!r} to be a LLaVA checkpoint (model_type llava, or LLaVA's own config.json with "
            f"mm_vision_tower), but got model_type {config.get('model_type')!r}."
        )
    return _load_hugging_face(files, device, dtype)


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


def _load_hugging_face(files: CheckpointFiles, device: torch.device, dtype: torch.dtype) -> _Loaded:
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    place = {"cache_dir": files.cache_dir, "revision": files.revision}
    image_rule = ImageRule.from_config(_processor_config(files))
    try:
        # Tensors that do not fit are refused below, by name, rather than warned of or raised without a name.
        with _quiet_transformers():
            model, info = LlavaForConditionalGeneration.from_pretrained(
                files.name,
                **place,
                **{_dtype_option(): dtype},
                **_device_option(device),
                **_naming_option(),
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
    tokenizer = AutoTokenizer.from_pretrained(files.name, **place)
    settings = files.json("tokenizer_config.json")
    if "tokenizer_class" in settings:
        restore_bos(tokenizer, settings)
    return _Loaded(model.to(device).eval(), tokenizer, image_rule)


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


def _choose_attention(model: LlavaForConditionalGeneration) -> None:
    """Eager attention for the language model, whose weights are read; the fast kind for the vision tower."""
    set_attention(model.model.language_model, "eager")
    set_attention(model.model.vision_tower, "sdpa")


def _bundle(
    loaded: _Loaded,
    name: str,
    template: PromptTemplate,
    device: torch.device,
    dtype: torch.dtype,
    reason: str,
    prefill_attention: str,
) -> LlavaBundle:
    config = loaded.model.config
    vision = config.vision_config
    side = vision.image_size // vision.patch_size
    preprocessor = ImagePreprocessor(loaded.image_rule, patch_size=vision.patch_size, input_size=vision.image_size)
    return LlavaBundle(
        model=loaded.model,
        tokenizer=loaded.tokenizer,
        image_preprocessor=preprocessor,
        name=name,
        conv_mode=template.key,
        device=device,
        dtype=dtype,
        device_reason=reason,
        image_token_id=int(config.image_token_index),
        visual_tokens=side * side + _class_tokens(config),
        grid_shape=(side, side),
        patch_size=int(vision.patch_size),
        max_positions=int(config.text_config.max_position_embeddings),
        versions=_versions(),
        template=template,
        use_im_start_end=loaded.use_im_start_end,
        prefill_attention=prefill_attention,
    )


def _class_tokens(config: Any) -> int:
    """Visual tokens before the first patch."""
    kind, strategy = config.vision_config.model_type, config.vision_feature_select_strategy
    if kind == "clip_vision_model":
        return int(strategy == "full")
    if kind == "siglip_vision_model" and strategy == "full":
        return 0
    raise ValueError(
        "Expected the vision tower to be CLIP (vision_feature_select_strategy default or full) or SigLIP (full), "
        f"but got {kind!r} with {strategy!r}, whose patches cannot be told from its other tokens."
    )


def _versions() -> dict[str, str]:
    import torch
    import transformers

    return {"torch": torch.__version__, "transformers": transformers.__version__, "tool": TOOL_VERSION}
