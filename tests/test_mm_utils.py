from __future__ import annotations

import itertools
import logging
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_checkpoints
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lab.stations import TokenSegment, TokenSegments
from llava.conversation import TEMPLATES, PromptPart, get_template
from llava.mm_utils import opens_with_bos
from llava.model.checkpoint_files import CheckpointFiles
from llava.model.tokenizers import load_tokenizer
from vlm.image_preprocessing import ImagePreprocessor, ImageRule
from vlm.images import load_image
from vlm.prompt_encoding import encode_prompt, unknown_words

IMAGE_ID = 1000
COUNT = 7
QUERY = "the bird on the branch"


@pytest.fixture(scope="module")
def sentencepiece_model(tmp_path_factory):
    return tiny_checkpoints.train_sentencepiece(tmp_path_factory.mktemp("sentencepiece"))


@pytest.fixture(scope="module")
def llama_tokenizer(sentencepiece_model, tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer")
    (directory / "tokenizer.model").write_bytes(sentencepiece_model.read_bytes())
    settings_ = {"tokenizer_class": "LlamaTokenizer", "legacy": False}
    tiny_checkpoints.write_json(directory / "tokenizer_config.json", settings_)
    return load_tokenizer(CheckpointFiles(str(directory)), original=True)


@pytest.fixture(scope="module")
def processor(sentencepiece_model):
    """SentencePiece itself, as the oracle."""
    import sentencepiece

    return sentencepiece.SentencePieceProcessor(model_file=str(sentencepiece_model))


@pytest.fixture(scope="module")
def word_tokenizer():
    """One token a word, without BOS."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: index for index, word in enumerate(["<unk>", "the", "bird", "on", "branch", "."])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


class SlowTokenizer:
    """SentencePiece with the interface of a tokenizer that gives no offsets."""

    is_fast = False
    bos_token_id, unk_token_id = 1, 0

    def __init__(self, processor):
        self.processor = processor

    def __call__(self, text, add_special_tokens=True):
        ids = self.processor.encode(text)
        return {"input_ids": [1, *ids] if add_special_tokens else ids}

    def convert_ids_to_tokens(self, ids):
        return [self.processor.id_to_piece(index) for index in ids]


def encode(parts, tokenizer):
    return encode_prompt(parts, tokenizer, image_token_id=IMAGE_ID, image_token_count=COUNT)


# Prompts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", TEMPLATES)
@pytest.mark.parametrize("query", [QUERY, "birds.", "a  cat,\nthe dog", "in <image> the bird"])
def test_pieces_are_tokenised_on_their_own_with_bos_once(key, query, llama_tokenizer, processor):
    prompt = get_template(key).prompt(query)
    before, after = prompt.split("<image>")
    expected = [1, *processor.encode(before), *[IMAGE_ID] * COUNT, *processor.encode(after)]
    encoded = encode(get_template(key).parts(query), llama_tokenizer)
    assert list(encoded.input_ids) == expected
    assert encoded.text == prompt
    assert encoded.prefix_ids + encoded.suffix_ids == encoded.input_ids
    assert encoded.prefix_ids[-1] == IMAGE_ID
    assert IMAGE_ID not in encoded.suffix_ids


def test_lone_space_before_the_newline_stays(llama_tokenizer):
    encoded = encode(get_template("referseg").parts("dog"), llama_tokenizer)
    assert encoded.segments.segments[2].tokens == ("▁", "<0x0A>")


@pytest.mark.parametrize("key", TEMPLATES)
@pytest.mark.parametrize("kind", ["fast", "slow"])
def test_segments_cover_the_sequence(key, kind, llama_tokenizer, processor):
    tokenizer = llama_tokenizer if kind == "fast" else SlowTokenizer(processor)
    encoded = encode(get_template(key).parts(QUERY), tokenizer)
    segments = encoded.segments
    assert segments.length == len(encoded.input_ids)
    assert segments.image.length == COUNT
    assert set(encoded.input_ids[segments.image.start : segments.image.end]) == {IMAGE_ID}
    (query,) = segments.named("query")
    assert "".join(query.tokens).replace("▁", " ").strip() == QUERY
    assert segments.segments[0].tokens[0] == "<s>"
    assert segments.last_token == tokenizer.convert_ids_to_tokens([encoded.input_ids[-1]])[0]


def test_segment_names_in_order(llama_tokenizer):
    def names(key):
        return [segment.name for segment in encode(get_template(key).parts(QUERY), llama_tokenizer).segments.segments]

    assert names("referseg") == ["system", "image", "role", "query"]
    assert names("v1") == ["system", "role", "image", "role", "query", "role"]
    assert names("plain") == ["system", "image", "role", "query", "role"]


def test_no_bos_for_a_tokenizer_that_uses_none(word_tokenizer):
    encoded = encode(get_template("plain").parts("the bird"), word_tokenizer)
    assert encoded.input_ids == (*[IMAGE_ID] * COUNT, 1, 2)


@pytest.mark.parametrize(
    ("settings_", "is_llama", "expected"),
    [
        ({"tokenizer_class": "LlamaTokenizer"}, True, True),
        ({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": None}, True, True),
        ({"tokenizer_class": "LlamaTokenizer", "add_bos_token": False}, True, False),
        ({"tokenizer_class": "GPT2Tokenizer", "add_bos_token": True}, False, True),
        ({"tokenizer_class": "GPT2Tokenizer"}, True, None),
        ({}, True, True),
        ({}, False, None),
    ],
    ids=["llama", "llama null", "llama told", "other told", "other", "none, original", "none, hugging face"],
)
def test_settings_decide_on_bos(settings_, is_llama, expected):
    assert opens_with_bos(settings_, is_llama=is_llama) is expected


def test_image_at_the_end_is_refused(llama_tokenizer):
    with pytest.raises(ValueError, match="prompt to end with text.*Put words after <image>"):
        encode(get_template("referseg").parts("the bird in <image>"), llama_tokenizer)


def test_unknown_words_are_named(word_tokenizer):
    assert unknown_words("the zebra on the branch. Zebra, zebra!", word_tokenizer) == ("zebra", "Zebra")
    assert unknown_words("the bird on the branch.", word_tokenizer) == ()
    assert unknown_words("bird !", word_tokenizer) == ("!",)
    encoded = encode([PromptPart("image", "<image>"), PromptPart("query", "the zebra")], word_tokenizer)
    assert encoded.unknown_words == ("zebra",)


def test_byte_fallback_leaves_no_word_unknown(llama_tokenizer):
    assert unknown_words("żółw 龜", llama_tokenizer) == ()


# Segments -----------------------------------------------------------------------------------------------------------


def test_segments_round_trip():
    segments = TokenSegments(
        (TokenSegment("system", 0, 2, ("<s>", "A")), TokenSegment("image", 2, 5, ("<image>",)))
        + (TokenSegment("query", 7, 1, ("dog",)),)
    )
    assert TokenSegments.from_list(segments.to_list()) == segments
    assert segments.last_token == "dog"
    assert segments.image.end == 7


@pytest.mark.parametrize(
    ("segments", "message"),
    [
        (
            [("image", 0, 3, ("<image>",)), ("query", 4, 1, ("a",))],
            "start at 3, where the one before it ends, but got 4",
        ),
        ([("query", 0, 1, ("a",))], "exactly one image, but got 0"),
        ([("image", 0, 3, ("<image>",)), ("picture", 3, 1, ("a",))], "to be one of .* but got 'picture'"),
        ([("image", 0, 3, ("<image>",)), ("query", 3, 2, ("a",))], "to hold 2 tokens, but got 1"),
        ([("image", 0, 0, ())], "length of at least 1"),
    ],
)
def test_segments_that_do_not_fit_are_refused(segments, message):
    with pytest.raises(ValueError, match=message):
        TokenSegments(tuple(TokenSegment(*segment) for segment in segments))


# Reading pictures ---------------------------------------------------------------------------------------------------


def gradient(width=6, height=4):
    levels = np.linspace(0, 255, width * height).reshape(height, width)
    return levels.round().astype(np.uint8)


def saved(tmp_path, image, name="picture.png", **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


def pixels(path):
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)


def test_grey_levels_become_three_equal_channels(tmp_path):
    grey = gradient()
    read = pixels(saved(tmp_path, Image.fromarray(grey)))
    assert (read == grey[:, :, None]).all()


def test_sixteen_bit_levels_are_scaled_not_cut(tmp_path):
    levels = gradient().astype(np.uint16) * 257
    read = pixels(saved(tmp_path, Image.fromarray(levels)))
    assert (read[:, :, 0] == gradient()).all()


@pytest.mark.parametrize("top", [1.0, 255.0, 65535.0])
def test_float_levels_are_scaled_from_their_range(tmp_path, top):
    levels = (gradient() / np.float32(255) * np.float32(top)).astype(np.float32)
    read = pixels(saved(tmp_path, Image.fromarray(levels), "picture.tiff"))
    assert (read[:, :, 1] == gradient()).all()


def test_palette_and_bilevel(tmp_path):
    colours = Image.fromarray(np.array([[[255, 0, 0], [0, 0, 255]]], dtype=np.uint8))
    palette = saved(tmp_path, colours.convert("P", palette=Image.Palette.ADAPTIVE))
    assert pixels(palette).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    bilevel = saved(tmp_path, Image.fromarray(np.array([[0, 255]], dtype=np.uint8)).convert("1"), "bilevel.png")
    assert pixels(bilevel).tolist() == [[[0, 0, 0], [255, 255, 255]]]


def test_transparency_is_laid_over_white(tmp_path):
    layer = np.array([[[255, 0, 0, 255], [255, 0, 0, 0], [0, 0, 0, 127]]], dtype=np.uint8)
    read = pixels(saved(tmp_path, Image.fromarray(layer)))
    assert read.tolist() == [[[255, 0, 0], [255, 255, 255], [128, 128, 128]]]
    grey = np.array([[[0, 255], [0, 0]]], dtype=np.uint8)
    assert pixels(saved(tmp_path, Image.fromarray(grey, "LA"), "la.png")).tolist() == [[[0] * 3, [255] * 3]]


def test_transparent_palette_entry_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    read = pixels(saved(tmp_path, image, transparency=1))
    assert read.tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk(tmp_path):
    path = saved(tmp_path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "picture.jpg", quality=95)
    assert np.abs(pixels(path).astype(int) - [255, 0, 0]).max() < 8


def test_exif_rotation_is_applied(tmp_path):
    image = Image.new("RGB", (6, 4))
    image.putpixel((0, 0), (255, 255, 255))
    exif = image.getexif()
    exif[0x0112] = 6  # the camera was turned: show it rotated a quarter to the right
    path = saved(tmp_path, image, exif=exif)
    read = load_image(path)
    assert read.size == (4, 6)
    assert read.getpixel((3, 0)) == (255, 255, 255)


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(ValueError, match="to be a file, but got .*nowhere.png', which is not there"):
        load_image(tmp_path / "nowhere.png")
    text = tmp_path / "text.png"
    text.write_text("no picture")
    with pytest.raises(ValueError, match="readable image, but got a file that is no image"):
        load_image(text)
    whole = saved(tmp_path, Image.effect_noise((64, 64), 50).convert("RGB"), "whole.jpg")
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole.read_bytes()[:400])
    with pytest.raises(ValueError, match="readable image, but got a broken file"):
        load_image(cut)


HEIC_START = b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic" + b"\x00" * 64


def test_heic_names_the_package_that_reads_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "photo.heic"
    path.write_bytes(HEIC_START)
    with pytest.raises(ValueError, match=r"photo.heic' to be a readable image, but got .*pip install pillow-heif"):
        load_image(path)


def test_heic_is_read_where_the_package_is_there(tmp_path, monkeypatch):
    """A stand-in registers itself as the package does, with a reader that gives one red pixel."""
    from PIL import ImageFile

    class Reader(ImageFile.ImageFile):
        format = "HEIF"

        def _open(self):
            self._size, self._mode = (1, 1), "RGB"

        def load(self):
            self.im = Image.new("RGB", (1, 1), (255, 0, 0)).im

    def register_heif_opener():
        Image.register_open("HEIF", Reader, lambda start: start[4:8] == b"ftyp")

    # Pillow fills its registers once, at its first picture; restoring empty ones would leave it without formats.
    Image.preinit()
    Image.init()
    monkeypatch.setitem(sys.modules, "pillow_heif", SimpleNamespace(register_heif_opener=register_heif_opener))
    monkeypatch.setattr(Image, "OPEN", dict(Image.OPEN))
    monkeypatch.setattr(Image, "ID", list(Image.ID))
    path = tmp_path / "photo.heic"
    path.write_bytes(HEIC_START)
    assert pixels(path).tolist() == [[[255, 0, 0]]]


@pytest.mark.parametrize("name", ["picture.eps", "picture.png"])
def test_postscript_is_refused_and_never_run(name, tmp_path, monkeypatch):
    from PIL import EpsImagePlugin

    def run(*arguments):
        raise AssertionError("Ghostscript was started")

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", run)
    path = tmp_path / name
    Image.new("RGB", (4, 4)).save(path, format="EPS")
    with pytest.raises(ValueError, match=rf"{name}' to be a readable image, but got PostScript \(EPS\).*PNG\.$"):
        load_image(path)


def test_messages_about_pictures_stay_short(tmp_path):
    with pytest.raises(ValueError, match="which is not there") as caught:
        load_image(tmp_path / ("a" * 100 + "\n" + "b" * 100))
    assert len(str(caught.value)) < 250
    assert str(caught.value).isprintable()


def test_decompression_bomb(tmp_path, monkeypatch):
    path = saved(tmp_path, Image.new("RGB", (40, 40)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(ValueError, match="one too large to open safely"):
        load_image(path)


# Geometry -----------------------------------------------------------------------------------------------------------

SIDE, PATCH = 56, 14
RULES = {
    "pad": ImageRule(pad_to_square=True, resize=SIDE, crop_hw=None),
    "pad then CLIP": ImageRule(pad_to_square=True, resize=SIDE, crop_hw=(SIDE, SIDE)),
    "crop": ImageRule(pad_to_square=False, resize=SIDE, crop_hw=(SIDE, SIDE)),
    "squash": ImageRule(pad_to_square=False, resize=(SIDE, SIDE), crop_hw=None),
    "crop a part": ImageRule(pad_to_square=False, resize=70, crop_hw=(SIDE, SIDE)),
    "crop beyond": ImageRule(pad_to_square=False, resize=40, crop_hw=(SIDE, SIDE)),
}
SIZES = [(112, 112), (120, 61), (61, 120), (97, 56)]


def prepare(rule, image):
    return ImagePreprocessor(rule, patch_size=PATCH, input_size=SIDE)(image)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", RULES)
def test_a_bright_dot_lands_in_the_cell_that_the_grid_names(name, size):
    """Light up the middle of each cell, as the grid gives it, and see that the cell's patch is the brightest."""
    width, height = size
    dark, grid = prepare(RULES[name], Image.new("RGB", size))
    background = dark.mean(axis=0)
    assert grid.shape == (SIDE // PATCH, SIDE // PATCH)
    seen = 0
    for row, col in itertools.product(range(grid.rows), range(grid.cols)):
        x, y = grid.x0 + (col + 0.5) * grid.cell_w, grid.y0 + (row + 0.5) * grid.cell_h
        radius_x, radius_y = max(grid.cell_w / 4, 1), max(grid.cell_h / 4, 1)
        left, right, top, bottom = x - radius_x, x + radius_x, y - radius_y, y + radius_y
        if left < 0 or top < 0 or right > width or bottom > height:
            continue
        seen += 1
        picture = np.zeros((height, width, 3), dtype=np.uint8)
        picture[round(top) : round(bottom), round(left) : round(right)] = 255
        light = prepare(RULES[name], Image.fromarray(picture))[0].mean(axis=0)
        cells = np.abs(light - background).reshape(grid.rows, PATCH, grid.cols, PATCH).sum(axis=(1, 3))
        assert np.unravel_index(cells.argmax(), cells.shape) == (row, col)
        assert cells[row, col] > 0.8 * cells.sum()
    assert seen >= 4


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("size", [*SIZES, (333, 500)])
def test_light_falls_where_the_grid_says_to_a_tenth_of_a_cell(name, size):
    """The centre of mass of a bright square, mapped back through the grid, is the middle of the square."""
    width, height = size
    half = min(size) // 6
    x, y = width // 2 + width // 20, height // 2 - height // 20
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    picture[y - half : y + half, x - half : x + half] = 255
    lit, grid = prepare(RULES[name], Image.fromarray(picture))
    dark, _ = prepare(RULES[name], Image.new("RGB", size))
    light = np.abs(lit - dark).sum(axis=0)
    columns, rows = (np.arange(SIDE) + 0.5) / PATCH, (np.arange(SIDE) + 0.5) / PATCH
    centre_x = grid.x0 + (light.sum(axis=0) @ columns) / light.sum() * grid.cell_w
    centre_y = grid.y0 + (light.sum(axis=1) @ rows) / light.sum() * grid.cell_h
    assert centre_x == pytest.approx(x, abs=0.1 * grid.cell_w)
    assert centre_y == pytest.approx(y, abs=0.1 * grid.cell_h)


@pytest.mark.parametrize(
    ("name", "size", "box"),
    [
        ("pad", (200, 100), (0, -50, 200, 150)),
        ("pad", (101, 200), (-49, 0, 151, 200)),
        ("crop", (200, 100), (50, 0, 150, 100)),
        ("squash", (200, 100), (0, 0, 200, 100)),
        ("crop a part", (140, 140), (14, 14, 126, 126)),
        ("crop beyond", (40, 40), (-8, -8, 48, 48)),
    ],
)
def test_grid_by_hand(name, size, box):
    _, grid = prepare(RULES[name], Image.new("RGB", size))
    assert grid.box_xyxy == pytest.approx(box)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 300), st.integers(1, 300), st.sampled_from(sorted(RULES)))
def test_any_size_gives_pixels_and_a_grid(width, height, name):
    values, grid = prepare(RULES[name], Image.new("RGB", (width, height), (90, 120, 200)))
    assert values.shape == (3, SIDE, SIDE)
    assert values.dtype == np.float32
    assert np.isfinite(values).all()
    left, top, right, bottom = grid.box_xyxy
    if RULES[name].pad_to_square or name == "squash":
        assert left <= 0
        assert top <= 0
        assert right >= width - 1e-6
        assert bottom >= height - 1e-6
    assert max(left, 0) < min(right, width)
    assert max(top, 0) < min(bottom, height)


@pytest.mark.parametrize("size", [(1, 1), (20000, 3), (1, 6000)])
@pytest.mark.parametrize("name", ["pad", "crop", "squash"])
def test_extreme_sizes(name, size):
    values, grid = prepare(RULES[name], Image.new("RGB", size, (10, 200, 30)))
    assert np.isfinite(values).all()
    assert grid.num_cells == 16


@pytest.mark.parametrize("name", ["crop", "squash", "crop a part", "crop beyond"])
@pytest.mark.parametrize("size", [(150, 61), (61, 150)])
def test_resizing_only_the_crop_is_cropping_after_resizing(name, size, monkeypatch, tmp_path):
    smooth = load_image(tiny_checkpoints.write_picture(tmp_path / "smooth.png", size))
    whole, _ = prepare(RULES[name], smooth)
    monkeypatch.setattr("vlm.image_preprocessing._BAND_PIXELS", 0)
    part, _ = prepare(RULES[name], smooth)
    # A level of 255 is 0.0146 after dividing by the standard deviation; passes in another order round differently.
    assert np.abs(whole - part).max() < 0.03


def test_padding_in_bands_equals_padding_at_once(monkeypatch):
    noise = np.random.default_rng(0).integers(0, 256, (61, 150, 3), dtype=np.uint8)
    for picture in (noise, noise.transpose(1, 0, 2)):
        whole, _ = prepare(RULES["pad"], Image.fromarray(picture))
        with monkeypatch.context() as patch:
            patch.setattr("vlm.image_preprocessing._BAND_PIXELS", 150 * 7)
            banded, _ = prepare(RULES["pad"], Image.fromarray(picture))
        assert (whole == banded).all()


@pytest.mark.parametrize("width", [1, 2, 9])
def test_only_touched_columns_are_resized(width, monkeypatch):
    """A narrow picture costs what it covers, not the whole square that it is padded to."""
    noise = np.random.default_rng(0).integers(0, 256, (600, width, 3), dtype=np.uint8)
    whole, _ = prepare(RULES["pad"], Image.fromarray(noise))
    widths = []
    genuine = Image.Image.resize

    def watching(self, *args, **options):
        widths.append(self.width)
        return genuine(self, *args, **options)

    monkeypatch.setattr("vlm.image_preprocessing._BAND_PIXELS", 600 * 50)
    monkeypatch.setattr(Image.Image, "resize", watching)
    part, _ = prepare(RULES["pad"], Image.fromarray(noise))
    # One level of 255 is at most 0.0151 after dividing by the standard deviation.
    assert np.abs(whole - part).max() < 0.016
    assert np.abs(whole - part).mean() < 0.001
    assert max(widths) <= 151


def test_wrong_size_for_the_tower_is_refused():
    with pytest.raises(ValueError, match="make 56 x 56 pixels, which the vision tower takes, but got 60 x 60"):
        prepare(ImageRule(False, (60, 60), None), Image.new("RGB", (80, 80)))


# Image processors' own settings -------------------------------------------------------------------------------------


def transformers_pixels(config, image):
    """What the stock processor, with its Pillow backend, makes of a picture."""
    import transformers

    name = config["image_processor_type"]
    cls = getattr(transformers, name + "Pil", None) or getattr(transformers, name)
    settings_ = {key: value for key, value in config.items() if key != "image_processor_type"}
    return cls(**settings_)(image, return_tensors="np")["pixel_values"][0]


@pytest.mark.parametrize("kind", ["pad", "crop", "squash"])
@pytest.mark.parametrize("size", [(90, 60), (60, 91), (333, 200), (56, 56), (57, 40)])
def test_pixels_are_those_of_the_stock_processor(kind, size):
    config = tiny_checkpoints.preprocessor_settings(kind)
    noise = np.random.default_rng(1).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(noise).resize(size, 3)
    values, _ = prepare(ImageRule.from_config(config), image)
    assert np.abs(values - transformers_pixels(config, image)).max() < 1e-5


def test_old_configs_with_plain_numbers():
    rule = ImageRule.from_config({"feature_extractor_type": "CLIPFeatureExtractor", "size": 336, "crop_size": 336})
    assert (rule.resize, rule.crop_hw, rule.pad_to_square) == (336, (336, 336), False)
    assert ImageRule.from_config({"size": 336}, pad_to_square=True).pad_to_square


def test_background_is_the_mean_colour_cut_off():
    assert ImageRule.from_config({"image_processor_type": "CLIPImageProcessor"}).background == (122, 116, 104)


def test_squashing_processors_and_suffixes():
    rule = ImageRule.from_config({"image_processor_type": "SiglipImageProcessorFast", "size": 384})
    assert (rule.resize, rule.crop_hw, rule.mean) == ((384, 384), None, (0.5, 0.5, 0.5))


def test_no_normalisation_when_it_is_off():
    config = {**tiny_checkpoints.preprocessor_settings("squash"), "do_normalize": False, "do_rescale": False}
    values, _ = prepare(ImageRule.from_config(config), Image.new("RGB", (9, 9), (1, 2, 3)))
    assert values[:, 0, 0].tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"image_processor_type": "LlavaNextImageProcessor"}, "to be one of .*but got 'LlavaNextImageProcessor'"),
        ({"size": {"shortest_edge": 3, "longest_edge": 4}}, "shortest_edge, or height with width, but got"),
    ],
)
def test_unknown_geometry_is_refused(config, message):
    with pytest.raises(ValueError, match=message):
        ImageRule.from_config(config)


def test_nothing_is_logged_while_preparing(caplog):
    with caplog.at_level(logging.DEBUG, logger="vlm"):
        prepare(RULES["pad"], Image.new("RGB", (5, 9)))
    assert not caplog.records
