from __future__ import annotations

import numpy as np
import pytest

from finer.contrast import contrast_with_siblings


def test_by_hand() -> None:
    maps = np.array([[[4.0, 1.0]], [[2.0, 2.0]], [[0.0, 3.0]]])
    expected = [[[4 - 1, 0]], [[0, 0]], [[0, 3 - 1.5]]]
    np.testing.assert_allclose(contrast_with_siblings(maps), expected)
    half = [[[4 - 0.5, 0]], [[2 - 1, 2 - 1]], [[0, 3 - 0.75]]]
    np.testing.assert_allclose(contrast_with_siblings(maps, 0.5), half)
    assert maps[0, 0, 0] == 4  # the input is not changed


def test_what_all_phrases_share_vanishes() -> None:
    shared = np.random.default_rng(0).random((5, 5))
    maps = np.stack([shared] * 3)
    maps[1, 2, 2] += 1
    contrasted = contrast_with_siblings(maps)
    assert contrasted[1].argmax() == 12
    assert contrasted[1].sum() == pytest.approx(1)


def test_a_single_phrase_stays_as_it_is() -> None:
    a_map = np.random.default_rng(0).random((1, 4, 4))
    contrasted = contrast_with_siblings(a_map)
    np.testing.assert_array_equal(contrasted, a_map)
    assert contrasted is not a_map


def test_a_share_out_of_range_is_refused() -> None:
    for share in (-0.1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="share of the siblings' mean to be 0 or more"):
            contrast_with_siblings(np.ones((2, 2, 2)), share)
