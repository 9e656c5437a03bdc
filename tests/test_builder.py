from __future__ import annotations

import json
import logging
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny_checkpoints as tiny

from llava.model.hub import CACHE_VARIABLES, Listing, announce_download, export_cache_dir, look_up
from vlm.device import choose_device
from vlm.loading import load_llava

torch = pytest.importorskip("torch")


@pytest.fixture(scope="module")
def model():
    return tiny.random_model()


@pytest.fixture(scope="module")
def tokenizer_model(tmp_path_factory):
    return tiny.train_sentencepiece(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="module")
def tower(model, tmp_path_factory):
    return str(tiny.write_vision_tower(tmp_path_factory.mktemp("tower"), model))


@pytest.fixture
def original(tmp_path, model, tokenizer_model, tower):
    """Gives a function that writes a checkpoint in original format; changes go into its config.json."""

    def write(tensors=None, *, tower=tower, **changes):
        tensors = tiny.published_names(model) if tensors is None else tensors
        return tiny.write_original(tmp_path / "original", tensors, tokenizer_model, tower, **changes)

    return write


@pytest.fixture
def hugging_face(tmp_path, model, tokenizer_model):
    return tiny.write_hugging_face(tmp_path / "hugging_face", model, tokenizer_model)


def load(path, **options):
    return load_llava(str(path), **options)


def assert_same_weights(loaded, expected):
    theirs = expected.state_dict()
    ours = loaded.state_dict()
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert not tensor.is_meta, name
        assert torch.equal(tensor, theirs[name]), name


# Both formats -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["bin", "safetensors", "safetensors shards"])
def test_original_format_loads_every_weight(original, model, weights):
    bundle = load(original(weights=weights))
    assert_same_weights(bundle.model, model)


def test_original_format_computes_the_buffers_that_no_file_holds(original, model):
    loaded = dict(load(original()).model.named_buffers())
    fresh = dict(model.named_buffers())
    assert loaded.keys() == fresh.keys()
    assert any("inv_freq" in name for name in fresh)
    for name, buffer in loaded.items():
        assert torch.equal(buffer, fresh[name]), name
        assert buffer.dtype == fresh[name].dtype, name


def test_hugging_face_format_loads_every_weight(hugging_face, model):
    assert_same_weights(load(hugging_face).model, model)


NAMINGS = {
    "transformers 4.51": ("language_model.model.", "vision_tower.vision_model.", "", "language_model."),
    "transformers 4.52": ("model.language_model.", "model.vision_tower.vision_model.", "model.", ""),
    "transformers 5, its state_dict": ("model.language_model.", "model.vision_tower.", "model.", ""),
    "transformers 5, save_pretrained": ("language_model.model.", "vision_tower.", "", "language_model."),
}


@pytest.mark.parametrize("naming", NAMINGS)
def test_hugging_face_format_loads_whichever_version_wrote_it(hugging_face, model, naming):
    from safetensors.torch import save_file

    language, vision, projector, head = NAMINGS[naming]
    tensors = {language + name: tensor for name, tensor in model.model.language_model.state_dict().items()}
    for name, tensor in model.model.vision_tower.state_dict().items():
        tensors[vision + name.replace("vision_model.", "")] = tensor
    for name, tensor in model.model.multi_modal_projector.state_dict().items():
        tensors[f"{projector}multi_modal_projector.{name}"] = tensor
    tensors[f"{head}lm_head.weight"] = model.lm_head.weight.detach()
    save_file(tensors, hugging_face / "model.safetensors", metadata={"format": "pt"})
    assert_same_weights(load(hugging_face).model, model)


def test_both_formats_give_the_same_bundle(original, hugging_face):
    one, other = load(original()), load(hugging_face)
    for field in ("conv_mode", "dtype", "image_token_id", "visual_tokens", "grid_shape", "patch_size", "max_positions"):
        assert getattr(one, field) == getattr(other, field), field
    assert (one.visual_tokens, one.grid_shape, one.patch_size) == (16, (4, 4), 14)
    assert (one.num_layers, one.num_heads, one.max_positions) == (tiny.LAYERS, tiny.HEADS, tiny.POSITIONS)
    assert one.tokenizer("\nthe bird").input_ids == other.tokenizer("\nthe bird").input_ids
    assert one.image_preprocessor.rule.pad_to_square
    assert set(one.versions) == {"torch", "transformers", "tool"}


def test_weights_take_the_dtype_that_is_asked_for(original):
    bundle = load(original(), dtype="bfloat16")
    assert {parameter.dtype for parameter in bundle.model.parameters()} == {torch.bfloat16}
    assert bundle.model.model.language_model.rotary_emb.inv_freq.dtype == torch.float32


def test_attention_backends(hugging_face):
    for name in ("sdpa", "eager"):
        loaded = load(hugging_face, prefill_attention=name).model.model
        assert loaded.language_model.layers[0].self_attn.config._attn_implementation == name
    assert loaded.vision_tower.config._attn_implementation == "sdpa"


@pytest.mark.parametrize(("rule", "padded", "crop"), [("crop", False, (56, 56)), ("squash", False, None)])
def test_hugging_face_format_keeps_its_own_image_rule(tmp_path, model, tokenizer_model, rule, padded, crop):
    bundle = load(tiny.write_hugging_face(tmp_path, model, tokenizer_model, rule=rule))
    assert bundle.image_preprocessor.rule.pad_to_square is padded
    assert bundle.image_preprocessor.rule.crop_hw == crop


def test_image_rule_nested_in_processor_config(hugging_face):
    settings = json.loads((hugging_face / "preprocessor_config.json").read_text())
    (hugging_face / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match="to say how images are prepared .* but got neither"):
        load(hugging_face)
    tiny.write_json(hugging_face / "processor_config.json", {"image_processor": settings})
    assert load(hugging_face).image_preprocessor.rule.pad_to_square


# Variants of the original format ------------------------------------------------------------------------------------


def test_vision_tower_within_the_checkpoint_goes_first(original, tmp_path, model):
    tensors = tiny.published_names(model)
    for name, tensor in tiny.tower_names(model).items():
        if name.startswith("vision_model."):
            tensors[f"model.vision_tower.vision_tower.{name}"] = tensor
    other = tiny.write_vision_tower(tmp_path / "other", tiny.random_model(seed=5))
    assert_same_weights(load(original(tensors, tower=str(other))).model, model)


def test_vision_tower_in_a_folder_of_the_checkpoint(original, model):
    path = original(tower="clip")
    tiny.write_vision_tower(path / "clip", model)
    assert_same_weights(load(path).model, model)


def test_linear_projector_is_one_matrix(original, model):
    tensors = tiny.published_names(model)
    weight, bias = tensors.pop("model.mm_projector.0.weight"), tensors.pop("model.mm_projector.0.bias")
    tensors = {name: tensor for name, tensor in tensors.items() if "mm_projector" not in name}
    tensors |= {"model.mm_projector.weight": weight, "model.mm_projector.bias": bias}
    bundle = load(original(tensors, mm_projector_type="linear"))
    features = torch.randn(3, 16)
    expected = features @ weight.T + bias
    assert torch.allclose(bundle.model.model.multi_modal_projector(features), expected, atol=1e-6)


def test_tied_embeddings(original, tmp_path):
    tied = tiny.random_model(text={"tie_word_embeddings": True})
    tensors = tiny.published_names(tied)
    del tensors["lm_head.weight"]
    loaded = load(original(tensors, tie_word_embeddings=True)).model
    assert loaded.lm_head.weight is loaded.model.language_model.embed_tokens.weight
    assert torch.equal(loaded.lm_head.weight[: tiny.VOCABULARY], tensors["model.embed_tokens.weight"])


def test_class_token_is_counted(original):
    bundle = load(original(mm_vision_select_feature="cls_patch"))
    assert (bundle.visual_tokens, bundle.grid_shape, bundle.class_tokens) == (17, (4, 4), 1)


def test_padded_vocabulary(original, model):
    tensors = tiny.published_names(model)
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        tensors[name] = torch.cat([tensors[name], torch.ones(12, 32)])
    bundle = load(original(tensors, vocab_size=tiny.VOCABULARY + 12))
    assert bundle.image_token_id == tiny.VOCABULARY + 12
    assert bundle.model.lm_head.weight.shape == (tiny.VOCABULARY + 13, 32)


def test_square_aspect_is_what_the_vision_tower_does_itself(original):
    rule = load(original(image_aspect_ratio="square")).image_preprocessor.rule
    assert (rule.pad_to_square, rule.resize, rule.crop_hw) == (False, 56, (56, 56))


def test_tower_without_processor_settings(original, tower, tmp_path, model, caplog):
    bare = tiny.write_vision_tower(tmp_path / "bare", model)
    (bare / "preprocessor_config.json").unlink()
    with caplog.at_level(logging.WARNING):
        rule = load(original(tower=str(bare))).image_preprocessor.rule
    assert (rule.pad_to_square, rule.resize, rule.crop_hw) == (True, 56, (56, 56))
    assert "no preprocessor_config.json" in caplog.text


def test_rope_base_is_the_checkpoints(original):
    rotary = load(original(rope_theta=123.0)).model.model.language_model.rotary_emb
    assert rotary.inv_freq[1].item() == pytest.approx(123.0 ** (-2 / 8))


def test_image_marks(original, tokenizer_model):
    path = original(mm_use_im_start_end=True)
    with pytest.raises(ValueError, match="to know <im_start> and <im_end>.*Fetch its added_tokens.json"):
        load(path)
    marks = {"<im_start>": tiny.VOCABULARY, "<im_end>": tiny.VOCABULARY + 1}
    tiny.write_json(path / "added_tokens.json", marks)
    decoder = {str(index): {"content": mark, "special": True} for mark, index in marks.items()}
    settings = json.loads((path / "tokenizer_config.json").read_text())
    tiny.write_json(path / "tokenizer_config.json", {**settings, "added_tokens_decoder": decoder})
    assert load(path).use_im_start_end


def test_image_token_is_never_generated(original):
    assert load(original()).model.generation_config.suppress_tokens == [tiny.VOCABULARY]


def test_bos_of_a_tokenizer_whose_settings_leave_it_open(original):
    path = original()
    tiny.write_json(path / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "legacy": False})
    assert load(path).tokenizer("a").input_ids[0] == 1
    (path / "tokenizer_config.json").unlink()
    assert load(path).tokenizer("a").input_ids[0] == 1


# Faulty tensors -----------------------------------------------------------------------------------------------------

LAYER = "model.layers.2.mlp.up_proj.weight"


def remove(tensors):
    del tensors[LAYER]


def misshape(tensors):
    tensors[LAYER] = tensors[LAYER][:5]


def rename(tensors):
    tensors[LAYER.replace("up_proj", "upward")] = tensors.pop(LAYER)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove, r"but got 1 missing \(model.layers.2.mlp.up_proj.weight\)\. Fetch the checkpoint again"),
        (misshape, r"but got 1 misshapen \(model.layers.2.mlp.up_proj.weight \[5, 32\] instead of \[64, 32\]\)"),
        (rename, r"1 missing \(model.layers.2.mlp.up_proj.weight\), 1 unexpected \(model.layers.2.mlp.upward.weight\)"),
    ],
)
def test_faulty_tensors_of_the_original_format(original, model, change, message):
    tensors = tiny.published_names(model)
    change(tensors)
    with pytest.raises(ValueError, match=message) as error:
        load(original(tensors))
    assert "\n" not in str(error.value)


def test_misshapen_embeddings_are_reported_as_they_are_on_disk(original, model):
    tensors = tiny.published_names(model)
    tensors["model.embed_tokens.weight"] = tensors["model.embed_tokens.weight"][:400]
    with pytest.raises(ValueError, match=r"model.embed_tokens.weight \[400, 32\] instead of \[420, 32\]"):
        load(original(tensors))


def test_missing_tensor_of_the_vision_tower(original, tmp_path, model):
    other = tiny.write_vision_tower(tmp_path / "tower", model)
    tensors = tiny.tower_names(model)
    del tensors["vision_model.post_layernorm.weight"]
    torch.save(tensors, other / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"1 missing \(vision_model.post_layernorm.weight\)"):
        load(original(tower=str(other)))


FAULTS = {
    "remove": r"but got 1 missing \(\S*layers\.2\.mlp\.up_proj\.weight\)\. Fetch",
    "misshape": r"1 misshapen \(\S*layers\.2\.mlp\.up_proj\.weight( \[5, 32\] instead of \[64, 32\])?\)\. Fetch",
    "rename": r"but got 1 missing \(\S*up_proj\.weight\), 1 unexpected \(\S*upward\.weight\)\. Fetch",
}


@pytest.mark.parametrize("change", FAULTS)
def test_faulty_tensors_of_the_hugging_face_format(hugging_face, change):
    from safetensors.torch import load_file, save_file

    tensors = load_file(hugging_face / "model.safetensors")
    (name,) = [key for key in tensors if key.endswith("layers.2.mlp.up_proj.weight")]
    if change == "misshape":
        tensors[name] = tensors[name][:5].contiguous()
    else:
        tensor = tensors.pop(name)
        if change == "rename":
            tensors[name.replace("up_proj", "upward")] = tensor
    save_file(tensors, hugging_face / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=FAULTS[change]) as error:
        load(hugging_face)
    assert "\n" not in str(error.value)


def test_missing_and_broken_shards(original):
    path = original()
    shard = path / "pytorch_model-00002-of-00002.bin"
    shard.write_bytes(shard.read_bytes()[:100])
    with pytest.raises(
        ValueError, match="00002-of-00002.bin to be a whole file of weights, but got an archive without its end"
    ):
        load(path)
    shard.unlink()
    with pytest.raises(ValueError, match="to hold pytorch_model-00002-of-00002.bin, but got a directory without it"):
        load(path)


def test_no_weights_at_all(original):
    path = original()
    for file in path.glob("pytorch_model*"):
        file.unlink()
    with pytest.raises(ValueError, match="to hold weights .* but got none of them"):
        load(path)


def test_pickles_cannot_run_code(original, tmp_path):
    path = original()

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    torch.save({"model.norm.weight": Evil()}, path / "pytorch_model-00001-of-00002.bin")
    with pytest.raises(ValueError, match="tensors and nothing else"):
        load(path)
    assert not (tmp_path / "ran").exists()


# What is refused ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mm_projector_type": "mlp3x_gelu"}, "mm_projector_type in config.json to be one of mlp2x_gelu, linear"),
        ({"mm_vision_select_feature": "cls"}, "mm_vision_select_feature .* one of patch, cls_patch, but got 'cls'"),
        ({"image_aspect_ratio": "anyres"}, "image_aspect_ratio in config.json to be pad or square, but got 'anyres'"),
        ({"model_type": "llava_mpt"}, "model_type in config.json to be one of llava, llava_llama, llava_mistral"),
    ],
)
def test_unsupported_settings(original, changes, message):
    with pytest.raises(ValueError, match=message):
        load(original(**changes))


def test_adapters_and_bare_projectors(original):
    path = original()
    tiny.write_json(path / "adapter_config.json", {})
    with pytest.raises(ValueError, match="whole checkpoint, but got LoRA weights on a base model.*model.base"):
        load(path)
    (path / "adapter_config.json").unlink()
    for file in path.glob("pytorch_model*"):
        file.unlink()
    (path / "mm_projector.bin").write_bytes(b"")
    with pytest.raises(ValueError, match="whole checkpoint, but got only a projector.*model.base"):
        load(path)


def test_other_models(tmp_path):
    tiny.write_json(tmp_path / "config.json", {"model_type": "llama"})
    with pytest.raises(ValueError, match="to be a LLaVA checkpoint .* but got model_type 'llama'"):
        load(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json to hold readable JSON"):
        load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="to hold config.json, but got a directory without it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_flash_attn": True}, "flash_attn to be installed for model.use_flash_attn=true, but got none"),
        ({"conv_mode": "v2"}, "model.conv_mode to be one of referseg"),
        ({"prefill_attention": "flash"}, "prefill_attention to be sdpa or eager, but got 'flash'"),
        ({"dtype": "int8"}, "model.dtype to be one of auto, float16, bfloat16, float32, but got 'int8'"),
        ({"device": "tpu"}, "model.device to be auto, cpu or cuda:<id>, but got 'tpu'"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(options, message):
    with pytest.raises(ValueError, match=message):
        load("/nowhere/at/all", **options)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123456789abcdef\nsize 13476931111\n"


def one_line(error):
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 700
    return str(error.value)


@pytest.fixture
def checkpoint(request, original, hugging_face):
    """Both formats, with one file of weights each."""
    return hugging_face if request.param == "hugging face" else original(weights="safetensors")


both_formats = pytest.mark.parametrize("checkpoint", ["hugging face", "original"], indirect=True)


@both_formats
@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.model", "tokenizer_config.json", "config.json"])
def test_git_lfs_pointers_are_told_from_files(checkpoint, file):
    (checkpoint / file).write_bytes(POINTER)
    with pytest.raises(ValueError, match=f"{file} to be the file itself, but got a Git LFS pointer") as error:
        load(checkpoint)
    assert "git lfs pull" in one_line(error)


@both_formats
@pytest.mark.parametrize("kept", [0, 5, 100, -1], ids=["nothing", "five", "a hundred", "all but one"])
def test_weights_cut_off(checkpoint, kept):
    path = checkpoint / "model.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match="model.safetensors to be a whole file of weights, but got") as error:
        load(checkpoint)
    assert "Download it again" in one_line(error)


@both_formats
@pytest.mark.parametrize(
    "content",
    ["[]", "3", "{", '{"a": ' * 3000 + "1" + "}" * 3000, "\ufeff[1]"],
    ids=["list", "number", "brace", "deep", "marked list"],
)
def test_config_that_is_no_mapping(checkpoint, content):
    (checkpoint / "config.json").write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"Expected \S*config.json to hold (readable JSON|named values)") as error:
        load(checkpoint)
    one_line(error)


@both_formats
@pytest.mark.parametrize("value", ["a", 0, -3, 2.5, True, [4], 10**9], ids=str)
def test_sizes_that_are_no_numbers(checkpoint, value):
    config = json.loads((checkpoint / "config.json").read_text())
    config.get("text_config", config)["num_hidden_layers"] = value
    tiny.write_json(checkpoint / "config.json", config)
    with pytest.raises(ValueError, match="num_hidden_layers in .*config.json.* to be a whole number from 1") as error:
        load(checkpoint)
    one_line(error)


@pytest.mark.parametrize("value", [tiny.VOCABULARY + 1, -1, "x"], ids=str)
def test_image_token_outside_the_vocabulary(hugging_face, value):
    config = json.loads((hugging_face / "config.json").read_text())
    config.pop("image_token_id", None)
    tiny.write_json(hugging_face / "config.json", {**config, "image_token_index": value})
    with pytest.raises(ValueError, match=r"(image_token_index|describe a LLaVA model)") as error:
        load(hugging_face)
    assert "config.json" in one_line(error)


@both_formats
def test_quantised_checkpoints(checkpoint):
    config = json.loads((checkpoint / "config.json").read_text())
    settings = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    tiny.write_json(checkpoint / "config.json", {**config, "quantization_config": settings})
    with pytest.raises(ValueError, match="but got quantised ones .'bitsandbytes'.*Use the checkpoint that") as error:
        load(checkpoint)
    one_line(error)


def test_key_of_the_vision_tower_misspelt(original):
    path = original()
    config = json.loads((path / "config.json").read_text())
    config["vision_tower"] = config.pop("mm_vision_tower")
    tiny.write_json(path / "config.json", config)
    with pytest.raises(ValueError, match="vision tower under mm_vision_tower, but got vision_tower. Rename the key"):
        load(path)


# Tokenizers ---------------------------------------------------------------------------------------------------------


def write_other_tokenizer(path, words):
    """A word-level tokenizer of so many words in place of the checkpoint's own."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({f"w{n}": n for n in range(words)}, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    for file in (*path.glob("tokenizer*"), *path.glob("special_tokens_map.json")):
        file.unlink()
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="w0").save_pretrained(path)


@both_formats
@pytest.mark.parametrize("words", [5000, 40])
def test_tokenizer_of_another_vocabulary(checkpoint, words):
    write_other_tokenizer(checkpoint, words)
    with pytest.raises(ValueError, match=rf"vocab_size 42[01], but got one of {words} tokens. Put the") as error:
        load(checkpoint)
    one_line(error)


@both_formats
def test_tokenizer_that_is_another_file(checkpoint):
    (checkpoint / "tokenizer.json").unlink(missing_ok=True)
    (checkpoint / "tokenizer.model").write_bytes(b"no tokenizer at all")
    with pytest.raises(ValueError, match="tokenizer") as error:
        load(checkpoint)
    assert str(checkpoint) in one_line(error)


TOKENIZER_SETTINGS = {
    "plain": {"tokenizer_class": "LlamaTokenizer"},
    "legacy": {"tokenizer_class": "LlamaTokenizer", "legacy": True},
    "not legacy": {"tokenizer_class": "LlamaTokenizer", "legacy": False},
    "fast": {"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": True},
    "no prefix": {"tokenizer_class": "LlamaTokenizer", "add_prefix_space": False},
}


@both_formats
@pytest.mark.parametrize("settings", TOKENIZER_SETTINGS)
@pytest.mark.parametrize("query", ["the bird", "A Bird", "in <image> the Bird", "  two  blanks"])
def test_ids_are_those_of_sentencepiece(checkpoint, settings, query, tokenizer_model):
    """Also for a checkpoint with `tokenizer.model` alone, whose first `▁` transformers 5 loses."""
    import sentencepiece

    for file in ("tokenizer.json", "special_tokens_map.json", "added_tokens.json"):
        (checkpoint / file).unlink(missing_ok=True)
    tiny.write_json(checkpoint / "tokenizer_config.json", TOKENIZER_SETTINGS[settings])
    bundle = load(checkpoint)
    encode = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer_model)).encode
    before, after = bundle.template.prompt(query).split("<image>")
    assert list(bundle.encode(query).input_ids) == [1, *encode(before), *[tiny.VOCABULARY] * 16, *encode(after)]


@both_formats
@pytest.mark.parametrize("told", [True, False])
def test_bos_is_as_the_settings_say(checkpoint, told, tokenizer_model):
    """Though tokenizer.json has no template that writes it, or one that does."""
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    writer = load(checkpoint).tokenizer
    template = {"single": "$A"} if told else {"single": "<s> $A", "special_tokens": [("<s>", 1)]}
    writer.backend_tokenizer.post_processor = processors.TemplateProcessing(**template)
    writer.backend_tokenizer.save(str(checkpoint / "tokenizer.json"))
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": told, **tokens}
    tiny.write_json(checkpoint / "tokenizer_config.json", settings)
    plain = PreTrainedTokenizerFast(tokenizer_file=str(checkpoint / "tokenizer.json"), **tokens)
    assert (plain("a").input_ids[0] == 1) is not told
    assert (load(checkpoint).encode("the bird").input_ids[0] == 1) is told


def test_bos_that_cannot_be_written_is_refused(hugging_face):
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": True}
    tiny.write_json(hugging_face / "tokenizer_config.json", settings)
    (hugging_face / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match="to begin every sequence with BOS.*bos_token None") as error:
        load(hugging_face)
    one_line(error)


def test_ids_that_cannot_be_mended_are_refused(hugging_face, tmp_path):
    """A tokenizer.json whose pieces have other numbers than tokenizer.model's."""
    content = json.loads((hugging_face / "tokenizer.json").read_text())
    vocabulary = content["model"]["vocab"]
    names = sorted(vocabulary, key=vocabulary.get)
    content["model"]["vocab"] = dict(zip([*names[:259], *reversed(names[259:])], range(len(names))))
    tiny.write_json(hugging_face / "tokenizer.json", content)
    with pytest.raises(ValueError, match=r"to give the ids .* of \S*tokenizer.model for .*but got .*Fetch") as error:
        load(hugging_face)
    one_line(error)


# Hub and cache ------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def forget_look_ups():
    look_up.cache_clear()
    yield
    look_up.cache_clear()


@pytest.fixture
def offline(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def put_into_cache(cache, repository, directory):
    """Lay files out as the hub's client does."""
    root = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(directory, root / "snapshots" / ("0" * 40))
    (root / "refs").mkdir()
    (root / "refs" / "main").write_text("0" * 40)


def test_offline_with_a_full_cache(offline, tmp_path, original, hugging_face, model, tower):
    cache = tmp_path / "cache"
    put_into_cache(cache, "tiny/original", original(tower="tiny/clip"))
    put_into_cache(cache, "tiny/clip", tower)
    put_into_cache(cache, "tiny/hf", hugging_face)
    for name in ("tiny/original", "tiny/hf"):
        bundle = load(name, cache_dir=str(cache))
        assert bundle.name == name
        assert_same_weights(bundle.model, model)


def test_offline_without_a_cache_says_what_to_fetch(offline, tmp_path):
    with pytest.raises(
        ValueError, match=r"'liuhaotian/llava-v1.5-7b' to be at hand.*run: hf download liuhaotian/llava"
    ):
        load("liuhaotian/llava-v1.5-7b", cache_dir=str(tmp_path))


def test_missing_vision_tower_is_named(offline, tmp_path, original):
    path = original(tower="openai/clip-vit-large-patch14-336")
    message = f"hf download openai/clip-vit-large-patch14-336 --cache-dir {tmp_path}"
    with pytest.raises(ValueError, match=message):
        load(path, cache_dir=str(tmp_path))


def test_path_that_is_not_there(offline):
    with pytest.raises(ValueError, match="neither a directory nor a repository id"):
        load("examples/models/nowhere")


@pytest.mark.parametrize("name", ["/nope", "./nope", "~/nope", "a/b/c", "C:/models/llava"])
def test_paths_are_not_advised_to_be_downloaded(name):
    with pytest.raises(ValueError, match="model.name to be a directory or a repository id.*Check the path") as error:
        load(name)
    assert "download" not in one_line(error)


def test_foreign_path_of_a_vision_tower(original):
    path = original(tower="/home/somebody/clip-vit")
    with pytest.raises(ValueError, match="Expected mm_vision_tower in config.json of .*'/home/somebody/clip") as error:
        load(path)
    assert "download" not in one_line(error)


def test_checkpoint_given_as_cache(offline, hugging_face):
    with pytest.raises(
        ValueError, match=f"is a checkpoint itself rather than a cache: give it as model.name={hugging_face}"
    ):
        load("some/model", cache_dir=str(hugging_face))


class FakeHub:
    """A hub with some repositories, made of directories, that counts what it is asked."""

    def __init__(self, repositories, *, error=None):
        self.repositories, self.error = repositories, error
        self.looked_up, self.fetched = [], []

    def model_info(self, _, name, **options):
        self.looked_up.append(name)
        if self.error:
            raise self.error
        files = sorted(self.repositories[name].iterdir())
        return SimpleNamespace(
            siblings=[SimpleNamespace(rfilename=file.name, size=file.stat().st_size) for file in files]
        )

    def download(self, name, file, *, cache_dir, revision, local_files_only):
        if local_files_only:
            return self.genuine(name, file, cache_dir=cache_dir, revision=revision, local_files_only=True)
        self.fetched.append(file)
        path = Path(cache_dir, f"models--{name.replace('/', '--')}", "snapshots", "0" * 40, file)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.repositories[name] / file, path)
        return str(path)


@pytest.fixture
def hub(monkeypatch):
    """Gives a function that puts a fake in the hub's place."""
    import huggingface_hub

    def put(repositories, **options):
        fake = FakeHub(repositories, **options)
        fake.genuine = huggingface_hub.hf_hub_download
        monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda *args, **rest: fake.model_info(*args, **rest))
        monkeypatch.setattr(huggingface_hub, "hf_hub_download", fake.download)
        return fake

    return put


@pytest.mark.parametrize("revision", [None, "main"])
def test_full_cache_is_used_after_one_failed_look_up(hub, revision, tmp_path, original, hugging_face, model, tower):
    cache = tmp_path / "cache"
    put_into_cache(cache, "tiny/original", original(tower="tiny/clip"))
    put_into_cache(cache, "tiny/clip", tower)
    put_into_cache(cache, "tiny/hf", hugging_face)
    fake = hub({}, error=ConnectionError("[Errno -2] Name or service not known"))
    assert_same_weights(load("tiny/hf", cache_dir=str(cache), revision=revision).model, model)
    assert fake.looked_up == ["tiny/hf"]
    assert_same_weights(load("tiny/original", cache_dir=str(cache), revision=revision).model, model)
    assert fake.looked_up == ["tiny/hf", "tiny/original", "tiny/clip"]


def test_without_network_and_cache_one_line_says_all(hub, tmp_path, caplog):
    fake = hub({}, error=ConnectionError("[Errno -2] Name or service not known"))
    message = r"whose config.json is neither in the cache .* \(\[Errno -2\] Name or service not known\).*about 13.5 GB"
    with caplog.at_level(logging.WARNING), pytest.raises(ValueError, match=message) as error:
        load("liuhaotian/llava-v1.5-7b", cache_dir=str(tmp_path))
    one_line(error)
    assert fake.looked_up == ["liuhaotian/llava-v1.5-7b"]
    assert not caplog.records


def test_download_is_announced_before_its_first_byte(hub, tmp_path, original, hugging_face, tower, model, caplog):
    cache = str(tmp_path / "cache")
    (hugging_face / "flax_model.msgpack").write_bytes(b"not needed")
    fake = hub({"tiny/hf": hugging_face, "tiny/original": original(tower="tiny/clip"), "tiny/clip": Path(tower)})
    fetched_at = []
    handler = logging.Handler()
    handler.emit = lambda record: fetched_at.append((record.getMessage(), len(fake.fetched)))
    logging.getLogger("llava.model.hub").addHandler(handler)
    with caplog.at_level(logging.INFO):
        assert_same_weights(load("tiny/hf", cache_dir=cache, dtype="float32").model, model)
        assert_same_weights(load("tiny/original", cache_dir=cache).model, model)
    logging.getLogger("llava.model.hub").removeHandler(handler)
    (first, before), (second, _), (third, _) = fetched_at
    assert before == 0
    assert re.fullmatch(
        rf"Downloading tiny/hf: 0.0 GB in \d+ files, to {cache}; its weights .* 0.0 GB of memory", first
    )
    assert second.startswith("Downloading tiny/original:")
    assert third.startswith("Downloading tiny/clip:")
    assert "flax_model.msgpack" not in fake.fetched


def test_sizes_of_an_announcement(hub, tmp_path, caplog, monkeypatch):
    siblings = {"config.json": 2000, "pytorch_model-00001-of-00002.bin": 9_500_000_000, "model.fp16.safetensors": 9}
    siblings |= {"pytorch_model-00002-of-00002.bin": 4_000_000_000, "mm_projector.bin": 41_000_000}
    listing = Listing(siblings)
    assert listing.needed() == ["config.json", *(name for name in siblings if name.startswith("pytorch"))]
    monkeypatch.setattr("llava.model.hub.look_up", lambda name, revision: listing)
    with caplog.at_level(logging.INFO):
        announce_download("some/model", None, str(tmp_path), 4)
    assert caplog.messages == [
        f"Downloading some/model: 13.5 GB in 3 files, to {tmp_path}; its weights will take about 27.0 GB of memory"
    ]


def test_download_that_breaks_off(hub, tmp_path, hugging_face, monkeypatch):
    fake = hub({"tiny/hf": hugging_face})

    def fail(*args, **options):
        raise OSError("connection reset\nby peer")

    monkeypatch.setattr(fake, "download", fail)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(
        ValueError, match="config.json of 'tiny/hf' to come from the hub, .*Run the same command"
    ) as error:
        load("tiny/hf", cache_dir=str(tmp_path))
    one_line(error)


def test_cache_dir_and_revision_reach_every_from_pretrained(hugging_face, monkeypatch, tmp_path):
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    seen = []

    def spy(cls):
        genuine = cls.from_pretrained

        def from_pretrained(*args, **options):
            seen.append((options.get("cache_dir"), options.get("revision")))
            return genuine(*args, **options)

        monkeypatch.setattr(cls, "from_pretrained", from_pretrained)

    spy(AutoTokenizer)
    spy(LlavaForConditionalGeneration)
    load(hugging_face, cache_dir=str(tmp_path), revision="main")
    assert seen == [(str(tmp_path), "main")] * 2


def test_export_cache_dir(monkeypatch, caplog):
    for variable in CACHE_VARIABLES:
        monkeypatch.setenv(variable, "before")
    export_cache_dir(None)
    assert os.environ["HF_HOME"] == "before"
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    export_cache_dir("/somewhere")
    assert {os.environ[variable] for variable in ("TRANSFORMERS_CACHE", "HF_HOME", "HF_HUB_CACHE")} == {"/somewhere"}
    assert "keeps its earlier cache" in caplog.text


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = (
        "import sys, llava.model.builder, llava.model.original_format, llava.mm_utils, vlm.loading, collector;"
        "print([name for name in ('torch', 'transformers', 'huggingface_hub', 'PIL') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


# Device -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("two_gpus")
def test_device_with_gpus():
    device, dtype, reason = choose_device("auto", 1, "auto")
    assert (str(device), dtype) == ("cuda:1", torch.float16)
    assert reason == "cuda:1 (model.device=auto and there is a GPU) in float16 (the default there)"
    assert str(choose_device("cuda:0", 1, "auto")[0]) == "cuda:0"
    device, dtype, reason = choose_device("cpu", 0, "bfloat16")
    assert (str(device), dtype) == ("cpu", torch.bfloat16)
    assert reason == "cpu (model.device=cpu) in bfloat16 (model.dtype=bfloat16)"
    with pytest.raises(ValueError, match="one of the 2 GPUs that torch finds, but got cuda:2"):
        choose_device("cuda:2", 0, "auto")


@pytest.mark.usefixtures("no_gpu")
def test_device_without_gpus():
    device, dtype, reason = choose_device("auto", 3, "auto")
    assert (str(device), dtype) == ("cpu", torch.float32)
    assert "torch finds no GPU" in reason
    with pytest.raises(ValueError, match="one of the 0 GPUs .*Use model.device=cpu"):
        choose_device("cuda:0", 0, "auto")
