"""What is done to finished models before they work: the one written order of transforms, and what of them cannot go together.

Loading, the plan (on the meta device), validation and training all call `assemble`, so that none of them can forget a step, or know another
order. It reads no file, logs nothing, and knows only what it is given; models are changed in place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from hunyuan_video.config import Runtime
from hunyuan_video.cpu import multiplies_bfloat16
from hunyuan_video.distributed.pipefusion import spread_blocks
from hunyuan_video.distributed.sequence import check_degrees, parallelize_sequence
from hunyuan_video.distributed.wire import Wire
from hunyuan_video.distributed.world import World
from hunyuan_video.kernels import fused, partial
from hunyuan_video.kernels.choice import CHOSEN, check_attention, kernel_of, use_attention
from hunyuan_video.models.transformer import HunyuanVideoTransformer
from hunyuan_video.models.vae import CausalVAE
from hunyuan_video.transforms import fp8
from hunyuan_video.transforms.ahead import early_tensors
from hunyuan_video.transforms.chunk import in_chunks
from hunyuan_video.transforms.lean import lean_blocks
from hunyuan_video.transforms.lora import Lora, Strength, apply_lora, merge_lora
from hunyuan_video.transforms.offload import lock_at_home, offload_blocks, to_device
from hunyuan_video.transforms.phase_upsample import upsample_by_phases
from hunyuan_video.transforms.read_ahead import mapped_spans, read_ahead, size_of
from hunyuan_video.transforms.recompute import recompute_blocks


@dataclass(frozen=True)
class Models:
    """Finished models, as `checkpoint` gives them. The text encoders are a module whose language model is `llm`."""

    transformer: HunyuanVideoTransformer | None = None
    text: nn.Module | None = None
    vae: CausalVAE | None = None

    def present(self) -> list[nn.Module]:
        return [model for model in (self.text, self.transformer, self.vae) if model is not None]

    def stacks(self) -> dict[str, list[nn.Module]]:
        """The blocks that can come and go one at a time, in the order in which they work, by the model's name."""
        stacks: dict[str, list[nn.Module]] = {}
        if self.text is not None:
            stacks["text"] = list(self.text.get_submodule("llm.layers").children())
        if self.transformer is not None:
            stacks["transformer"] = self.transformer.blocks
        return stacks


@dataclass(frozen=True)
class Training:
    """What a training does to its transformer, which computes in `dtype`; `adapt` puts the adapters there that are trained."""

    dtype: torch.dtype
    adapt: Callable[[HunyuanVideoTransformer], None] | None = None
    checkpoint_activations: bool = False


def assemble(
    models: Models,
    runtime: Runtime,
    world: World = World(),  # noqa: B008 (frozen)
    *,
    loras: Sequence[tuple[Lora, Strength]] = (),
    in_file: bool = False,
    room: int | None = None,
    training: Training | None = None,
) -> list[Tensor]:
    """Make models ready to work on the device of `world`, as a checked `runtime` says (see `check`).

    `in_file` says that the transformer's weights are used where they lie, in their file; of weights in files, those of all models together
    may hold on to `room` bytes of memory from step to step.

    Returns the tensors that come and go by themselves, block by block, or before a video's first step (see `ahead`), for `on_device` to
    leave alone.

    Raises:
        ValueError: an adapter does not fit the transformer.
    """
    if (transformer := models.transformer) is not None:
        # Adapters before 8 bits, into which merging would lose them. They stay live over weights that came in 8 bits or stay in their file.
        for lora, strength in loras:
            (apply_lora if in_file else merge_lora)(transformer, lora, strength)
        # 8 bits before anything moves: they are made where the weights were loaded, so that the device need never hold more.
        if runtime.fp8:
            fp8.quantize(transformer)
        # Adapters that are trained go beside 8-bit weights, and stay in float32.
        if training is not None and training.adapt is not None:
            training.adapt(transformer)
        # 8-bit products are of the layers that are in 8 bits by now, also of those under adapters.
        if runtime.fp8_matmul:
            fp8.multiply_in_8_bits(transformer)
        # The kernel before what wraps it. The fastest depends on the length, and is chosen for each video.
        if runtime.attention not in CHOSEN:
            use_attention(transformer, kernel_of(runtime.attention, world.device))
        # Of blocks that go backward every intermediate value is needed. Before what wraps the trunk, which is another one then.
        if training is None:
            lean_blocks(transformer)
        # Inside sequence parallelism, so that a block computed again trades tokens again, in step with the other ranks.
        if training is not None and training.checkpoint_activations:
            recompute_blocks(transformer)
        # It cuts the tokens of all blocks, and brings all of them to whichever kernel is there.
        if world.sequence is not None:
            parallelize_sequence(transformer, world.sequence, Wire(runtime.wire))
        # After all that is done to blocks by their names, of which most are gone now, and before weights move to the device.
        if world.stages is not None:
            spread_blocks(transformer, world.stages)
    if models.text is not None and runtime.text_fp8:
        fp8.quantize(models.text.get_submodule("llm"), fp8.in_layers)
    if models.vae is not None:
        # In either order. Chunks last, for they also lay out the weights in the dtype that computes.
        upsample_by_phases(models.vae)
        in_chunks(models.vae)

    # Where the weights are comes last: hooks and shards are of the layers that stand there now.
    if world.mesh is not None and (training is not None or runtime.shard):
        from hunyuan_video.distributed.sharding import shard  # PyTorch's FSDP takes a second to import

        dtype = None if training is None else training.dtype
        if transformer is not None:
            shard(transformer, transformer.blocks, world.mesh, world.device, dtype)
        if models.text is not None:
            llm = models.text.get_submodule("llm")
            shard(llm, models.stacks()["text"], world.mesh, world.device, dtype)
    early = [] if transformer is None or training is not None else [*early_tensors(transformer).values()]
    streamed: list[Tensor] = []
    if runtime.offload == "blocks":
        trained = [parameter for model in models.present() for parameter in model.parameters() if parameter.requires_grad]
        for blocks in models.stacks().values():
            streamed += offload_blocks(blocks, world.device, [*early, *trained])
    if runtime.offload == "none" or training is not None:  # a training works all the time
        for model in models.present():
            to_device(model, world.device, [*early, *streamed])
    if room is not None:
        _read_ahead(models, room, early)
    for model in models.present() if training is None else []:
        lock_at_home(model, world.device, streamed)  # which are in such memory already
    return streamed + early


def _read_ahead(models: Models, room: int, early: list[Tensor]) -> None:
    """Let what fits of the large models stay in memory. If not both fit, the language model, which works once a video, makes room."""
    stacks = models.stacks()
    whole = sum(size_of(mapped_spans(model, early)) for model in models.present())
    for name, blocks in stacks.items():
        read_ahead(blocks, room if name == "transformer" or whole <= room else 0, early)


def check(
    runtime: Runtime,
    world: World,
    *,
    num_heads: int | None = None,
    head_dim: int | None = None,
    dtype: torch.dtype | None = None,
    in_file: bool = False,
    training: bool = False,
    recompute: bool = False,
) -> None:
    """Refuse at the start, before weights are read, what cannot work or cannot work together. Arguments as for `assemble`; `num_heads`,
    `head_dim` and `dtype` are the transformer's; `recompute` says that a training computes activations twice.

    Raises:
        ValueError: says what cannot, and why.
    """
    if runtime.block_ops != "auto" and training:
        raise ValueError(
            f"block_ops is {runtime.block_ops!r}, but trainings need every value of a block and compute as the model does; leave it."
        )
    if reason := fused.why_not(runtime.block_ops, world.device):
        raise ValueError(reason)
    check_attention(runtime.attention, world.device, training=training, dtype=dtype, head_dim=head_dim)
    if runtime.attention not in ("auto", *partial.NAMES) and world.degrees.ring > 1:
        raise ValueError(
            f"attention is {runtime.attention!r}, which sees all keys at once, but with ring_degree {world.degrees.ring} they come in "
            f"parts; use one of auto, {', '.join(partial.NAMES)}, or Ulysses alone."
        )
    if runtime.fp8_matmul and training:
        raise ValueError("fp8_matmul rounds activations, which have no gradient then: it is for inference; train with fp8 alone.")
    if runtime.fp8_matmul:
        fp8.check_multiplies(world.device)
    if runtime.offload == "models" and training:
        raise ValueError("offload is 'models', but a training works all the time; use 'blocks', or more ranks, which share weights.")
    if runtime.offload == "blocks" and training and not recompute:
        raise ValueError("offload is 'blocks', but activations that are kept would keep the blocks' weights, too; compute them twice.")
    if runtime.offload == "blocks" and training and world.mesh is not None:
        raise ValueError("offload is 'blocks', but of several ranks in a training none has whole blocks that could come and go.")
    if in_file and (training or world.size > 1):
        raise ValueError("Weights that stay in their file are for inference in one process: of many, one reads.")
    if runtime.shard and world.size == 1:
        raise ValueError("shard spreads weights over several GPUs, but this is one process; leave it out, or start more (--gpus).")
    if runtime.shard and runtime.offload != "none":
        raise ValueError(f"offload is {runtime.offload!r}, but with shard no GPU has whole weights that could come and go.")
    if in_file and runtime.offload == "blocks":
        raise ValueError("offload is 'blocks', which would copy weights into memory that are used in their file; on a CPU, leave it out.")
    if runtime.progressive != "off" and training:
        raise ValueError(f"progressive is {runtime.progressive!r}, which is for sampling: trainings have one size a step; leave it out.")
    if runtime.wire == "fp8" and world.sequence is None:
        raise ValueError("wire is 'fp8', but no tokens are shared here, and nothing is sent that could be in 8 bits; leave it out.")
    if runtime.warmup_steps != Runtime.warmup_steps and runtime.pipefusion_patches is None:
        raise ValueError(f"warmup_steps is {runtime.warmup_steps}, but without pipefusion_patches every step is exact; leave it out.")
    if runtime.step_cache != "off" and training:
        raise ValueError(f"step_cache is {runtime.step_cache!r}, which is for inference: a training has no steps that follow each other.")
    if runtime.step_cache != "off" and runtime.shard and world.across is not None:
        raise ValueError(
            "shard gathers every block on all ranks, but with step_cache each half of them, which computes one branch of guidance, leaves "
            "out other steps, and would wait for ever; leave out one of them, or give degrees for all ranks."
        )
    if runtime.pipefusion_patches is not None and training:
        raise ValueError("pipefusion_patches are for inference: keys that are a step old have no gradient.")
    if runtime.pipefusion_patches is not None and world.sequence is not None:
        raise ValueError(
            "pipefusion_patches need every token's keys on one rank, which sequence parallelism spreads; leave them out, or the degrees."
        )
    if runtime.pipefusion_patches is not None and runtime.shard:
        raise ValueError(
            "shard would gather every block for every patch of pipefusion_patches; leave it out: pipefusion_stages spread weights, too."
        )
    if runtime.sparse_pattern != Runtime.sparse_pattern and runtime.attention_density == 1:
        raise ValueError(f"sparse_pattern is {runtime.sparse_pattern!r}, but attention_density is 1, which is all; leave it out.")
    if runtime.attention_density < 1 and training:
        raise ValueError("attention_density is for inference: what is left out has no gradient; train with 1.")
    if runtime.attention_density < 1 and (runtime.pipefusion_patches is not None or world.degrees.ring > 1):
        spread, instead = (
            ("pipefusion_patches", "leave them out") if runtime.pipefusion_patches is not None else ("a ring", "Ulysses ranks alone")
        )
        raise ValueError(
            f"attention_density is {runtime.attention_density:g}, but with {spread} no kernel sees all of a head's tokens at once, to "
            f"choose of them; use 1, or {instead}."
        )
    if num_heads is not None:
        check_degrees(world.degrees, num_heads)


def dtype_of(part: Literal["text", "transformer", "vae"], runtime: Runtime, device: torch.device, *, large: bool) -> torch.dtype:
    """The dtype of a part, which may be `large`. float16, which CPUs emulate, is never chosen for one, and bfloat16 only if it is not."""
    given = {"text": runtime.text_dtype, "transformer": runtime.dtype, "vae": runtime.vae_dtype}[part]
    if given != "auto":
        return getattr(torch, given)
    if device.type == "cpu":
        return torch.bfloat16 if large and multiplies_bfloat16() else torch.float32
    return torch.bfloat16 if part == "transformer" else torch.float16
