"""Loads a checkpoint's tokenizer and holds it to what the checkpoint's own files say."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Callable, Optional

from llava.mm_utils import adds_bos, opens_with_bos, piece_ids
from llava.model.checkpoint_files import CheckpointFiles

logger = logging.getLogger(__name__)

# A newline at either end, a leading blank, capitals, a run of blanks: where tokenizers of one vocabulary differ.
PROBES = ("A chat about Pictures.\n", "\nThe bird on it", " a Bird", "\n two  blanks.")

Reference = Callable[[str], "list[int]"]
Repairs = Callable[[Any], "Iterator[Callable[[], None]]"]


def load_tokenizer(files: CheckpointFiles, *, original: bool) -> Any:
    """Load a tokenizer and check it on a few sentences; what differs from the checkpoint's files is put right.

    Args:
        files: The checkpoint.
        original: Whether it is in LLaVA's own format, whose config.json transformers does not understand.

    Raises:
        ValueError: If there is none, it cannot be read, or it cannot be put right.
    """
    if files.find("tokenizer.json") is None:
        files.require("tokenizer.model")
    settings = files.json("tokenizer_config.json")
    try:
        tokenizer = _from_pretrained(files, settings, original)
    except Exception as error:  # each kind of tokenizer raises errors of its own on broken files
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"Expected the tokenizer of {files.name!r} (tokenizer.json or tokenizer.model, tokenizer_config.json) "
            f"to be readable, but got: {type(error).__name__}: {reason}. Fetch these files again."
        ) from error
    wants_bos = opens_with_bos(settings, is_llama=original or "tokenizer_class" in settings)
    if wants_bos is not None:
        _correct_bos(tokenizer, files.name, wants_bos)
    _correct_ids(tokenizer, files)
    return tokenizer


def check_vocabulary(tokenizer: Any, name: str, rows: int) -> None:
    """Refuse a tokenizer that was not made for a model.

    Args:
        tokenizer: The loaded tokenizer.
        name: Of the checkpoint.
        rows: Tokens that the model knows, the image's left out where it was added.

    Raises:
        ValueError: If its ids go beyond the model's, or take less than half of them.
    """
    pieces = int(tokenizer.vocab_size)
    largest = max(max(piece_ids(probe, tokenizer), default=0) for probe in PROBES)
    if pieces > rows or largest >= rows or 2 * pieces < rows:
        raise ValueError(
            f"Expected the tokenizer of {name!r} to be that of its model, whose config.json has vocab_size {rows}, "
            f"but got one of {pieces} tokens. Put the checkpoint's own tokenizer files there."
        )


def _from_pretrained(files: CheckpointFiles, settings: Mapping[str, Any], original: bool) -> Any:
    from transformers import AutoTokenizer, LlamaConfig, LlamaTokenizerFast

    place = {"cache_dir": files.cache_dir, "revision": files.revision}
    if not original:
        return AutoTokenizer.from_pretrained(files.directory, **place)
    if "tokenizer_class" not in settings:
        return LlamaTokenizerFast.from_pretrained(files.directory, **place)
    # AutoTokenizer looks into config.json unless it is handed one, and LLaVA's would mislead it.
    return AutoTokenizer.from_pretrained(files.directory, **place, config=LlamaConfig())


# Beginning of sequence ------------------------------------------------------------------------------------------------


def _correct_bos(tokenizer: Any, name: str, wanted: bool) -> None:
    """Make sequences open with BOS, or not, as the settings say; transformers 5 does not always."""
    for correct in (_leave, _set_add_bos_token, _set_template):
        correct(tokenizer, wanted)
        if adds_bos(tokenizer) == wanted:
            return
    raise ValueError(
        f"Expected the tokenizer of {name!r} to {'begin' if wanted else 'not begin'} every sequence with BOS, as its "
        f"tokenizer_config.json says (add_bos_token), but got one that cannot (bos_token {tokenizer.bos_token!r}). "
        "Mend bos_token or add_bos_token there."
    )


def _leave(tokenizer: Any, wanted: bool) -> None:
    """Nothing needs to be done to most."""


def _set_add_bos_token(tokenizer: Any, wanted: bool) -> None:
    tokenizer.add_bos_token = wanted


def _set_template(tokenizer: Any, wanted: bool) -> None:
    """Write the template that opens sequences, for tokenizers without a setting for it."""
    from tokenizers import processors

    if tokenizer.is_fast and tokenizer.bos_token is not None:
        bos = f"{tokenizer.bos_token}:0 " if wanted else ""
        special = [(tokenizer.bos_token, tokenizer.bos_token_id)] if wanted else []
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos}$A:0", pair=f"{bos}$A:0 {bos.replace(':0', ':1')}$B:1", special_tokens=special
        )


# Ids ------------------------------------------------------------------------------------------------------------------


def _correct_ids(tokenizer: Any, files: CheckpointFiles) -> None:
    """Compare ids with those of the checkpoint's own file, and take over how that file treats blanks if they differ."""
    file, reference, repairs = _reference(files)
    if file is None or _first_difference(tokenizer, reference) is None:
        return
    for repair in repairs(tokenizer):
        repair()
        if _first_difference(tokenizer, reference) is None:
            logger.warning("The tokenizer of %s did not follow its %s and was put right", files.name, file.name)
            return
    import transformers

    probe = _first_difference(tokenizer, reference) or ""
    raise ValueError(
        f"Expected the tokenizer of {files.name!r} to give the ids {reference(probe)} of {file} for {probe!r}, "
        f"but got {piece_ids(probe, tokenizer)} under transformers {transformers.__version__}. "
        "Fetch its tokenizer files again, or use transformers 4.57."
    )


def _first_difference(tokenizer: Any, reference: Reference) -> Optional[str]:
    """The first probe whose ids are others than the reference's."""
    return next((probe for probe in PROBES if piece_ids(probe, tokenizer) != reference(probe)), None)


def _reference(files: CheckpointFiles) -> tuple[Optional[Path], Reference, Repairs]:
    """The file that decides, SentencePiece's where there is one; how it tokenises; and what may bring others to it."""
    model, exported = files.find("tokenizer.model"), files.find("tokenizer.json")
    encode = None if model is None else _sentencepiece(model, required=exported is None)
    if model is not None and encode is not None:
        return model, encode, _sentencepiece_repairs
    if exported is None:
        return None, _nothing, _sentencepiece_repairs
    from tokenizers import Tokenizer

    stored = Tokenizer.from_file(str(exported))

    def by_file(text: str) -> list[int]:
        one, spaced = (stored.encode(word, add_special_tokens=False) for word in ("a", " a"))
        swallows = bool(one.tokens) and one.tokens[0].startswith("▁") and one.ids == spaced.ids
        padded = f" {text}" if swallows and text.startswith(" ") else text
        return list(stored.encode(padded, add_special_tokens=False).ids)

    return exported, by_file, lambda other: iter([lambda: _take_over(other.backend_tokenizer, stored)])


def _sentencepiece(path: Path, *, required: bool) -> Optional[Reference]:
    """SentencePiece itself on a tokenizer.model; None where it is of another kind and not needed."""
    from sentencepiece import SentencePieceProcessor

    try:
        processor = SentencePieceProcessor(model_file=str(path))
    except (RuntimeError, OSError) as error:
        if required:
            raise ValueError(
                f"Expected {path} to be a SentencePiece model, but got another file. Fetch it again."
            ) from error
        return None
    return lambda text: list(processor.encode(text))


def _sentencepiece_repairs(tokenizer: Any) -> Iterator[Callable[[], None]]:
    """Ways to write blanks as SentencePiece does: every text gets one in front, all become `▁`."""
    from tokenizers import normalizers, pre_tokenizers

    if not tokenizer.is_fast:
        return
    backend = tokenizer.backend_tokenizer

    def in_pieces() -> None:
        backend.normalizer = normalizers.Sequence([])
        backend.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)

    def in_text() -> None:
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.pre_tokenizer = pre_tokenizers.Sequence([])

    yield in_pieces
    yield in_text


def _take_over(backend: Any, stored: Any) -> None:
    for part in ("normalizer", "pre_tokenizer"):
        value = getattr(stored, part)
        if value is not None:
            setattr(backend, part, value)


def _nothing(text: str) -> list[int]:
    return []
