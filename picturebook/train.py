"""Train the picture-book LLaVA from scratch: ``python -m picturebook.train --help``."""

from __future__ import annotations

import argparse
import logging
import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Optional

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from picturebook.architecture import build_model
from picturebook.expressions import TEMPLATES
from picturebook.packing import IGNORED, Packed, Packer, Stage, gather_patches, language_states
from picturebook.publish import publish
from picturebook.shards import PATCH_TASKS, Shard, draw_shards, load_shard
from picturebook.validate import validate

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration

logger = logging.getLogger(__name__)

TRAIN_SEED, VALIDATION_SEED = 1, 2
VALIDATION_SCENES = 400
LOGGED_SCENES = 100


def patch_features(model: LlavaForConditionalGeneration, pixels: torch.Tensor) -> torch.Tensor:
    """Features that LLaVA takes of the tower: before the last layer, without the class token."""
    return model.model.vision_tower(pixels, output_hidden_states=True).hidden_states[-2][:, 1:]


def to_pixels(images: np.ndarray) -> torch.Tensor:
    """Bytes `[n, side, side, 3]` to the processor's range [-1, 1], `[n, 3, side, side]`."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


class HeadDropout:
    """Silences heads of all layers but the first by chance, a new draw for each sequence, while the model trains.

    With one head alone to read the answer from the image there would be one localization head; so several learn it.

    Attributes:
        share: Share of heads silenced; the others are scaled up to make up for them. 0 silences none.
        chance: Source of chance, on the CPU.
    """

    def __init__(self, model: LlavaForConditionalGeneration) -> None:
        """Watch a picture-book LLaVA; nothing is silenced until there is a share."""
        self.share = 0.0
        self.chance = torch.Generator()
        self._model = model
        self._num_heads = model.config.text_config.num_attention_heads
        for layer in model.model.language_model.layers[1:]:
            layer.self_attn.o_proj.register_forward_pre_hook(self._silence)

    def _silence(self, module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> Optional[tuple[torch.Tensor]]:
        if not self.share or not self._model.training:
            return None
        heads = inputs[0].unflatten(-1, (self._num_heads, -1))
        kept = torch.rand(len(heads), 1, self._num_heads, 1, generator=self.chance) >= self.share
        return ((heads * (kept.to(heads) / (1.0 - self.share))).flatten(-2),)


def optimisers(parameters: Sequence[tuple[str, nn.Parameter]], rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for everything else, at one learning rate."""
    if not hasattr(torch.optim, "Muon"):
        raise RuntimeError(f"Expected torch 2.9 or newer (torch.optim.Muon), but got {torch.__version__}. Upgrade it.")
    inner = [p for name, p in parameters if p.ndim == 2 and ".layers." in name]
    outer = [p for name, p in parameters if not (p.ndim == 2 and ".layers." in name)]
    return [
        torch.optim.Muon(inner, lr=rate, weight_decay=0.02, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(outer, lr=rate, betas=(0.9, 0.98), weight_decay=0.02),
    ]


def learning_rate(step: int, total: int, peak: float, warm_up: int = 100, decay_share: float = 0.35) -> float:
    """Linear warm-up, a plateau, and a cosine fall over the last `decay_share` of the steps to a fiftieth."""
    if step < warm_up:
        return peak * (step + 1) / warm_up
    fall = max(0.0, (step - total * (1 - decay_share)) / max(1.0, total * decay_share))
    return peak * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, fall))))


def apply_step(loss: torch.Tensor, steppers: Sequence[torch.optim.Optimizer], rate: float) -> None:
    """Back-propagate, clip and step at a learning rate."""
    for stepper in steppers:
        stepper.zero_grad(set_to_none=True)
        for group in stepper.param_groups:
            group["lr"] = rate
    loss.backward()
    nn.utils.clip_grad_norm_([p for s in steppers for g in s.param_groups for p in g["params"]], 1.0)
    for stepper in steppers:
        stepper.step()


class Trainer:
    """Trains in two phases, the tower and then the language model, and writes checkpoints to go on from."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Build the model and find the shards."""
        torch.manual_seed(options.seed)
        self.options = options
        self.work = Path(options.work)
        self.device = torch.device(options.device)
        self.model = build_model(text_layers=options.text_layers, text_heads=options.text_heads).to(self.device)
        self.shards = draw_shards(self.work, TRAIN_SEED, options.shards, options.scenes_each, options.workers)
        self.validation = load_shard(draw_shards(self.work, VALIDATION_SEED, 1, VALIDATION_SCENES)[0])
        self.head_dropout = HeadDropout(self.model)
        self.started = time.time()

    def autocast(self) -> torch.autocast:
        """Mixed precision for the matrix products, where the machine has it."""
        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.options.bf16)

    def batches(self, phase: str, step: int, size: int) -> Iterator[tuple[int, Path, list[int], random.Random]]:
        """Batches from a step on; each is drawn from (seed, phase, step) alone, so a resumed run repeats nothing."""
        while True:
            block, within = divmod(step, 25)  # stay in one shard for some steps: reading one costs a moment
            path = random.Random(f"{self.options.seed}-{phase}-{block}").choice(self.shards)
            rng = random.Random(f"{self.options.seed}-{phase}-{block}-{within}")
            yield step, path, rng.sample(range(self.options.scenes_each), size), rng
            step += 1

    # -- the tower

    def train_vision(self) -> None:
        """Teach the tower to name what is in each patch, as CLIP stands in for in LLaVA."""
        tower, path = self.model.model.vision_tower, self.work / "vision.pt"
        namer = nn.Linear(tower.config.hidden_size, sum(PATCH_TASKS.values())).to(self.device)
        named = [*tower.named_parameters(), *namer.named_parameters()]
        steppers = optimisers(named, self.options.vision_rate)
        begin = self._load(path, {"tower": tower, "namer": namer}, steppers)
        shard, loaded = self.validation, None
        for step, shard_path, indices, _ in self.batches("vision", begin, self.options.vision_batch):
            if step >= self.options.vision_steps:
                break
            if shard_path != loaded:
                shard, loaded = load_shard(shard_path), shard_path
            pixels = to_pixels(shard.images[indices]).to(self.device)
            labels = torch.from_numpy(shard.patch_labels[indices]).long().to(self.device)
            with self.autocast():
                loss = self._naming_loss(namer(patch_features(self.model, pixels)), labels)
            apply_step(loss, steppers, learning_rate(step, self.options.vision_steps, self.options.vision_rate))
            if (step + 1) % 100 == 0:
                self._log_vision(namer, step + 1, loss.item())
            if (step + 1) % self.options.save_every == 0 or step + 1 == self.options.vision_steps:
                self._save(path, {"tower": tower, "namer": namer}, steppers, step + 1)
        tower.requires_grad_(False)

    @staticmethod
    def _naming_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        parts = logits.float().split(list(PATCH_TASKS.values()), dim=-1)
        losses = [functional.cross_entropy(p.flatten(0, 1), labels[:, t].flatten()) for t, p in enumerate(parts)]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def _log_vision(self, namer: nn.Module, step: int, loss: float) -> None:
        pixels = to_pixels(self.validation.images[:100]).to(self.device)
        labels = torch.from_numpy(self.validation.patch_labels[:100]).long().to(self.device)
        with self.autocast():
            parts = namer(patch_features(self.model, pixels)).split(list(PATCH_TASKS.values()), dim=-1)
        on_object = labels[:, 0] > 0
        right = [(p.argmax(-1) == labels[:, t])[on_object].float().mean().item() for t, p in enumerate(parts)]
        scores = " ".join(f"{task} {share:.3f}" for task, share in zip(PATCH_TASKS, right))
        logger.info("vision step %d (%.0f s) loss %.3f on object patches: %s", step, self._seconds(), loss, scores)

    # -- the language model

    def train_language(self, stages: Sequence[Stage]) -> None:
        """Teach the language model to go on from a referring prompt, over the frozen tower."""
        trained = [(n, p) for n, p in self.model.named_parameters() if p.requires_grad]
        steppers = optimisers(trained, self.options.language_rate)
        path, done_before = self.work / "language.pt", 0
        parts = {"projector": self.model.model.multi_modal_projector, "language": self.model.model.language_model}
        parts["lm_head"] = self.model.lm_head
        start = self._load(path, parts, steppers)
        total = sum(stage.steps for stage in stages)
        features = _FeatureCache(self)
        for stage in stages:
            begin, end = done_before, done_before + stage.steps
            if start < end:
                self._run_stage(stage, max(start, begin), end, total, steppers, features, path, parts)
            done_before = end

    def _run_stage(self, stage: Stage, begin: int, end: int, total: int, steppers: Any, features: Any, path: Path,
                   parts: dict[str, nn.Module]) -> None:  # fmt: skip
        packer = Packer(self.model.config.image_seq_length, self.options.queries)
        self.head_dropout.share = stage.head_dropout
        losses, hits = [], []
        for step, shard_path, indices, rng in self.batches("language", begin, self.options.language_batch):
            if step >= end:
                break
            shard, shard_features = features.of(shard_path)
            packed = packer.pack(shard, indices, stage, rng)
            self.head_dropout.chance.manual_seed(step)
            with self.autocast():
                loss, hit = self._answer_loss(packed, shard_features)
            apply_step(loss, steppers, learning_rate(step, total, self.options.language_rate))
            losses.append(loss.item())
            hits.append(hit)
            if (step + 1) % 50 == 0:
                logger.info("%s step %d (%.0f s) loss %.3f first word %.3f", stage.name, step + 1, self._seconds(),
                            np.mean(losses), np.mean(hits))  # fmt: skip
                losses, hits = [], []
            if (step + 1) % self.options.save_every == 0 or step + 1 == end:
                self._save(path, parts, steppers, step + 1)
                self._log_language(packer, features)

    def _answer_loss(self, packed: Packed, shard_features: torch.Tensor) -> tuple[torch.Tensor, float]:
        chosen = gather_patches(shard_features, packed)
        states = language_states(self.model, packed, chosen).last_hidden_state
        wanted = packed.labels[:, 1:] != IGNORED
        logits = self.model.lm_head(states[:, :-1][wanted]).float()
        truth = packed.labels[:, 1:][wanted]
        first = packed.first[:, 1:][wanted]
        hit = (logits.argmax(-1) == truth)[first].float().mean().item()
        return functional.cross_entropy(logits, truth), hit

    @torch.no_grad()
    def _log_language(self, packer: Packer, features: Any) -> None:
        self.model.eval()
        logger.info("validation: %s", validate(self.model, packer, *features.validation()))
        self.model.train()

    # -- checkpoints

    def _save(self, path: Path, parts: dict[str, nn.Module], steppers: Any, step: int) -> None:
        state = {name: part.state_dict() for name, part in parts.items()}
        temporary = path.with_suffix(".tmp")
        torch.save({"step": step, "parts": state, "steppers": [s.state_dict() for s in steppers]}, temporary)
        temporary.replace(path)

    def _load(self, path: Path, parts: dict[str, nn.Module], steppers: Any) -> int:
        if not path.exists():
            return 0
        state = torch.load(path, map_location=self.device, weights_only=True)
        for name, part in parts.items():
            part.load_state_dict(state["parts"][name])
        for stepper, saved in zip(steppers, state["steppers"]):
            stepper.load_state_dict(saved)
        logger.info("going on from %s at step %d", path, state["step"])
        return state["step"]

    def _seconds(self) -> float:
        return time.time() - self.started


class _FeatureCache:
    """The frozen tower's features of each shard, computed once and kept on disk in half precision."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.loaded: Optional[Path] = None
        self.shard: Optional[Shard] = None
        self.features = torch.empty(0)

    def of(self, path: Path) -> tuple[Shard, torch.Tensor]:
        """Scenes and features `[n, patches, width]` float16 of a shard."""
        if path != self.loaded:
            self.shard = load_shard(path)
            stored = path.with_suffix(f".v{self.trainer.options.vision_steps}.npy")
            if not stored.exists():
                np.save(stored, self.compute(self.shard).numpy())
            self.features = torch.from_numpy(np.load(stored)).to(self.trainer.device)
            self.loaded = path
        assert self.shard is not None
        return self.shard, self.features

    def validation(self) -> tuple[Shard, torch.Tensor]:
        """Some scenes and features of the validation shard."""
        whole = self.trainer.validation
        some = replace(whole, scenes=whole.scenes[:LOGGED_SCENES], images=whole.images[:LOGGED_SCENES])
        return some, self.compute(some).to(self.trainer.device)

    @torch.no_grad()
    def compute(self, shard: Shard) -> torch.Tensor:
        """Run the tower over a shard."""
        model, device = self.trainer.model, self.trainer.device
        runs = [patch_features(model, to_pixels(shard.images[i : i + 100]).to(device)).half().cpu()
                for i in range(0, len(shard.images), 100)]  # fmt: skip
        return torch.cat(runs)


def stages_from(options: argparse.Namespace) -> list[Stage]:
    """Binding first, few patches and all heads; then every template, the hard ones most; then the whole picture."""
    simple = {"color_kind": 8.0, "kind": 2.0, "color": 1.0}
    every = {name: 4.0 if name in {"position", "relation"} else 2.0 for name in TEMPLATES}
    places = {**every, "place": 6.0}
    return [
        Stage("bind", options.bind_steps, options.bind_patches, simple),
        Stage("widen", options.widen_steps, options.widen_patches, every, options.head_dropout),
        Stage("whole", options.whole_steps, None, every, options.head_dropout),
        Stage("places", options.places_steps, None, places, options.head_dropout),
    ]


def parse_options(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--work", default="outputs/picturebook-training", help="folder of shards and checkpoints; run again to go on")
    add("--output", default="examples/models/picturebook-llava", help="folder of the finished model")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu or cuda:<id>")
    add("--seed", type=int, default=0)
    add("--bf16", action=argparse.BooleanOptionalAction, default=True, help="bfloat16 matrix products")
    add("--shards", type=int, default=14)
    add("--scenes-each", type=int, default=2000)
    add("--workers", type=int, default=2, help="processes that draw scenes")
    add("--save-every", type=int, default=250, help="steps between checkpoints")
    add("--text-layers", type=int, default=4)
    add("--text-heads", type=int, default=16)
    add("--queries", type=int, default=12, help="queries packed with each image")
    add("--vision-steps", type=int, default=1300)
    add("--vision-batch", type=int, default=32)
    add("--vision-rate", type=float, default=2e-3)
    add("--language-batch", type=int, default=32)
    add("--language-rate", type=float, default=2e-3)
    add("--head-dropout", type=float, default=0.25, help="share of heads silenced after the first stage")
    add("--bind-steps", type=int, default=800)
    add("--bind-patches", type=int, default=64)
    add("--widen-steps", type=int, default=1200)
    add("--widen-patches", type=int, default=96)
    add("--whole-steps", type=int, default=350)
    add("--places-steps", type=int, default=200)
    return parser.parse_args(arguments)


def main() -> None:
    """Train, or go on training, and write the model."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    options = parse_options()
    trainer = Trainer(options)
    trainer.train_vision()
    trainer.train_language(stages_from(options))
    publish(trainer.model, Path(options.output))


if __name__ == "__main__":
    main()
