"""The words that the picture-book LLaVA knows, and its word-level tokenizer."""

from __future__ import annotations

import re
from pathlib import Path

from llava.constants import IMAGE_TOKEN
from llava.conversation import get_template
from picturebook.expressions import all_words

PAD, BOS, EOS, UNKNOWN = "<pad>", "<s>", "</s>", "<unk>"
SPECIAL_TOKENS = (PAD, BOS, EOS, UNKNOWN, IMAGE_TOKEN)


def vocabulary() -> dict[str, int]:
    """Map each token to its index: special tokens, the newline, the prompt's words, then the world's words."""
    words = sorted({*split_words("".join(prompt_frame())), *all_words()} - {"\n"})
    return {token: index for index, token in enumerate([*SPECIAL_TOKENS, "\n", *words])}


def split_words(text: str) -> list[str]:
    """Split as the tokenizer does: lower-case words, punctuation marks and newlines, without spaces."""
    return re.findall(r"\n|\w+|[^\w\s]", text.lower())


def prompt_frame() -> tuple[str, str]:
    """What the `picturebook` prompt puts before the image, and between the image and the query."""
    parts = get_template("picturebook").parts("query")
    image = [part.name for part in parts].index("image")
    after = "".join(part.text for part in parts[image + 1 :])
    return "".join(part.text for part in parts[:image]), after[: after.index("query")]


def save_tokenizer(directory: Path) -> None:
    """Write the tokenizer in Hugging Face format: lower case, one token a word, punctuation and newlines apart."""
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokens = vocabulary()
    tokenizer = Tokenizer(models.WordLevel(tokens, unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split("\n", "isolated"),
            pre_tokenizers.Punctuation("isolated"),
        ]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A {BOS} $B", special_tokens=[(BOS, tokens[BOS])]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNKNOWN,
        clean_up_tokenization_spaces=False,
    )
    fast.save_pretrained(directory)
