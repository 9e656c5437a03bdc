"""Layout, masks and positions of queries side by side."""

from __future__ import annotations

import numpy as np
import torch

from vlm.branches import Branches, branch_masks, next_positions, rounds


class Decoder(torch.nn.Module):
    def __init__(self, **config):
        super().__init__()
        self.config = type("Config", (), config)()


def seen(mask: torch.Tensor) -> np.ndarray:
    return (mask[0, 0] == 0).int().numpy()


def test_layout_of_two_pictures():
    branches = Branches.of([[(7, 8), (9,)], [(5,)]])
    assert branches.ids.tolist() == [[7, 8, 9], [5, 0, 0]]
    assert branches.offset.tolist() == [[0, 1, 0], [0, 0, 0]]
    assert branches.branch.tolist() == [[0, 0, 1], [0, -1, -1]]
    assert branches.ends == ((0, 1), (0, 2), (1, 0))


def test_a_branch_sees_the_prefix_and_its_own_past():
    visible = Branches.of([[(1, 2), (3, 4)]]).visible(2)[0, 0].astype(int)
    assert visible.tolist() == [[1, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 1, 0], [1, 1, 0, 0, 1, 1]]


def test_windows_count_places_in_the_prompt_and_not_in_the_row():
    visible = Branches.of([[(1, 2), (3, 4)]]).visible(3, window=2)[0, 0].astype(int)
    assert visible.tolist() == [
        [0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 1, 1, 0, 0],
        [0, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 1, 1],
    ]


def test_chunks_begin_anew():
    visible = Branches.of([[(1, 2, 3)]]).visible(3, chunk=4)[0, 0].astype(int)
    assert visible.tolist() == [[1, 1, 1, 1, 0, 0], [0, 0, 0, 0, 1, 0], [0, 0, 0, 0, 1, 1]]


def test_a_mask_for_each_kind_of_layer():
    layout = Branches.of([[(1,)]])
    kinds = ["sliding_attention", "full_attention", "chunked_attention"]
    decoder = Decoder(layer_types=kinds, sliding_window=2, attention_chunk_size=3)
    masks = branch_masks(layout, 4, decoder, None, torch.float32)
    assert {kind: seen(mask).tolist() for kind, mask in masks.items()} == {
        "sliding_attention": [[0, 0, 0, 1, 1]],
        "full_attention": [[1, 1, 1, 1, 1]],
        "chunked_attention": [[0, 0, 0, 1, 1]],
    }


def test_one_mask_where_all_layers_have_the_same_window():
    decoder = Decoder(sliding_window=3)
    mask = branch_masks(Branches.of([[(1,)]]), 4, decoder, None, torch.float32)
    assert seen(mask).tolist() == [[0, 0, 1, 1, 1]]
    full = Decoder(sliding_window=3, layer_types=["full_attention"])
    assert seen(branch_masks(Branches.of([[(1,)]]), 4, full, None, torch.float32)).tolist() == [[1, 1, 1, 1, 1]]


def test_rounds_hold_no_more_than_their_share():
    assert list(rounds([[(1, 2), (3,), (4, 5)], [(6,)]], limit=3)) == [[[(1, 2), (3,)], [(6,)]], [[(4, 5)], []]]
    assert list(rounds([[(1, 2, 3, 4)]], limit=2)) == [[[(1, 2, 3, 4)]]]


def test_positions_go_on_from_the_largest_of_all_axes():
    offset = torch.tensor([[0, 1, 0]])
    assert next_positions(None, 4, offset).tolist() == [[4, 5, 4]]
    assert next_positions(torch.tensor([[0, 1, 2]]), 3, offset).tolist() == [[3, 4, 3]]
    axes = torch.tensor([[[0, 1, 1, 1, 1]], [[0, 1, 1, 2, 2]], [[0, 1, 4, 1, 4]]])
    assert next_positions(axes, 5, offset).tolist() == [[[5, 6, 5]]] * 3
    with_count = torch.cat([torch.tensor([[[0, 1, 2, 3, 4]]]), axes])
    assert next_positions(with_count, 5, offset).tolist() == [[[5, 6, 5]]] * 4
