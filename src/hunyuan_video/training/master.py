"""Float32 weights behind the model that computes, which may be a bfloat16 copy or be sharded over many ranks.

The masters are what of a model's trainable parameters is in this process: the parameters themselves, or this rank's shards of them. The
`worker` makes the gradients: the model itself where it is sharded (FSDP casts on its way) or float32 anyway, else a bfloat16 copy.
Autocast would cast every weight again in every forward and backward pass; and a step too small for bfloat16 is not lost.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import isfinite

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from hunyuan_video.config import ComputingDType
from hunyuan_video.cpu import multiplies_bfloat16
from hunyuan_video.distributed.sharding import local, placed_like


def dtype_of_worker(given: ComputingDType, device: torch.device) -> torch.dtype:
    """auto: bfloat16, but float32 on a CPU that does not multiply that."""
    if given != "auto":
        return getattr(torch, given)
    return torch.bfloat16 if device.type != "cpu" or multiplies_bfloat16() else torch.float32


class MasterWeights:
    """The trainable parameters of a float32 model, their optimizer, and their exponential moving average (without `ema_decay`, none)."""

    def __init__(self, model: nn.Module, *, betas: tuple[float, float], weight_decay: float, clip_norm: float, ema_decay: float | None):
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.parameters = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
        self.sharded = any(isinstance(parameter, DTensor) for parameter in self.parameters.values())
        self.masters = {name: local(parameter) for name, parameter in self.parameters.items()}
        self.ema = {} if ema_decay is None else {name: master.clone() for name, master in self.masters.items()}
        # The fused kernel updates all of the many small tensors in one call.
        self.optimizer = torch.optim.AdamW(list(self.masters.values()), lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)
        # There from the start, so that a checkpoint has a place to be read into. All counts are one tensor: files of many are slow.
        self.updates = torch.zeros(len(self.masters), device=next(iter(self.masters.values())).device)
        for count, master in zip(self.updates, self.masters.values(), strict=True):
            self.optimizer.state[master] = {"step": count, "exp_avg": torch.zeros_like(master), "exp_avg_sq": torch.zeros_like(master)}

    def accumulate(self, worker: nn.Module) -> None:
        """Move the gradients of `worker`, which may lack some parameters, to the masters, where they add up in float32."""
        for name, parameter in worker.named_parameters():
            if parameter.grad is not None:
                gradient, master = local(parameter.grad).float(), self.masters[name]
                master.grad = gradient if master.grad is None else master.grad.add_(gradient)
                parameter.grad = None

    def step(self, worker: nn.Module, step: int, learning_rate: float, *, usable: bool = True) -> float:
        """One update from the gradients of `worker` and those accumulated before.

        Returns the gradient's norm before clipping. If that is not finite, or the gradient is not `usable`, nothing changes.
        """
        self.accumulate(worker)
        masters = [master for master in self.masters.values() if master.grad is not None]
        norm = nn.utils.get_total_norm([master.grad for master in masters if master.grad is not None])
        if self.sharded:
            squares = norm.square()
            dist.all_reduce(squares)
            norm = squares.sqrt()
        if usable and isfinite(norm.item()):
            nn.utils.clip_grads_with_norm_(masters, self.clip_norm, norm)
            self.optimizer.param_groups[0]["lr"] = learning_rate
            self.optimizer.step()
            if self.ema_decay is not None:
                # A long average would hold on to the random start for as long, so it begins short.
                decay = min(self.ema_decay, (1 + step) / (10 + step))
                torch._foreach_lerp_(list(self.ema.values()), list(self.masters.values()), 1 - decay)
            self.load_into(worker)
        self.optimizer.zero_grad(set_to_none=True)
        return norm.item()

    @torch.no_grad()
    def load_into(self, worker: nn.Module) -> None:
        """Round the masters into a worker's parameters, where those are not the masters themselves."""
        pairs = [(local(parameter), self.masters[name]) for name, parameter in worker.named_parameters() if name in self.masters]
        copies = [(own, master) for own, master in pairs if own.data_ptr() != master.data_ptr()]
        if copies:
            parameters, masters = zip(*copies, strict=True)
            torch._foreach_copy_(list(parameters), list(masters))

    @contextmanager
    def averaged(self, worker: nn.Module) -> Iterator[None]:
        """Inside the block the model has the averaged weights (without an average, its own); afterwards every bit is as before."""
        self._exchange()
        self.load_into(worker)
        try:
            yield
        finally:
            self._exchange()
            self.load_into(worker)

    def _exchange(self) -> None:
        for name, average in self.ema.items():  # one at a time, in place: a second copy might not fit
            master = self.masters[name]
            held = master.clone()
            master.copy_(average)
            average.copy_(held)

    def state_dict(self) -> dict[str, Tensor]:
        """All tensors by name, to be saved or read into in place; shards as parts of the whole, whatever the number of ranks."""
        state = {"updates": self.updates}
        for name, parameter in self.parameters.items():
            moments = self.optimizer.state[self.masters[name]]
            state[f"master.{name}"] = placed_like(self.masters[name], parameter)
            state[f"exp_avg.{name}"] = placed_like(moments["exp_avg"], parameter)
            state[f"exp_avg_sq.{name}"] = placed_like(moments["exp_avg_sq"], parameter)
            if name in self.ema:
                state[f"ema.{name}"] = placed_like(self.ema[name], parameter)
        return state

    def result(self) -> Iterator[tuple[str, Tensor]]:
        """Name and value of each averaged (without an average, latest) weight, whole on every rank, one at a time."""
        for name, parameter in self.parameters.items():
            value = placed_like((self.ema or self.masters)[name], parameter)
            yield name, value.full_tensor() if isinstance(value, DTensor) else value
