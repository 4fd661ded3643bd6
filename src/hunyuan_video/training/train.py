"""Trains the diffusion transformer on a latent cache: from nothing, from weights, by distilling guidance, or as a LoRA.

Micro-batches are defined for the whole step and dealt out to the ranks, and everything random is a function of (seed, step, micro-batch):
a run that was killed and started again is the run that never stopped, and on another number of ranks it is the same but for rounding.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save_file
from torch import Tensor

from hunyuan_video import weights
from hunyuan_video.checkpoint import load_transformer
from hunyuan_video.checkpoint.lora import Dialect, save_lora
from hunyuan_video.files import replacing
from hunyuan_video.models.attention import matmul, sdpa
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig, split_head, use_attention
from hunyuan_video.training.dataset import LatentCache, Schedule
from hunyuan_video.training.master import MasterWeights
from hunyuan_video.training.objectives import Objective, add_noise, draw_dropped, guided_velocity, loss_of, student_of
from hunyuan_video.training.parallel import CPU, World, checkpointed_trunk, join_world, make_worker
from hunyuan_video.training.run import Every, Run, peak_memory, random_generator
from hunyuan_video.training.validate import Validation, Validator
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.lora import add_lora, in_attention_and_mlp, lora_of
from hunyuan_video.transforms.sequence_parallel import parallelize_sequence

DIALECTS: tuple[Dialect, ...] = ("kohya", "diffusers")


@dataclass(frozen=True, kw_only=True)
class Training(Objective):
    """What every kind of training is told. A run is only continued with the same settings."""

    cache: Path
    """the latent cache"""
    num_steps: int = 10_000
    token_budget: int = 8192
    """a micro-batch holds samples of one size with at most so many transformer tokens together, and at least one sample"""
    batches_per_step: int = 1
    """micro-batches whose gradients make one step, over all ranks: a multiple of their number"""
    image_ratio: float | None = None
    """share of the micro-batches that are images; none: as they come"""
    learning_rate: float = 1e-4
    """1e-4 suits a LoRA, 1e-5 all weights of a trained model, 2e-3 the miniature from nothing"""
    warmup_steps: int = 100
    decay_fraction: float = 0.0
    """the last part of the run, in which the learning rate falls linearly to 1 % of its value"""
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    ema_decay: float | None = 0.999
    """of the average of the weights, which is what is validated and written; none: the latest weights are"""
    max_skipped: int = 10
    """steps in a row whose loss or gradient may be not finite, and which then change nothing, before the run stops"""
    seed: int = 0
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """what computes; the weights that are trained are float32"""
    save_dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("num_steps", "token_budget", "batches_per_step", "warmup_steps", "learning_rate", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be above 0.")
        for name in ("decay_fraction", "ema_decay", "image_ratio"):
            if getattr(self, name) is not None and not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be between 0 and 1.")
        if self.max_skipped < 0 or self.weight_decay < 0:
            raise ValueError(f"max_skipped and weight_decay are {self.max_skipped} and {self.weight_decay}; they must be 0 or more.")

    def learning_rate_at(self, step: int) -> float:
        """Linear warm-up, constant, linear decay."""
        decay_steps = max(1, round(self.num_steps * self.decay_fraction))
        remaining = min(1.0, (self.num_steps - step) / decay_steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps) * max(0.01, remaining)


@dataclass(frozen=True, kw_only=True)
class TransformerTraining(Training):
    """All weights are trained. The sizes are for a model from nothing, and are the embedded miniature's."""

    start: Path | None = None
    """weights to start from: a root in the official layout, or a transformer file; none: start from nothing"""
    hidden_size: int = 192
    num_heads: int = 3
    num_double_blocks: int = 2
    num_single_blocks: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distill and self.start is None:
            raise ValueError("Guidance is distilled from a trained model; name its weights with --start.")


@dataclass(frozen=True, kw_only=True)
class LoraTraining(Training):
    """Adapters beside frozen weights are trained."""

    start: Path
    """weights to adapt: a root in the official layout, or a transformer file"""
    rank: int = 32
    alpha: float = 32.0
    """adapters count alpha / rank"""
    layers: str | None = None
    """a regular expression for the names of the layers to adapt; none: attention and MLP of all blocks"""
    fp8: bool = False
    """keep the frozen blocks in 8 bits"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.distill:
            raise ValueError("Guidance cannot be distilled into a LoRA: it needs a new embedding. Train all weights instead.")
        if self.rank < 1 or self.alpha <= 0:
            raise ValueError(f"rank is {self.rank} and alpha {self.alpha}; rank must be 1 or more and alpha above 0.")


@dataclass(frozen=True, kw_only=True)
class TrainingRuntime(Validation):
    """How to train and what to show of it. May change whenever a run is started again."""

    device: str = "auto"
    """auto (CUDA if there is one, else cpu), cpu or cuda; under torchrun each process takes a GPU of its own"""
    checkpoint_activations: bool = False
    """compute each block twice instead of keeping what is inside: far less memory, a third more work"""
    sequence_parallel: int = 1
    """ranks that share the tokens of each sample"""
    checkpoint_seconds: float = 600.0
    keep_checkpoints: int = 2
    """how many of the newest are kept"""
    wandb_project: str | None = None
    """send the metrics to this Weights & Biases project, too"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keep_checkpoints < 1 or self.checkpoint_seconds < 0:
            raise ValueError("keep_checkpoints must be 1 or more, and checkpoint_seconds 0 or more.")


def train(config: TransformerTraining | LoraTraining, folder: str | Path, runtime: TrainingRuntime | None = None) -> list[Path]:
    """Train, or go on training, in `folder`; returns the files with the result.

    Raises:
        ValueError: settings, cache, weights and ranks do not fit together; or too many steps in a row were not finite.
    """
    folder, runtime = Path(folder), runtime or TrainingRuntime()
    with join_world(runtime.device, runtime.sequence_parallel) as world:
        if config.batches_per_step % world.data_size:
            raise ValueError(
                f"batches_per_step is {config.batches_per_step}, but {world.data_size} ranks share them; give a multiple of that."
            )
        dtype: torch.dtype = getattr(torch, config.dtype)
        cache = LatentCache(config.cache)
        schedule = Schedule(cache.buckets, config.token_budget, config.batches_per_step, config.image_ratio, config.seed)
        tokens_of = {number: bucket.tokens for bucket, numbers in cache.buckets.items() for number in numbers}
        model = build_model(config, cache)
        teacher = None if not config.distill or config.start is None else prepare(load(config.start, dtype), runtime, world, dtype)
        worker = prepare(model, runtime, world, dtype)
        masters = MasterWeights(
            model, betas=(0.9, 0.97), weight_decay=config.weight_decay, clip_norm=config.clip_norm, ema_decay=config.ema_decay
        )
        validate = None
        if runtime.validation_prompts is not None:
            validate = Validator(runtime, config.start, worker, dtype, world, folder / "validation")
        run = Run(folder, config, world=world, keep=runtime.keep_checkpoints, wandb_project=runtime.wandb_project)
        skipped = torch.zeros(2, dtype=torch.int64)  # steps: of all, and of those just before
        state = masters.state_dict() | {"skipped": skipped}
        start = run.load(state)
        masters.load_into(worker)

        def loss_at(step: int, number: int, samples: list[int]) -> Tensor:
            draw = random_generator(config.seed, "batch", step, number)
            latents, features = cache.batch(samples, draw_dropped(config, len(samples), draw))
            noisy, velocity = add_noise(config, latents.to(world.device), features.to(world.device, dtype), draw)
            if teacher is not None:
                _, empty = cache.batch(samples, torch.ones(len(samples), dtype=torch.bool))
                velocity = guided_velocity(teacher, noisy, empty.to(world.device, dtype))
            return loss_of(worker, noisy, velocity)

        checkpoint_due = Every(runtime.checkpoint_seconds)
        for step in run.steps(start, config.num_steps):
            began, completed = time.monotonic(), step + 1
            batches, total_loss = schedule(step), 0.0
            mine = range(world.data_rank, len(batches), world.data_size)
            for number in mine:
                loss = loss_at(step, number, batches[number])
                (loss / len(mine)).backward()
                masters.accumulate(worker)
                total_loss += loss.item() / len(batches) / world.sequence_parallel
            due = world.is_main and (checkpoint_due() or completed == config.num_steps)
            mean_loss, save_now = world.sum(total_loss, float(due))
            norm = masters.step(worker, step, config.learning_rate_at(step), usable=isfinite(mean_loss))
            count_skipped(skipped, isfinite(mean_loss) and isfinite(norm), completed, config)

            seconds, samples = time.monotonic() - began, [number for batch in batches for number in batch]
            run.log(
                completed,
                loss=mean_loss,
                gradient_norm=norm,
                learning_rate=config.learning_rate_at(step),
                samples_per_second=len(samples) / seconds,
                tokens_per_second=sum(tokens_of[number] for number in samples) / seconds,
                memory_gb=peak_memory(world.device),
                skipped=float(skipped[0]),
            )
            if save_now:
                run.save(completed, state)
            if validate is not None and (completed % runtime.validation_every == 0 or completed == config.num_steps):
                with masters.averaged(worker):
                    validate(completed)
        run.close()
        save_result(config, folder, model, masters, world)
    return results(config, folder)


def prepare(model: HunyuanVideoTransformer, runtime: TrainingRuntime, world: World, dtype: torch.dtype) -> HunyuanVideoTransformer:
    """What computes for a model in this world."""
    use_attention(model, matmul if world.device.type == "cpu" else sdpa)
    if runtime.checkpoint_activations:
        model.trunk = checkpointed_trunk  # pyright: ignore[reportAttributeAccessIssue]
    if world.sequence_group is not None:
        parallelize_sequence(model, world.sequence_group)
    return make_worker(model, world, dtype)


def count_skipped(skipped: Tensor, went_well: bool, step: int, config: Training) -> None:
    """Count a step in `skipped`, in place.

    Raises:
        ValueError: too many in a row did not go well.
    """
    skipped += torch.tensor([0 if went_well else 1] * 2)
    if went_well:
        skipped[1] = 0
    if skipped[1] > config.max_skipped:
        raise ValueError(
            f"The loss or its gradient was not finite in {int(skipped[1])} steps in a row, up to step {step}, and none of them changed the "
            "weights; lower the learning rate, or look at the data that these steps read."
        )


def build_model(config: TransformerTraining | LoraTraining, cache: LatentCache) -> HunyuanVideoTransformer:
    """The model to train, on the CPU; what is trained of it is float32.

    Raises:
        ValueError: the weights are for other latents or other text encoders than the cache's.
    """
    if isinstance(config, LoraTraining):
        model = load(config.start, getattr(torch, config.dtype))
        if config.fp8:
            fp8.quantize(model)
        where = in_attention_and_mlp if config.layers is None else re.compile(config.layers).search
        add_lora(model, config.rank, config.alpha, lambda name: bool(where(name)), random_generator(config.seed, "initialization"))
    elif config.start is None:
        model = new_model(config, cache)
    else:
        model = load(config.start, torch.float32)
        model = (student_of(model, config.seed) if config.distill else model).requires_grad_(True)
    pairs = (
        ("latent channels", model.config.in_channels, cache.latent_channels),
        ("features in a text state", model.config.text_dim, cache.text_dim),
        ("features in the pooled text", model.config.pooled_dim, cache.pooled_dim),
    )
    for what, needs, has in pairs:
        if needs != has:
            raise ValueError(f"{config.start} needs {needs} {what}, but the cache {config.cache} has {has}: make one with its encoders.")
    return model


def load(start: Path, dtype: torch.dtype) -> HunyuanVideoTransformer:
    """A frozen transformer from a weights root or a file, on the CPU."""
    return load_transformer(weights.locate(start).transformer if start.is_dir() else start, dtype, CPU)


def new_model(config: TransformerTraining, cache: LatentCache) -> HunyuanVideoTransformer:
    """A transformer of the configured size, initialized for training."""
    model = HunyuanVideoTransformer(
        TransformerConfig(
            in_channels=cache.latent_channels,
            out_channels=cache.latent_channels,
            hidden_size=config.hidden_size,
            num_heads=config.num_heads,
            num_double_blocks=config.num_double_blocks,
            num_single_blocks=config.num_single_blocks,
            rope_dims=split_head(config.hidden_size // config.num_heads),
            text_dim=cache.text_dim,
            pooled_dim=cache.pooled_dim,
            guidance_embed=False,
        )
    )
    initialize(model, random_generator(config.seed, "initialization"))
    return model


@torch.no_grad()
def initialize(model: HunyuanVideoTransformer, generator: torch.Generator) -> None:
    """Xavier weights and zero biases; every modulation and the final layer start at zero, so that each block starts as identity."""
    for name, parameter in model.named_parameters():
        if (
            name.endswith(("mod.linear.weight", "modulation.linear.weight", "adaLN_modulation.1.weight"))
            or name == "final_layer.linear.weight"
        ):
            parameter.zero_()
        elif parameter.ndim >= 2:
            fan_in, fan_out = parameter[0].numel(), parameter.shape[0]
            parameter.normal_(0, (2 / (fan_in + fan_out)) ** 0.5, generator=generator)
        elif not name.endswith("norm.weight") and not name.endswith(("norm1.weight", "norm2.weight")):
            parameter.zero_()


def results(config: TransformerTraining | LoraTraining, folder: Path) -> list[Path]:
    """The files that a finished training has written."""
    names = [f"lora_{dialect}" for dialect in DIALECTS] if isinstance(config, LoraTraining) else ["transformer"]
    return [folder / f"{name}.safetensors" for name in names]


def save_result(
    config: TransformerTraining | LoraTraining, folder: Path, model: HunyuanVideoTransformer, masters: MasterWeights, world: World
) -> None:
    """Write the averaged weights, gathered from all ranks tensor by tensor."""
    dtype: torch.dtype = getattr(torch, config.save_dtype)
    if isinstance(config, LoraTraining):
        with masters.averaged(model):
            lora = lora_of(model)
        for dialect, path in zip(DIALECTS, results(config, folder), strict=True) if world.is_main else ():
            save_lora(lora, path, dialect, dtype)
    else:
        state = {name: value.to(CPU, dtype) for name, value in masters.result() if world.is_main}
        if world.is_main:
            with replacing(results(config, folder)[0]) as (temporary, _):
                save_file(state, temporary)
    world.sum(0.0)  # the next stage of a recipe reads it, on every rank
