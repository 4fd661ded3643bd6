"""8-bit weights, as the official FP8 checkpoint has them: float8_e4m3fn with one float32 scale for each linear of the blocks.

It halves the memory of the blocks, which are 97 % of the model. By default weights are expanded to the compute dtype at every use, which is
the reference's way and no faster. `multiply_in_8_bits` rounds activations, too, and lets the GPU multiply 8-bit numbers.

Letters: M tokens of a piece.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from hunyuan_video.kernels import triton
from hunyuan_video.kernels.pieces import Apply, Dense
from hunyuan_video.transforms.swap import LinearLike, Rows, some, swap_linears

FP8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FP8).max
MULTIPLE = 16  # which both sizes of a weight must be of, for a GPU to multiply it in 8 bits
NUMBERS = 2**20  # of a weight that are rounded at a time
PIECE = 8192  # tokens that are rounded at a time: enough for any GPU, and little memory beside them

Product = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]  # of input, 8-bit weight, its scale, and bias


def in_blocks(name: str) -> bool:
    """The 320 layers that the official FP8 checkpoint quantizes: every linear of the blocks, modulation included."""
    return "double_blocks" in name or "single_blocks" in name


def scale_of(weight: Float[Tensor, "out in"]) -> Float[Tensor, " 1"]:
    """What maps the largest weight to 448."""
    least, most = weight.aminmax()  # unlike abs, without a copy
    largest = torch.maximum(-least, most).float()
    return (largest / LARGEST).clamp(min=torch.finfo(torch.float32).tiny).view(1)  # an all-zero weight stays zero


def in_8_bits(weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"]) -> Float[Tensor, "out in"]:
    """Each weight as the nearest number of the format. Some rows at a time: the allocator keeps much of what large copies took."""
    out, rows = torch.empty_like(weight, dtype=FP8), max(1, NUMBERS // weight.shape[1])
    for part, place in zip(weight.split(rows), out.split(rows), strict=True):
        place.copy_(part.float() / scale)
    return out


def holds_nan(weight: Float[Tensor, "*shape"]) -> bool:
    """Whether any 8-bit weight is NaN, whose bits are all ones beside the sign: the largest number of one sign or the other, as integers.
    On a CPU two fast passes, 8 % of what `expand` takes."""
    return bool(weight.view(torch.uint8).max() == 0xFF) or bool(weight.view(torch.int8).max() == 0x7F)


class Fp8Linear(nn.Module):
    """A linear layer with an 8-bit weight, and the function that multiplies by it; a pass that will go backward always expands. The scale
    is rounded to the compute dtype before it is used, as in the reference."""

    scale: Tensor
    product: Product

    def __init__(self, weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"], bias: Float[Tensor, " out"] | None):
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.register_buffer("scale", scale, persistent=False)
        self.product = expanded

    @classmethod
    def from_linear(cls, linear: nn.Linear | LinearLike) -> Fp8Linear:
        weight = linear.weight.detach()
        scale = scale_of(weight)
        return cls(in_8_bits(weight, scale), scale, linear.bias)

    def forward(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        weight = self.weight.view(FP8)  # which may be sharded as whole numbers
        if torch.is_grad_enabled() and x.requires_grad:
            return _ExpandedTwice.apply(x, weight, self.scale, self.bias)
        return self.product(x, weight, self.scale, self.bias)

    def prepared(self, dtype: torch.dtype, rows: Rows | None) -> Apply:
        weight, bias = some(self.weight.view(FP8), rows), None if self.bias is None else some(self.bias, rows)
        if self.product is expanded:
            return Dense(expand(weight, self.scale, dtype), bias)
        return Scaled(weight, self.scale, bias) if self.product is scaled else lambda x: self.product(x, weight, self.scale, bias)


class Scaled(NamedTuple):
    """A layer that multiplies in 8 bits."""

    weight: Float[Tensor, "out in"]
    scale: Float[Tensor, " 1"]
    bias: Float[Tensor, " out"] | None

    def __call__(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        return scaled(x, self.weight, self.scale, self.bias)

    def of_gelu(self, x: Float[Tensor, "*batch in"]) -> Float[Tensor, "*batch out"]:
        """Of the GELU of an input: it and rounding are one pass on a GPU."""
        return _in_pieces(_round_gelu, x, self.weight, self.scale, self.bias)


def expand(weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"], dtype: torch.dtype) -> Float[Tensor, "out in"]:
    if weight.device.type == "cpu" and dtype in _WIDER and 0 <= scale < LARGEST_BY_BITS and not holds_nan(weight):
        return _by_bits(weight, scale, dtype)
    return weight.to(dtype).mul_(scale.to(dtype))


# Of each dtype: the integers of its size; the bits that its fraction has more than three; and the bits that an 8-bit number keeps.
_WIDER = {torch.bfloat16: (torch.int16, 4, -0x7810), torch.float32: (torch.int32, 20, -0x78100000)}
LARGEST_BY_BITS = 2.0**7  # a larger scale, times 2^120, is beyond both dtypes; of real weights it is about 0.001


def _by_bits(weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"], dtype: torch.dtype) -> Float[Tensor, "out in"]:
    """The same, bit for bit, without PyTorch's conversion from 8 bits, which has no vector instructions on a CPU: here four times as fast.

    Sign, exponent and fraction stand in the same order in all three formats. Sign-extended and moved up to where the wider fraction begins,
    an 8-bit number is the right one but for the exponent's bias, which is 7 and not 127: a factor of 2^120, which goes into the scale.
    Of NaN it would make 480.
    """
    integer, shift, bits = _WIDER[dtype]
    wide = weight.view(torch.int8).to(integer).mul_(1 << shift).bitwise_and_(bits)
    return wide.view(dtype).mul_((scale.to(dtype).float() * 2.0**120).to(dtype))


def expanded(
    x: Float[Tensor, "*batch in"], weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"], bias: Float[Tensor, " out"] | None
) -> Float[Tensor, "*batch out"]:
    """The product in the input's dtype."""
    return F.linear(x, expand(weight, scale, x.dtype), bias)


def scaled(
    x: Float[Tensor, "*batch in"], weight: Float[Tensor, "out in"], scale: Float[Tensor, " 1"], bias: Float[Tensor, " out"] | None
) -> Float[Tensor, "*batch out"]:
    """The product of 8-bit numbers, summed in float32 and rounded to bfloat16, the one dtype that every such kernel can give.

    Each token is rounded to float8_e4m3fn with a scale of its own: an outlier costs no other token, and none depends on which others are
    there, so ranks may share them out.
    """
    return _in_pieces(_round, x, weight, scale, bias)


Rounding = Callable[[Tensor], tuple[Tensor, Tensor]]  # of tokens, to 8 bits with their scales


def _in_pieces(
    rounding: Rounding,
    x: Float[Tensor, "*batch in"],
    weight: Float[Tensor, "out in"],
    scale: Float[Tensor, " 1"],
    bias: Float[Tensor, " out"] | None,
) -> Float[Tensor, "*batch out"]:
    tokens = x.reshape(-1, x.shape[-1])
    # The kernel takes scales by row on both sides or on neither; so the weight's one is repeated.
    of_rows = scale.to(x.dtype).float().expand(1, len(weight)).contiguous()
    bias = None if bias is None else bias.to(torch.bfloat16)
    if len(tokens) <= PIECE:
        out = multiply(*rounding(tokens), weight, of_rows, bias)
    else:
        out = tokens.new_empty(len(tokens), len(weight), dtype=torch.bfloat16)
        for part, place in zip(tokens.split(PIECE), out.split(PIECE), strict=True):
            place.copy_(multiply(*rounding(part), weight, of_rows, bias))
    return out.view(*x.shape[:-1], len(weight)).to(x.dtype)


def multiply(
    tokens: Float[Tensor, "M in"],
    of_tokens: Float[Tensor, "M 1"],
    weight: Float[Tensor, "out in"],
    of_rows: Float[Tensor, "1 out"],
    bias: Float[Tensor, " out"] | None,
) -> Float[Tensor, "M out"]:
    """8-bit numbers with their scales, to bfloat16. Sums are fast ones, as those of torchao and Transformer Engine in a forward pass: a
    Hopper's tensor cores keep fewer bits of them."""
    if hasattr(F, "scaled_mm"):  # public since PyTorch 2.10
        by_row = F.ScalingType.RowWise
        return F.scaled_mm(
            tokens, weight.t(), of_tokens, by_row, of_rows, by_row, bias=bias, output_dtype=torch.bfloat16, use_fast_accum=True
        )
    return torch._scaled_mm(
        tokens, weight.t(), scale_a=of_tokens, scale_b=of_rows, bias=bias, out_dtype=torch.bfloat16, use_fast_accum=True
    )


def _round(x: Float[Tensor, "M in"]) -> tuple[Float[Tensor, "M in"], Float[Tensor, "M 1"]]:
    return _fused(x, gelu=False) if _fuses(x) else round_tokens(x)


def _round_gelu(x: Float[Tensor, "M in"]) -> tuple[Float[Tensor, "M in"], Float[Tensor, "M 1"]]:
    return _fused(x, gelu=True) if _fuses(x) else round_tokens(F.gelu(x, approximate="tanh"))


def _fuses(x: Tensor) -> bool:
    """Whether rounding is one pass; in PyTorch's own functions it is three, with a copy of the tokens between them."""
    return triton.works(x.device)


def _fused(x: Tensor, *, gelu: bool) -> tuple[Tensor, Tensor]:
    from hunyuan_video.kernels.triton.pieces import round_tokens  # which needs Triton

    return round_tokens(x, gelu=gelu)


def round_tokens(x: Float[Tensor, "M in"]) -> tuple[Float[Tensor, "M in"], Float[Tensor, "M 1"]]:
    """Tokens in 8 bits, each with the float32 scale that maps its largest number to 448."""
    # In the input's dtype, for float32 copies would be most of the memory; rounded up, 448 is 450 at most, which rounds to 448 again.
    scale = (x.abs().amax(dim=1, keepdim=True) / LARGEST).clamp(min=torch.finfo(x.dtype).tiny)
    return (x / scale).to(FP8).contiguous(), scale.float()


def can_multiply(name: str, layer: Fp8Linear) -> bool:
    """Whether a layer should multiply in 8 bits. Modulation should not: it has one token, so there is no time to gain, and all others
    follow it. Sizes that are no multiples of 16 have no kernel; the released model has none."""
    is_modulation = "mod.linear" in name or "modulation.linear" in name
    return not is_modulation and all(size % MULTIPLE == 0 for size in layer.weight.shape)


def multiply_in_8_bits(model: nn.Module) -> None:
    """From now on, the 8-bit layers that `can_multiply` multiply in 8 bits, also those under adapters. Changes numbers a little."""
    for name, layer in model.named_modules():
        if isinstance(layer, Fp8Linear) and can_multiply(name, layer):
            layer.product = scaled


def check_multiplies(device: torch.device) -> None:
    """Raises a ValueError for a device that does not multiply in 8 bits, or is slower at it, as CPUs are."""
    what = device.type
    if device.type == "cuda":
        ones = torch.ones(128, 128, dtype=torch.bfloat16, device=device)
        try:
            scaled(ones, ones.to(FP8), ones[0, :1].float(), None)
            return
        except torch.OutOfMemoryError:
            raise
        except RuntimeError:  # it depends on the GPU, on PyTorch's version and on CUDA's: whoever tries knows
            major, minor = torch.cuda.get_device_capability(device)
            name = torch.cuda.get_device_name(device)
            what = f"{name} of compute capability {major}.{minor} with PyTorch {torch.__version__}"
    raise ValueError(
        "fp8_matmul needs a GPU that multiplies 8-bit numbers (of compute capability 8.9 or more, such as RTX 40 or H100) and a PyTorch "
        f"that can do it there, but this is {what}; leave it out, or use fp8 alone."
    )


class _ExpandedTwice(torch.autograd.Function):
    """Keeps the 8-bit weight for the backward pass and expands it there again; autograd would keep the expanded one."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight, scale)
        return expanded(x, weight, scale, bias)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        weight, scale = ctx.saved_tensors
        return gradient @ expand(weight, scale, gradient.dtype), None, None, None


def in_layers(name: str) -> bool:
    """Every linear of a language model's layers."""
    return name.startswith("layers.")


def quantize(model: nn.Module, where: Callable[[str], bool] = in_blocks) -> None:
    """Put a model's blocks, or the layers `where` says, into 8 bits; those that are already stay as they are."""
    swap_linears(model, lambda _name, linear: Fp8Linear.from_linear(linear), where)


def fit(model: nn.Module, scales: dict[str, Float[Tensor, " 1"]]) -> None:
    """Make a model on the meta device ready for the tensors of an FP8 checkpoint, whose scales are given by layer name."""
    unknown = scales.keys() - {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    if unknown:
        raise ValueError(f"The FP8 scale map names {len(unknown)} layers that the model does not have, such as {min(unknown)}.")

    def make(name: str, linear: nn.Linear | LinearLike) -> Fp8Linear:
        return Fp8Linear(torch.empty_like(linear.weight, dtype=FP8), scales[name].float().view(1), linear.bias)

    swap_linears(model, make, scales.__contains__)
