from __future__ import annotations

import contextlib
import dataclasses
import logging
import threading
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_checkpoints as tiny

from collector import AttentionCollector, CollectionFailure
from lab.records import CollectedAttention, Sample
from lab.stations import TokenSegments
from llava.conversation import TEMPLATES, get_template
from vlm import attention_rows, branches, preparing
from vlm.images import load_image
from vlm.loading import load_llava
from vlm.prompt_encoding import encode_prompt
from vlm.temporary_changes import unused_vision_layers

torch = pytest.importorskip("torch")

QUERIES = ["the bird on the branch", "dog", "a small dog wearing a collar.", "the red ball to the left of the blue box"]
SIZES = [(80, 60), (50, 90), (64, 64)]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Directories of the same model in both formats, and a variant with a class token."""
    root = tmp_path_factory.mktemp("checkpoints")
    tokenizer, model = tiny.train_sentencepiece(root / "sentencepiece"), tiny.random_model()
    tower = str(tiny.write_vision_tower(root / "tower", model))
    tensors = tiny.published_names(model)
    return {
        "hugging_face": tiny.write_hugging_face(root / "hugging_face", model, tokenizer),
        "original": tiny.write_original(root / "original", tensors, tokenizer, tower),
        "class token": tiny.write_original(
            root / "class", tensors, tokenizer, tower, mm_vision_select_feature="cls_patch"
        ),
    }


@pytest.fixture(scope="module")
def bundle(checkpoints):
    return load_llava(str(checkpoints["hugging_face"]))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    root = tmp_path_factory.mktemp("pictures")
    return [str(tiny.write_picture(root / f"{n}.png", size, n)) for n, size in enumerate(SIZES)]


@pytest.fixture(scope="module")
def samples(pictures):
    """Every query about every picture, the pictures mixed."""
    return [
        Sample(f"{number}/{picture}", path, query)
        for number, query in enumerate(QUERIES)
        for picture, path in enumerate(pictures)
    ]


def with_template(bundle, key):
    return dataclasses.replace(bundle, conv_mode=key, template=get_template(key))


@contextlib.contextmanager
def eager_attention(model):
    config = model.model.language_model.config
    before = config._attn_implementation
    config._attn_implementation = "eager"
    yield
    config._attn_implementation = before


def plain_forward(bundle, sample):
    """The reference: one sample, one whole forward with all attentions, eager from end to end."""
    pixels, _ = bundle.image_preprocessor(load_image(sample.image_file))
    prompt = encode_prompt(
        bundle.template.parts(sample.query, use_im_start_end=bundle.use_im_start_end),
        bundle.tokenizer,
        image_token_id=bundle.image_token_id,
        image_token_count=bundle.visual_tokens,
    )
    with torch.inference_mode(), eager_attention(bundle.model):
        outputs = bundle.model(
            input_ids=torch.tensor([prompt.input_ids]),
            pixel_values=torch.from_numpy(pixels)[None].to(bundle.dtype),
            output_attentions=True,
        )
    image = prompt.segments.image
    first = image.start + bundle.class_tokens
    return torch.stack([layer[0, :, -1, first : image.end] for layer in outputs.attentions]).float().numpy()


def collect(bundle, samples, **options):
    return list(AttentionCollector(bundle, **options).collect(samples))


def assert_close(results, bundle, samples, tolerance=1e-5):
    assert len(results) == len(samples)
    for result, sample in zip(results, samples):
        assert isinstance(result, CollectedAttention), result
        assert result.sample == sample
        assert np.abs(result.attention - plain_forward(bundle, sample)).max() < tolerance


# The rows are those of the plain forward ----------------------------------------------------------------------------


@pytest.mark.parametrize("key", TEMPLATES)
def test_rows_equal_the_plain_forward_in_every_template(key, bundle, samples):
    bundle = with_template(bundle, key)
    assert_close(collect(bundle, samples, batch_size=2), bundle, samples)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 8])
@pytest.mark.parametrize("prefill", ["sdpa", "eager"])
def test_rows_do_not_depend_on_the_batch(batch_size, prefill, bundle, samples, monkeypatch):
    config = bundle.model.model.language_model.config
    monkeypatch.setattr(config, "_attn_implementation", prefill)
    assert_close(collect(bundle, samples, batch_size=batch_size), bundle, samples)


def test_rows_tell_queries_and_pictures_apart(bundle, samples):
    attention = [result.attention for result in collect(bundle, samples)]
    for index, one in enumerate(attention):
        for other in attention[:index]:
            assert np.abs(one - other).max() > 1e-4


def test_both_formats_give_the_same_rows(checkpoints, samples):
    one, other = (
        collect(load_llava(str(checkpoints[name])), samples, batch_size=2) for name in ("hugging_face", "original")
    )
    for mine, theirs in zip(one, other):
        assert np.abs(mine.attention - theirs.attention).max() < 1e-5
        assert mine.grid == theirs.grid


def test_class_token_is_left_out(checkpoints, samples):
    bundle = load_llava(str(checkpoints["class token"]))
    results = collect(bundle, samples[:3], batch_size=2)
    assert_close(results, bundle, samples[:3])
    assert results[0].attention.shape == (tiny.LAYERS, tiny.HEADS, 16)
    assert results[0].meta["segments"][1]["length"] == 17


def test_query_that_places_the_image(bundle, pictures):
    samples = [
        Sample("a", pictures[0], "in <image> the bird"),
        Sample("b", pictures[0], "the bird"),
        Sample("c", pictures[0], "in <image> the dog"),
        Sample("d", pictures[1], "where is <image-placeholder> the dog"),
    ]
    assert_close(collect(bundle, samples, batch_size=4), bundle, samples)


def test_many_queries_about_one_picture_are_split(bundle, pictures, monkeypatch):
    monkeypatch.setattr(branches, "MAX_BRANCH_TOKENS", 20)
    samples = [Sample(str(n), pictures[n % 3 == 0], QUERIES[n % 4] + " dog" * (n % 5)) for n in range(17)]
    assert_close(collect(bundle, samples, batch_size=2), bundle, samples)


def test_half_precision_stays_within_its_rounding(checkpoints, samples):
    bundle = load_llava(str(checkpoints["hugging_face"]), dtype="bfloat16")
    assert_close(collect(bundle, samples[:4], batch_size=2), bundle, samples[:4], tolerance=0.02)


def toy_bundle(bundle, picture_side=336):
    """576 visual tokens and a deeper language model, random."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    torch.manual_seed(1)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**{**tiny.vision_settings(), "image_size": picture_side}),
        text_config=LlamaConfig(**{**tiny.text_settings(max_position_embeddings=1024), "vocab_size": 421}),
        image_token_index=420,
    )
    model = LlavaForConditionalGeneration(config).eval()
    model.model.language_model.config._attn_implementation = "eager"
    preprocessor = dataclasses.replace(
        bundle.image_preprocessor,
        input_size=picture_side,
        rule=dataclasses.replace(bundle.image_preprocessor.rule, resize=picture_side),
    )
    return dataclasses.replace(
        bundle, model=model, image_preprocessor=preprocessor, visual_tokens=576, grid_shape=(24, 24), max_positions=1024
    )


def test_rows_of_576_visual_tokens(bundle, pictures):
    toy = toy_bundle(bundle)
    samples = [Sample(str(n), pictures[n // 3], query) for n, query in enumerate(QUERIES)]
    assert_close(collect(toy, samples, batch_size=2), toy, samples)


@pytest.fixture(scope="module")
def windowed(tmp_path_factory):
    """A Mistral that looks 9 positions back, in a prompt where the image alone takes 16."""
    root = tmp_path_factory.mktemp("mistral")
    model = tiny.random_model(text={"sliding_window": 9, "model_type": "mistral"}, family="Mistral")
    return load_llava(str(tiny.write_hugging_face(root / "model", model, tiny.train_sentencepiece(root / "tokenizer"))))


@pytest.mark.parametrize("use_generate", [False, True], ids=["forward", "generate"])
def test_sliding_window_shorter_than_the_prompt(use_generate, windowed, pictures):
    samples = [
        Sample(str(n), pictures[n % 2], query) for n, query in enumerate(["dog", "a cat", "dog.", "on it", "ox"])
    ]
    results = collect(windowed, samples, batch_size=2, use_generate=use_generate)
    assert_close(results, windowed, samples)
    seen = [(result.attention > 0).any(axis=(0, 1)).sum() for result in results]
    assert 0 < max(seen) < 9


@pytest.mark.parametrize("use_generate", [False, True], ids=["forward", "generate"])
def test_white_space_at_the_ends_of_a_query_is_left_out(use_generate, bundle, pictures, caplog):
    typed = ["dog", " dog", "dog\n", "\t dog  "]
    samples = [Sample(str(n), pictures[0], query) for n, query in enumerate(typed)]
    with caplog.at_level(logging.INFO):
        results = collect(bundle, samples, use_generate=use_generate, max_new_tokens=2)
    assert_close(results, bundle, [dataclasses.replace(sample, query="dog") for sample in samples])
    assert [result.meta["query"] for result in results] == ["dog"] * 4
    assert [result.meta["query_trimmed"] for result in results] == [False, True, True, True]
    assert caplog.text.count("without the white space at its ends") == 3


# The published prompt, by hand --------------------------------------------------------------------------------------


@pytest.mark.parametrize("use_generate", [False, True], ids=["forward", "generate"])
def test_published_prompt_in_the_original_layout(use_generate, checkpoints, pictures):
    """Ids written by SentencePiece from the authors' sentence, and one whole eager forward of the stock model."""
    import sentencepiece

    system = (
        "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
        "provides, and assist the user with a variety of tasks using natural language."
    )
    tokens = sentencepiece.SentencePieceProcessor(model_file=str(checkpoints["original"] / "tokenizer.model"))
    bundle = load_llava(str(checkpoints["original"]), conv_mode="referseg")
    for path, query in zip(pictures, ["the bird on the branch", "birds.", "A dog"]):
        before, after = tokens.encode(f"{system}\n"), tokens.encode(f"\n{query}")
        ids = [1, *before, *[tiny.VOCABULARY] * 16, *after]
        pixels, _ = bundle.image_preprocessor(load_image(path))
        with torch.inference_mode(), eager_attention(bundle.model):
            outputs = bundle.model(
                input_ids=torch.tensor([ids]), pixel_values=torch.from_numpy(pixels)[None], output_attentions=True
            )
        image = slice(1 + len(before), 17 + len(before))
        expected = torch.stack([layer[0, :, -1, image] for layer in outputs.attentions]).numpy()
        (result,) = collect(bundle, [Sample("a", path, query)], use_generate=use_generate, max_new_tokens=2)
        assert np.abs(result.attention - expected).max() < 1e-5


# Order, streams, memory ---------------------------------------------------------------------------------------------


def test_order_is_kept_whatever_the_grouping(bundle, pictures, monkeypatch):
    monkeypatch.setattr(preparing, "WINDOW_ROWS", 5)
    order = [0, 1, 0, 2, 1, 1, 0, 2, 2, 0, 1, 2, 0, 0, 0, 1]
    samples = [Sample(f"{n}", pictures[picture], QUERIES[n % 4]) for n, picture in enumerate(order)]
    assert [result.sample for result in collect(bundle, samples, batch_size=2)] == samples


def test_endless_input_is_read_only_a_window_ahead(bundle, pictures, monkeypatch):
    monkeypatch.setattr(preparing, "WINDOW_ROWS", 4)
    read = []

    def stream():
        number = 0
        while True:
            read.append(number)
            yield Sample(str(number), pictures[number % 3], "dog")
            number += 1

    results = AttentionCollector(bundle, batch_size=2).collect(stream())
    assert [next(results).sample.id for _ in range(9)] == [str(n) for n in range(9)]
    assert len(read) < 40
    results.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("prepare")]


def test_window_ends_between_pictures_and_is_bounded(monkeypatch):
    def groups(names, window):
        monkeypatch.setattr(preparing, "WINDOW_ROWS", window)
        rows = preparing.by_image([Sample(str(n), name, "q") for n, name in enumerate(names)])
        return [(group[0].sample.image_file, [row.position for row in group]) for group in rows]

    assert groups("aabbbcc", 3) == [("a", [0, 1]), ("b", [2, 3, 4]), ("c", [5, 6])]
    assert groups("abab", 9) == [("a", [0, 2]), ("b", [1, 3])]
    assert [len(positions) for _, positions in groups("a" * 20, 2)] == [8, 8, 4]


def test_one_prefill_serves_all_queries_of_a_picture(bundle, pictures, monkeypatch):
    runs = []
    genuine = bundle.model.model.vision_tower.forward

    def counting(pixel_values, **options):
        runs.append(pixel_values.shape[0])
        return genuine(pixel_values, **options)

    monkeypatch.setattr(bundle.model.model.vision_tower, "forward", counting)
    samples = [Sample(str(n), pictures[n % 3], QUERIES[n % 4]) for n in range(12)]
    collector = AttentionCollector(bundle, batch_size=2)
    list(collector.collect(samples))
    del runs[:]  # the first picture was read plainly too
    list(collector.collect(samples))
    assert runs == [2, 1]


@pytest.mark.parametrize("stop_layer", [None, 1])
def test_prefill_spares_the_last_layers_output(stop_layer, bundle, samples, monkeypatch):
    """Of the last layer that runs, projection and MLP see one token of the prefill, and the whole of the branches."""
    lengths = []

    def watch(module):
        genuine = module.forward

        def watching(states):
            lengths.append(states.shape[1])
            return genuine(states)

        monkeypatch.setattr(module, "forward", watching)

    layers = bundle.model.model.language_model.layers[: None if stop_layer is None else stop_layer + 1]
    for layer in layers:
        watch(layer.self_attn.o_proj)
        watch(layer.mlp)
    collector = AttentionCollector(bundle, stop_layer=stop_layer)
    asked = [samples[0], dataclasses.replace(samples[0], id="again")]
    list(collector.collect(asked))
    del lengths[:]  # the first picture was read plainly too
    result, _ = collector.collect(asked)
    prefill, branches = lengths[: 2 * len(layers)], lengths[2 * len(layers) :]
    prompt_length = sum(segment["length"] for segment in result.meta["segments"])
    assert prefill == [prompt_length - branches[0] // 2] * (len(prefill) - 2) + [1, 1]
    assert len(branches) == len(prefill)
    assert len(set(branches)) == 1


def test_prefill_spares_vision_layers_whose_output_nobody_takes(bundle, samples):
    """The tower's features come from before its last layer, which sees one token of the prefill."""
    tower = bundle.model.model.vision_tower
    layers = next(module.layers for module in tower.modules() if hasattr(module, "layers"))
    lengths = []
    handles = [
        layer.register_forward_hook(lambda _, inputs, output: lengths.append(inputs[0].shape[1])) for layer in layers
    ]
    collector = AttentionCollector(bundle)
    asked = [samples[0], dataclasses.replace(samples[0], id="again")]
    list(collector.collect(asked))
    del lengths[:]  # the first picture was read plainly too
    list(collector.collect(asked))
    for handle in handles:
        handle.remove()
    assert bundle.model.config.vision_feature_layer == -2
    assert lengths == [bundle.visual_tokens + 1] * (len(layers) - 1) + [1]


@pytest.mark.parametrize(("taken", "num_unused"), [(-1, 0), (-2, 1), (4, 0), (2, 2), ([-2, 1], 1), ([-4, -3], 2)])
def test_vision_layers_above_the_deepest_taken_are_unused(taken, num_unused):
    layers = [torch.nn.Identity() for _ in range(4)]
    tower = torch.nn.Module()
    tower.layers = torch.nn.ModuleList(layers)
    config = SimpleNamespace(vision_feature_layer=taken, vision_config=SimpleNamespace(num_hidden_layers=4))
    unused = unused_vision_layers(SimpleNamespace(config=config, vision_tower=tower))
    assert unused == layers[4 - num_unused :]


def test_whole_attention_matrices_do_not_pile_up(bundle, pictures, monkeypatch):
    """Weights are computed for the queries' last tokens alone, and only those to the image are kept."""
    computed, kept = [], []
    genuine = attention_rows.own_eager

    def watching(module):
        def eager(*args, **options):
            output = genuine(module)(*args, **options)
            computed.append(output[1].shape[2])
            return output

        return eager

    def keeping(self, module, weights, keep=attention_rows._Reader.keep):
        keep(self, module, weights)
        kept.append(self.rows.prompt[len(self.rows.prompt) - 1].shape)

    samples = [Sample(str(n), pictures[0], query) for n, query in enumerate(QUERIES)]
    collector = AttentionCollector(bundle)
    list(collector.collect(samples))
    monkeypatch.setattr(attention_rows, "own_eager", watching)
    monkeypatch.setattr(attention_rows._Reader, "keep", keeping)
    list(collector.collect(samples))
    assert computed == [len(QUERIES)] * tiny.LAYERS
    assert kept == [(1, tiny.HEADS, len(QUERIES), 16)] * tiny.LAYERS


def test_model_is_left_as_it_was(bundle, samples):
    language_model = bundle.model.model.language_model
    layers = list(language_model.layers)
    collect(bundle, samples[:2], stop_layer=1)
    assert list(language_model.layers) == layers
    assert language_model.config._attn_implementation == "sdpa"
    assert not any("forward" in vars(layer.self_attn) for layer in layers)
    assert not any(module._forward_pre_hooks for layer in layers for module in layer.modules())


# Early exit ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop_layer", range(tiny.LAYERS))
def test_early_exit_gives_the_same_rows_of_fewer_layers(stop_layer, bundle, samples):
    whole = collect(bundle, samples[:4], batch_size=2)
    part = collect(bundle, samples[:4], batch_size=2, stop_layer=stop_layer)
    for one, other in zip(whole, part):
        assert other.num_layers == stop_layer + 1
        assert np.abs(one.attention[: stop_layer + 1] - other.attention).max() < 1e-6
        assert (other.meta["num_layers"], other.meta["stop_layer"]) == (tiny.LAYERS, stop_layer)


def test_layers_above_do_not_run(bundle, samples, monkeypatch):
    def fail(*args, **options):
        raise AssertionError("this layer must not run")

    monkeypatch.setattr(bundle.model.model.language_model.layers[2], "forward", fail)
    assert isinstance(collect(bundle, samples[:1], stop_layer=1)[0], CollectedAttention)


# Failures -----------------------------------------------------------------------------------------------------------


def test_bad_samples_do_not_end_the_run(bundle, pictures, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_text("no picture")
    samples = [
        Sample("missing", str(tmp_path / "nowhere.png"), "dog"),
        Sample("good", pictures[0], "dog"),
        Sample("broken", str(broken), "dog"),
        Sample("two images", pictures[0], "<image> and <image> dog"),
        Sample("no text after", pictures[0], "dog <image>"),
        Sample("too long", pictures[0], " ".join(["dog"] * 700)),
        Sample("also good", pictures[0], "cat"),
    ]
    results = collect(bundle, samples, batch_size=2)
    assert [result.sample for result in results] == samples
    reasons = {result.sample.id: result.reason for result in results if isinstance(result, CollectionFailure)}
    assert set(reasons) == {"missing", "broken", "two images", "no text after", "too long"}
    assert "which is not there" in reasons["missing"]
    assert "no image" in reasons["broken"]
    assert "at most once, but got 2" in reasons["two images"]
    assert "prompt to end with text" in reasons["no text after"]
    assert "to fit into the 640 positions of the model" in reasons["too long"]
    assert_close([results[1], results[6]], bundle, [samples[1], samples[6]])


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        pytest.param(MemoryError(), "MemoryError", id="memory"),
        pytest.param(RuntimeError("odd\nin lines"), "RuntimeError while the row was prepared: odd in lines", id="odd"),
        pytest.param(KeyError("size"), "KeyError while the row was prepared: no key 'size'", id="key"),
        pytest.param(OSError(5, "Input/output error"), "[Errno 5] Input/output error", id="read"),
    ],
)
@pytest.mark.parametrize("where", ["picture", "prompt"])
def test_whatever_happens_while_a_row_is_prepared_costs_that_row(where, error, reason, bundle, pictures, monkeypatch):
    samples = [Sample("bad", pictures[0], "dog"), Sample("good", pictures[where == "picture"], "cat")]
    encode_picture = type(bundle).encode_picture

    def load(path):
        if where == "picture" and path == pictures[0]:
            raise error
        return load_image(path)

    def encode(self, image, queries):
        if where == "prompt" and "dog" in queries:
            raise error
        return encode_picture(self, image, queries)

    monkeypatch.setattr(preparing, "load_image", load)
    monkeypatch.setattr(type(bundle), "encode_picture", encode)
    bad, good = collect(bundle, samples)
    assert (bad.sample, bad.reason) == (samples[0], reason)
    assert_close([good], bundle, [samples[1]])


def test_lone_surrogate_costs_its_row(bundle, pictures):
    samples = [Sample("bad", pictures[0], "the \ud800 bird"), Sample("good", pictures[0], "dog")]
    bad, good = collect(bundle, samples)
    assert isinstance(bad, CollectionFailure)
    assert bad.reason.isprintable()
    assert_close([good], bundle, [samples[1]])


def test_overflow_is_a_failure_that_names_the_layer(bundle, samples, monkeypatch):
    parameters = bundle.model.model.language_model.layers[2].self_attn.q_proj._parameters
    monkeypatch.setitem(parameters, "weight", torch.full_like(parameters["weight"], float("nan")))
    (result,) = collect(bundle, samples[:1])
    assert isinstance(result, CollectionFailure)
    assert "NaN or inf" in result.reason
    assert "first layer 2 head 0" in result.reason
    assert "bfloat16 or float32" in result.reason


def limit_memory(monkeypatch, bundle, largest):
    """Prefills of more pictures, or forwards of more query tokens, than `largest` run out of memory."""
    genuine = bundle.model.model.language_model.forward
    pictures, tokens = largest

    prefix = len(bundle.encode("dog").prefix_ids)

    def limited(*args, **options):
        states = options.get("inputs_embeds")
        size = states.shape[0] if states is not None else options["input_ids"].shape[1]
        # A query with a forward of its own brings the prefix along.
        alone = states is not None and states.shape[1] - prefix > tokens
        if alone or size > (pictures if states is not None else tokens):
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return genuine(*args, **options)

    monkeypatch.setattr(bundle.model.model.language_model, "forward", limited)


def test_batch_is_halved_when_memory_runs_out(bundle, samples, monkeypatch, caplog):
    expected = collect(bundle, samples, batch_size=3)
    limit_memory(monkeypatch, bundle, (1, 15))
    with caplog.at_level(logging.WARNING):
        results = collect(bundle, samples, batch_size=3)
    assert caplog.text.count("Out of memory: going on with 1 images at a time") >= 1
    failed = [result for result in results if isinstance(result, CollectionFailure)]
    assert {result.sample.query for result in failed} == {QUERIES[3]}
    assert "one image with one query to fit into the memory of cpu" in failed[0].reason
    for one, other in zip(results, expected):
        assert one.sample == other.sample
        if isinstance(one, CollectedAttention):
            assert np.abs(one.attention - other.attention).max() < 1e-5


def test_other_errors_are_not_taken_for_memory(bundle, samples, monkeypatch):
    def fail(*args, **options):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(bundle.model.model.language_model, "forward", fail)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        collect(bundle, samples[:1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size to be at least 1, but got 0"),
        ({"stop_layer": 4}, r"stop_layer to be a layer of the model \(0 to 3\), but got 4"),
        ({"stop_layer": 1, "use_generate": True}, "no early exit together with model.use_generate"),
    ],
)
def test_options_are_checked(bundle, options, message):
    with pytest.raises(ValueError, match=message):
        AttentionCollector(bundle, **options)


# Generate mode ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"do_sample": True}, {"do_sample": True, "num_beams": 2}])
def test_first_generated_step_is_the_forward_row(options, bundle, samples):
    results = collect(bundle, samples[:3], use_generate=True, max_new_tokens=4, **options)
    assert_close(results, bundle, samples[:3])
    for result in results:
        assert result.meta["attention_source"] == "generate"
        assert isinstance(result.meta["generated_text"], str)
    beams = options.get("num_beams", 1)
    assert results[0].meta.get("beam") == (f"0 of {beams}; all are equal at the first step" if beams > 1 else None)


def test_generated_text_is_the_answer_alone(bundle, samples, monkeypatch):
    genuine = bundle.model.generate

    def answering(**options):
        outputs = genuine(**options)
        answer = torch.tensor([bundle.tokenizer("a cat", add_special_tokens=False).input_ids + [2]])
        outputs["sequences"] = torch.cat([options["input_ids"], answer], dim=1)
        return outputs

    monkeypatch.setattr(bundle.model, "generate", answering)
    (result,) = collect(bundle, samples[:1], use_generate=True, max_new_tokens=2)
    assert result.meta["generated_text"] == "a cat"


def test_answers_follow_the_number_of_tokens_allowed(bundle, samples, monkeypatch):
    lengths = []
    genuine = bundle.model.generate

    def counting(**options):
        outputs = genuine(**options)
        lengths.append(outputs.sequences.shape[1] - options["input_ids"].shape[1])
        return outputs

    monkeypatch.setattr(bundle.model, "generate", counting)
    collect(bundle, samples[:1], use_generate=True, max_new_tokens=1)
    collect(bundle, samples[:1], use_generate=True, max_new_tokens=5)
    assert lengths[0] == 1
    assert 1 < lengths[1] <= 5


def test_without_attentions_forward_mode_is_used_and_said(bundle, samples, monkeypatch, caplog):
    def elsewhere(**options):
        """A loop of its own that never runs the modules that are read."""
        return SimpleNamespace(sequences=torch.cat([options["input_ids"], torch.tensor([[5, 2]])], dim=1))

    monkeypatch.setattr(bundle.model, "generate", elsewhere)
    with caplog.at_level(logging.WARNING):
        results = collect(bundle, samples[:2], use_generate=True, max_new_tokens=2)
    assert_close(results, bundle, samples[:2])
    assert results[0].meta["attention_source"] == "forward (generate returned no attentions)"
    assert "forward mode is used" in caplog.text


def test_room_for_the_answer_is_counted(bundle, pictures):
    (result,) = collect(bundle, [Sample("a", pictures[0], "dog")], use_generate=True, max_new_tokens=700)
    assert "to fit into the 640 positions" in result.reason


# What is said of a sample -------------------------------------------------------------------------------------------


def test_meta(bundle, pictures, checkpoints):
    import json
    import pickle

    (result,) = collect(bundle, [Sample("a", pictures[0], "the bird.")])
    meta = result.meta
    assert meta["image_size"] == [80, 60] == list(result.image_size_wh)
    assert meta["grid"] == {"rows": 4, "cols": 4, "x0": 0.0, "y0": -10.0, "cell_w": 20.0, "cell_h": 20.0}
    assert (meta["vis_len"], meta["patch_size"]) == (16, 14)
    assert (meta["num_layers"], meta["num_heads"]) == (tiny.LAYERS, tiny.HEADS)
    assert (meta["model_name"], meta["prompt_template"]) == (str(checkpoints["hugging_face"]), "referseg")
    assert (meta["query"], meta["image_file"], meta["id"]) == ("the bird.", pictures[0], "a")
    assert meta["last_prompt_token"] == "."
    assert meta["attention_source"] == "forward"
    assert meta["dtype"] == "float32"
    assert meta["device"].startswith("cpu (model.device=auto")
    assert set(meta["versions"]) == {"torch", "transformers", "tool"}
    assert TokenSegments.from_list(meta["segments"]).image.length == 16
    assert meta["unknown_words"] == []
    assert json.loads(json.dumps(dict(meta))) == pickle.loads(pickle.dumps(dict(meta)))


def test_unknown_words_are_warned_of_once(bundle, pictures, monkeypatch, caplog):
    monkeypatch.setattr(
        "vlm.prompt_encoding.unknown_words", lambda text, tokenizer: ("zebra",) if "zebra" in text else ()
    )
    samples = [Sample(str(n), pictures[0], query) for n, query in enumerate(["zebra", "dog", "a zebra"])]
    with caplog.at_level(logging.WARNING):
        results = collect(bundle, samples)
    assert [result.meta["unknown_words"] for result in results] == [["zebra"], [], ["zebra"]]
    assert [record.message for record in caplog.records] == ["The model does not know 'zebra' (sample '0')"]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_rows_on_a_gpu(checkpoints, samples):
    reference = load_llava(str(checkpoints["original"]), device="cpu")
    bundle = load_llava(str(checkpoints["original"]))
    assert bundle.dtype == torch.float16
    for result, sample in zip(collect(bundle, samples, batch_size=2), samples):
        assert np.abs(result.attention - plain_forward(reference, sample)).max() < 0.02
