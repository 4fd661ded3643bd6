"""Part 5: the blocks with weights in 8 bits, expanded (`--fp8`) or multiplied as they are (`--fp8-matmul`), and a product's pieces."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from measure import deviation
from torch import Tensor

from gpu.attention import best, kernel
from gpu.models import OURS, SIZES, TINY_SIZES, Call, Inputs, caught_blocks, config_of, image_tokens, random_transformer
from gpu.part import Part, UnavailableError
from hunyuan_video.kernels.choice import use_attention
from hunyuan_video.transforms import fp8


def need_products(part: Part) -> None:
    """A rehearsal needs a PyTorch whose CPU can stand in; a GPU that cannot multiply in 8 bits fails, and that is a result."""
    try:
        ones = torch.ones(16, 16, dtype=torch.bfloat16, device=part.device)
        fp8.scaled(ones, ones.to(fp8.FP8), ones[0, :1].float(), None)
    except RuntimeError as error:
        if part.rehearse:
            raise UnavailableError("needs a newer PyTorch, or a CUDA device") from error
        raise


@torch.no_grad()
def measure_blocks(part: Part) -> None:
    model = random_transformer(config_of(part, blocks=1), part.device)
    fastest = best(part)
    use_attention(model, kernel(fastest, part.device))
    calls: dict[tuple[str, str], tuple[int, Call]] = {}
    for size, grid in (TINY_SIZES if part.rehearse else SIZES).items():
        with caught_blocks(model, OURS) as caught:
            Inputs(model.config, grid, part.device, torch.bfloat16).ours(model)()
        calls |= {(size, kind): (grid[0] * grid[1] * grid[2] // 4, call) for kind, call in caught.items()}
    expected: dict[tuple[str, str], Tensor] = {}
    changes: dict[str, Callable[[], None]] = {
        "bfloat16": lambda: None,
        "fp8": lambda: fp8.quantize(model),
        "fp8-matmul": lambda: fp8.multiply_in_8_bits(model),
    }
    for weights, change in changes.items():
        change()
        for (size, kind), (tokens, call) in calls.items():
            with part.case("fp8", size=size, block=kind, weights=weights, kernel=fastest) as row:
                if weights == "fp8-matmul":
                    need_products(part)
                out = image_tokens(call(), tokens)
                row["difference"] = deviation(out, expected.setdefault((size, kind), out))
                row.update(part.timed(call))


@torch.no_grad()
def measure_product(part: Part) -> None:
    """The first linear of an MLP, all the tokens of 129 frames of 720x1280: 9 TFLOP."""
    tokens, inner, outer = (64, 64, 128) if part.rehearse else (118_800, 3072, 12288)
    draw = partial(torch.randn, device=part.device, dtype=torch.bfloat16)
    x, weight, bias = draw(tokens, inner), draw(outer, inner) * 0.02, draw(outer)
    expected = F.linear(x, weight, bias)
    scale = fp8.scale_of(weight)
    in_8_bits = fp8.in_8_bits(weight, scale)
    rounded, of_tokens = fp8.round_tokens(x)
    of_rows = scale.expand(1, outer).contiguous()

    ways: dict[str, Callable[[], Tensor]] = {
        "bfloat16": lambda: F.linear(x, weight, bias),
        "fp8, expanded": lambda: fp8.expanded(x, in_8_bits, scale, bias),
        "fp8-matmul": lambda: fp8.scaled(x, in_8_bits, scale, bias),
        "its product alone": lambda: fp8.multiply(rounded, of_tokens, in_8_bits, of_rows, bias),
    }
    for way, call in ways.items():
        with part.case("fp8-product", way=way) as row:
            if "fp8-matmul" in way or "product" in way:
                need_products(part)
            row.update(part.timed(call, 0.5), difference=deviation(call(), expected))
            row["tflops"] = 2 * tokens * inner * outer / row["ms"] / 1e9
    with part.case("fp8-product", way="its rounding alone, all tokens at once") as row:
        row.update(part.timed(lambda: fp8.round_tokens(x), 0.5))


@torch.no_grad()
def measure_small_weights(part: Part) -> None:
    """A float16 scale of weights below 0.027 is subnormal: does it cost anything?"""
    for dtype in (torch.bfloat16, torch.float16):
        for largest in (0.1, 0.02, 0.002):
            with part.case("fp8-small-weights", dtype=str(dtype).removeprefix("torch."), largest=largest) as row:
                weight = torch.empty(256, 256, device=part.device).uniform_(-largest, largest)
                x, scale = torch.randn(64, 256, device=part.device), fp8.scale_of(weight)
                row["difference"] = deviation(fp8.expanded(x.to(dtype), fp8.in_8_bits(weight, scale), scale, None), x @ weight.t())


def main() -> None:
    part = Part("fp8")
    with part.case("fp8-check") as row:
        if not part.rehearse:
            fp8.check_multiplies(part.device)
        row["multiplies"] = not part.rehearse
    measure_blocks(part)
    measure_product(part)
    measure_small_weights(part)


if __name__ == "__main__":
    main()
