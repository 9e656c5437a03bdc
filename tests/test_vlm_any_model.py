"""Loading any model, and saying in one line why one cannot be."""

from __future__ import annotations

import importlib.metadata
import json
from pathlib import Path

import pytest
import torch
import transformers

from tests.tiny_families import FAMILIES
from vlm import any_model, placement
from vlm.any_model import load_any_model
from vlm.placement import place_model
from vlm.processors import load_processors


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    transformers.logging.disable_progress_bar()
    return FAMILIES["llava"]().save(tmp_path_factory.mktemp("llava"))


@pytest.fixture
def copied(checkpoint, tmp_path) -> Path:
    import shutil

    return Path(shutil.copytree(checkpoint, tmp_path / "copy"))


def change(directory: Path, file: str, **changes) -> None:
    content = json.loads((directory / file).read_text())
    (directory / file).write_text(json.dumps({**content, **changes}))


def test_a_directory(checkpoint):
    bundle = load_any_model(str(checkpoint), device="cpu")
    assert (bundle.num_layers, bundle.num_heads, bundle.patch_size, bundle.max_positions) == (3, 4, 14, 4096)
    assert bundle.conv_mode == "chat"
    assert not bundle.model.training
    assert bundle.dtype == torch.float32
    assert "cpu" in bundle.device_reason
    assert bundle.versions["transformers"] == transformers.__version__


def test_a_missing_directory():
    with pytest.raises(ValueError, match="^Expected '/nope' to be a checkpoint that transformers.*$"):
        load_any_model("/nope")


def test_remote_code_is_never_run(copied):
    change(copied, "config.json", model_type="their_own", auto_map={"AutoConfig": "code.Config"})
    (copied / "code.py").write_text("raise SystemExit('their code ran')")
    with pytest.raises(ValueError, match="code of its own, which is never run here"):
        load_any_model(str(copied))


def test_an_unknown_type(copied):
    change(copied, "config.json", model_type="never_heard_of")
    with pytest.raises(ValueError, match="Expected .* to be a checkpoint that transformers .* knows"):
        load_any_model(str(copied))


def test_a_model_of_text_alone(copied):
    (copied / "config.json").write_text(json.dumps({"model_type": "llama"}))
    with pytest.raises(ValueError, match="to be an image-text model .* but got model_type 'llama'"):
        load_any_model(str(copied))


def test_a_resampler(copied):
    (copied / "config.json").write_text(json.dumps({"model_type": "blip-2"}))
    with pytest.raises(ValueError, match="its image tokens come out of a resampler"):
        load_any_model(str(copied))


def test_missing_weights(copied):
    from safetensors.torch import load_file, save_file

    file = copied / "model.safetensors"
    weights = load_file(file)
    del weights[next(name for name in weights if "q_proj" in name and "vision" not in name)]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="to hold all weights of its class, but got 1 that do not, first .*q_proj"):
        load_any_model(str(copied), device="cpu")


def test_a_model_without_softmax_attention(checkpoint, monkeypatch):
    monkeypatch.setattr(any_model, "attention_modules", lambda decoder: {})
    with pytest.raises(ValueError, match="to have a layer with softmax attention, but got none"):
        load_any_model(str(checkpoint), device="cpu")


def test_an_image_processor_on_torchvision_only(checkpoint, monkeypatch):
    def needs(*args, **options):
        raise ImportError("Llama4ImageProcessor requires the Torchvision library")

    monkeypatch.setattr(transformers.AutoImageProcessor, "from_pretrained", needs)
    with pytest.raises(ValueError, match="pip install torchvision.$"):
        load_any_model(str(checkpoint), device="cpu")


def test_a_processor_that_needs_another_library(checkpoint, monkeypatch):
    def needs(*args, **options):
        raise ImportError("Package `num2words` is required.\nInstall it.")

    monkeypatch.setattr(transformers.LlavaProcessor, "__init__", needs)
    with pytest.raises(
        ValueError, match="^Expected the processor of .* to be made, but got: Package `num2words`.*it.$"
    ):
        load_processors(str(checkpoint), "llava", {})


def test_a_processor_with_a_part_of_another_kind(checkpoint, monkeypatch):
    from vlm import processors

    monkeypatch.setattr(processors, "_attributes", lambda kind: ["tokenizer", "qformer_tokenizer"])
    with pytest.raises(ValueError, match="but got 'qformer_tokenizer' among its parts"):
        load_processors(str(checkpoint), "llava", {})


def test_eager_attention_where_there_is_a_soft_cap():
    if int(transformers.__version__.split(".")[0]) < 5:
        pytest.skip("needs a newer transformers")
    capped = FAMILIES["gemma3_softcap"]().model.config
    assert any_model._attention(capped, use_flash_attn=False) == "eager"
    assert any_model._attention(capped, use_flash_attn=True) == "flash_attention_2"


# Where it goes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "library"),
    [
        (("balanced", 0, "auto", "none"), "accelerate to be installed for model.device=balanced"),
        (("cpu", 0, "auto", "4bit"), "bitsandbytes to be installed for model.quantization=4bit"),
    ],
    ids=["balanced", "4bit"],
)
def test_libraries_that_are_not_installed(settings, library, monkeypatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=f"^Expected {library}, but got none. Install it"):
        place_model(*settings)


def test_balanced_goes_through_accelerate(monkeypatch):
    monkeypatch.setattr(placement, "require_library", lambda library, setting: None)
    placed = place_model("balanced", 0, "float32", "none")
    assert placed.loading["device_map"] == "balanced"
    assert placed.is_spread
    assert "model.device=balanced" in placed.reason


@pytest.mark.parametrize(
    ("quantization", "expected"),
    [("8bit", {"load_in_8bit": True}), ("4bit", {"load_in_4bit": True, "bnb_4bit_compute_dtype": torch.float16})],
    ids=["8bit", "4bit"],
)
def test_quantization_goes_through_bitsandbytes(quantization, expected, monkeypatch):
    monkeypatch.setattr(placement, "require_library", lambda library, setting: None)
    # Version 4 asks for the library's version when it makes the settings.
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    placed = place_model("cpu", 0, "float16", quantization)
    made = placed.loading["quantization_config"]
    assert {name: getattr(made, name) for name in expected} == expected
    assert placed.loading["device_map"] == {"": "cpu"}
    assert placed.is_spread
    assert quantization in placed.reason


def test_an_unknown_quantization():
    with pytest.raises(ValueError, match="Expected model.quantization to be one of none, 8bit, 4bit, but got '2bit'"):
        place_model("cpu", 0, "auto", "2bit")
