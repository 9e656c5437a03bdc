"""Prompt templates: from a query to the text that the model reads, part by part."""

from __future__ import annotations

import contextlib
import difflib
from dataclasses import dataclass, replace
from typing import Callable

from llava.constants import IM_END_TOKEN, IM_START_TOKEN, IMAGE_PLACEHOLDER, IMAGE_TOKEN

# Word for word the system text that the authors of arXiv 2503.06287 found their heads with, in their public code.
REFERSEG_SYSTEM = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
HUMAN_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
USER_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
LLAMA_2_SYSTEM = (
    "You are a helpful, respectful and honest assistant. Always answer as helpfully as possible, while being safe.  "
    "Your answers should not include any harmful, unethical, racist, sexist, toxic, dangerous, or illegal content. "
    "Please ensure that your responses are socially unbiased and positive in nature.\n\n"
    "If a question does not make any sense, or is not factually coherent, explain why instead of answering something "
    "not correct. If you don't know the answer to a question, please don't share false information."
)
CHATML_SYSTEM = "Answer the questions."


@dataclass(frozen=True)
class PromptPart:
    """A piece of prompt text that is one thing.

    Attributes:
        name: `system`, `role`, `image` or `query`, as in `lab.stations`.
        text: The text; for the image `<image>`.
    """

    name: str
    text: str


@dataclass(frozen=True)
class PromptTemplate:
    """A published prompt format with one question and no answer yet.

    Attributes:
        key: Its name in `model.conv_mode`.
        system: The system sentence, or nothing.
        user_role: What the one who asks is called.
        assistant_role: What the one who answers is called.
        frame: Turns the template into what stands before the question and after it.
    """

    key: str
    system: str
    user_role: str
    assistant_role: str
    frame: Callable[[PromptTemplate], tuple[list[PromptPart], list[PromptPart]]]

    def with_roles(self, user: str, assistant: str) -> PromptTemplate:
        """The same template with other role names."""
        return replace(self, user_role=user, assistant_role=assistant)

    def parts(self, query: str, *, use_im_start_end: bool = False) -> tuple[PromptPart, ...]:
        """Lay out a query.

        The image comes first, followed by a newline, unless the query says where it goes.

        Args:
            query: The referring expression; one `<image>` or `<image-placeholder>` in it places the image.
            use_im_start_end: Whether the image stands between `<im_start>` and `<im_end>`.

        Returns:
            The parts in order, none of them empty, exactly one of them the image.

        Raises:
            ValueError: If the query places the image more than once, or says nothing else.
        """
        before, after = self.frame(self)
        parts = [*before, *_question(query, use_im_start_end), *after]
        return tuple(part for part in parts if part.text)

    def prompt(self, query: str, *, use_im_start_end: bool = False) -> str:
        """The whole prompt as text, `<image>` standing for the image."""
        return "".join(part.text for part in self.parts(query, use_im_start_end=use_im_start_end))


def get_template(key: str) -> PromptTemplate:
    """Look up a template.

    Args:
        key: Value of `model.conv_mode`.

    Raises:
        ValueError: If there is none of that name; the known ones are listed.
    """
    if key in TEMPLATES:
        return TEMPLATES[key]
    near = difflib.get_close_matches(key, TEMPLATES, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"Expected model.conv_mode to be one of {', '.join(TEMPLATES)}, but got {key!r}.{hint}")


def template_of_prompt(prompt: str, query: str) -> str | None:
    """Which template made a prompt, told by its words.

    A name can come to mean other words: files from before `referseg` was the published prompt say `referseg` and hold
    what is called `picturebook` now.

    Args:
        prompt: The whole prompt, `<image>` standing for the image, as stored in `meta`.
        query: The query in it.

    Returns:
        Key of the template, the first where several say the same; None if no template makes this prompt.
    """
    for key, template in TEMPLATES.items():
        with contextlib.suppress(ValueError):
            if template.prompt(query) == prompt:
                return key
    return None


def _question(query: str, use_im_start_end: bool) -> list[PromptPart]:
    """The query with its image."""
    text = query.replace(IMAGE_PLACEHOLDER, IMAGE_TOKEN)
    before, *rest = text.split(IMAGE_TOKEN)
    if len(rest) > 1:
        raise ValueError(
            f"Expected the query to place the image at most once, but got {len(rest)} times {IMAGE_TOKEN} in {query!r}."
        )
    if not text.replace(IMAGE_TOKEN, "").strip():
        raise ValueError(f"Expected the query to say what to look for, but got only {query!r}.")
    image = [PromptPart("image", IMAGE_TOKEN)]
    if use_im_start_end:
        image = [PromptPart("role", IM_START_TOKEN), *image, PromptPart("role", IM_END_TOKEN)]
    if rest:
        return [PromptPart("query", before), *image, PromptPart("query", rest[0])]
    return [*image, PromptPart("role", "\n"), PromptPart("query", before)]


def _system_on_its_own_line(template: PromptTemplate) -> tuple[list[PromptPart], list[PromptPart]]:
    return [PromptPart("system", template.system + "\n")], []


def _nothing_but_a_newline(template: PromptTemplate) -> tuple[list[PromptPart], list[PromptPart]]:
    return [], [PromptPart("role", "\n")]


def _hash_separated(template: PromptTemplate) -> tuple[list[PromptPart], list[PromptPart]]:
    before = [PromptPart("system", template.system + "###"), PromptPart("role", template.user_role + ": ")]
    return before, [PromptPart("role", "###" + template.assistant_role + ":")]


def _space_separated(template: PromptTemplate) -> tuple[list[PromptPart], list[PromptPart]]:
    before = [PromptPart("system", template.system + " "), PromptPart("role", template.user_role + ": ")]
    return before, [PromptPart("role", " " + template.assistant_role + ":")]


def _in_brackets(template: PromptTemplate) -> tuple[list[PromptPart], list[PromptPart]]:
    system = f"<<SYS>>\n{template.system}\n<</SYS>>\n\n" if template.system else ""
    return [PromptPart("role", "[INST] "), PromptPart("system", system)], [PromptPart("role", " [/INST]")]


def _chat_markup(template: PromptTemplate) -> tuple[list[PromptPart], list[PromptPart]]:
    before = [
        PromptPart("system", f"<|im_start|>system\n{template.system}<|im_end|>"),
        PromptPart("role", f"<|im_start|>{template.user_role}\n"),
    ]
    return before, [PromptPart("role", f"<|im_end|><|im_start|>{template.assistant_role}\n")]


_V1 = PromptTemplate("v1", USER_SYSTEM, "USER", "ASSISTANT", _space_separated)

TEMPLATES: dict[str, PromptTemplate] = {
    template.key: template
    for template in (
        PromptTemplate("referseg", REFERSEG_SYSTEM, "", "", _system_on_its_own_line),
        # What the picture-book model was trained with, under the name of `referseg` at the time.
        PromptTemplate("picturebook", HUMAN_SYSTEM, "", "", _system_on_its_own_line),
        PromptTemplate("plain", "", "", "", _nothing_but_a_newline),
        # Vicuna's v0 opens with a worked example on energy; LLaVA's own v0, meant here, does not.
        PromptTemplate("v0", HUMAN_SYSTEM, "Human", "Assistant", _hash_separated),
        _V1,
        replace(_V1, key="vicuna_v1"),
        PromptTemplate("llama_2", LLAMA_2_SYSTEM, "", "", _in_brackets),
        PromptTemplate("mistral_instruct", "", "", "", _in_brackets),
        PromptTemplate("chatml_direct", CHATML_SYSTEM, "user", "assistant", _chat_markup),
    )
}
