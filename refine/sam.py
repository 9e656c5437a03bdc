"""Segment Anything checkpoints: loading them, embedding a picture once, and masks from boxes and points."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from foreign_files.messages import shorten, shorten_reason

if TYPE_CHECKING:
    import torch
    from PIL import Image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SamKind:
    """A family of Segment Anything models in transformers.

    Attributes:
        model_class: Name of its model class.
        processor_class: Name of its processor class.
        needs_torchvision: Whether its image processor does.
        since: First version of transformers that has it.
    """

    model_class: str
    processor_class: str
    needs_torchvision: bool = False
    since: str = "4.52"


_SAM2 = SamKind("Sam2Model", "Sam2Processor", needs_torchvision=True, since="4.56")
KINDS = {
    "sam": SamKind("SamModel", "SamProcessor"),
    "sam_hq": SamKind("SamHQModel", "SamHQProcessor"),
    "sam2": _SAM2,
    "sam2_video": _SAM2,  # the published SAM 2 checkpoints say so; they hold the model for pictures too
}
"""By `model_type` of a checkpoint's config.json. The class with a concept for prompt (SAM 3) is the wrong tool here."""


@dataclass(frozen=True)
class Sam:
    """A loaded Segment Anything model.

    Attributes:
        name: Where it came from.
        model: The module, in float32: box edges lose several pixels in bfloat16.
        image_processor: Makes its input, and turns its masks into the picture's size.
    """

    name: str
    model: torch.nn.Module
    image_processor: Any

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return next(self.model.parameters()).device


@dataclass(frozen=True)
class EmbeddedPicture:
    """What the image encoder made of one picture; it serves all prompts about it.

    Attributes:
        size_wh: Width and height of the picture.
        input_size_wh: The size to which it was resized, without padding.
        embeddings: Arguments of the model that hold the embeddings.
    """

    size_wh: tuple[int, int]
    input_size_wh: tuple[int, int]
    embeddings: dict[str, Any]


def sam_kind(name: str, *, cache_dir: str | None = None) -> SamKind:
    """Find out of which family a checkpoint is, without loading its weights.

    Args:
        name: Directory, or repository on the Hugging Face hub.
        cache_dir: Where downloads are kept.

    Returns:
        The family.

    Raises:
        ValueError: There is no such checkpoint, it is no Segment Anything model for boxes and points, or transformers
            or torchvision are missing for it.
    """
    import transformers

    model_type = _read_config(name, cache_dir).get("model_type")
    kind = KINDS.get(str(model_type))
    if kind is None:
        raise ValueError(
            f"Expected the model_type of {name!r} to be one of {', '.join(KINDS)}, but got {shorten(model_type)}. "
            "Set logic.sam.name to a SAM, SAM-HQ or SAM 2 checkpoint."
        )
    if not hasattr(transformers, kind.model_class):
        raise ValueError(
            f"Expected transformers {kind.since} or newer for {name!r}, but got {transformers.__version__}. "
            "Upgrade transformers, or use a SAM checkpoint."
        )
    if kind.needs_torchvision and importlib.util.find_spec("torchvision") is None:
        raise ValueError(
            f"Expected torchvision to be installed for {name!r}, whose image processor needs it, but got none. "
            "Run pip install torchvision, or use a SAM or SAM-HQ checkpoint."
        )
    return kind


def _read_config(name: str, cache_dir: str | None) -> dict[str, Any]:
    from transformers import PretrainedConfig

    try:
        config, _ = PretrainedConfig.get_config_dict(name, cache_dir=cache_dir)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise _no_checkpoint(name, error) from error
    if not isinstance(config, dict) or not config:  # transformers gives nothing where it finds no file
        raise _no_checkpoint(name, "no config.json that says what it is")
    return dict(config)


def _no_checkpoint(name: str, reason: object) -> ValueError:
    return ValueError(
        f"Expected logic.sam.name to be a Segment Anything checkpoint (a directory or a repository on the hub), "
        f"but got {shorten(name)}: {shorten_reason(reason)}. Say where one is."
    )


def load_sam(name: str, *, device: str = "cpu", cache_dir: str | None = None) -> Sam:
    """Load a Segment Anything model of any known family.

    Args:
        name: Directory, or repository on the Hugging Face hub, such as `facebook/sam-vit-huge`.
        device: Where to put it, such as `cpu` or `cuda:0`.
        cache_dir: Where downloads are kept.

    Returns:
        The model in float32, ready for use.

    Raises:
        ValueError: As `sam_kind`, or its files are damaged or missing.
    """
    import transformers

    kind = sam_kind(name, cache_dir=cache_dir)
    model_class = getattr(transformers, kind.model_class)
    processor_class = getattr(transformers, kind.processor_class)
    offline = {"local_files_only": Path(name).is_dir(), "cache_dir": cache_dir}
    try:
        with _quiet_transformers():
            model, notes = model_class.from_pretrained(name, output_loading_info=True, **offline)
            image_processor = processor_class.from_pretrained(name, **offline).image_processor
    except Exception as error:  # damaged files raise whatever their readers do
        raise _no_checkpoint(name, error) from error
    missing = sorted(notes["missing_keys"])
    if missing:
        raise _no_checkpoint(name, f"{len(missing)} weights are missing, the first {missing[0]}")
    return Sam(name, model.float().to(device).eval(), image_processor)


@contextlib.contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Without the note that the image processor that works without torchvision is taken."""
    from transformers.utils import logging as transformers_logging

    level = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)


def embed_picture(sam: Sam, image: Image.Image) -> EmbeddedPicture:
    """Run the image encoder, the costly part, once.

    Args:
        sam: The model.
        image: Upright, as boxes refer to it.

    Returns:
        The embeddings.
    """
    import torch

    inputs = sam.image_processor(images=image.convert("RGB"), return_tensors="pt")
    pixels = inputs["pixel_values"].to(sam.device)
    reshaped = inputs.get("reshaped_input_sizes")
    # SAM and SAM-HQ pad what they have resized; SAM 2 squashes the picture onto the whole input.
    height, width = pixels.shape[-2:] if reshaped is None else (int(length) for length in reshaped[0])
    with torch.inference_mode():
        encoded: Any = sam.model.get_image_embeddings(pixels)  # type: ignore[operator]
    embeddings = {"image_embeddings": encoded}
    if isinstance(encoded, tuple):
        embeddings = {"image_embeddings": encoded[0], "intermediate_embeddings": encoded[1]}
    return EmbeddedPicture(image.size, (width, height), embeddings)


def masks_from_boxes(sam: Sam, picture: EmbeddedPicture, boxes_xyxy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One mask for each box, as SAM's authors advise: a box says enough not to ask for alternatives.

    Args:
        sam: The model.
        picture: The embedded picture.
        boxes_xyxy: `[boxes, 4]`, half-open, in pixels of the picture. A box with NaN or without extent is none.

    Returns:
        Masks `[boxes, height, width]` bool, empty for no box, and the model's own guesses of their IoU, `[boxes]`
        float64, NaN for no box.
    """
    boxes_xyxy = _clip(np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4), picture)
    is_box = (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)
    masks = np.zeros((len(boxes_xyxy), *picture.size_wh[::-1]), dtype=bool)
    guesses = np.full(len(boxes_xyxy), np.nan)
    if is_box.any():
        found, guessed = _predict(sam, picture, boxes_xyxy=boxes_xyxy[is_box], alternatives=False)
        masks[is_box], guesses[is_box] = found[:, 0], guessed[:, 0]
    return masks, guesses


def masks_from_points(
    sam: Sam, picture: EmbeddedPicture, points_xy: np.ndarray, boxes_xyxy: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The model's three answers to points inside one object each: a part of it, all of it, or what it belongs to.

    Args:
        sam: The model.
        picture: The embedded picture.
        points_xy: `[objects, points, 2]`, all inside, in pixels of the picture.
        boxes_xyxy: `[objects, 4]`, a box for each as well; None for points alone.

    Returns:
        Masks `[objects, 3, height, width]` bool, and the model's own guesses of their IoU, `[objects, 3]` float64.

    Raises:
        ValueError: A point is not finite, or a box has no extent.
    """
    points_xy = np.asarray(points_xy, dtype=np.float64)
    if points_xy.ndim != 3 or not points_xy.size or not np.isfinite(points_xy).all():
        raise ValueError(f"Expected points [objects, points, 2] to be finite, but got {shorten(points_xy.tolist())}.")
    if boxes_xyxy is not None:
        boxes_xyxy = _clip(np.asarray(boxes_xyxy, dtype=np.float64).reshape(-1, 4), picture)
        if not (boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all():
            raise ValueError("Expected the boxes beside points to have an extent, but got one without. Leave it out.")
    return _predict(sam, picture, points_xy=points_xy, boxes_xyxy=boxes_xyxy, alternatives=True)


def _clip(boxes_xyxy: np.ndarray, picture: EmbeddedPicture) -> np.ndarray:
    clipped: np.ndarray = np.clip(boxes_xyxy, 0, (*picture.size_wh, *picture.size_wh))
    return clipped


def _predict(
    sam: Sam,
    picture: EmbeddedPicture,
    *,
    points_xy: np.ndarray | None = None,
    boxes_xyxy: np.ndarray | None = None,
    alternatives: bool,
) -> tuple[np.ndarray, np.ndarray]:
    """Masks `[objects, answers, height, width]` bool and guessed IoU `[objects, answers]` for some prompts."""
    import torch

    prompts: dict[str, torch.Tensor] = {}
    if points_xy is not None:
        points = _to_input(sam, picture, points_xy)
        prompts["input_points"] = points
        prompts["input_labels"] = torch.ones(points.shape[:-1], dtype=torch.int64, device=points.device)
    if boxes_xyxy is not None:
        prompts["input_boxes"] = _to_input(sam, picture, boxes_xyxy.reshape(-1, 2, 2)).flatten(-2)
    with torch.inference_mode():
        output = sam.model(**picture.embeddings, **prompts, multimask_output=alternatives)
    logits, guesses = output.pred_masks.float().cpu(), output.iou_scores[0].double().cpu().numpy()
    sizes = [[list(wh[::-1])] for wh in (picture.size_wh, picture.input_size_wh)]
    [masks] = sam.image_processor.post_process_masks(logits, *sizes)
    found: np.ndarray = masks.numpy().reshape(*guesses.shape, *picture.size_wh[::-1])
    return found, guesses


def _to_input(sam: Sam, picture: EmbeddedPicture, places_xy: np.ndarray) -> torch.Tensor:
    """Places `[..., 2]` from pixels of the picture to those of the model's input, `[1, ..., 2]` float32.

    The longest side is rounded when a picture is resized, so that each axis has a scale of its own.
    """
    import torch

    scale = np.divide(picture.input_size_wh, picture.size_wh)
    return torch.from_numpy((places_xy * scale).astype(np.float32))[None].to(sam.device)
