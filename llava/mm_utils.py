"""From text and picture to what the model takes: tokens with their segments, pixels with their grid."""

from __future__ import annotations

import bisect
import itertools
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np

from lab.records import Grid
from lab.stations import TokenSegment, TokenSegments
from llava.constants import IMAGE_TOKEN
from llava.conversation import PromptPart

if TYPE_CHECKING:
    from PIL import Image

PathLike = Union[str, "Path"]

# Half of a 16-bit grey image's files are opened by Pillow in mode I, which is 32 bits wide.
_SIXTEEN_BIT_MAX = 65535
# Padded pixels that are held at a time: a 1 x 100000 image padded to a square would take 40 GB at once.
_BAND_PIXELS = 16_000_000
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
_BICUBIC = 3


# Prompts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncodedPrompt:
    """A prompt as token ids, the image taking as many of them as the model has visual tokens.

    Attributes:
        text: The prompt, `<image>` standing for the image.
        input_ids: Token ids of the expanded sequence.
        segments: Which of them are what.
        unknown_words: Words that the tokenizer has no token for.
    """

    text: str
    input_ids: tuple[int, ...]
    segments: TokenSegments
    unknown_words: tuple[str, ...]

    @property
    def prefix_ids(self) -> tuple[int, ...]:
        """Everything up to the image's last token: the same for many queries about one image."""
        return self.input_ids[: self.segments.image.end]

    @property
    def suffix_ids(self) -> tuple[int, ...]:
        """Everything after the image; never empty."""
        return self.input_ids[self.segments.image.end :]


def encode_prompt(
    parts: Sequence[PromptPart], tokenizer: Any, *, image_token_id: int, image_token_count: int
) -> EncodedPrompt:
    """Tokenise a prompt as LLaVA was trained: the text before and after the image each on its own, BOS once.

    A SentencePiece tokenizer opens each piece with a lone `▁` where the piece starts with a newline; it stays.

    Args:
        parts: The prompt, as a `llava.conversation.PromptTemplate` lays it out; one part is the image.
        tokenizer: Any transformers tokenizer.
        image_token_id: Id that stands for the image, repeated.
        image_token_count: Number of positions that the image takes.

    Raises:
        ValueError: If nothing follows the image, whose last token would then be the query's row.
    """
    image_index = [part.name for part in parts].index("image")
    before, after = parts[:image_index], parts[image_index + 1 :]
    pieces = [
        *_segment_tokens(before, tokenizer, bos=True),
        ("image", [image_token_id] * image_token_count, [IMAGE_TOKEN]),
        *_segment_tokens(after, tokenizer, bos=False),
    ]
    if pieces[-1][0] == "image":
        raise ValueError(
            "Expected the prompt to end with text, since the last token's attention is read, but got an image at the "
            f"end of {''.join(part.text for part in parts)!r}. Put words after {IMAGE_TOKEN}."
        )
    starts = itertools.accumulate([0, *(len(ids) for _, ids, _ in pieces)])
    segments = [
        TokenSegment(name, start, len(ids), tuple(tokens)) for (name, ids, tokens), start in zip(pieces, starts)
    ]
    return EncodedPrompt(
        text="".join(part.text for part in parts),
        input_ids=tuple(itertools.chain.from_iterable(ids for _, ids, _ in pieces)),
        segments=TokenSegments(tuple(segments)),
        unknown_words=unknown_words("".join(part.text for part in parts if part.name != "image"), tokenizer),
    )


def unknown_words(text: str, tokenizer: Any) -> tuple[str, ...]:
    """Words of a text that the tokenizer can only write as its unknown token, each once, in order."""
    unknown = tokenizer.unk_token_id
    found: dict[str, None] = {}
    if unknown is None or unknown not in _ids(text, tokenizer):
        return ()
    for chunk in text.split():
        word = chunk.strip(string.punctuation)
        for candidate in (word, chunk):
            if candidate and unknown in _ids(candidate, tokenizer):
                found[candidate] = None
                break
    return tuple(found)


def restore_bos(tokenizer: Any, settings: Mapping[str, Any]) -> None:
    """Make a LLaMA tokenizer open sequences with BOS where its settings leave that open.

    Transformers 4 takes it for granted; transformers 5 only does it if tokenizer_config.json or tokenizer.json says so.

    Args:
        tokenizer: Any transformers tokenizer; changed in place.
        settings: Its tokenizer_config.json.
    """
    is_llama = str(settings.get("tokenizer_class", "LlamaTokenizer")).startswith("LlamaTokenizer")
    if is_llama and settings.get("add_bos_token") is None and not _adds_bos(tokenizer):
        tokenizer.add_bos_token = True


def _segment_tokens(
    parts: Sequence[PromptPart], tokenizer: Any, *, bos: bool
) -> list[tuple[str, list[int], list[str]]]:
    """Tokenise the parts as one text and give each token to the part that it ends in."""
    text = "".join(part.text for part in parts)
    ids, owners = _owned_ids(text, list(itertools.accumulate(len(part.text) for part in parts)), tokenizer)
    if bos and _adds_bos(tokenizer):
        ids, owners = [tokenizer.bos_token_id, *ids], [0, *owners]
    names = [part.name for part in parts] or ["system"]
    tokens = tokenizer.convert_ids_to_tokens(ids)
    runs = itertools.groupby(zip(owners, ids, tokens), key=lambda row: row[0])
    return [
        (names[owner], [row[1] for row in rows], [row[2] for row in rows])
        for owner, rows in ((owner, list(group)) for owner, group in runs)
    ]


def _owned_ids(text: str, part_ends: list[int], tokenizer: Any) -> tuple[list[int], list[int]]:
    """Token ids of a text, and for each the index of the part that its last character lies in."""
    if not text:
        return [], []
    last_part = len(part_ends) - 1
    if tokenizer.is_fast:
        extra = " " if text.startswith(" ") and _swallows_leading_space(tokenizer) else ""
        encoded = tokenizer(extra + text, add_special_tokens=False, return_offsets_mapping=True)
        ids = list(encoded["input_ids"])
        borders, places = part_ends, [max(start, end - 1) - len(extra) for start, end in encoded["offset_mapping"]]
    else:
        # Without offsets, the tokens of the text up to a border tell how many lie before it.
        ids = _ids(text, tokenizer)
        borders, places = [len(_ids(text[:end], tokenizer)) for end in part_ends], list(range(len(ids)))
    return ids, [min(bisect.bisect_right(borders, place), last_part) for place in places]


def _ids(text: str, tokenizer: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _swallows_leading_space(tokenizer: Any) -> bool:
    """Whether a text's leading space is taken for the one that SentencePiece puts before every text, and lost.

    Fast LLaMA tokenizers do so; SentencePiece itself, which LLaVA was trained with, writes both.
    """
    ids = _ids("a", tokenizer)
    return tokenizer.convert_ids_to_tokens(ids)[0].startswith("▁") and ids == _ids(" a", tokenizer)


def _adds_bos(tokenizer: Any) -> bool:
    """Whether this tokenizer opens every sequence with BOS."""
    bos = tokenizer.bos_token_id
    return bos is not None and list(tokenizer("a")["input_ids"])[:1] == [bos]


# Pictures -----------------------------------------------------------------------------------------------------------


def load_image(path: PathLike) -> Image.Image:
    """Read a picture as RGB, upright.

    EXIF rotation is applied; transparency is laid over white; 16-bit and float grey levels are scaled to 8 bits; of an
    animation the first frame is taken.

    Args:
        path: An image file of any format that Pillow reads.

    Raises:
        ValueError: If the file is missing or broken.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    file = Path(path)
    if not file.is_file():
        raise ValueError(f"Expected the image to be a file, but got {str(path)!r}, which is not there.")
    try:
        with Image.open(file) as opened:
            opened.load()
            return _to_rgb(ImageOps.exif_transpose(opened))
    except UnidentifiedImageError:
        reason = "a file that is no image"
    except Image.DecompressionBombError as error:
        reason = f"one too large to open safely ({error})"
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        # Pillow's decoders raise any of these on damaged files.
        reason = f"a broken file ({error})"
    raise ValueError(f"Expected {str(path)!r} to be a readable image, but got {reason}.")


def _to_rgb(image: Image.Image) -> Image.Image:
    from PIL import Image

    if image.mode.startswith("I") or image.mode == "F":
        return _grey_levels_to_8_bits(image)
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, (255, 255, 255, 255))
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _grey_levels_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale integer levels from 16 bits, float levels from their own range of 0 to 1, 255 or 65535."""
    from PIL import Image

    levels = np.nan_to_num(np.asarray(image, dtype=np.float64)).clip(min=0)
    top = _SIXTEEN_BIT_MAX
    if image.mode == "F":
        top = next((limit for limit in (1, 255) if levels.max(initial=0) <= limit), _SIXTEEN_BIT_MAX)
    grey = np.rint(levels.clip(max=top) * (255 / top)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


@dataclass(frozen=True)
class ImageRule:
    """How an image processor makes the model's input: pad, resize, crop, scale, in this order.

    Attributes:
        pad_to_square: Whether the image is first centred on a square of its longer side, filled with the mean colour.
        resize: Length of the short side, or (height, width), or None to keep the size.
        crop_hw: Size of the central crop, or None for no crop.
        resample: Pillow's number of the resampling filter.
        rescale_factor: What the levels 0 to 255 are multiplied with.
        mean: Subtracted from each channel.
        std: What each channel is then divided by.
    """

    pad_to_square: bool
    resize: int | tuple[int, int] | None
    crop_hw: tuple[int, int] | None
    resample: int = _BICUBIC
    rescale_factor: float = 1 / 255
    mean: tuple[float, ...] = _CLIP_MEAN
    std: tuple[float, ...] = _CLIP_STD

    @classmethod
    def from_config(cls, config: Mapping[str, Any], *, pad_to_square: bool | None = None) -> ImageRule:
        """Read a `preprocessor_config.json`.

        Args:
            config: Its content.
            pad_to_square: Overrides the file, for checkpoints that say so elsewhere.

        Raises:
            ValueError: If the processor is of a kind whose geometry is not known here.
        """
        kind = _processor_kind(config)
        values = {**_PROCESSOR_DEFAULTS[kind], **{key: value for key, value in config.items() if value is not None}}
        if pad_to_square is None:
            # Only LLaVA's own processor knows padding; CLIP's ignores the key.
            pad_to_square = kind == "LlavaImageProcessor" and bool(values.get("do_pad"))
        normalize, rescale = values["do_normalize"], values["do_rescale"]
        return cls(
            pad_to_square=pad_to_square,
            resize=_resize_target(values["size"], square=kind in _SQUASHING) if values["do_resize"] else None,
            crop_hw=_height_width(values["crop_size"]) if values["do_center_crop"] else None,
            resample=int(values["resample"]),
            rescale_factor=float(values["rescale_factor"]) if rescale else 1.0,
            mean=tuple(values["image_mean"]) if normalize else (0.0, 0.0, 0.0),
            std=tuple(values["image_std"]) if normalize else (1.0, 1.0, 1.0),
        )

    @property
    def background(self) -> tuple[int, ...]:
        """Colour of the padding, levels 0 to 255, cut off as LLaVA does."""
        return tuple(int(value * 255) for value in self.mean)


_CLIP_DEFAULTS: dict[str, Any] = {
    "do_resize": True,
    "size": {"shortest_edge": 224},
    "resample": _BICUBIC,
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": _CLIP_MEAN,
    "image_std": _CLIP_STD,
}
_SIGLIP_DEFAULTS: dict[str, Any] = {
    **_CLIP_DEFAULTS,
    "size": {"height": 224, "width": 224},
    "do_center_crop": False,
    "image_mean": (0.5, 0.5, 0.5),
    "image_std": (0.5, 0.5, 0.5),
}
_PROCESSOR_DEFAULTS = {
    "CLIPImageProcessor": _CLIP_DEFAULTS,
    "CLIPFeatureExtractor": _CLIP_DEFAULTS,
    "LlavaImageProcessor": _CLIP_DEFAULTS,
    "SiglipImageProcessor": _SIGLIP_DEFAULTS,
    "ViTImageProcessor": {**_SIGLIP_DEFAULTS, "resample": 2},
}
_SQUASHING = {"SiglipImageProcessor", "ViTImageProcessor"}


def _processor_kind(config: Mapping[str, Any]) -> str:
    """Class name of the processor without the suffix of its backend."""
    name = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "CLIPImageProcessor")
    for suffix in ("Fast", "Pil"):
        name = name[: -len(suffix)] if name.endswith(suffix) else name
    if name not in _PROCESSOR_DEFAULTS:
        raise ValueError(
            f"Expected image_processor_type in preprocessor_config.json to be one of {', '.join(_PROCESSOR_DEFAULTS)}, "
            f"but got {name!r}, whose geometry is not known here."
        )
    return name


def _resize_target(size: Any, *, square: bool) -> int | tuple[int, int]:
    if isinstance(size, int):
        return (size, size) if square else size
    if set(size) == {"shortest_edge"}:
        return int(size["shortest_edge"])
    return _height_width(size)


def _height_width(size: Any) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if not {"height", "width"} <= set(size):
        raise ValueError(
            "Expected a size in preprocessor_config.json to be a number, shortest_edge, or height with width, "
            f"but got {dict(size)!r}."
        )
    return int(size["height"]), int(size["width"])


@dataclass(frozen=True)
class ImagePreprocessor:
    """Turns a picture into pixels for the vision tower, and says where their patches lie in the picture.

    Attributes:
        rule: What is done to the picture.
        patch_size: Side of a patch in pixels of the model's input.
        input_size: Side of the model's input in pixels.
    """

    rule: ImageRule
    patch_size: int
    input_size: int

    def __call__(self, image: Image.Image) -> tuple[np.ndarray, Grid]:
        """Prepare one picture.

        Args:
            image: RGB, upright, as `load_image` gives it.

        Returns:
            Pixels `[3, input_size, input_size]`, float32, normalised; and the grid of patches in pixels of `image`.

        Raises:
            ValueError: If the rule makes an input of another size than the vision tower takes.
        """
        canvas, grid = self._render(image)
        if canvas.size != (self.input_size, self.input_size):
            raise ValueError(
                f"Expected the image processor to make {self.input_size} x {self.input_size} pixels, which the vision "
                f"tower takes, but got {canvas.width} x {canvas.height}. Check preprocessor_config.json."
            )
        pixels = np.asarray(canvas, dtype=np.float32) * np.float32(self.rule.rescale_factor)
        pixels = (pixels - np.asarray(self.rule.mean, np.float32)) / np.asarray(self.rule.std, np.float32)
        return np.ascontiguousarray(pixels.transpose(2, 0, 1)), grid

    def _render(self, image: Image.Image) -> tuple[Image.Image, Grid]:
        """The resized and cropped picture, with the grid that follows from just these steps."""
        rule = self.rule
        left, top, canvas_w, canvas_h = 0, 0, image.width, image.height
        if rule.pad_to_square:
            canvas_w = canvas_h = max(image.size)
            left, top = (canvas_w - image.width) // 2, (canvas_h - image.height) // 2
        target_wh = _resized_wh((canvas_w, canvas_h), rule.resize)
        crop_h, crop_w = rule.crop_hw or (target_wh[1], target_wh[0])
        # Floor division, also below zero: a crop larger than the picture reaches over its edges.
        crop_left, crop_top = (target_wh[0] - crop_w) // 2, (target_wh[1] - crop_h) // 2
        crop_box = (crop_left, crop_top, crop_left + crop_w, crop_top + crop_h)
        if rule.pad_to_square:
            padded = _pad_and_resize(image, (left, top), target_wh, rule)
            rendered = _resize_and_crop(padded, target_wh, crop_box, rule.resample)
        else:
            rendered = _resize_and_crop(image, target_wh, crop_box, rule.resample)
        scale_x, scale_y = canvas_w / target_wh[0], canvas_h / target_wh[1]
        grid = Grid(
            rows=crop_h // self.patch_size,
            cols=crop_w // self.patch_size,
            x0=crop_left * scale_x - left,
            y0=crop_top * scale_y - top,
            cell_w=self.patch_size * scale_x,
            cell_h=self.patch_size * scale_y,
        )
        return rendered, grid


def _resized_wh(canvas_wh: tuple[int, int], resize: int | tuple[int, int] | None) -> tuple[int, int]:
    """Width and height after resizing, rounded down as the image processors do."""
    width, height = canvas_wh
    if resize is None:
        return canvas_wh
    if not isinstance(resize, int):
        return resize[1], resize[0]
    longer = int(resize * max(canvas_wh) / min(canvas_wh))
    return (resize, longer) if width <= height else (longer, resize)


def _pad_and_resize(
    image: Image.Image, corner: tuple[int, int], target_wh: tuple[int, int], rule: ImageRule
) -> Image.Image:
    """Pad to a square and resize, without ever holding the whole square.

    Pillow resizes rows first, then columns, so bands of rows give the very same result.
    """
    from PIL import Image

    side, (left, top) = max(image.size), corner
    narrow = Image.new("RGB", (target_wh[0], side), rule.background)
    band_height = max(1, _BAND_PIXELS // side)
    for first in range(0, image.height, band_height):
        last = min(first + band_height, image.height)
        band = Image.new("RGB", (side, last - first), rule.background)
        band.paste(image.crop((0, first, image.width, last)), (left, 0))
        narrow.paste(band.resize((target_wh[0], last - first), rule.resample), (0, top + first))
    return narrow.resize(target_wh, rule.resample)


def _resize_and_crop(
    image: Image.Image, target_wh: tuple[int, int], crop_box: tuple[int, int, int, int], resample: int
) -> Image.Image:
    """Resize to `target_wh` and cut `crop_box` out; black beyond the edges."""
    if target_wh[0] * target_wh[1] <= _BAND_PIXELS:
        return image.resize(target_wh, resample).crop(crop_box)
    # The short side of a very long image cannot be enlarged as a whole: compute no more than the crop shows.
    left, top, right, bottom = crop_box
    shown = (max(left, 0), max(top, 0), min(right, target_wh[0]), min(bottom, target_wh[1]))
    scale_x, scale_y = image.width / target_wh[0], image.height / target_wh[1]
    columns = (shown[0] * scale_x, 0, min(shown[2] * scale_x, image.width), image.height)
    narrow = image.resize((shown[2] - shown[0], image.height), resample, box=columns)
    rows = (0, shown[1] * scale_y, narrow.width, min(shown[3] * scale_y, image.height))
    part = narrow.resize((narrow.width, shown[3] - shown[1]), resample, box=rows)
    return part.crop((left - shown[0], top - shown[1], right - shown[0], bottom - shown[1]))
