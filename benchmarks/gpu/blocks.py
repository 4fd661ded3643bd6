"""Part 4: one dual and one single block of the 13B, ours and Diffusers', and the step that 20 and 40 of them are.

A block at 129 frames of 720x1280 does 174 TFLOP of attention and 27 of linears: 0.6 s with FlashAttention 2 on an H100.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from functools import partial

import torch
from measure import deviation
from torch import Tensor, nn
from torch.nn.attention import sdpa_kernel

from gpu.attention import BACKENDS, best, kernel
from gpu.models import OURS, SIZES, THEIRS, TINY_SIZES, Call, Inputs, caught_blocks, config_of, image_tokens, random_transformer
from gpu.part import Part
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.models.transformer import HunyuanVideoTransformer, TransformerConfig

DTYPE = torch.bfloat16
MASK = 3  # the place of Diffusers' attention mask among a block's arguments


def step(part: Part, what: Mapping[str, object], calls: Mapping[str, Call], tokens: int, expected: dict[str, Tensor]) -> None:
    """Rows of the blocks, and of the step that they make. The first ones' results are what all others are compared with."""
    times: dict[str, float] = {}
    for kind, call in calls.items():
        with part.case("blocks", **what, block=kind) as row:
            out = image_tokens(call(), tokens)
            row["difference"] = deviation(out, expected.setdefault(kind, out))
            row.update(part.timed(call))
            times[kind] = row["ms"]
    if len(times) == 2:
        with part.case("step", **what) as row:
            sizes = TransformerConfig()
            row["seconds"] = (sizes.num_double_blocks * times["dual"] + sizes.num_single_blocks * times["single"]) / 1000


@torch.no_grad()
def measure(part: Part, model: HunyuanVideoTransformer, theirs: nn.Module | None, size: str, grid: tuple[int, int, int]) -> None:
    given, expected = Inputs(model.config, grid, part.device, DTYPE), {}
    tokens, fastest = grid[0] * grid[1] * grid[2] // 4, best(part)
    with caught_blocks(model, OURS) as calls, part.case("outside", size=size) as row:
        row.update(part.timed(given.ours(model), 0.3))
    for name in dict.fromkeys(("default", fastest)):
        use_attention(model, kernel(name, part.device))
        step(part, {"size": size, "by": "here", "kernel": name}, calls, tokens, expected)
    use_attention(model, kernel("default", part.device))
    if theirs is None:
        return

    with caught_blocks(theirs, THEIRS) as calls, part.case("outside of Diffusers", size=size) as row:
        row.update(part.timed(given.theirs(theirs), 0.3))
    fastest = best(part, ("default", *BACKENDS))
    unmasked = {kind: partial(call.func, *call.args[:MASK], None, *call.args[MASK + 1 :]) for kind, call in calls.items()}
    variants = {("default", "as it is"): calls, (fastest, "without its mask"): unmasked, (fastest, "as it is"): calls}
    for (name, mask), chosen in variants.items():
        with sdpa_kernel(BACKENDS[name]) if name in BACKENDS else nullcontext():
            step(part, {"size": size, "by": f"Diffusers, {mask}", "kernel": name}, chosen, tokens, expected)


def main() -> None:
    part = Part("blocks")
    model = random_transformer(config_of(part, blocks=1), part.device, DTYPE)
    theirs = None
    with part.case("peer") as row:
        from diffusers_peer import transformer_peer  # here, for a machine without Diffusers can still measure ours

        with part.device:
            theirs = transformer_peer(model)
        # Diffusers' own .to warns that it knows of no layer to keep in float32; nn.Module's does the same, in silence.
        nn.Module.to(theirs, device=part.device, dtype=DTYPE)
        row["weights_gb"] = sum(parameter.nbytes for parameter in theirs.parameters()) / 1e9
    for size, grid in (TINY_SIZES if part.rehearse else SIZES).items():
        measure(part, model, theirs, size, grid)


if __name__ == "__main__":
    main()
