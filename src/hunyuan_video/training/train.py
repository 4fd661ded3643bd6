"""Trains the diffusion transformer on a latent cache: from nothing, from weights, by distilling guidance, or as a LoRA.

Micro-batches are defined for the whole step and dealt out to the ranks, and everything random is a function of (seed, step, micro-batch):
a run that was killed and started again is the run that never stopped, and on another number of ranks it is the same but for rounding.
"""

from __future__ import annotations

import copy
import logging
import re
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from hunyuan_video import assembly, weights
from hunyuan_video.beginning import how_told
from hunyuan_video.checkpoint import identity, load_on_rank_0, read_transformer
from hunyuan_video.checkpoint.lora import Dialect, save_lora
from hunyuan_video.config import Runtime
from hunyuan_video.distributed.cost import best_degrees
from hunyuan_video.distributed.once import is_first, once
from hunyuan_video.distributed.world import CPU, World, process_group, resolve_device, world_of_group
from hunyuan_video.files import replacing
from hunyuan_video.kernels.choice import for_training
from hunyuan_video.memory import available_memory
from hunyuan_video.models.attention import KINDS
from hunyuan_video.models.rope import split_head
from hunyuan_video.models.text import MAX_TEXT_TOKENS, TextFeatures
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig
from hunyuan_video.signals import Waiting
from hunyuan_video.training.dataset import AnyCache, LatentCache, Schedule
from hunyuan_video.training.held_out import HeldOut
from hunyuan_video.training.master import MasterWeights, dtype_of_worker
from hunyuan_video.training.objectives import GIVEN, Noisy, add_noise, draw_dropped, guided_velocity, loss_of, student_of
from hunyuan_video.training.plan import MemoryPlan, MicroBatch, check, predict
from hunyuan_video.training.prefetch import prefetched
from hunyuan_video.training.run import Run, count_skipped, forget_peak_memory, peak_memory, random_generator
from hunyuan_video.training.seeing import check_beginnings, longest_text
from hunyuan_video.training.settings import MAY_CHANGE, LoraTraining, Training, TrainingRuntime, TransformerTraining
from hunyuan_video.training.validate import Validator
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.lora import add_lora, in_attention_and_mlp, lora_of

log = logging.getLogger(__name__)

DIALECTS: tuple[Dialect, ...] = ("kohya", "diffusers")


def train(
    config: TransformerTraining | LoraTraining,
    folder: str | Path,
    runtime: TrainingRuntime | None = None,
    clips: dict[str, str] | None = None,
) -> list[Path]:
    """Train, or go on training, in `folder`; returns the files with the result. A run that is told of what `clips` the cache was made, as
    digests by name, also goes on when they are others than before.

    Raises:
        ValueError: settings, cache, weights and ranks do not fit together; or too many steps in a row were not finite.
    """
    folder, runtime = Path(folder), runtime or TrainingRuntime()
    with process_group(runtime.device), ExitStack() as stack:
        cache = LatentCache(config.cache)
        sizes = sizes_of(config, cache)[0]
        check_beginnings(config, config.start, sizes, cache)
        longest = max(bucket.tokens for bucket in cache.buckets)
        degrees = best_degrees(runtime.sequence_parallel, sizes.num_heads, longest)
        world = world_of_group(resolve_device(runtime.device), degrees)
        if config.batches_per_step % world.data_size:
            raise ValueError(
                f"batches_per_step is {config.batches_per_step}, but {world.data_size} ranks share them; give a multiple of that."
            )
        dtype = dtype_of_worker(config.dtype, world.device)
        schedule = schedule_of(config, cache)
        how = runtime_of(config, runtime, world.device)
        assembly.check(how, world, num_heads=sizes.num_heads, training=True, recompute=runtime.checkpoint_activations)
        check(memory_plan(config, runtime, world.size, world.device, cache), available_memory(world.device))
        run = open_run(config, folder, runtime, world, cache, clips)
        stack.callback(run.close)
        forget_peak_memory(world.device)
        tokens_of = {number: bucket.tokens for bucket, numbers in cache.buckets.items() for number in numbers}
        model = build_model(config, cache, dtype)
        teacher = None
        if isinstance(config, TransformerTraining) and config.distill and config.start is not None:
            teacher, _ = make_ready(load(config.start, dtype), runtime, world, dtype)
        worker, streamed = make_ready(model, runtime, world, dtype, config if isinstance(config, LoraTraining) else None)
        masters = MasterWeights(
            model, betas=(0.9, 0.97), weight_decay=config.weight_decay, clip_norm=config.clip_norm, ema_decay=config.ema_decay
        )
        validate = None
        if runtime.validation_prompts is not None:
            model_of = worker, how.attention, dtype, world, folder / "validation", streamed
            validate = Validator(runtime, config.start, config.guidance_range[1], *model_of)
        skipped = torch.zeros(2, dtype=torch.int64)  # steps: of all, and of those just before
        state = masters.state_dict() | {"skipped": skipped}
        start = run.load(state)
        if start >= config.num_steps:
            log.info("%s has done %d steps, so nothing is trained; with more --num-steps than that it goes on.", folder, start)
        show_every = runtime.validation_every or -(-config.num_steps // 10)
        masters.load_into(worker)

        def micro_batch_at(key: tuple[int, int]) -> tuple[Noisy, Tensor, TextFeatures]:
            """On the CPU: a noisy micro-batch, the velocity there, and the empty caption."""
            step, number = key
            draw = random_generator(config.seed, "batch", step, number)
            latents, captions, empty, openings = cache.batch(schedule(step)[number])
            features = empty if draw_dropped(config, draw) else captions
            noisy, velocity = add_noise(config, latents, features.to(CPU, dtype), draw, cache.told, openings)
            return noisy, velocity, empty.to(CPU, dtype)

        def loss_at(noisy: Noisy, velocity: Tensor, empty: TextFeatures) -> Tensor:
            noisy = noisy.to(world.device)
            if teacher is not None:
                velocity = guided_velocity(teacher, noisy, empty.to(world.device, dtype))
            return loss_of(worker, noisy, velocity.to(world.device))

        held_out = None
        if runtime.validation_cache is not None:
            held_out = HeldOut(config, LatentCache(runtime.validation_cache), cache, loss_at, world)
        mine = range(world.data_rank, config.batches_per_step, world.data_size)
        keys = ((step, number) for step in range(start, config.num_steps) for number in mine)
        upcoming = stack.enter_context(closing(prefetched(micro_batch_at, keys)))
        stopping = stack.enter_context(Waiting())
        for step in run.steps(start, config.num_steps):
            began, completed = time.monotonic(), step + 1
            total_loss = torch.zeros((), dtype=torch.float64, device=world.device)
            for micro_batch in islice(upcoming, len(mine)):
                loss = loss_at(*micro_batch)
                (loss / len(mine)).backward()
                masters.accumulate(worker)
                total_loss += loss.detach().double() / config.batches_per_step / world.sequence_parallel
            due = world.is_main and (run.is_due(completed) or completed == config.num_steps)
            mean_loss, save_now, stop_now = world.sum(total_loss.item(), float(due), float(stopping.asked))  # all ranks alike
            norm = masters.step(worker, step, config.learning_rate_at(step), usable=isfinite(mean_loss))
            count_skipped(skipped, isfinite(mean_loss) and isfinite(norm), completed, config.max_skipped)

            seconds, samples = time.monotonic() - began, [number for batch in schedule(step) for number in batch]
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
            # Before the checkpoint, behind which the next start goes on: neither a kill in between nor a stop loses any of it.
            is_shown = completed % show_every == 0 or completed == config.num_steps
            if is_shown and (found := show(config, folder, completed, worker, masters, validate, held_out)):
                run.log(completed, **found)
            if stop_now:
                run.stop(completed, state)
            if save_now:
                run.save(completed, state)
        save_result(config, folder, model, masters)
    return results(config, folder)


def open_run(
    config: TransformerTraining | LoraTraining,
    folder: Path,
    runtime: TrainingRuntime,
    world: World,
    cache: LatentCache,
    clips: dict[str, str] | None,
) -> Run:
    """The run in `folder`, which remembers by content what it reads."""
    inputs: dict[str, Any] = {"cache_digest": cache.digest}
    if config.start is not None:
        inputs["start_identity"] = start_identity(config.start)
    if clips is not None:
        inputs["clips_identity"] = clips
    return Run(
        folder,
        config,
        inputs=inputs,
        may_change=MAY_CHANGE if clips is None else (*MAY_CHANGE, "cache_digest", "clips_identity"),
        world=world,
        keep=runtime.keep_checkpoints,
        checkpoint_seconds=runtime.checkpoint_seconds,
        save_every=runtime.save_every,
        wandb_project=runtime.wandb_project,
    )


def schedule_of(config: Training, cache: AnyCache) -> Schedule:
    return Schedule(cache.buckets, cache.text_lengths, config.token_budget, config.batches_per_step, config.image_ratio, config.seed)


def make_ready(
    model: HunyuanVideoTransformer, runtime: TrainingRuntime, world: World, dtype: torch.dtype, lora: LoraTraining | None = None
) -> tuple[HunyuanVideoTransformer, list[Tensor]]:
    """What computes in `dtype` for a model in this world: the model itself, with the adapters of `lora`; or where one process trains all of
    its weights, which then are float32, a copy in another dtype. And its tensors that come and go by themselves."""
    if world.size == 1 and dtype != torch.float32 and all(parameter.requires_grad for parameter in model.parameters()):
        model = copy.deepcopy(model.to(world.device)).to(dtype)
    how, adapt = runtime_of(lora, runtime, world.device), None if lora is None else adapters_of(lora)
    trained = assembly.Training(dtype, adapt, runtime.checkpoint_activations)
    return model, assembly.assemble(assembly.Models(model), how, world, training=trained)


def runtime_of(config: TransformerTraining | LoraTraining | None, runtime: TrainingRuntime, device: torch.device) -> Runtime:
    """How the models of a training are put together."""
    in_8_bits = isinstance(config, LoraTraining) and config.fp8
    return Runtime(attention=for_training(device), fp8=in_8_bits, offload="blocks" if runtime.swap_blocks else "none")


def memory_plan(
    config: TransformerTraining | LoraTraining,
    runtime: TrainingRuntime,
    world_size: int,
    device: torch.device,
    cache: AnyCache | None,
    sizes: TransformerConfig | None = None,
) -> MemoryPlan:
    """What the training will take on each device; `sizes` instead of those of its weights asks for another model.

    Raises:
        ValueError: blocks are to come and go that are trained, or that ranks share.
    """
    dtype = dtype_of_worker(config.dtype, device)
    in_8_bits = False
    if sizes is None:
        sizes, in_8_bits = sizes_of(config, cache)
    is_lora = isinstance(config, LoraTraining)
    if runtime.swap_blocks and (world_size > 1 or not is_lora):
        why = "all weights are trained, and stay" if not is_lora else f"{world_size} ranks share them already"
        raise ValueError(f"swap_blocks lets frozen blocks come and go, but {why}; leave it out.")
    planned = partial(
        predict,
        sizes,
        kind="lora" if is_lora else "full",
        rank=config.rank if is_lora else 1,
        where=adapted_by(config) if is_lora else in_attention_and_mlp,
        world_size=world_size,
        activation_checkpointing=runtime.checkpoint_activations,
        ema=config.ema_decay is not None,
        fp8_base=in_8_bits or (is_lora and config.fp8),
        swap_blocks=runtime.swap_blocks,
        clean=how_told(sizes) == "first_frame" and any(getattr(config, name) > 0 for name in GIVEN),
        accumulate=config.batches_per_step * runtime.sequence_parallel > world_size,
        dtype=dtype,
        attention=KINDS[for_training(device)],
    )
    batches = micro_batches(config, cache, runtime.sequence_parallel, longest_text(config.start, sizes))
    fullest = {max(batches, key=lambda batch: batch.sum_over_samples(power)) for power in (1, 2)}
    plan = max((planned(batch=batch) for batch in fullest), key=lambda plan: plan.total)
    if not is_lora and config.distill:
        teacher = plan.lines["trained weights (float32)"] * dtype.itemsize // 4
        plan = replace(plan, lines={"teacher": teacher} | plan.lines)
    return plan


def sizes_of(config: TransformerTraining | LoraTraining, cache: AnyCache | None) -> tuple[TransformerConfig, bool]:
    """The sizes of the model to train, and whether its weights come in 8 bits."""
    if config.start is None:
        assert isinstance(config, TransformerTraining)  # a LoRA has a start
        return sizes_from_nothing(config, cache if isinstance(cache, LatentCache) else LatentCache(config.cache)), False
    state, sizes = read_transformer(transformer_file(config.start))
    return sizes, any(tensor.dtype == fp8.FP8 for tensor in state.values())


def micro_batches(
    config: Training, cache: AnyCache | None, sequence_parallel: int, longest_text: int = MAX_TEXT_TOKENS
) -> list[MicroBatch]:
    """What one rank holds of the largest micro-batch of each bucket; where there is no cache yet, one sample that fills the budget."""
    batches = [MicroBatch(1, config.token_budget, longest_text)]
    if cache is not None:
        largest = schedule_of(config, cache).largest
        batches = [MicroBatch(samples, bucket.tokens, cache.text_tokens(bucket)) for bucket, samples in largest.items()]
    # The ranks of a sequence share its image tokens; text is on each of them.
    return [batch._replace(image_tokens=-(-batch.image_tokens // sequence_parallel)) for batch in batches]


def build_model(config: TransformerTraining | LoraTraining, cache: LatentCache, dtype: torch.dtype) -> HunyuanVideoTransformer:
    """The model to train, without adapters, on the CPU of rank 0 and elsewhere on the meta device; what is trained of it is float32, what
    adapters are beside is in `dtype`.

    Raises:
        ValueError: the weights are for other latents or other text encoders than the cache's, or are in 8 bits and not for a LoRA.
    """
    if isinstance(config, LoraTraining):
        model = load(config.start, dtype)
    elif config.start is None:
        with CPU if is_first() else torch.device("meta"):
            model = HunyuanVideoTransformer(sizes_from_nothing(config, cache))
        if is_first():
            initialize(model, random_generator(config.seed, "initialization"))
    else:
        model = load(config.start, torch.float32)
        if any(isinstance(module, fp8.Fp8Linear) for module in model.modules()):
            raise ValueError(f"{config.start} has 8-bit weights, beside which only a LoRA can be trained; start from 16-bit ones.")
        model = (student_of(model, config.seed) if config.distill else model).requires_grad_(True)
    pairs = (
        ("latent channels", model.config.out_channels, cache.latent_channels),
        ("features in a text state", model.config.text_dim, cache.text_dim),
        ("features in the pooled text", model.config.pooled_dim, cache.pooled_dim),
    )
    for what, needs, has in pairs:
        if needs != has:
            raise ValueError(f"{config.start} needs {needs} {what}, but the cache {config.cache} has {has}: make one with its encoders.")
    return model


def adapters_of(config: LoraTraining) -> Callable[[HunyuanVideoTransformer], None]:
    """Puts new adapters into a model."""
    generator = random_generator(config.seed, "initialization")
    assert config.alpha is not None  # settled by the settings
    return partial(add_lora, rank=config.rank, alpha=config.alpha, where=adapted_by(config), generator=generator)


def adapted_by(config: LoraTraining) -> Callable[[str], bool]:
    """Which layers, by name, get an adapter."""
    if config.layers is None:
        return in_attention_and_mlp
    pattern = re.compile(config.layers)
    return lambda name: pattern.search(name) is not None


def load(start: Path, dtype: torch.dtype) -> HunyuanVideoTransformer:
    """A frozen transformer from a weights root or a file, on the CPU; of many ranks, the first's."""
    return load_on_rank_0(transformer_file(start), dtype)


def transformer_file(start: Path) -> Path:
    """The transformer of a weights root, or the file itself.

    Raises:
        FileNotFoundError: there is none.
    """
    path = weights.locate(start).transformer if start.is_dir() else start
    if not path.is_file():
        raise FileNotFoundError(f"start is {start}, but there is no {path}; give a weights root, or a transformer file.")
    return path


def start_identity(start: Path) -> str:
    """Tells whether a training that is continued still starts from the same weights."""
    return identity.of_transformer(transformer_file(start))


def sizes_from_nothing(config: TransformerTraining, cache: LatentCache) -> TransformerConfig:
    """The configured sizes, for the latents and texts of a cache."""
    return TransformerConfig(
        in_channels=2 * cache.latent_channels + 1 if cache.told == "latent_concat" else cache.latent_channels,
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


def show(
    config: TransformerTraining | LoraTraining,
    folder: Path,
    step: int,
    model: HunyuanVideoTransformer,
    masters: MasterWeights,
    validate: Validator | None,
    held_out: HeldOut | None,
) -> dict[str, float]:
    """What there is to see of a training on its way, with the averaged weights: a LoRA's file, the videos and the losses that were asked
    for, of which the losses are returned. Every rank must come."""
    if not isinstance(config, LoraTraining) and validate is None and held_out is None:
        return {}  # to exchange all weights with their averages costs time, on many GPUs between them, too
    with masters.averaged(model):
        if isinstance(config, LoraTraining):
            save_intermediate(config, folder, step, model)
        if validate is not None:
            validate(step)
        return {} if held_out is None else held_out()


def save_intermediate(config: LoraTraining, folder: Path, step: int, model: HunyuanVideoTransformer) -> None:
    """Write the LoRA that the model has now into a file of its own. Every rank must come."""
    lora, path = lora_of(model), folder / "loras" / f"step-{step:08d}.safetensors"

    def write() -> None:
        path.parent.mkdir(exist_ok=True)
        save_lora(lora, path, DIALECTS[0], getattr(torch, config.save_dtype))

    once(write)


def save_result(config: TransformerTraining | LoraTraining, folder: Path, model: HunyuanVideoTransformer, masters: MasterWeights) -> None:
    """Write the averaged weights, gathered from all ranks tensor by tensor."""
    dtype: torch.dtype = getattr(torch, config.save_dtype)
    if isinstance(config, LoraTraining):
        with masters.averaged(model):
            lora = lora_of(model)

        def write() -> None:
            for dialect, path in zip(DIALECTS, results(config, folder), strict=True):
                save_lora(lora, path, dialect, dtype)
    else:
        state = {name: value.to(CPU, dtype) for name, value in masters.result() if is_first()}

        def write() -> None:
            with replacing(results(config, folder)[0]) as (temporary, _):
                save_file(state, temporary)

    once(write)  # and nobody goes on before: the next stage of a recipe reads it, on every rank
