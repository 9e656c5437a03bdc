from __future__ import annotations

import pytest

from llava.conversation import HUMAN_SYSTEM, LLAMA_2_SYSTEM, TEMPLATES, USER_SYSTEM, get_template, template_of_prompt

QUERY = "the bird on the branch"

# Written out from the published formats, `<image>` standing for the image.
PROMPTS = {
    "referseg": "You are a helpful language and vision assistant. You are able to understand the visual content that "
    "the user provides, and assist the user with a variety of tasks using natural language.\n<image>\n"
    "the bird on the branch",
    "picturebook": "A chat between a curious human and an artificial intelligence assistant. The assistant gives "
    "helpful, detailed, and polite answers to the human's questions.\n<image>\nthe bird on the branch",
    "plain": "<image>\nthe bird on the branch\n",
    "v0": "A chat between a curious human and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the human's questions.###Human: <image>\nthe bird on the branch###Assistant:",
    "v1": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image>\nthe bird on the branch ASSISTANT:",
    "vicuna_v1": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: <image>\nthe bird on the branch ASSISTANT:",
    "llama_2": f"[INST] <<SYS>>\n{LLAMA_2_SYSTEM}\n<</SYS>>\n\n<image>\nthe bird on the branch [/INST]",
    "mistral_instruct": "[INST] <image>\nthe bird on the branch [/INST]",
    "chatml_direct": "<|im_start|>system\nAnswer the questions.<|im_end|><|im_start|>user\n<image>\n"
    "the bird on the branch<|im_end|><|im_start|>assistant\n",
}


def test_every_template_is_written_out_here():
    assert set(PROMPTS) == set(TEMPLATES)


@pytest.mark.parametrize("key", PROMPTS)
def test_prompt_is_the_published_string(key):
    assert get_template(key).prompt(QUERY) == PROMPTS[key]


@pytest.mark.parametrize("key", PROMPTS)
def test_parts_make_up_the_prompt_and_name_query_and_image_once(key):
    parts = get_template(key).parts(QUERY)
    assert "".join(part.text for part in parts) == PROMPTS[key]
    assert [part.text for part in parts if part.name == "query"] == [QUERY]
    assert [part.text for part in parts if part.name == "image"] == ["<image>"]
    assert all(part.text for part in parts)


def test_parts_of_a_template_with_roles():
    names = [(part.name, part.text) for part in get_template("v1").parts(QUERY)]
    assert names == [
        ("system", USER_SYSTEM + " "),
        ("role", "USER: "),
        ("image", "<image>"),
        ("role", "\n"),
        ("query", QUERY),
        ("role", " ASSISTANT:"),
    ]


@pytest.mark.parametrize("mark", ["<image>", "<image-placeholder>"])
def test_query_places_the_image(mark):
    parts = get_template("picturebook").parts(f"in {mark} the bird")
    assert [(part.name, part.text) for part in parts] == [
        ("system", HUMAN_SYSTEM + "\n"),
        ("query", "in "),
        ("image", "<image>"),
        ("query", " the bird"),
    ]


def test_image_marks_surround_the_image():
    assert get_template("plain").prompt(QUERY, use_im_start_end=True) == f"<im_start><image><im_end>\n{QUERY}\n"
    placed = get_template("plain").prompt("see <image> here", use_im_start_end=True)
    assert placed == "see <im_start><image><im_end> here\n"


def test_roles_can_be_named():
    template = get_template("v0").with_roles("Asker", "Helper")
    assert template.prompt("dog").endswith("###Asker: <image>\ndog###Helper:")
    assert get_template("v0").user_role == "Human"


def test_unknown_template_lists_the_known_and_the_nearest():
    with pytest.raises(
        ValueError, match=r"referseg, picturebook, plain, v0, v1, .*but got 'vicuna_1'\. Did you mean 'vicuna_v1'\?"
    ):
        get_template("vicuna_1")
    with pytest.raises(ValueError, match=r"but got 'zzz'\.$"):
        get_template("zzz")


@pytest.mark.parametrize("key", PROMPTS)
def test_a_stored_prompt_tells_its_template(key):
    """Of two names for the same words the first is told."""
    assert template_of_prompt(PROMPTS[key], QUERY) == {"vicuna_v1": "v1"}.get(key, key)


def test_a_prompt_of_no_template_tells_none():
    assert template_of_prompt(PROMPTS["referseg"], "another query") is None
    assert template_of_prompt("see <image> <image>", "<image> <image>") is None


def test_two_images_are_refused():
    with pytest.raises(ValueError, match="place the image at most once, but got 2 times"):
        get_template("referseg").parts("<image> or <image-placeholder>")


def test_query_without_words_is_refused():
    with pytest.raises(ValueError, match="say what to look for"):
        get_template("referseg").parts(" <image> ")
