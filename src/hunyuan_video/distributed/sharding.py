"""A model's weights spread over many ranks (FSDP2), and gathered block by block while they work.

Gradients are averaged over all ranks, which is right for ranks with samples of their own and for ranks that share a sample's tokens.
One process does without: at world size 1 it would cost time, and the memory of one gathered block.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor, distribute_tensor

from hunyuan_video.distributed.once import deliver
from hunyuan_video.models.transformer import HunyuanVideoTransformer


def shard(model: nn.Module, blocks: Sequence[nn.Module], mesh: DeviceMesh, device: torch.device, dtype: torch.dtype | None) -> None:
    """Spread the first rank's model over all ranks, block by block; a block is gathered while it works, in `dtype` or as it is, but for
    8-bit weights, which stay so. Reductions are float32.

    Other ranks may have theirs on the meta device: tensor by tensor, they are sent what they keep a shard of.
    """
    keep_bytes(model)
    whole = {name: tensor.detach() for name, tensor in _tensors(model)}
    model.to("meta")
    # Inputs are not cast: t must stay float32.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in (*blocks, model):
        # The outermost is resharded, too: what stayed gathered would not notice that validation exchanges the weights.
        # The order of blocks need not be told for the next one to be gathered while one computes: on a GPU the host runs ahead, for nothing
        # in a block waits for a value, and FSDP gathers on a stream of its own, one block ahead at most.
        fully_shard(module, mesh=mesh, mp_policy=policy, reshard_after_forward=True)
    model.to_empty(device=device)
    for name, tensor in _tensors(model):
        received = deliver(whole.pop(name), device, tensor.dtype)
        if isinstance(tensor, DTensor):
            received = distribute_tensor(received, tensor.device_mesh, tensor.placements, src_data_rank=None)  # every rank has it
        local(tensor).copy_(local(received))
    if isinstance(model, HunyuanVideoTransformer):
        register_fsdp_forward_method(model, "condition")
    # The velocity is a view, and nothing is done to it in place.
    warnings.filterwarnings("ignore", message="FSDP2-wrapped module .* returned a view tensor")


def keep_bytes(model: nn.Module) -> None:
    """Make 8-bit weights whole numbers of the same bits: FSDP would gather floating-point ones in the compute dtype, twice or four times as
    many bytes, and cast without their scale."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if parameter.is_floating_point() and parameter.itemsize == 1:
                module.register_parameter(name, nn.Parameter(parameter.view(torch.uint8), requires_grad=False))


def local(tensor: Tensor) -> Tensor:
    """What of a tensor is in this process, without its history; shares its memory."""
    tensor = tensor.detach()
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def placed_like(shard: Tensor, like: Tensor) -> Tensor:
    """`shard` as the part of a whole that it is; shares its memory."""
    if not isinstance(like, DTensor):
        return shard
    return DTensor.from_local(shard, like.device_mesh, like.placements, run_check=False, shape=like.shape, stride=like.stride())


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    yield from model.named_buffers()
