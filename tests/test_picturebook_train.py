"""The training script on a few scenes: it runs through, goes on where it was stopped, and publishes a checkpoint."""

import json

import pytest
import torch

from picturebook import train
from picturebook.packing import IGNORED, Packer, Stage, branch_bias
from picturebook.shards import GRID_SIDE, draw_shards, load_shard

pytestmark = pytest.mark.slow

SMALL = {
    "shards": 1,
    "scenes-each": 6,
    "workers": 1,
    "text-layers": 1,
    "text-heads": 2,
    "queries": 3,
    "vision-steps": 3,
    "vision-batch": 2,
    "language-batch": 2,
    "bind-steps": 2,
    "bind-patches": 16,
    "widen-steps": 2,
    "widen-patches": 16,
    "whole-steps": 1,
    "places-steps": 1,
    "save-every": 2,
    "device": "cpu",
}


@pytest.fixture(autouse=True)
def few_validation_scenes(monkeypatch):
    monkeypatch.setattr(train, "VALIDATION_SCENES", 4)


def run(folder, monkeypatch=None, stop_after=None):
    small = [f"--{name}={value}" for name, value in SMALL.items()]
    options = train.parse_options([*small, "--no-bf16", f"--work={folder}", f"--output={folder / 'model'}"])
    trainer = train.Trainer(options)
    if stop_after is not None:
        calls = iter(range(stop_after))
        step = train.apply_step

        def step_or_stop(*arguments):
            if next(calls, None) is None:
                raise KeyboardInterrupt
            step(*arguments)

        monkeypatch.setattr(train, "apply_step", step_or_stop)
    trainer.train_vision()
    trainer.train_language(train.stages_from(options))
    return trainer


@pytest.mark.parametrize("stop_after", [2, 6])
def test_a_stopped_training_ends_as_an_unstopped_one(tmp_path, monkeypatch, stop_after):
    whole = run(tmp_path / "whole").model.state_dict()
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", patched, stop_after)
    resumed = run(tmp_path / "stopped").model.state_dict()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_language_model_never_moves_the_tower_and_everything_else_learns(tmp_path):
    trainer = run(tmp_path)
    tower = torch.load(tmp_path / "vision.pt", weights_only=True)["parts"]["tower"]
    now = trainer.model.model.vision_tower.state_dict()
    assert all(torch.equal(tower[name], now[name]) for name in tower)
    torch.manual_seed(0)
    fresh = train.build_model(text_layers=1, text_heads=2)
    assert not torch.equal(fresh.lm_head.weight, trainer.model.lm_head.weight)


def test_the_published_checkpoint_loads_with_its_tokenizer(tmp_path):
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    trainer = run(tmp_path)
    train.publish(trainer.model, tmp_path / "model")
    model, info = LlavaForConditionalGeneration.from_pretrained(tmp_path / "model", output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    assert tokenizer.tokenize("The bird,\nA zebra.") == ["the", "bird", ",", "\n", "a", "<unk>", "."]
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["text_config"]["rope_theta"] == config["text_config"]["rope_parameters"]["rope_theta"] == 1e6
    assert model.config.image_token_index == tokenizer.convert_tokens_to_ids("<image>")


def test_packed_branches_see_the_prefix_and_themselves_alone(tmp_path):
    shard = load_shard(draw_shards(tmp_path, 7, 1, 2)[0])
    packed = Packer(GRID_SIDE**2, 3).pack(shard, [0, 1], Stage("test", 1, 16, None), train.random.Random(0))
    seen = branch_bias(packed, torch.float32)[0, 0] == 0
    branch = packed.branch[0]
    for row in range(len(branch)):
        others = (branch != 0) & (branch != branch[row])
        assert not seen[row][others].any()
        assert not seen[row, row + 1 :].any()
    assert packed.patch_index.shape == (2, 16)
    answers = packed.labels[0] != IGNORED
    assert torch.equal(packed.labels[0][answers], packed.token_ids[0][answers])
    assert packed.first[0].sum() == len(packed.target[0])
    start = packed.prefix_words
    assert torch.equal(packed.positions[0, start : start + 16], start + packed.patch_index[0])


def test_head_dropout_silences_whole_heads_of_later_layers_while_training():
    torch.manual_seed(0)
    model = train.build_model(text_layers=2, text_heads=4)
    dropout = train.HeadDropout(model)
    seen = []
    for layer in model.model.language_model.layers:
        layer.self_attn.o_proj.register_forward_hook(lambda _, inputs, output: seen.append(inputs[0]))

    def heads(share):
        seen.clear()
        dropout.share = share
        dropout.chance.manual_seed(1)
        with torch.no_grad():
            model.model.language_model(input_ids=torch.arange(6).repeat(8, 1))
        return [states.unflatten(-1, (4, -1)) for states in seen]

    first, second = heads(0.5)
    silent = (second == 0).all(dim=(1, 3))
    assert not (first == 0).all(dim=(1, 3)).any()
    assert 0 < silent.float().mean() < 1
    whole = heads(0.0)[1]
    kept = ~silent[:, None, :, None].expand_as(whole)
    assert torch.allclose(second[kept], 2 * whole[kept])  # the others make up for them
    model.eval()
    assert torch.equal(heads(0.5)[1], whole)
