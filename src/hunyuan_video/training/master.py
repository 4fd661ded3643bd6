"""Float32 weights behind a bfloat16 model.

The bfloat16 copy computes; AdamW steps the float32 masters with its gradients and the copy gets them back, rounded. Autocast would cast
every weight again in every forward and backward pass, and a step too small for bfloat16 is not lost.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

import torch
from torch import Tensor, nn


class MasterWeights:
    """The masters of a model's parameters, their optimizer, and their exponential moving average."""

    def __init__(self, model: nn.Module, *, betas: tuple[float, float], weight_decay: float, clip_norm: float, ema_decay: float):
        self.clip_norm = clip_norm
        self.ema_decay = ema_decay
        self.masters: dict[str, Tensor] = {name: parameter.detach().clone().float() for name, parameter in model.named_parameters()}
        self.ema: dict[str, Tensor] = {name: master.clone() for name, master in self.masters.items()}
        # The fused kernel updates all of the many small tensors in one call.
        self.optimizer = torch.optim.AdamW(list(self.masters.values()), lr=0.0, betas=betas, weight_decay=weight_decay, fused=True)

    def step(self, worker: nn.Module, step: int, learning_rate: float) -> float:
        """One update from the gradients of `worker`, a copy of the model in any dtype that may lack some parameters.

        Returns the gradient's norm before clipping. A gradient that is not finite changes nothing.
        """
        used = {name: parameter for name, parameter in worker.named_parameters() if parameter.grad is not None}
        for name, master in self.masters.items():
            gradient = used[name].grad if name in used else None
            master.grad = None if gradient is None else gradient.float()
        worker.zero_grad(set_to_none=True)
        norm = nn.utils.clip_grad_norm_(list(self.masters.values()), self.clip_norm).item()
        if isfinite(norm):
            self.optimizer.param_groups[0]["lr"] = learning_rate
            self.optimizer.step()
        # A long average would hold on to the random start for as long, so it begins short.
        decay = min(self.ema_decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(self.ema.values()), list(self.masters.values()), 1 - decay)
        self.load_into(worker)
        return norm

    @torch.no_grad()
    def load_into(self, worker: nn.Module) -> None:
        """Round the masters into a worker's parameters."""
        names, parameters = zip(*worker.named_parameters(), strict=True)
        torch._foreach_copy_(list(parameters), [self.masters[name] for name in names])

    def state_dict(self) -> dict[str, Any]:
        return {"masters": self.masters, "ema": self.ema, "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for own, saved in ((self.masters, state["masters"]), (self.ema, state["ema"])):
            torch._foreach_copy_(list(own.values()), [saved[name] for name in own])
        self.optimizer.load_state_dict(state["optimizer"])
