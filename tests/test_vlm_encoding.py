"""What a picture and queries become: tokens, segments and places, in every family."""

from __future__ import annotations

import pytest
import torch
import transformers

from tests.tiny_families import FAMILIES, OLDEST
from tests.tiny_families.loading import encode, load, picture
from vlm.bundle import EncodedPicture, EncodingFailure

IS_OLD = int(transformers.__version__.split(".")[0]) < 5
NAMES = OLDEST if IS_OLD else tuple(FAMILIES)
QUERIES = ("find the red cat", "the ball")


@pytest.mark.parametrize("conv_mode", ["chat", "plain"])
@pytest.mark.parametrize("name", NAMES)
def test_prompts_end_with_the_query_in_every_family(name, conv_mode):
    bundle = load(name, conv_mode)
    encoded = encode(bundle, *QUERIES)
    for query, text in zip(encoded.queries, QUERIES):
        assert query.text.endswith(text)
        [own] = query.segments.named("query")
        assert bundle.tokenizer.decode(list(query.ids)).strip() == text
        assert own.start == len(encoded.prefix_ids)
        assert query.segments.segments[-1] is own
        assert query.segments.length == own.end
        assert list(encoded.prefix_ids).count(bundle.tokenizer.bos_token_id) <= 1
    system = encoded.queries[0].segments.named("system")
    assert bool(system and "user" in "".join(system[0].tokens).replace("Ġ", "")) == (conv_mode == "chat")


@pytest.mark.parametrize("name", NAMES)
def test_image_tokens_lie_where_the_features_go(name):
    """Features of another picture change the embeddings of exactly these tokens."""
    from vlm.image_features import image_features

    bundle = load(name)
    encoded = encode(bundle)
    inputs = bundle.encoder.run(picture(), QUERIES[0])
    with torch.no_grad():
        features = image_features(bundle.model, inputs, bundle.encoder.image_ids)
        others = image_features(bundle.model, bundle.encoder.run(picture(seed=1), QUERIES[0]), bundle.encoder.image_ids)
    assert len(features) == encoded.regions.num_tokens
    moved = (features - others).abs().amax(dim=-1) > 0
    cells = torch.zeros(len(features), dtype=torch.bool)
    for region in encoded.regions.regions:
        cells[torch.as_tensor(region.token_of).flatten()] = True
    assert moved[cells].all()
    if name != "mllama":  # its tiles that the picture does not fill are encoded too
        assert not moved[~cells].any()


def test_queries_share_a_prefix_and_keep_their_numbers():
    bundle = load("llava")
    image_token = bundle.tokenizer.convert_ids_to_tokens(sorted(bundle.encoder.image_ids))[0]
    found = bundle.encode_picture(picture(), [QUERIES[0], f"a {image_token} b", "  ", QUERIES[1]])
    [encoded] = [entry for entry in found if isinstance(entry, EncodedPicture)]
    assert [query.number for query in encoded.queries] == [0, 3]
    failures = [entry for entry in found if isinstance(entry, EncodingFailure)]
    assert [failure.number for failure in failures] == [1, 2]
    assert "Expected a query without the image's own token" in failures[0].reason


def test_unknown_words_are_named():
    assert encode(load("llava"), "the xylophone cat").queries[0].unknown_words == ("xylophone",)


@pytest.mark.skipif(IS_OLD, reason="needs a newer transformers")
def test_what_a_processor_puts_behind_the_query_is_left_out():
    bundle = load("paligemma", "plain")
    whole = bundle.encoder.run(picture(), QUERIES[0])["input_ids"][0].tolist()
    encoded = encode(bundle)
    assert whole[:-1] == [*encoded.prefix_ids, *encoded.queries[0].ids]
    assert bundle.tokenizer.convert_ids_to_tokens(whole[-1]) == "\n"


def test_a_processor_that_rewrites_the_query_is_refused(monkeypatch):
    bundle = load("llava")
    genuine = bundle.encoder.run

    def rewriting(image, query):
        return genuine(image, "dog " + query.upper())

    bundle.encoder.token_keys  # noqa: B018 - found before the processor is replaced
    monkeypatch.setattr(bundle.encoder, "run", rewriting)
    [failure] = bundle.encode_picture(picture(), [QUERIES[0]])
    assert "to end with the query's 4 tokens" in failure.reason


def test_a_rule_that_does_not_account_for_the_tokens_is_refused(monkeypatch):
    from vlm import families

    bundle = load("llava")
    short = families.Region("whole", families.covering(200, 130, 3, 5), families.row_major(3, 5))
    monkeypatch.setitem(families.RULES, "llava", lambda facts: [short])
    [failure] = bundle.encode_picture(picture(), [QUERIES[0]])
    assert "Expected the grid rule of llava to account for the image's 16 tokens, but got 15 cells" in failure.reason


def test_what_a_processor_cannot_lay_out_is_said_in_one_line(monkeypatch):
    bundle = load("llava")
    kind = type(bundle.processors.processor)

    def refuse(self, *arguments, **settings):
        raise ValueError("Mismatch in `image` token count.\nPlease disable truncation.")

    monkeypatch.setattr(kind, "__call__", refuse)
    with pytest.raises(
        ValueError, match="^Expected the checkpoint's processor to lay out .*Mismatch.*conv_mode"
    ) as error:
        bundle.encoder.run(picture(), "the cat")
    assert "\n" not in str(error.value)
