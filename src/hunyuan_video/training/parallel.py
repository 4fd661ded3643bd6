"""A training on many ranks: torchrun's processes, FSDP2, sequence parallelism, and activations that are computed twice instead of kept.

Rank r of a world with P ranks to a sequence belongs to data rank r // P: the ranks of one data rank see the same samples and share their
tokens. Weights, gradients and optimizer are sharded over all ranks, whose gradients FSDP averages, which is right for both kinds.

One process needs none of this, and does without: FSDP at world size 1 would cost it time, and the memory of one gathered block.
"""

from __future__ import annotations

import copy
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.utils.checkpoint import checkpoint

from hunyuan_video.checkpoint.ranks import deliver
from hunyuan_video.models.transformer import Context, HunyuanVideoTransformer
from hunyuan_video.pipeline import resolve_device
from hunyuan_video.training.master import local

CPU = torch.device("cpu")
FIRST_TORCH = "2.13"  # in which training on several ranks is tested
PATIENCE = timedelta(hours=2)  # one rank may read 26 GB, or decode a video, while the others wait


@dataclass(frozen=True)
class World:
    """This process among all. Without torchrun, the only one."""

    device: torch.device = CPU
    rank: int = 0
    size: int = 1
    sequence_parallel: int = 1
    mesh: DeviceMesh | None = None
    sequence_group: dist.ProcessGroup | None = None

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def data_rank(self) -> int:
        return self.rank // self.sequence_parallel

    @property
    def data_size(self) -> int:
        return self.size // self.sequence_parallel

    @property
    def leads_sequence(self) -> bool:
        """One rank of each data rank: what is counted, or written, once for all ranks that see the same samples."""
        return self.rank % self.sequence_parallel == 0

    def sum(self, *values: float) -> list[float]:
        """The sums over all ranks, the same on each. Nobody passes before all have come."""
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        if self.size > 1:
            dist.all_reduce(total)
        return total.tolist()

    def from_main(self, value: int) -> int:
        """The number that rank 0 has."""
        return int(self.sum(float(value) if self.is_main else 0.0)[0])


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The connection of torchrun's processes. Inside another such block it is that one's: it cannot be made twice with the same port."""
    if world_size() == 1 or dist.is_initialized():
        yield
        return
    backend = "gloo"
    if resolve_device(device).type == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "cpu:gloo,cuda:nccl"
    if int(os.environ["RANK"]) > 0:
        logging.getLogger("hunyuan_video").setLevel(logging.WARNING)
    dist.init_process_group(backend, timeout=PATIENCE)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextmanager
def join_world(device: str, sequence_parallel: int) -> Iterator[World]:
    """The world that torchrun made, or one process.

    Raises:
        ValueError: the ranks cannot be shared out, or PyTorch is too old for them.
    """
    size, where = world_size(), resolve_device(device)
    if size > 1 and torch.__version__ < FIRST_TORCH:
        raise ValueError(
            f"Training on several ranks needs PyTorch {FIRST_TORCH} or newer, whose FSDP keeps the shards that the optimizer knows; "
            f"this is {torch.__version__}."
        )
    if sequence_parallel < 1 or size % sequence_parallel:
        raise ValueError(
            f"sequence_parallel is {sequence_parallel}, but there are {size} processes; it must divide their number "
            "(`torchrun --nproc-per-node N -m hunyuan_video.cli train …` starts N)."
        )
    with process_group(device):
        if size == 1:
            yield World(where)
            return
        if where.type == "cuda":
            where = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        mesh = init_device_mesh(where.type, (size,))
        grid = init_device_mesh(where.type, (size // sequence_parallel, sequence_parallel), mesh_dim_names=("data", "sequence"))
        group = grid.get_group("sequence") if sequence_parallel > 1 else None
        yield World(where, dist.get_rank(), size, sequence_parallel, mesh, group)


def world_size() -> int:
    """How many processes torchrun has started."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def make_worker(model: HunyuanVideoTransformer, world: World, dtype: torch.dtype) -> HunyuanVideoTransformer:
    """What computes in `dtype` for a model whose trainable parameters are float32: the model itself, sharded over the ranks or where that
    is float32 too or adapters compute in their input's dtype; else a copy."""
    if world.size > 1:
        shard(model, world, dtype)
        return model
    model.to(world.device)
    if all(parameter.requires_grad for parameter in model.parameters()) and dtype != torch.float32:
        return copy.deepcopy(model).to(dtype)
    return model


def shard(model: HunyuanVideoTransformer, world: World, dtype: torch.dtype) -> None:
    """Spread rank 0's model over all ranks, block by block; a block is gathered, in `dtype`, while it works. Reductions are float32.

    Other ranks may have theirs on the meta device: tensor by tensor, they are sent what they keep a shard of.
    """
    whole = {name: tensor.detach() for name, tensor in _tensors(model)}
    model.to("meta")
    # Inputs are not cast: t must stay float32.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in (*model.double_blocks, *model.single_blocks, model):
        # The outermost is resharded, too: what stayed gathered would not notice that validation exchanges the weights.
        fully_shard(module, mesh=world.mesh, mp_policy=policy, reshard_after_forward=True)
    model.to_empty(device=world.device)
    for name, tensor in _tensors(model):
        received = deliver(whole.pop(name), world.device, tensor.dtype)
        if isinstance(tensor, DTensor):
            received = distribute_tensor(received, tensor.device_mesh, tensor.placements, src_data_rank=None)  # every rank has it
        local(tensor).copy_(local(received))
    register_fsdp_forward_method(model, "condition")
    # The velocity is a view, and nothing is done to it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


def checkpointed_trunk(
    model: HunyuanVideoTransformer, img: Float[Tensor, "B N D"], txt: Float[Tensor, "B L D"], ctx: Context
) -> Float[Tensor, "B N D"]:
    """A model's `trunk` that keeps only what goes into each block, and computes the block again in the backward pass."""
    again = partial(checkpoint, use_reentrant=False, preserve_rng_state=False)  # nothing in a block is random
    for block in model.double_blocks:
        img, txt = again(block, img, txt, ctx)
    x = torch.cat([img, txt], dim=1)
    ctx = ctx._replace(rope=ctx.rope.with_text(txt.shape[1]))
    for block in model.single_blocks:
        x = again(block, x, ctx)
    return x[:, : img.shape[1]]
