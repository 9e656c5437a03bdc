from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_sams import SIDE, make_sam

from refine.sam import Sam, embed_picture, load_sam, masks_from_boxes, masks_from_points, sam_kind

BOXES_XYXY = np.array([[10.0, 20.0, 60.5, 80.0], [100.0, 10.0, 190.0, 60.25], [0.0, 0.0, 200.0, 96.0]])
POINTS_XY = np.array([[[30.0, 40.0], [50.5, 50.0]], [[150.0, 30.0], [120.0, 20.0]]])


def noise(width: int = 200, height: int = 96, mode: str = "RGB") -> Image.Image:
    levels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(levels).convert(mode)


@pytest.fixture(scope="module", params=["sam", "sam_hq"])
def sam(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Sam:
    return load_sam(str(make_sam(tmp_path_factory.mktemp(request.param), request.param)))


def plain_recipe(sam: Sam, image: Image.Image, multimask: bool, **prompts: Any) -> tuple[np.ndarray, np.ndarray]:
    """Masks `[objects, answers, height, width]` and scores by the processor of transformers in one call."""
    import torch
    from transformers import SamProcessor

    processor = SamProcessor(sam.image_processor)
    processor.target_size = SIDE
    nested = {key: [np.asarray(value, dtype=float).tolist()] for key, value in prompts.items()}
    inputs = processor(images=image.convert("RGB"), return_tensors="pt", **nested)
    tensors = {key: inputs[key].float() for key in prompts}
    with torch.inference_mode():
        output = sam.model(pixel_values=inputs["pixel_values"], multimask_output=multimask, **tensors)
    sizes = inputs["original_sizes"], inputs["reshaped_input_sizes"]
    [masks] = sam.image_processor.post_process_masks(output.pred_masks, *sizes)
    return masks.numpy(), output.iou_scores[0].numpy()


@pytest.mark.parametrize("size", [(200, 96), (64, 48), (37, 90)], ids=["landscape", "as the input", "portrait"])
def test_boxes_equal_the_plain_recipe(sam: Sam, size: tuple[int, int]) -> None:
    image = noise(*size)
    boxes_xyxy = np.clip(BOXES_XYXY, 0, (*size, *size))
    boxes_xyxy = boxes_xyxy[(boxes_xyxy[:, 2:] > boxes_xyxy[:, :2]).all(axis=1)]
    masks, guesses = masks_from_boxes(sam, embed_picture(sam, image), boxes_xyxy)
    expected, scores = plain_recipe(sam, image, False, input_boxes=boxes_xyxy)
    np.testing.assert_array_equal(masks, expected[:, 0])
    np.testing.assert_allclose(guesses, scores[:, 0], rtol=1e-4)
    assert masks.shape == (len(boxes_xyxy), size[1], size[0])
    assert 0 < masks[0].mean() < 1


def test_points_equal_the_plain_recipe_without_and_with_boxes(sam: Sam) -> None:
    image = noise()
    picture = embed_picture(sam, image)
    masks, guesses = masks_from_points(sam, picture, POINTS_XY)
    expected, scores = plain_recipe(sam, image, True, input_points=POINTS_XY)
    np.testing.assert_array_equal(masks, expected)
    np.testing.assert_allclose(guesses, scores, rtol=1e-4)
    assert masks.shape == (2, 3, 96, 200)
    with_boxes, _ = masks_from_points(sam, picture, POINTS_XY, BOXES_XYXY[:2])
    expected, _ = plain_recipe(sam, image, True, input_points=POINTS_XY, input_boxes=BOXES_XYXY[:2])
    np.testing.assert_array_equal(with_boxes, expected)
    assert (with_boxes != masks).any()


def test_one_by_one_equals_all_at_once(sam: Sam) -> None:
    picture = embed_picture(sam, noise())
    masks, _ = masks_from_boxes(sam, picture, BOXES_XYXY)
    for box_xyxy, mask in zip(BOXES_XYXY, masks):
        np.testing.assert_array_equal(masks_from_boxes(sam, picture, box_xyxy[None])[0][0], mask)


def test_no_box_has_no_mask_and_spoils_no_other(sam: Sam) -> None:
    picture = embed_picture(sam, noise())
    without = [[np.nan] * 4, [5.0, 5.0, 5.0, 9.0], [300.0, 5.0, 400.0, 9.0]]
    masks, guesses = masks_from_boxes(sam, picture, np.array([without[0], BOXES_XYXY[0], *without[1:]]))
    np.testing.assert_array_equal(masks[1], masks_from_boxes(sam, picture, BOXES_XYXY[:1])[0][0])
    assert not masks[[0, 2, 3]].any()
    assert np.isnan(guesses).tolist() == [True, False, True, True]
    masks, guesses = masks_from_boxes(sam, picture, np.zeros((0, 4)))
    assert masks.shape == (0, 96, 200)
    assert guesses.shape == (0,)


def test_boxes_are_clipped_to_the_picture(sam: Sam) -> None:
    picture = embed_picture(sam, noise())
    over = masks_from_boxes(sam, picture, np.array([[-50.0, -50.0, 400.0, 300.0]]))[0]
    np.testing.assert_array_equal(over, masks_from_boxes(sam, picture, np.array([[0.0, 0.0, 200.0, 96.0]]))[0])


@pytest.mark.parametrize("mode", ["L", "RGBA", "P"], ids=["grey", "transparent", "palette"])
def test_pictures_of_other_modes(sam: Sam, mode: str) -> None:
    image = noise(mode=mode)
    masks = masks_from_boxes(sam, embed_picture(sam, image), BOXES_XYXY)[0]
    np.testing.assert_array_equal(masks, masks_from_boxes(sam, embed_picture(sam, image.convert("RGB")), BOXES_XYXY)[0])


@pytest.mark.parametrize(
    ("points", "boxes", "message"),
    [
        (np.full((1, 2, 2), np.nan), None, r"points \[objects, points, 2\] to be finite"),
        (np.zeros((1, 0, 2)), None, r"points \[objects, points, 2\] to be finite"),
        (POINTS_XY[:1], np.array([[5.0, 5.0, 5.0, 9.0]]), "boxes beside points to have an extent"),
    ],
    ids=["nan", "no point", "empty box"],
)
def test_prompts_that_say_nothing_are_refused(sam: Sam, points, boxes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        masks_from_points(sam, embed_picture(sam, noise()), points, boxes)


def test_model_runs_in_float32(sam: Sam) -> None:
    assert {str(parameter.dtype) for parameter in sam.model.parameters()} == {"torch.float32"}
    assert not sam.model.training


# Checkpoints


def write_config(directory: Path, **values: Any) -> str:
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(values))
    return str(directory)


def test_another_kind_of_model_is_refused_in_one_line(tmp_path: Path) -> None:
    name = write_config(tmp_path / "other", model_type="sam3")
    with pytest.raises(
        ValueError, match=r"model_type of .* to be one of sam, sam_hq, .*but got 'sam3'\. Set logic"
    ) as e:
        sam_kind(name)
    assert "\n" not in str(e.value)


def test_sam2_without_torchvision_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    name = write_config(tmp_path / "two", model_type="sam2_video")
    monkeypatch.setattr(transformers, "Sam2Model", object, raising=False)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(ValueError, match="Expected torchvision to be installed for .*pip install torchvision"):
        sam_kind(name)


def test_an_older_transformers_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    name = write_config(tmp_path / "two", model_type="sam2")
    real = hasattr
    monkeypatch.setattr(
        "builtins.hasattr", lambda of, key: False if (of, key) == (transformers, "Sam2Model") else real(of, key)
    )
    with pytest.raises(ValueError, match=r"Expected transformers 4\.56 or newer"):
        sam_kind(name)


def test_damaged_and_missing_checkpoints_are_named_in_one_line(tmp_path: Path) -> None:
    cut = make_sam(tmp_path / "cut")
    weights = (cut / "model.safetensors").read_bytes()
    (cut / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = make_sam(tmp_path / "bare")
    (bare / "preprocessor_config.json").unlink()
    (tmp_path / "list").mkdir()
    (tmp_path / "list" / "config.json").write_text("[1]")
    for name in (cut, empty, bare, tmp_path / "list"):
        with pytest.raises(
            ValueError, match=r"^Expected logic\.sam\.name to be a Segment Anything checkpoint"
        ) as error:
            load_sam(str(name))
        assert name.name in str(error.value)
        assert "\n" not in str(error.value)


def test_missing_weights_are_no_random_ones(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    name = make_sam(tmp_path / "partly")
    weights = load_file(name / "model.safetensors")
    lost = next(key for key in sorted(weights) if key.startswith("vision_encoder."))
    save_file(
        {key: value for key, value in weights.items() if key != lost}, name / "model.safetensors", {"format": "pt"}
    )
    with pytest.raises(ValueError, match=f"1 weights are missing, the first {lost}"):
        load_sam(str(name))


@pytest.mark.gpu
@pytest.mark.skipif("not __import__('torch').cuda.is_available()", reason="no GPU")
def test_a_gpu_finds_the_masks_of_the_cpu(tmp_path: Path) -> None:
    name = str(make_sam(tmp_path / "sam"))
    found = []
    for device in ("cpu", "cuda:0"):
        sam = load_sam(name, device=device)
        found.append(masks_from_boxes(sam, embed_picture(sam, noise()), BOXES_XYXY)[0])
    assert (found[0] == found[1]).mean() > 0.999
