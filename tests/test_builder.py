from __future__ import annotations

import json
import logging
import os
import subprocess
import sys

import pytest
import tiny_checkpoints as tiny

from llava.model.checkpoint_files import CACHE_VARIABLES, export_cache_dir
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
    loaded = load(hugging_face).model.model
    assert loaded.language_model.layers[0].self_attn.config._attn_implementation == "eager"
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
    with pytest.raises(ValueError, match="00002-of-00002.bin to hold tensors and nothing else, but got a broken"):
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
    with pytest.raises(ValueError, match="config.json to be JSON"):
        load(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match="to hold config.json, but got a directory without it"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"use_flash_attn": True}, "use_flash_attn to be false, but got true. FlashAttention never forms"),
        ({"conv_mode": "v2"}, "model.conv_mode to be one of referseg"),
        ({"prefill_attention": "flash"}, "prefill_attention to be sdpa or eager, but got 'flash'"),
        ({"dtype": "int8"}, "model.dtype to be one of auto, float16, bfloat16, float32, but got 'int8'"),
        ({"device": "tpu"}, "model.device to be auto, cpu or cuda:<id>, but got 'tpu'"),
    ],
)
def test_options_are_checked_before_anything_is_loaded(options, message):
    with pytest.raises(ValueError, match=message):
        load("/nowhere/at/all", **options)


# Hub and cache ------------------------------------------------------------------------------------------------------


@pytest.fixture
def offline(monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


def put_into_cache(cache, repository, directory):
    """Lay files out as the hub's client does."""
    import shutil

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
