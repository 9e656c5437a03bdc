"""Tiny Segment Anything models with random weights, built in memory and saved like published checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SIDE = 64
"""Side of the model's input; patches of 8 pixels."""

_DECODER = {
    "hidden_size": 16,
    "mlp_dim": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "iou_head_hidden_dim": 16,
    "attention_downsample_rate": 2,
}


def make_sam(directory: Path, kind: str = "sam") -> Path:
    """Save a tiny `sam` or `sam_hq` in a directory, and return it.

    Of random models the first is taken whose masks of a box and of a point are neither empty nor all of the picture,
    since of others no test could tell a right mask from a wrong one.
    """
    import torch
    import transformers

    prefix = {"sam": "Sam", "sam_hq": "SamHQ"}[kind]
    model = getattr(transformers, f"{prefix}Model")(_config(prefix)).eval()
    for seed in range(200):
        torch.manual_seed(seed)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        if _tells_inside_from_outside(model):
            break
    else:
        raise AssertionError("None of 200 random models gives masks that are worth a test.")
    model.save_pretrained(directory)
    _image_processor().save_pretrained(directory)  # as published: preprocessor_config.json, which all versions read
    return directory


def _tells_inside_from_outside(model: Any) -> bool:
    import torch

    pixels = torch.rand(1, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    box, points = torch.tensor([[[8.0, 8.0, 40.0, 40.0]]]), torch.tensor([[[[20.0, 20.0], [30.0, 30.0]]]])
    with torch.inference_mode():
        of_box = model(pixel_values=pixels, input_boxes=box, multimask_output=False).pred_masks > 0
        of_points = model(pixel_values=pixels, input_points=points, multimask_output=True).pred_masks > 0
    shares = torch.cat([of_box.flatten(0, 2), of_points.flatten(0, 2)]).float().mean(dim=(1, 2))
    return bool(((shares > 0.1) & (shares < 0.9)).all())


def _config(prefix: str) -> Any:
    import transformers

    vision = {
        "hidden_size": 16,
        "output_channels": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": SIDE,
        "patch_size": 8,
        "mlp_dim": 16,
        "window_size": 4,
        "global_attn_indexes": [1],
        "num_pos_feats": 8,
    }
    decoder = {**_DECODER, "vit_dim": 16} if prefix == "SamHQ" else _DECODER
    prompts = {"hidden_size": 16, "image_size": SIDE, "patch_size": 8, "mask_input_channels": 4}
    parts = {"vision": vision, "prompt_encoder": prompts, "mask_decoder": decoder}
    configs = {
        f"{part}_config": getattr(transformers, f"{prefix}{_camel(part)}Config")(**values)
        for part, values in parts.items()
    }
    return getattr(transformers, f"{prefix}Config")(**{key: value.to_dict() for key, value in configs.items()})


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def _image_processor() -> Any:
    from transformers import SamImageProcessor

    return SamImageProcessor(
        size={"longest_edge": SIDE},
        pad_size={"height": SIDE, "width": SIDE},
        mask_size={"longest_edge": SIDE // 4},
        mask_pad_size={"height": SIDE // 4, "width": SIDE // 4},
    )
