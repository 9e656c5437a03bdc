"""Grids of the families against the grid probe, which knows nothing of them; formulas against numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import transformers

from lab.grids import Grid
from lab.regions import Region, Regions, covering, row_major
from tests.tiny_families import FAMILIES, OLDEST
from tests.tiny_families.loading import SHAPES, encode, load, picture
from vlm import grid_formulas, tile_formulas
from vlm.families import REFUSED, RULES, refuse_unreadable
from vlm.grid_probe import check_grid
from vlm.measured_regions import measure_regions, regions_of_centres

IS_OLD = int(transformers.__version__.split(".")[0]) < 5
NAMES = OLDEST if IS_OLD else tuple(FAMILIES)
# Its second tower has a mixing neck, which spreads what a token sees.
CANNOT_TELL = {"deepseek_vl_hybrid"}


def checked(bundle, shape: str, regions: Regions | None = None):
    declared = encode(bundle, shape=shape).regions if regions is None else regions
    return check_grid(
        bundle.model, lambda image: bundle.encoder.run(image, "a"), SHAPES[shape], declared, bundle.encoder.image_ids,
        samples=12,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", NAMES)
def test_the_probe_agrees_with_the_rule(name, shape):
    verdict = checked(load(name), shape)
    assert verdict.verdict == ("cannot tell" if name in CANNOT_TELL else "agrees"), verdict
    assert verdict.deaf == 0


@pytest.mark.parametrize("name", ["qwen2_5_vl", "internvl", "gemma3"])
def test_the_probe_agrees_with_some_rules(name):
    assert checked(load(name), "landscape").verdict == "agrees"


def shifted(region: Region) -> Region:
    grid = region.grid
    moved = Grid(grid.rows, grid.cols, grid.x0 + 0.6 * grid.cell_w, grid.y0, grid.cell_w, grid.cell_h)
    return Region(region.kind, moved, region.token_of)


def transposed(region: Region) -> Region:
    rows, cols = region.grid.shape
    x0, y0, x1, y1 = region.grid.box_xyxy
    return Region(region.kind, covering(x1 - x0, y1 - y0, cols, rows, x0=x0, y0=y0), region.token_of.T)


def mirrored(region: Region) -> Region:
    return Region(region.kind, region.grid, region.token_of[:, ::-1])


@pytest.mark.parametrize("wrong", [shifted, transposed, mirrored], ids=["shifted", "transposed", "mirrored"])
def test_the_probe_disagrees_with_wrong_grids(wrong):
    bundle = load("llava")
    right = encode(bundle).regions
    assert checked(bundle, "landscape", Regions((wrong(right.regions[0]),), 16)).verdict == "disagrees"


def test_a_thumbnail_in_the_wrong_place_is_noticed():
    bundle = load("internvl")
    side, count = 2, encode(bundle).regions.num_tokens
    tiles = tile_formulas.tiled(SHAPES["landscape"], (3, 2), side=side, thumbnail="first")
    assert checked(bundle, "landscape", Regions(tuple(tiles), count)).verdict == "disagrees"


def test_a_separator_taken_for_a_patch_is_noticed():
    if IS_OLD:
        pytest.skip("needs a newer transformers")
    bundle = load("llava_next")
    declared = encode(bundle).regions
    thumbnail, whole = declared.regions
    rows, cols = whole.grid.shape
    wider = Region("whole", covering(200, 130, rows, cols + 1), row_major(rows, cols + 1, first=16))
    verdict = checked(bundle, "landscape", Regions((thumbnail, wider), declared.num_tokens))
    assert verdict.deaf > 0
    assert verdict.verdict == "disagrees"


@pytest.mark.parametrize("name", ["llava", "qwen2_5_vl", "internvl", "llava_next"])
def test_regions_are_measured_where_there_is_no_rule(name, monkeypatch):
    if name not in NAMES:
        pytest.skip("needs a newer transformers")
    bundle = load(name)
    expected = encode(bundle).regions
    found = measure_regions(
        bundle.model, lambda image: bundle.encoder.run(image, "a"), picture().size, expected.num_tokens,
        bundle.encoder.image_ids,
    )  # fmt: skip
    assert found.source == "measured"
    by_first = sorted(expected.regions, key=lambda region: int(region.token_of.min()))
    assert [region.grid.shape for region in found.regions] == [region.grid.shape for region in by_first]
    for region, right in zip(found.regions, by_first):
        assert np.array_equal(region.token_of, right.token_of)
        step = np.array([right.grid.cell_w, right.grid.cell_h])
        off = (np.array(region.grid.box_xyxy) - np.array(right.grid.box_xyxy)).reshape(2, 2) / step
        assert np.abs(off).max() < 0.5


def test_an_unknown_family_is_measured_once_for_each_size_and_said_so(monkeypatch, caplog):
    load.cache_clear()
    bundle = load("llava")
    monkeypatch.delitem(RULES, "llava")
    calls = []
    import vlm.measured_regions as measuring

    genuine = measuring.measure_regions
    monkeypatch.setattr(measuring, "measure_regions", lambda *args: calls.append(1) or genuine(*args))
    first, second = encode(bundle, "the cat"), encode(bundle, "the dog")
    load.cache_clear()
    assert first.regions.source == second.regions.source == "measured"
    assert len(calls) == 1
    assert "No grid rule for model_type llava: measuring" in caplog.text


def test_places_without_order_make_no_grid():
    middle = np.random.default_rng(0).normal(50, 3, (24, 2))
    with pytest.raises(ValueError, match="Expected the model's 24 image tokens to listen to places that make a grid"):
        regions_of_centres(middle, (100, 100))


def test_separators_are_left_out_of_measured_regions():
    x, y = np.meshgrid([10.0, 30.0, 50.0, np.nan], [10.0, 30.0])
    y[:, 3] = np.nan
    found = regions_of_centres(np.stack([x.ravel(), y.ravel()], axis=1), (60, 40))
    assert found.separators == (3, 7)
    assert found.regions[0].grid.shape == (2, 3)
    np.testing.assert_allclose(found.regions[0].grid.box_xyxy, (0, 0, 60, 40), atol=1e-6)


@pytest.mark.parametrize("model_type", REFUSED)
def test_models_that_cannot_be_read_are_refused_in_one_line(model_type):
    config = type("Config", (), {"is_encoder_decoder": False})()
    with pytest.raises(ValueError, match="^Expected 'a/b' to be a model whose attention.*: it.*[^\n]$"):
        refuse_unreadable("a/b", model_type, config)


def test_encoder_decoders_are_refused_whatever_their_name():
    config = type("Config", (), {"is_encoder_decoder": True})()
    with pytest.raises(ValueError, match="reads the prompt with an encoder"):
        refuse_unreadable("a/b", "something_new", config)


# Formulas by hand -----------------------------------------------------------------------------------------------------


def test_centre_crop_by_hand():
    # 200 x 130 -> 86 x 56: 15 cut off on the left; a cell is 14 pixels of 200 / 86.
    grid = grid_formulas.centre_cropped((200, 130), shortest=56, crop_wh=(56, 56), rows=4, cols=4)
    assert grid.x0 == pytest.approx(15 * 200 / 86)
    assert grid.y0 == 0
    assert (grid.cell_w, grid.cell_h) == (pytest.approx(14 * 200 / 86), pytest.approx(14 * 130 / 56))


def test_padding_by_hand():
    assert grid_formulas.padded_then_resized((100, 60), side=4) == Grid(4, 4, 0, -20, 25, 25)
    # 100 x 60 -> 50 x 30, centred on 50 x 50: 10 above, which are 20 of the picture's pixels.
    assert grid_formulas.resized_then_padded((100, 60), target=50, side=5) == Grid(5, 5, 0, -20, 20, 20)
    assert grid_formulas.padded_right_and_below((100, 60), resized_wh=(50, 30), step=20) == Grid(2, 3, 0, 0, 40, 40)


@pytest.mark.parametrize(
    ("wh", "layout"),
    [((800, 400), (2, 1)), ((448, 448), (1, 1)), ((2000, 2000), (3, 3)), ((300, 3000), (1, 10))],
    ids=["wide", "square", "large square", "tall"],
)
def test_closest_shape_by_hand(wh, layout):
    assert tile_formulas.layout_of_closest_shape(wh, tile_wh=(448, 448), least=1, most=12) == layout


def test_other_layouts_by_hand():
    assert tile_formulas.layout_of_least_enlargement((1000, 500), tile=512, most=12) == (2, 1)
    assert tile_formulas.layout_of_least_enlargement((9000, 9000), tile=512, most=4) == (2, 2)
    assert tile_formulas.layout_of_whole_tiles((1000, 500), longest=2048, tile=512) == (4, 2)
    assert tile_formulas.layout_of_whole_tiles((300, 900), longest=1536, tile=512) == (1, 3)
    assert tile_formulas.layout_of_canvas((1000, 500), tile=560, most=4) == (2, 1)
    assert tile_formulas.layout_of_fewest_tiles((400, 400), tile=448, most=9) == (1, 1)
    assert tile_formulas.best_pinpoint((1000, 400), [[336, 672], [672, 336], [672, 672], [336, 1008]]) == (1008, 336)


def test_joined_tiles_by_hand():
    # 672 x 336 holds 600 x 300 exactly: nothing is cut off, 24 rows of 48 and a newline.
    thumbnail, whole = tile_formulas.joined_tiles((600, 300), pinpoints=[[336, 672]], tile=336, side=24)
    assert thumbnail.grid == Grid(24, 24, 0, 0, 25, 12.5)
    assert whole.grid == Grid(24, 48, 0, 0, 12.5, 12.5)
    assert whole.token_of[1, 0] == 576 + 49


def test_joined_tiles_are_shrunk_above_their_most():
    pinpoints = [[384 * 4, 384 * 4]]
    [_, whole] = tile_formulas.joined_tiles((1536, 1536), pinpoints=pinpoints, tile=384, side=27, most=9)
    assert whole.grid.shape == (81, 81)
    assert whole.grid.box_xyxy == (0, 0, 1536, 1536)


def test_pan_and_scan_by_hand():
    assert len(tile_formulas.pan_and_scan((300, 290), side=2, smallest_crop=100)) == 1
    regions = tile_formulas.pan_and_scan((301, 120), side=2, smallest_crop=100)
    assert [region.kind for region in regions] == ["thumbnail", "tile", "tile", "tile"]
    assert regions[3].grid.box_xyxy == (202, 0, 301, 120)


@pytest.mark.skipif(IS_OLD, reason="needs a newer transformers")
@pytest.mark.parametrize("shape", SHAPES)
def test_pan_and_scan_against_its_processor(shape):
    from tests.tiny_families.parts import pillow

    processor = pillow("Gemma3ImageProcessor", size={"height": 56, "width": 56})
    image = picture(shape)
    options = {"pan_and_scan_min_crop_size": 32, "pan_and_scan_max_num_crops": 4}
    options["pan_and_scan_min_ratio_to_activate"] = 1.2
    made = processor(image, return_tensors="pt", do_pan_and_scan=True, **options)
    assert len(made["pixel_values"]) == len(tile_formulas.pan_and_scan(image.size, side=2, smallest_crop=32))


def test_the_probe_survives_models_without_gradient(monkeypatch):
    import vlm.grid_probe as probe

    bundle = load("llava")

    def without(*args, **options):
        raise RuntimeError("element 0 of tensors does not require grad")

    monkeypatch.setattr(probe, "measured_centres", without)
    verdict = checked(bundle, "landscape")
    assert verdict.cells_off is None
    assert verdict.verdict == "agrees"
    assert torch.is_grad_enabled()
