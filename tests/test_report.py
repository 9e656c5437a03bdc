"""The report without a browser: which samples, which kind of result, what is packed how, what the page may load."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from report_samples import HOSTILE, RANKED, USED, make_run, make_sample

from lab.records import Grid
from report.choosing import choose_kept_heads, choose_samples
from report.kinds import KINDS, kind_of, size_class
from report.packing import PICTURE_BYTES, coded_maps, decode_maps, exact_maps, numbers, picture, script_safe_json
from report.page import SCRIPTS, SIZE_LIMIT, STYLES, _kept_count, build

# Which samples


@pytest.mark.parametrize(
    ("select", "expected"),
    [
        pytest.param("worst", [3, 0], id="worst"),
        pytest.param("best", [2, 4], id="best"),
        pytest.param("spread", [3, 2], id="spread"),
    ],
)
def test_samples_are_chosen_by_iou(select: str, expected: list[int]) -> None:
    assert choose_samples([0.2, None, 0.9, 0.0, 0.5], select, 2, seed=0) == expected


def test_without_ground_truth_the_spread_is_over_the_run_and_worst_is_refused() -> None:
    assert choose_samples([None] * 9, "spread", 3, seed=0) == [0, 4, 8]
    with pytest.raises(ValueError, match=r"Expected ground truth for report\.select=worst"):
        choose_samples([None] * 9, "worst", 3, seed=0)


def test_random_samples_depend_on_the_seed_alone() -> None:
    draws = [choose_samples([None] * 100, "random", 5, seed) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]
    assert draws[0] == sorted(set(draws[0]))


def test_fewer_samples_than_asked_for_are_all_shown() -> None:
    assert choose_samples([0.5, 0.1], "spread", 50, seed=0) == [1, 0]


def test_kept_heads_are_the_wanted_ones_and_a_quarter_drawn_at_random() -> None:
    wanted = [(0, head) for head in range(8)]
    kept, controls = choose_kept_heads((8, 8), wanted, 12, seed=3)
    assert len(kept) == 12 == len(set(kept))
    assert set(range(8)) <= set(kept)
    assert set(controls) == set(kept) - set(range(8))
    assert len(choose_kept_heads((8, 8), [(r, c) for r in range(8) for c in range(8)], 12, seed=3)[1]) == 3


def test_with_room_for_all_heads_all_are_kept_and_any_may_be_drawn() -> None:
    kept, controls = choose_kept_heads((2, 3), [(0, 0)], 100, seed=0)
    assert kept == list(range(6))
    assert sorted(controls) == kept


# Kinds of results

GRID = Grid(4, 4, 0.0, 0.0, 25.0, 25.0)
TRUTH = (0.0, 0.0, 50.0, 50.0)


def flat_map(**peaks: float) -> np.ndarray:
    values = np.ones((4, 4))
    for place, value in peaks.items():
        values[int(place[1]), int(place[2])] = value
    return values


@pytest.mark.parametrize(
    ("box", "combined", "kind"),
    [
        pytest.param(None, flat_map(), "nothing", id="no-box"),
        pytest.param((0, 0, 50, 50), flat_map(p33=100), "hit", id="hit-whatever-the-map"),
        pytest.param((0, 0, 50, 24), flat_map(), "too_small", id="small"),
        pytest.param((0, 0, 100, 100), flat_map(), "too_large", id="large"),
        pytest.param((50, 50, 100, 100), flat_map(), "wrong_object", id="elsewhere"),
        pytest.param((50, 50, 100, 100), flat_map(p33=7), "sink", id="one-cell-outside"),
        pytest.param((50, 50, 100, 100), flat_map(p33=6), "wrong_object", id="one-cell-a-little-below"),
        pytest.param((50, 50, 100, 100), flat_map(p00=100), "wrong_object", id="one-cell-inside"),
    ],
)
def test_kinds_follow_their_rules(box: tuple[float, ...] | None, combined: np.ndarray, kind: str) -> None:
    assert kind_of(box, TRUTH, combined, GRID) == kind  # type: ignore[arg-type]
    assert kind in {key for key, _, _ in KINDS}


def test_size_classes_have_the_limits_of_coco() -> None:
    assert [size_class((0, 0, side, side)) for side in (31.9, 32, 95.9, 96)] == ["small", "medium", "medium", "large"]


# Packing


def test_exact_maps_come_back_bit_for_bit() -> None:
    maps = np.random.default_rng(0).random((3, 16)).astype(np.float32)
    assert np.frombuffer(base64.b64decode(exact_maps(maps)), "<f4").tobytes() == maps.tobytes()


def test_coded_maps_are_within_a_step_of_the_root_and_keep_zero_and_peak() -> None:
    maps = np.random.default_rng(0).gamma(0.2, 1.0, (5, 64))
    maps[1] = 0
    maps[2, 3] = 0
    peaks, text = coded_maps(maps)
    found = decode_maps(peaks, text)
    assert np.abs(np.sqrt(found) - np.sqrt(maps)).max() <= 0.5001 / 255 * np.sqrt(maps.max())
    assert found[2, 3] == 0
    assert not found[1].any()
    np.testing.assert_allclose(found.max(axis=1), maps.max(axis=1))


def test_numbers_that_are_none_are_null() -> None:
    assert numbers(np.array([0.123456, np.inf, np.nan, -2.0])) == [0.1235, None, None, -2.0]


@pytest.mark.parametrize(
    "text",
    ["</script>", "<!--", "a & b", "\u2028\u2029", "\ud800", '"\\'],
    ids=["tag", "comment", "ampersand", "separators", "surrogate", "quotes"],
)
def test_json_holds_nothing_that_ends_a_script_and_reads_back(text: str) -> None:
    written = script_safe_json({"text": text})
    assert not re.search("[<>&\u2028\u2029\ud800-\udfff]", written)
    assert json.loads(written) == {"text": text}
    written.encode("utf-8")


def test_json_refuses_what_is_no_number() -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        script_safe_json(float("nan"))


def test_pictures_are_small_upright_jpegs(tmp_path) -> None:
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (900, 1200, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    address = picture(str(tmp_path / "turned.jpg"), (900, 1200))
    content = base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))
    (tmp_path / "out.jpg").write_bytes(content)
    with Image.open(tmp_path / "out.jpg") as found:
        assert found.size == (384, 512)
    assert len(content) < 2 * PICTURE_BYTES


def test_a_picture_of_another_size_is_refused(tmp_path) -> None:
    Image.new("RGB", (10, 20)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="30 x 20 pixels large, but got: it is of 10 x 20 pixels"):
        picture(str(tmp_path / "a.png"), (30, 20))
    with pytest.raises(ValueError, match="to be readable"):
        picture(str(tmp_path / "none.png"), (30, 20))


# The page


class Elements(html.parser.HTMLParser):
    """Tags with their attributes, and the text of scripts."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs) -> None:
        self.found.append((tag, dict(attrs)))
        if tag == "script":
            self.scripts.append("")

    def handle_data(self, data) -> None:
        if self.lasttag == "script" and self.scripts:
            self.scripts[-1] += data


@pytest.fixture
def page(tmp_path) -> str:
    samples = [make_sample(tmp_path, 1), make_sample(tmp_path, 2, HOSTILE, f"id {HOSTILE}")]
    return build(make_run(2, title=f"Heads {HOSTILE}", about=[HOSTILE]), samples)


def test_hostile_text_makes_no_element(page: str) -> None:
    found = Elements(page)
    tags = [tag for tag, _ in found.found]
    assert tags.count("script") == 2
    assert not {"img", "b", "iframe"} & set(tags)
    assert json.loads(found.scripts[0])["samples"][1]["phrase"] == HOSTILE


def test_the_page_allows_its_own_script_alone_and_names_no_address(page: str) -> None:
    elements = Elements(page)
    policy = next(attributes["content"] for _, attributes in elements.found if "http-equiv" in attributes)
    script = page.rpartition("<script>")[2].rpartition("</script>")[0]
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in str(policy)
    assert "default-src 'none'" in str(policy)
    links = [value for _, attributes in elements.found for name, value in attributes.items() if name in {"src", "href"}]
    assert all(str(link).startswith(("data:", "#")) for link in links)
    assert not re.search(r"url\(|@import|\bfetch\(|XMLHttpRequest|import\(", page)


def test_equal_runs_give_equal_pages(tmp_path) -> None:
    pages = [build(make_run(1), [make_sample(tmp_path, 1)]) for _ in range(2)]
    assert pages[0] == pages[1]


def test_used_and_ranked_heads_are_kept_exactly_for_each_picture(page: str) -> None:
    data = json.loads(Elements(page).scripts[0])
    flat = sorted(layer * 4 + head for layer, head in RANKED)
    assert data["samples"][0]["exact"]["heads"] == flat
    assert data["samples"][0]["heads"] == [layer * 4 + head for layer, head in USED]
    assert data["coded"] == list(range(24))


def test_fifty_pictures_of_a_large_model_leave_room_for_some_heads_and_few_pictures_for_all() -> None:
    large = replace(make_run(50), num_layers=32, num_heads=32, num_cells=576)
    assert 50 < _kept_count(large) < 200
    assert _kept_count(replace(large, num_samples=5)) == 1024
    assert _kept_count(replace(large, num_samples=200)) == 0
    assert SIZE_LIMIT < 10_000_000


def test_every_asset_is_used() -> None:
    from report import page as module

    folder = module._HERE / "static"
    assert sorted(path.stem for path in folder.glob("*.js")) == sorted(SCRIPTS)
    assert sorted(path.stem for path in folder.glob("*.css")) == sorted(STYLES)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_set_text_only_as_text_and_stay_short(name: str) -> None:
    from report import page as module

    text = module._asset(f"{name}.js")
    assert text.startswith("// @ts-check\n")
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|new Function", text)
    assert text.count("\n") <= 400
    assert max(map(len, text.splitlines())) <= 180
