from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from tiny_sams import make_sam

import refine.refiner
from bbox import localize
from lab.records import Grid, Localization
from refine.points import agreement, interior_points
from refine.refiner import Refiner
from refine.sam import Sam, embed_picture, load_sam, masks_from_boxes, masks_from_points

SIZE = (80, 40)
GRID = Grid(8, 8, 0.0, -20.0, 10.0, 10.0)


@pytest.fixture(scope="module")
def sam(tmp_path_factory: pytest.TempPathFactory) -> Sam:
    return load_sam(str(make_sam(tmp_path_factory.mktemp("sam"))))


def picture(seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 80, 3), dtype=np.uint8))


def found(rows: slice = np.s_[2:5], cols: slice = np.s_[3:7]) -> Localization:
    a_map = np.zeros((1, 8, 8))
    a_map[0, rows, cols] = 0.1
    a_map[0, 3, 4] = 0.2 if a_map[0, 3, 4] else 0
    return localize(a_map, GRID, SIZE, sigma=0)


def test_box_is_the_prompt(sam: Sam) -> None:
    localization = found()
    refined = Refiner(lambda: sam).refine("a", picture, localization, GRID)
    masks, guesses = masks_from_boxes(sam, embed_picture(sam, picture()), np.array([localization.box_xyxy]))
    np.testing.assert_array_equal(refined.mask, masks[0])
    assert refined.details == {
        "method": "sam",
        "model": sam.name,
        "prompt": "box",
        "predicted_iou": pytest.approx(guesses[0]),
    }


@pytest.mark.parametrize("prompt", ["points", "box_points"])
def test_points_are_the_prompt_and_the_mask_is_the_one_that_agrees_best(sam: Sam, prompt: str) -> None:
    localization = found()
    refined = Refiner(lambda: sam, prompt, 2).refine("a", picture, localization, GRID)
    cells = localization.combined_map, localization.cell_mask, GRID
    points_xy = interior_points(*cells, SIZE, 2)
    boxes_xyxy = np.array([localization.box_xyxy]) if prompt == "box_points" else None
    masks, guesses = masks_from_points(sam, embed_picture(sam, picture()), points_xy[None], boxes_xyxy)
    agreements = agreement(masks[0], *cells)
    best = agreements.argmax()
    np.testing.assert_array_equal(refined.mask, masks[0, best])
    assert refined.details["points_xy"] == points_xy.tolist()
    assert refined.details["agreement"] == pytest.approx(agreements[best])
    assert refined.details["predicted_iou"] == pytest.approx(guesses[0, best])


def test_no_box_has_no_mask_and_loads_nothing() -> None:
    def load() -> Sam:
        raise AssertionError("loaded")

    nothing = localize(np.ones((1, 8, 8)), GRID, SIZE, sigma=0)
    assert nothing.box_xyxy is None
    assert Refiner(load).refine("a", picture, nothing, GRID) is None


def test_each_picture_is_embedded_once_for_all_its_phrases(sam: Sam, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded, loads = [], []
    monkeypatch.setattr(
        refine.refiner, "embed_picture", lambda model, image: embedded.append(image) or embed_picture(model, image)
    )
    refiner = Refiner(lambda: loads.append(1) or sam)
    with ThreadPoolExecutor(4) as threads:
        jobs = [
            threads.submit(refiner.refine, str(number), lambda n=number: picture(n), found(), GRID)
            for number in (0, 0, 0, 1, 1, 1)
        ]
        masks = [job.result().mask for job in jobs]
    assert len(embedded) == 2
    assert loads == [1]
    np.testing.assert_array_equal(masks[0], masks[2])
    assert (masks[0] != masks[3]).any()


def test_few_embeddings_are_kept(sam: Sam) -> None:
    refiner = Refiner(lambda: sam)
    for number in range(5):
        refiner.refine(str(number), lambda n=number: picture(n), found(), GRID)
    assert len(refiner._pictures) == 2


def test_a_picture_of_another_size_is_refused(sam: Sam) -> None:
    with pytest.raises(ValueError, match=r"'a' to have 80 x 40 pixels .* but got 40 x 40\. Collect again"):
        Refiner(lambda: sam).refine("a", lambda: picture().crop((0, 0, 40, 40)), found(), GRID)


def test_unknown_prompts_are_refused() -> None:
    for options in ({"prompt": "mask"}, {"prompt": "points", "num_points": 0}):
        with pytest.raises(ValueError, match="prompt to be one of box, points, box_points with at least 1 point"):
            Refiner(lambda: None, **options)
