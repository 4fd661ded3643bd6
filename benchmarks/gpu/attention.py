"""Part 2: attention as the 13B does it, by every kernel that is installed here.

A call at 129 frames of 720x1280 is 4 x 24 heads x 119,056^2 tokens x 128 = 174 TFLOP: half a second of FlashAttention 2 on an H100.
"""

from __future__ import annotations

import importlib
from functools import partial
from typing import Any

import torch
from measure import deviation
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from gpu.part import Part, UnavailableError, kernels_of
from hunyuan_video.models.attention import AttentionFn, sdpa

HEADS, HEAD_DIM = 24, 128
TOKENS = (119_056, 67_576)  # 129 frames of 720x1280 and of 544x960, and 256 of text
CHECKED = 64  # query rows that are also computed in float32
BACKENDS = {"cudnn": SDPBackend.CUDNN_ATTENTION, "flash": SDPBackend.FLASH_ATTENTION, "efficient": SDPBackend.EFFICIENT_ATTENTION}
# Name of ours: module, function, further arguments. All take [B, L, H, D].
PACKAGES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "flash-attn 4": ("flash_attn.cute", "flash_attn_func", {}),
    "flash-attn 3": ("flash_attn_interface", "flash_attn_func", {}),
    "flash-attn 2": ("flash_attn", "flash_attn_func", {}),
    "sageattention": ("sageattention", "sageattn", {"tensor_layout": "NHD"}),
}
NAMES = ("default", *BACKENDS, *PACKAGES)
LARGEST_ERROR = 0.02  # of a kernel that may be the best


def kernel(name: str, device: torch.device) -> AttentionFn:
    """Attention by the kernel of a name.

    Raises:
        UnavailableError: this machine does not have it.
    """
    if name == "default":
        return sdpa
    if device.type != "cuda":
        raise UnavailableError("needs a CUDA device")
    if name in BACKENDS:
        return partial(by_backend, BACKENDS[name])
    module, function, more = PACKAGES[name]
    try:
        attend = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise UnavailableError(str(error)) from error

    def by_package(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        assert mask is None
        out = attend(q, k, v, **more)
        return out[0] if isinstance(out, tuple) else out

    return by_package


def by_backend(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    with sdpa_kernel(backend):
        return sdpa(q, k, v, mask)


def best(part: Part, among: tuple[str, ...] = NAMES) -> str:
    """The fastest kernel at the largest size, as this part has measured; PyTorch's own choice where it has not."""
    rows = [row for row in part.rows("attention") if row["table"] == "attention" and "error" in row and row["kernel"] in among]
    good = [row for row in rows if row["error"] < LARGEST_ERROR]
    return min(good, key=lambda row: (-row["tokens"], row["ms"]), default={"kernel": "default"})["kernel"]


def in_float32(q: Tensor, k: Tensor, v: Tensor, rows: Tensor) -> Tensor:
    """Attention of some of the queries [B, rows, H, D], without a fused kernel."""
    queries, keys, values = (x.float().transpose(1, 2) for x in (q[:, rows], k, v))
    return ((queries * q.shape[-1] ** -0.5 @ keys.transpose(2, 3)).softmax(-1) @ values).transpose(1, 2)


@torch.no_grad()
def measure(part: Part, tokens: int) -> None:
    heads = 2 if part.rehearse else HEADS
    draw = partial(torch.randn, 1, tokens, heads, HEAD_DIM, device=part.device, dtype=torch.bfloat16)
    q, k, v = draw(), draw(), draw()
    rows = torch.linspace(0, tokens - 1, CHECKED, device=part.device).long()
    expected = in_float32(q, k, v, rows)
    operations = 4 * heads * tokens**2 * HEAD_DIM
    for name in NAMES:
        with part.case("attention", tokens=tokens, kernel=name) as row:
            call = partial(kernel(name, part.device), q, k, v, None)
            row.update(part.timed(call), error=deviation(call()[:, rows], expected))
            row["tflops"] = operations / row["ms"] / 1e9
    with part.case("attention-choice", tokens=tokens) as row:
        row["kernels"] = kernels_of(partial(sdpa, q, k, v, None), part.device, most=2)


def measure_masked(part: Part, tokens: int) -> None:
    """A micro-batch of two captions of different length, as a training has it, beside two of the same."""
    heads = 2 if part.rehearse else HEADS
    shape = (2, tokens, heads, HEAD_DIM)
    q, k, v = (torch.randn(shape, device=part.device, dtype=torch.bfloat16, requires_grad=True) for _ in range(3))
    mask = (torch.arange(tokens, device=part.device) < tokens - 100).expand(2, 1, tokens).clone()
    mask[0] = True
    for masked in (False, True):
        with part.case("attention-masked", tokens=tokens, masked=masked) as row:
            attend = partial(sdpa, q, k, v, mask if masked else None)
            with torch.no_grad():
                row.update(part.timed(attend, 0.3), kernels=kernels_of(attend, part.device, most=1))
            row["both_ways_ms"] = part.timed(lambda attend=attend: torch.autograd.grad(attend().sum(), (q, k, v)), 0.3)["ms"]


def main() -> None:
    part = Part("attention")
    for tokens in (512, 320) if part.rehearse else TOKENS:
        measure(part, tokens)
    measure_masked(part, 256 if part.rehearse else 3_656)


if __name__ == "__main__":
    main()
