"""How far attention in 8 bits is from float32: on what the embedded model's blocks attend with in a step, and on heads with what 8 bits
dislike. Triton's interpreter computes it, on any CPU with Triton, in five minutes.

TRITON_INTERPRET=1 PYTHONPATH=benchmarks python benchmarks/attention_error.py
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import interpreter
import torch
from measure import deviation
from torch import Tensor

from hunyuan_video import HunyuanVideo
from hunyuan_video.config import Sampling
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.kernels.triton.eight_bits import attend_in_8_bits
from hunyuan_video.models.attention import matmul, sdpa

Heads = tuple[Tensor, Tensor, Tensor]
PROMPT = "A red circle moves to the right."
SMALL = Sampling(height=128, width=128, num_frames=33, num_steps=4, seed=0)
WAYS = {"as they are": (False, False), "smoothed": (True, False), "rotated": (False, True), "both": (True, True)}


def of_embedded_model(tokens: int, heads: int) -> dict[str, Heads]:
    """What its first and its last block attend with in the second of four steps, some of their tokens and heads."""
    pipe = HunyuanVideo.load()
    found: list[Heads] = []

    def caught(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        found.append((q, k, v))
        return sdpa(q, k, v, mask)

    use_attention(pipe.transformer, caught)
    pipe(PROMPT, SMALL)
    blocks = len(pipe.transformer.blocks)
    longest = max(len(q[0]) for q, *_ in found)
    step = [call for call in found if len(call[0][0]) == longest][blocks : 2 * blocks]  # fewer have the blocks that only text goes through
    chosen = {"its first dual block": step[0], "its last single block": step[-1]}
    return {name: tuple(_spread(x, tokens)[:, :, :heads].float() for x in call) for name, call in chosen.items()}  # pyright: ignore


def _spread(x: Tensor, tokens: int) -> Tensor:
    return x[:, torch.linspace(0, x.shape[1] - 1, tokens).long()]


def synthetic(tokens: int, heads: int) -> dict[str, Heads]:
    """Heads of 128 features: white noise; with channels of ten times the size in queries and keys; with keys far from zero, too, and values
    of uneven channels."""
    q, k, v = torch.randn(3, 1, tokens, heads, 128, generator=torch.Generator().manual_seed(0))
    direction, sizes = torch.randn(2, 128, generator=torch.Generator().manual_seed(1))
    large = torch.ones(2, 128)
    large[0, 7] = large[1, 3] = 10
    return {
        "noise": (q, k, v),
        "large channels": (q * large[0], k * large[1], v),
        "and keys far from zero": (q * large[0], k * large[1] + 5 * direction, 2 + v * sizes.exp()),
    }


def row(name: str, given: Heads) -> str:
    expected = matmul(*given, None)
    q, k, v = (x.to(torch.bfloat16) for x in given)
    errors = [deviation(matmul(q, k, v, None).float(), expected)]
    for kind in ("int8", "fp8"):
        errors += [deviation(attend_in_8_bits(*given, kind, smooth=smooth, rotate=rotate), expected) for smooth, rotate in WAYS.values()]
    return f"| {name} | " + " | ".join(f"{error:.2%}" for error in errors) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--heads", type=int, default=2)
    arguments = parser.parse_args()
    interpreter.repair()
    sources: dict[str, Callable[[int, int], dict[str, Heads]]] = {"embedded model": of_embedded_model, "synthetic": synthetic}
    print("| activations | bfloat16 | " + " | ".join(f"{kind} {way}" for kind in ("int8", "fp8") for way in WAYS) + " |")
    print("|---" * (2 + 2 * len(WAYS)) + "|")
    for source, make in sources.items():
        for name, given in make(arguments.tokens, arguments.heads).items():
            print(row(f"{source}: {name}", given), flush=True)


if __name__ == "__main__":
    main()
